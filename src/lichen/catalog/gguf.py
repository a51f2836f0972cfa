"""Read the header of a GGUF file: its metadata and where its tensors lie. Not their contents.

The file is hostile: every count, length, type, offset and alignment is checked against a bound and
against the file's size before it is used, reads are small and never depend on a length the file
claims, and whatever is wrong becomes one sentence (``ConfigError``: not a file lichen can read,
``IntegrityError``: a damaged one). Large arrays such as the vocabulary are stepped over and can be
read on request with ``read_array``.

Format: ggml/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from lichen.catalog.tensor_types import TENSOR_TYPES, TensorType
from lichen.core.errors import ConfigError, IntegrityError

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_MAX_PAIRS: Final = 1 << 16
_MAX_TENSORS: Final = 1 << 17
_MAX_KEY_BYTES: Final = (1 << 16) - 1
"""gguf.md: keys are at most 2**16 - 1 bytes long."""
_MAX_NAME_BYTES: Final = 1024
_MAX_TEXT_BYTES: Final = 1 << 24
_MAX_DIMENSIONS: Final = 4
"""GGML_MAX_DIMS in ggml.h."""
_MAX_NESTING: Final = 4
_MAX_STEPS: Final = 1 << 22
"""Array elements visited one by one, in all: 4 million, several times the largest tokenizer."""
_MAX_KEPT_BYTES: Final = 1 << 26
"""Bytes of text kept, in all: 64 MiB."""
_MAX_ALIGNMENT: Final = 1 << 20
_DEFAULT_ALIGNMENT: Final = 32
"""GGUF_DEFAULT_ALIGNMENT in gguf.h."""
KEPT_ELEMENTS: Final = 4096
"""Arrays of numbers up to this length are kept: they hold one value per layer."""

SCALARS: Final = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Value type number -> struct code of one element."""
_STRING: Final = 8
_ARRAY: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayInfo:
    """An array that was stepped over: ``count`` elements of value type ``kind`` at ``offset``."""

    kind: int
    count: int
    offset: int


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | ArrayInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Where a tensor lies. ``shape`` as in the file (first dimension fastest); bytes from 0."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size: int

    @property
    def elements(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """Everything before the weights. Text in it comes from outside: escape it before printing."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    alignment: int
    file_size: int

    def text(self, key: str, default: str = "") -> str:
        """Return a string value, ``default`` where the key is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else default


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of ``path``.

    Raises:
        ConfigError: unreadable, not GGUF, or a version or tensor type unknown to lichen.
        IntegrityError: a GGUF file whose header contradicts itself or the file's size.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, path).header()
    except OSError as exc:
        raise ConfigError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc


def read_array(path: Path, header: GgufHeader, key: str) -> Iterator[Scalar]:
    """Yield the elements of one array of numbers or strings, e.g. ``tokenizer.ggml.tokens``.

    Bytes of strings that are not UTF-8 become U+FFFD. Raises ConfigError if there is no such array.
    """
    value = header.metadata.get(key)
    if isinstance(value, tuple):
        yield from value
        return
    if not isinstance(value, ArrayInfo) or value.kind == _ARRAY:
        raise ConfigError(f"{str(path)!r} has no flat array {key!r}")
    with path.open("rb") as file:
        reader = _Reader(file, path)
        reader.seek(value.offset)
        for _ in range(value.count):
            yield reader.text() if value.kind == _STRING else reader.scalar(value.kind)


class _Reader:
    """A bounded cursor over a file, through a window that never exceeds ``_WINDOW`` bytes."""

    _WINDOW: Final = 1 << 18

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._shown = repr(str(path))
        self._size = file.seek(0, 2)
        self._base = 0
        self._buffer = b""
        self._at = 0
        self._steps = 0
        self._kept = 0

    def header(self) -> GgufHeader:
        """Read everything up to the tensor data."""
        self.seek(0)
        if self._size < len(_MAGIC) or self._take(len(_MAGIC)) != _MAGIC:
            raise ConfigError(f"{self._shown} is not a GGUF file")
        version = int(self.scalar(4))
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            why = "big-endian" if swapped else f"version {version}"
            raise ConfigError(
                f"{self._shown} is a {why} GGUF file; lichen reads little-endian 2 and 3"
            )
        tensor_count = self._count("tensors", _MAX_TENSORS)
        pair_count = self._count("metadata entries", _MAX_PAIRS)
        metadata = self._metadata(pair_count)
        alignment = self._alignment(metadata)
        tensors = self._tensors(tensor_count, alignment)
        return GgufHeader(
            version=version,
            metadata=metadata,
            tensors=tensors,
            alignment=alignment,
            file_size=self._size,
        )

    def seek(self, offset: int) -> None:
        """Go to a byte of the file."""
        if offset > self._size:
            raise self._damaged("ends inside its header")
        if self._base <= offset <= self._base + len(self._buffer):
            self._at = offset - self._base
        else:
            self._base, self._buffer, self._at = offset, b"", 0

    def scalar(self, kind: int) -> Scalar:
        """Read one number or bool of a value type."""
        code = SCALARS[kind]
        value: Scalar = struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]
        return value

    def text(self, limit: int = _MAX_TEXT_BYTES, what: str = "a text") -> str:
        """Read a string of at most ``limit`` bytes."""
        length = self._length(limit, what)
        self._kept += length
        if self._kept > _MAX_KEPT_BYTES:
            raise self._damaged(f"has more than {_MAX_KEPT_BYTES:,} bytes of text")
        return self._take(length).decode("utf-8", "replace")

    def _metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = self.text(_MAX_KEY_BYTES, "a key")
            if key in metadata:
                raise self._damaged(f"has the key {key[:80]!r} twice")
            metadata[key] = self._value(self._kind())
        return metadata

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.scalar(kind)
        inner, count = self._kind(), int(self.scalar(10))
        start = self._base + self._at
        if inner in SCALARS and count <= KEPT_ELEMENTS:
            self._step(count)
            return tuple(self.scalar(inner) for _ in range(count))
        self._skip(inner, count, nesting=1)
        return ArrayInfo(kind=inner, count=count, offset=start)

    def _skip(self, kind: int, count: int, nesting: int) -> None:
        """Step over ``count`` elements without keeping any."""
        if kind in SCALARS:
            self._jump(count * struct.calcsize("<" + SCALARS[kind]))
            return
        if nesting > _MAX_NESTING:
            raise self._damaged(f"nests arrays more than {_MAX_NESTING} deep")
        self._step(count)
        if kind == _STRING:
            self._skip_texts(count)
            return
        for _ in range(count):
            inner, inner_count = self._kind(), int(self.scalar(10))
            self._skip(inner, inner_count, nesting + 1)

    def _skip_texts(self, count: int) -> None:
        """Step over strings: the hot loop, since vocabularies have hundreds of thousands."""
        length_at = struct.Struct("<Q").unpack_from
        for _ in range(count):
            self._fill(8)
            (length,) = length_at(self._buffer, self._at)
            if length > _MAX_TEXT_BYTES:
                raise self._damaged(f"has a text of {length:,} bytes")
            self._at += 8 + length
            if self._at > len(self._buffer):
                self._jump(0)

    def _step(self, count: int) -> None:
        self._steps += count
        if self._steps > _MAX_STEPS:
            raise self._damaged(f"lists more than {_MAX_STEPS:,} values")

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        infos = [self._tensor_info(alignment) for _ in range(count)]
        position = self._base + self._at
        start = -(-position // alignment) * alignment if infos else position
        tensors = tuple(
            Tensor(name=n, shape=s, type=t, offset=start + o, size=size)
            for n, s, t, o, size in infos
        )
        if len({t.name for t in tensors}) != len(tensors):
            raise self._damaged("names two tensors alike")
        end, before = start, ""
        for tensor in sorted(tensors, key=lambda t: t.offset):
            if tensor.offset < end:
                raise self._damaged(f"stores {tensor.name[:80]!r} over {before[:80]!r}")
            end, before = tensor.offset + tensor.size, tensor.name
        if end > self._size:
            raise self._damaged(f"has {self._size:,} bytes but its tensors end at byte {end:,}")
        return tensors

    def _tensor_info(self, alignment: int) -> tuple[str, tuple[int, ...], TensorType, int, int]:
        name = self.text(_MAX_NAME_BYTES, "a tensor name")
        dimensions = int(self.scalar(4))
        if dimensions > _MAX_DIMENSIONS:
            raise self._damaged(f"gives the tensor {name[:80]!r} {dimensions} dimensions")
        shape = tuple(int(self.scalar(10)) for _ in range(dimensions))
        number, offset = int(self.scalar(4)), int(self.scalar(10))
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            raise ConfigError(
                f"{self._shown} stores {name[:80]!r} in tensor type {number}, "
                "which this version of lichen does not know"
            )
        first = shape[0] if shape else 1
        if 0 in shape or first % kind.block:
            raise self._damaged(f"gives {name[:80]!r} a shape {shape} that {kind.name} cannot have")
        if offset % alignment:
            raise self._damaged(f"places {name[:80]!r} off its alignment of {alignment}")
        size = math.prod(shape) // kind.block * kind.block_bytes
        return name, shape, kind, offset, size

    def _alignment(self, metadata: dict[str, Value]) -> int:
        value = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(value) is not int or not 0 < value <= _MAX_ALIGNMENT or value & (value - 1):
            raise self._damaged(f"has the alignment {value!r}, which is not a small power of two")
        return value

    def _kind(self) -> int:
        kind = int(self.scalar(4))
        if kind not in SCALARS and kind not in {_STRING, _ARRAY}:
            raise self._damaged(f"has a value of the unknown type {kind}")
        return kind

    def _count(self, what: str, limit: int) -> int:
        count = int(self.scalar(10))
        if count > limit:
            raise self._damaged(f"claims {count:,} {what} (at most {limit:,} are read)")
        return count

    def _length(self, limit: int, what: str) -> int:
        length = int(self.scalar(10))
        if length > limit:
            raise self._damaged(f"has {what} of {length:,} bytes (at most {limit:,} are read)")
        return length

    def _jump(self, count: int) -> None:
        self.seek(self._base + self._at + count)

    def _take(self, count: int) -> bytes:
        """Return the next ``count`` bytes; ``count`` was checked against a limit before."""
        self._fill(count)
        start, self._at = self._at, self._at + count
        return self._buffer[start : self._at]

    def _fill(self, count: int) -> None:
        """Make the window hold the next ``count`` bytes."""
        if self._at + count <= len(self._buffer):
            return
        position = self._base + self._at
        if position + count > self._size:
            raise self._damaged("ends inside its header")
        self._file.seek(position)
        self._base, self._at = position, 0
        self._buffer = self._file.read(max(count, self._WINDOW))
        if len(self._buffer) < count:
            raise self._damaged("became shorter while it was read")

    def _damaged(self, what: str) -> IntegrityError:
        return IntegrityError(f"{self._shown} is damaged: it {what}; fetch it again")
