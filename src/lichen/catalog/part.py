"""Partial files: what a source has delivered so far, and what it needs to go on.

Each source of a target has its own partial file, so that bytes of two sources never mix and a
wrong hash can be laid at one door. Beside it lies a small JSON state (an ETag, a count of parts).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lichen.core.errors import FetchError

Report = Callable[[int], None]
"""Told the bytes present so far, whenever more have come."""


class PartFile:
    """The partial file that ``source`` fills on the way to ``target``.

    Args:
        target: where the whole file will be.
        source: a text that identifies the source, e.g. its full address.
    """

    def __init__(self, target: Path, source: str) -> None:
        mark = hashlib.sha256(source.encode()).hexdigest()[:8]
        self.path = target.with_name(f"{target.name}.{mark}.part")
        self._state_path = target.with_name(f"{target.name}.{mark}.part.json")
        self._scratch = target.with_name(f"{target.name}.{mark}.part.d")

    @property
    def size(self) -> int:
        """Bytes present; 0 when there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def state(self) -> dict[str, str]:
        """Return the stored state; empty when there is none or it is damaged."""
        try:
            loaded = json.loads(self._state_path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(k): str(v) for k, v in loaded.items()} if isinstance(loaded, dict) else {}

    def save(self, state: Mapping[str, str]) -> None:
        """Store the state, replacing the old one in one step."""
        write_atomically(self._state_path, json.dumps(dict(state)))

    @contextmanager
    def append(self, at: int, *, limit: int | None, report: Report) -> Iterator[Appender]:
        """Open for writing at byte ``at``; later bytes are dropped. Flushed to disk at the end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.truncate(at)
            file.seek(at)
            try:
                yield Appender(file.write, at, limit, report)
            finally:
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give an empty directory beside the file; what a killed process left in it goes first."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        try:
            yield self._scratch
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def discard(self) -> None:
        """Delete the partial file, its state and its scratch directory."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self.path.unlink(missing_ok=True)
        self._state_path.unlink(missing_ok=True)


class Appender:
    """Takes bytes for a partial file and refuses more than ``limit`` in all."""

    def __init__(
        self, write: Callable[[bytes], int], at: int, limit: int | None, report: Report
    ) -> None:
        self._write, self._limit, self._report = write, limit, report
        self.written = at

    def __call__(self, chunk: bytes) -> None:
        """Write ``chunk``; raises TooLongError before a byte beyond the limit is written."""
        if self._limit is not None and self.written + len(chunk) > self._limit:
            raise TooLongError(self._limit)
        self._write(chunk)
        self.written += len(chunk)
        self._report(self.written)


class TooLongError(FetchError):
    """A source delivers more bytes than the pinned size."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"it delivers more than the {limit:,} bytes the file should have")


def write_atomically(path: Path, text: str) -> None:
    """Replace a small text file in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(text, "utf-8")
    fresh.replace(path)
