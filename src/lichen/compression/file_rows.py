"""Read a tensor's rows from a file at explicit positions, from any thread.

Files are not mapped into memory: a mapped file that shrinks kills the process that reads it.
"""

from __future__ import annotations

import math
import os
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lichen.catalog.gguf import Tensor
from lichen.core.errors import ConfigError, IntegrityError

Raw = npt.NDArray[np.uint8]


class OpenFile:
    """A file read at explicit positions, from any thread; closed when nobody holds it."""

    def __init__(self, path: Path) -> None:
        self._shown = repr(str(path))
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise ConfigError(f"{self._shown} cannot be read: {exc.strerror}") from exc
        weakref.finalize(self, os.close, self._handle)

    def read(self, offset: int, count: int) -> Raw:
        """Return ``count`` bytes at ``offset``."""
        buffer = np.empty(count, np.uint8)
        view, done = buffer.data, 0
        while done < count:
            try:
                got = os.preadv(self._handle, [view[done:]], offset + done)
            except OSError as exc:
                raise ConfigError(f"{self._shown} cannot be read: {exc.strerror}") from exc
            if not got:
                raise IntegrityError(f"{self._shown} became shorter while it was read")
            done += got
        return buffer


@dataclass(frozen=True, slots=True)
class FileRows:
    """Reads rows of one tensor from its file."""

    file: OpenFile
    name: str
    offset: int
    rows: int
    row_bytes: int

    @classmethod
    def of(cls, file: OpenFile, tensor: Tensor) -> FileRows:
        """Return the reader of one tensor, as the header describes it."""
        rows = math.prod(tensor.shape[1:])
        return cls(file, tensor.name, tensor.offset, rows, tensor.size // max(rows, 1))

    def __call__(self, start: int, stop: int) -> Raw:
        """Return the stored bytes of rows [start, stop): (stop - start, ``row_bytes``)."""
        if not 0 <= start <= stop <= self.rows:
            raise ConfigError(f"{self.name!r} has {self.rows:,} rows, not {start:,} to {stop:,}")
        raw = self.file.read(self.offset + start * self.row_bytes, (stop - start) * self.row_bytes)
        return raw.reshape(stop - start, self.row_bytes)
