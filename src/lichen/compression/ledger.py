"""What a search has finished so far, one JSON line each, so that an interrupted one goes on.

A line is written whole and flushed before the result is used. A torn last line (the process was
killed while it wrote) is ignored; it is the measurement that has to be made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from lichen.core.errors import ConfigError


class Ledger:
    """Finished evaluations by key.

    Args:
        path: of the file; None keeps them for this process only.
        scope: what all entries depend on (hashes of model and corpus, versions); lines of another
            scope are kept in the file and not used.
    """

    def __init__(self, path: Path | None, scope: str) -> None:
        self._path = path
        self._scope = scope
        self._entries: dict[str, Mapping[str, object]] = {}
        if path is not None and path.exists():
            self._read(path)

    def get(self, key: str) -> Mapping[str, object] | None:
        """Return what was found under a key, None if it has not been."""
        return self._entries.get(key)

    def put(self, key: str, value: Mapping[str, object]) -> None:
        """Keep a result; the file has it when this returns.

        Raises:
            ConfigError: the file cannot be written.
        """
        self._entries[key] = value
        if self._path is None:
            return
        entry = {"scope": self._scope, "key": key, "value": value}
        line = json.dumps(entry, sort_keys=True, allow_nan=False) + "\n"
        try:
            with self._path.open("ab") as file:
                # After a torn line, begin a new one: only the torn one is lost.
                file.write(b"" if self._ends_whole() else b"\n")
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise ConfigError(f"cannot write {self._path}: {exc.strerror or exc}") from exc

    def _ends_whole(self) -> bool:
        assert self._path is not None  # noqa: S101 (narrows for mypy; put checked it)
        if not self._path.exists() or not self._path.stat().st_size:
            return True
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_bytes().splitlines()
        except OSError as exc:
            raise ConfigError(f"cannot read {path}: {exc.strerror or exc}") from exc
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if (
                isinstance(entry, dict)
                and entry.get("scope") == self._scope
                and isinstance(entry.get("key"), str)
                and isinstance(entry.get("value"), dict)
            ):
                self._entries[entry["key"]] = entry["value"]
