"""The metadata of a model file, value by value, exactly as stored.

``MetaValue`` keeps the type numbers of the file, so that reading and writing a value gives the same
bytes. Texts that are not UTF-8 keep their bytes as surrogate escapes: escape before printing.

The parser here trusts nothing either: it walks a buffer that ``lichen.catalog.gguf`` has already
checked, with bounds of its own, and reports damage as ``IntegrityError``.

Format: ggml/docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lichen.catalog.gguf import SCALARS
from lichen.core.errors import ConfigError, IntegrityError

U32: Final = 4
I32: Final = 5
F32: Final = 6
BOOL: Final = 7
STRING: Final = 8
ARRAY: Final = 9
U64: Final = 10

CODES: Final = SCALARS
"""Value type number -> struct code of one element."""
MAX_ELEMENTS: Final = 1 << 22
"""Array elements held, in all: 4 million, several times the largest tokenizer."""
_MAX_NESTING: Final = 4


@dataclass(frozen=True, slots=True)
class MetaValue:
    """One value: its type number, for arrays the elements' type number, and the value itself.

    ``value`` is an int, float, bool, str, or a list of these; an array of arrays is a list of
    ``MetaValue``. Treat lists as read-only: models share them.
    """

    kind: int
    element: int | None
    value: object

    @classmethod
    def text(cls, value: str) -> MetaValue:
        """Return a string."""
        return cls(STRING, None, value)

    @classmethod
    def count(cls, value: int) -> MetaValue:
        """Return an unsigned 32-bit number: what counts and token ids are stored as."""
        return cls(U32, None, value)

    @classmethod
    def number(cls, value: float) -> MetaValue:
        """Return a 32-bit float."""
        return cls(F32, None, value)

    @classmethod
    def flag(cls, value: bool) -> MetaValue:
        """Return a bool."""
        return cls(BOOL, None, value)

    @classmethod
    def texts(cls, values: Iterable[str]) -> MetaValue:
        """Return an array of strings."""
        return cls(ARRAY, STRING, list(values))

    def like(self, value: object) -> MetaValue:
        """Return another value of the same type."""
        return MetaValue(self.kind, self.element, value)

    def encode(self) -> bytes:
        """Return the value as stored, type numbers included.

        Raises:
            ConfigError: the value does not fit its type.
        """
        try:
            return struct.pack("<I", self.kind) + self._payload()
        except (struct.error, TypeError, ValueError, AttributeError) as exc:
            raise ConfigError(
                f"a metadata value cannot be stored as GGUF type {self.kind}: {exc}"
            ) from exc

    def _payload(self) -> bytes:
        if self.kind == STRING:
            return text_bytes(_as_text(self.value))
        if self.kind != ARRAY:
            return struct.pack("<" + CODES[self.kind], self.value)
        values = _as_list(self.value)
        head = struct.pack("<IQ", self.element, len(values))
        if self.element == STRING:
            return head + b"".join(text_bytes(_as_text(v)) for v in values)
        if self.element == ARRAY:
            return head + b"".join(_inner(v) for v in values)
        code = CODES[-1 if self.element is None else self.element]
        return head + struct.pack(f"<{len(values)}{code}", *values)


def text_bytes(text: str) -> bytes:
    """Return a string as stored: length, then bytes."""
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def parse_metadata(
    buffer: bytes | memoryview, at: int, count: int
) -> tuple[dict[str, MetaValue], int]:
    """Read ``count`` key-value pairs from ``buffer`` at ``at``; return them and where they end.

    Raises:
        IntegrityError: the buffer ends early or holds something that is not metadata.
    """
    parser = _Parser(buffer, at)
    try:
        found = {parser.text(): parser.value() for _ in range(count)}
    except (struct.error, KeyError, ValueError) as exc:
        raise IntegrityError("the metadata is damaged or changed while it was read") from exc
    return found, parser.at


class _Parser:
    """A cursor over the bytes of a header."""

    def __init__(self, buffer: bytes | memoryview, at: int) -> None:
        self._buffer = buffer
        self.at = at
        self._left = MAX_ELEMENTS

    def text(self) -> str:
        """Read a string."""
        (length,) = self._take("Q")
        end = self.at + length
        if end > len(self._buffer):
            msg = "a text ends beyond the header"
            raise ValueError(msg)
        raw, self.at = self._buffer[self.at : end], end
        return str(raw, "utf-8", "surrogateescape")

    def value(self, nesting: int = 0) -> MetaValue:
        """Read a type number and the value after it."""
        (kind,) = self._take("I")
        return self._of_kind(kind, nesting)

    def _of_kind(self, kind: int, nesting: int) -> MetaValue:
        if kind == STRING:
            return MetaValue(kind, None, self.text())
        if kind != ARRAY:
            return MetaValue(kind, None, self._take(CODES[kind])[0])
        element, count = self._take("IQ")
        self._left -= count
        if self._left < 0 or nesting >= _MAX_NESTING:
            msg = "too many values"
            raise ValueError(msg)
        if element == STRING:
            return MetaValue(kind, element, [self.text() for _ in range(count)])
        if element == ARRAY:
            return MetaValue(
                kind, element, [self._of_kind(ARRAY, nesting + 1) for _ in range(count)]
            )
        dtype = np.dtype(CODES[element]).newbyteorder("<")
        values = np.frombuffer(self._buffer, dtype, count, self.at)
        self.at += values.nbytes
        return MetaValue(kind, element, values.tolist())

    def _take(self, codes: str) -> tuple[int, ...]:
        layout = struct.Struct("<" + codes)
        values = layout.unpack_from(self._buffer, self.at)
        self.at += layout.size
        return values


def _inner(value: object) -> bytes:
    """Return an array inside an array: as stored, without the number that says "array"."""
    if not isinstance(value, MetaValue) or value.kind != ARRAY:
        msg = "an array of arrays holds MetaValue arrays"
        raise ValueError(msg)
    return value.encode()[4:]


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        msg = f"{value!r} is not a text"
        raise TypeError(msg)
    return value


def _as_list(value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        msg = "an array's value is a list"
        raise TypeError(msg)
    return value
