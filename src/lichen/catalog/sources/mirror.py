"""A local directory as a source: any file with the pinned size and hash, whatever its name.

Read only: nothing in the directory is changed. The bytes are copied into the cache, so that an
unplugged disk does not take a model away in the middle of a run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lichen.catalog.entries import Pin
from lichen.catalog.part import PartFile, Report
from lichen.catalog.verified import VerifiedHashes
from lichen.core.errors import ConfigError, FetchError

_MAX_FILES: Final = 100_000
"""Files looked at before giving up: a mirror that is a whole home directory is a mistake."""
_CHUNK: Final = 1 << 20


class MirrorSource:
    """Files under ``directory``; hashes are remembered in ``verified``."""

    online = False

    def __init__(self, directory: Path, verified: VerifiedHashes) -> None:
        self._directory = directory
        self._verified = verified

    @property
    def label(self) -> str:
        """The directory."""
        return f"mirror {self._directory}"

    @property
    def identity(self) -> str:
        """The directory, resolved."""
        return f"mirror:{self._directory.resolve()}"

    def deliver(self, part: PartFile, pin: Pin, report: Report) -> None:
        """Copy the matching file into ``part``; see ``Source``."""
        if pin.size is None or pin.sha256 is None:
            raise FetchError("a mirror can only be asked for a pinned file")
        if not self._directory.is_dir():
            raise FetchError("there is no such directory")
        for path in self._of_size(pin.size):
            try:
                if self._verified.sha256(path) != pin.sha256:
                    continue
                self._copy(path, part, pin, report)
            except (ConfigError, OSError):
                continue  # unreadable or gone meanwhile: another copy may do
            return
        raise FetchError("no file in it has the pinned size and hash")

    def _of_size(self, size: int) -> Iterator[Path]:
        seen = 0
        for folder, subfolders, names in os.walk(self._directory):
            subfolders.sort()
            for name in sorted(names):
                seen += 1
                if seen > _MAX_FILES:
                    raise FetchError(f"it holds more than {_MAX_FILES:,} files; name a smaller one")
                path = Path(folder, name)
                try:
                    if path.is_file() and path.stat().st_size == size:
                        yield path
                except OSError:
                    continue

    @staticmethod
    def _copy(path: Path, part: PartFile, pin: Pin, report: Report) -> None:
        with path.open("rb") as source, part.append(0, limit=pin.size, report=report) as write:
            while chunk := source.read(_CHUNK):
                write(chunk)
