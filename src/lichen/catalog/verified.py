"""Remembered hashes: a file whose size and modification time are unchanged is not hashed again.

One JSON file in the cache holds them for all files, those of the user (mirrors, paths) included,
so that nothing is ever written beside a file lichen does not own. Losing it costs only time.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

from lichen.catalog.part import write_atomically
from lichen.core.errors import ConfigError


class VerifiedHashes:
    """SHA-256 by (resolved path, size, modification time in ns), kept in ``index``."""

    def __init__(self, index: Path) -> None:
        self._index = index
        self._lock = threading.Lock()

    def sha256(self, path: Path) -> str:
        """Return the file's SHA-256 in hex, hashing it only if it changed since last time.

        Raises:
            ConfigError: the file cannot be read.
        """
        try:
            key, stamp = self._stamp(path)
            known = self._load().get(key)
            if known is not None and known[:2] == stamp:
                return known[2]
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as exc:
            raise ConfigError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
        self._store(key, [*stamp, digest])
        return digest

    def record(self, path: Path, sha256: str) -> None:
        """Remember a hash that was just computed over the file's bytes."""
        key, stamp = self._stamp(path)
        self._store(key, [*stamp, sha256])

    def forget(self, path: Path) -> None:
        """Drop what is known of a file that is gone."""
        self._store(str(path.resolve()), None)

    def _stamp(self, path: Path) -> tuple[str, list[str]]:
        resolved = path.resolve()
        stat = resolved.stat()
        return str(resolved), [str(stat.st_size), str(stat.st_mtime_ns)]

    def _load(self) -> dict[str, list[str]]:
        try:
            loaded = json.loads(self._index.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(loaded, dict):
            return {}
        width = 3
        return {
            k: [str(x) for x in v]
            for k, v in loaded.items()
            if isinstance(v, list) and len(v) == width
        }

    def _store(self, key: str, value: list[str] | None) -> None:
        with self._lock:
            known = self._load()
            known.pop(key, None)
            if value is not None:
                known[key] = value
            try:
                write_atomically(self._index, json.dumps(known, indent=1))
            except OSError:
                # A cache that cannot be written (read-only, full) costs hashing again, no more.
                return
