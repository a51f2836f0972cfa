"""A model as a value: metadata, and tensors that are read row by row when they are needed.

``open_model`` reads the header alone. A ``LazyTensor`` knows its shape and type and how to produce
the stored bytes of any range of rows; methods wrap these functions, so a chain of them over a model
larger than memory costs nothing until ``write_model`` asks for rows, tensor by tensor.

Files are hostile: the header is checked by ``lichen.catalog.gguf`` before anything is believed.

Format: ggml/docs/gguf.md, version 3.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.catalog.gguf import KEPT_ELEMENTS, ArrayInfo, GgufHeader, Tensor, Value, read_header
from lichen.catalog.shape import shape_of
from lichen.catalog.tensor_types import TensorType
from lichen.compression.atomic_file import Progress, replacing
from lichen.compression.file_rows import FileRows, OpenFile, Raw
from lichen.compression.metadata import (
    ARRAY,
    CODES,
    STRING,
    MetaValue,
    parse_metadata,
    text_bytes,
)
from lichen.compression.types import dequantised, row_bytes, type_number
from lichen.core.errors import ConfigError, IntegrityError
from lichen.core.model import ModelShape

__all__ = ["LazyTensor", "MetaValue", "ModelFile", "open_model", "write_model"]

Floats = npt.NDArray[np.float32]
ReadRows = Callable[[int, int], Raw]

_ALIGNMENT_KEY: Final = "general.alignment"
_DEFAULT_ALIGNMENT: Final = 32
"""GGUF_DEFAULT_ALIGNMENT in gguf.h."""
_VERSION: Final = 3
_PREFIX_BYTES: Final = 24
"""Magic, version, and the two counts that precede the metadata."""
_MAX_HEADER_BYTES: Final = 1 << 28
"""256 MiB: many times the header of the largest vocabulary."""
_CHUNK_WEIGHTS: Final = 1 << 20
"""Weights produced at a time: 4 MiB as float32, so that a few chunks in flight stay small."""
_BLOCK: Final = re.compile(r"blk\.(\d{1,6})\.")


@dataclass(frozen=True, slots=True, eq=False)
class LazyTensor:
    """A tensor that computes its stored rows on demand.

    Args:
        name: as in the file.
        shape: GGUF order: ``shape[0]`` is the row width, the rest multiply to the rows.
        type: how it is stored.
        read: stored bytes of rows [start, stop): (stop - start, ``row_bytes``), uint8. Pure: the
            same rows give the same bytes, whatever the chunks and from whatever thread.
        origin: the name under which the source model's importance weights know this matrix, where
            it is not ``name`` ("" if it is): a renumbered layer, an embedding that became the head.
        channels: for importance weights, which input channels of the original are left, in order;
            None for all of them.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    read: ReadRows
    origin: str = ""
    channels: npt.NDArray[np.intp] | None = None

    @property
    def width(self) -> int:
        """Weights in a row."""
        return self.shape[0] if self.shape else 1

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return math.prod(self.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of a stored row."""
        return row_bytes(self.width, self.type)

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.rows * self.row_bytes

    @property
    def elements(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)

    def floats(self, start: int, stop: int) -> Floats:
        """Return rows [start, stop) as numbers: (stop - start, width), float32."""
        return dequantised(self.read(start, stop), self.type)

    def renamed(self, name: str) -> LazyTensor:
        """Return the tensor under another name; ``origin`` remembers the old one."""
        return replace(self, name=name, origin=self.origin or self.name)

    def selected(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> LazyTensor:
        """Return a matrix of some rows, in the order given, without dequantising.

        Raises:
            ConfigError: not a matrix, or a row that does not exist.
        """
        chosen = np.asarray(rows, dtype=np.intp)
        if len(self.shape) != 2:  # noqa: PLR2004 (a matrix)
            raise ConfigError(f"{self.name!r} is not a matrix, so its rows cannot be chosen")
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < self.rows:
            raise ConfigError(f"{self.name!r} has {self.rows:,} rows; others cannot be chosen")
        return replace(
            self, shape=(self.width, len(chosen)), read=_Selection(self.read, chosen, self.rows)
        )


@dataclass(frozen=True)
class ModelFile:
    """A model: ordered metadata and ordered tensors. Nothing here reads weights."""

    metadata: Mapping[str, MetaValue]
    tensors: tuple[LazyTensor, ...]

    @cached_property
    def _by_name(self) -> dict[str, LazyTensor]:
        return {t.name: t for t in self.tensors}

    def has(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._by_name

    def tensor(self, name: str) -> LazyTensor:
        """Return a tensor; ConfigError if there is none of that name."""
        found = self._by_name.get(name)
        if found is None:
            raise ConfigError(f"the model has no tensor {name!r}")
        return found

    def replaced(self, *tensors: LazyTensor) -> ModelFile:
        """Return the model with these tensors in place of those of the same names."""
        fresh = {t.name: t for t in tensors}
        for name in fresh:
            self.tensor(name)
        return replace(self, tensors=tuple(fresh.get(t.name, t) for t in self.tensors))

    def without(self, *names: str) -> ModelFile:
        """Return the model without some tensors (those that exist)."""
        return replace(self, tensors=tuple(t for t in self.tensors if t.name not in names))

    def with_tensors(self, tensors: Sequence[LazyTensor]) -> ModelFile:
        """Return the model with other tensors altogether."""
        return replace(self, tensors=tuple(tensors))

    def with_metadata(self, changes: Mapping[str, MetaValue | None]) -> ModelFile:
        """Return the model with entries changed in place or added at the end; None removes."""
        merged = {**self.metadata, **changes}
        kept = {key: value for key, value in merged.items() if value is not None}
        return replace(self, metadata=kept)

    def value(self, key: str, default: object = None) -> object:
        """Return the plain value of a metadata entry."""
        found = self.metadata.get(key)
        return default if found is None else found.value

    @property
    def architecture(self) -> str:
        """E.g. ``"qwen2"``; "" where the file does not say."""
        found = self.value("general.architecture")
        return found if isinstance(found, str) else ""

    @property
    def layers(self) -> int:
        """Blocks that have tensors: one more than the highest number, 0 without any."""
        numbers = [int(m[1]) for t in self.tensors if (m := _BLOCK.match(t.name))]
        return max(numbers, default=-1) + 1

    @property
    def alignment(self) -> int:
        """Bytes that each tensor's place is a multiple of."""
        found = self.value(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
        return found if isinstance(found, int) and found > 0 else _DEFAULT_ALIGNMENT

    @property
    def file_bytes(self) -> int:
        """Bytes of the file that ``write_model`` writes."""
        return len(_header_bytes(self)) + sum(_padded(t, self.alignment) for t in self.tensors)

    def header(self) -> GgufHeader:
        """Return the header as the catalog sees it; places in the file are not given."""
        return GgufHeader(
            version=_VERSION,
            metadata={key: _shown(value) for key, value in self.metadata.items()},
            tensors=tuple(
                Tensor(name=t.name, shape=t.shape, type=t.type, offset=0, size=t.size_bytes)
                for t in self.tensors
            ),
            alignment=self.alignment,
            file_size=self.file_bytes,
        )

    def shape(self) -> ModelShape:
        """Return the architecture numbers; ConfigError if it is not a whole language model."""
        return shape_of(self.header())


def open_model(path: Path) -> ModelFile:
    """Open a GGUF file. Reads its header; tensors read their rows from the file when asked.

    The file stays open as long as a tensor of it is in use, so replacing it by renaming is safe.

    Raises:
        ConfigError: unreadable, not GGUF, or of a version or tensor type unknown to lichen.
        IntegrityError: a damaged file.
    """
    header = read_header(path)
    file = OpenFile(path)
    start = min((t.offset for t in header.tensors), default=header.file_size)
    if start > _MAX_HEADER_BYTES:
        raise IntegrityError(
            f"{str(path)!r} has a header of {start:,} bytes "
            f"(at most {_MAX_HEADER_BYTES:,} are read)"
        )
    head = file.read(0, start).data
    metadata, _ = parse_metadata(head, _PREFIX_BYTES, len(header.metadata))
    return ModelFile(
        metadata=metadata,
        tensors=tuple(
            LazyTensor(name=t.name, shape=t.shape, type=t.type, read=FileRows.of(file, t))
            for t in header.tensors
        ),
    )


def write_model(
    model: ModelFile, path: Path, *, progress: Progress | None = None, workers: int = 0
) -> str:
    """Write ``model`` and return the file's SHA-256.

    Streams: a few chunks of rows are in memory at a time. The same model gives the same bytes.
    All of the file appears under its name, or nothing does.

    Args:
        model: what to write.
        path: where; an existing file is replaced in one step.
        progress: told (bytes done, bytes in all).
        workers: threads that compute rows, 0 for as many as there are CPUs.

    Raises:
        ConfigError: the file cannot be written, or a tensor does not give the rows it promises.
        IntegrityError: the source shrank or is damaged.
    """
    head, alignment = _header_bytes(model), model.alignment
    size = len(head) + sum(_padded(t, alignment) for t in model.tensors)
    digest, done = hashlib.sha256(), 0
    with replacing(path, size) as file:
        for piece in _pieces(model, head, workers or os.cpu_count() or 1):
            file.write(piece)
            digest.update(piece)
            done += len(piece)
            if progress is not None:
                progress(done, size)
    return digest.hexdigest()


def _pieces(model: ModelFile, head: bytes, workers: int) -> Iterator[memoryview]:
    """Yield the file piece by piece: chunks are computed side by side, a few ahead."""
    yield memoryview(head)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="lichen-write")
    ahead: deque[Future[memoryview]] = deque()
    try:
        for tensor, start, stop in _chunks(model):
            ahead.append(pool.submit(_stored, tensor, start, stop, model.alignment))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(model: ModelFile) -> Iterator[tuple[LazyTensor, int, int]]:
    for tensor in model.tensors:
        step = max(1, _CHUNK_WEIGHTS // tensor.width)
        for start in range(0, tensor.rows, step):
            yield tensor, start, min(start + step, tensor.rows)


def _stored(tensor: LazyTensor, start: int, stop: int, alignment: int) -> memoryview:
    """Return the bytes of some rows, with the padding after the last one."""
    rows = tensor.read(start, stop)
    if rows.dtype != np.uint8 or rows.shape != (stop - start, tensor.row_bytes):
        raise ConfigError(
            f"{tensor.name!r} gave rows of shape {rows.shape} {rows.dtype}, "
            f"not ({stop - start}, {tensor.row_bytes}) uint8"
        )
    flat = np.ascontiguousarray(rows).reshape(-1)
    if stop == tensor.rows:
        flat = np.concatenate([flat, np.zeros(-tensor.size_bytes % alignment, np.uint8)])
    return flat.data


def _header_bytes(model: ModelFile) -> bytes:
    """Return everything before the weights, padding included."""
    head = bytearray(b"GGUF")
    head += struct.pack("<IQQ", _VERSION, len(model.tensors), len(model.metadata))
    for key, value in model.metadata.items():
        head += text_bytes(key) + value.encode()
    offset = 0
    for t in model.tensors:
        head += text_bytes(t.name) + struct.pack(f"<I{len(t.shape)}Q", len(t.shape), *t.shape)
        head += struct.pack("<IQ", type_number(t.type), offset)
        offset += _padded(t, model.alignment)
    return bytes(head) + bytes(-len(head) % model.alignment)


def _padded(tensor: LazyTensor, alignment: int) -> int:
    return -(-tensor.size_bytes // alignment) * alignment


def _shown(value: MetaValue) -> Value:
    """Return a value as the catalog's reader gives it."""
    if value.kind != ARRAY:
        return value.value  # type: ignore[return-value]  # a scalar, by its kind
    items = value.value if isinstance(value.value, list) else []
    if value.element in CODES and len(items) <= KEPT_ELEMENTS:
        return tuple(items)
    return ArrayInfo(
        kind=STRING if value.element is None else value.element, count=len(items), offset=0
    )


@dataclass(frozen=True, slots=True)
class _Selection:
    """Reads chosen rows, run by run: neighbours come in one read."""

    read: ReadRows
    chosen: npt.NDArray[np.intp]
    rows: int

    def __call__(self, start: int, stop: int) -> Raw:
        wanted = self.chosen[start:stop]
        if not len(wanted):
            return self.read(0, 0)
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        return np.concatenate(
            [self.read(int(run[0]), int(run[-1]) + 1) for run in np.split(wanted, breaks)]
        )
