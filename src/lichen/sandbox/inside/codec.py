"""Plain values to bytes and back: the only thing that crosses between solution and judge.

A decoded value is always built from exact built-in types, so no method of untrusted code can run
on the side that decodes. Not pickle, not marshal, no eval: a tag byte, a length, the content.

====  ==============================  ====  ==================================================
N     None                            l t   list, tuple: count, items
T F   True, False                     m     dict: count, key and value in turn
i     int: length, little-endian      S Z   set, frozenset: count, items
d c   float, complex: IEEE 754        k v I dict views: count, items
s     str: UTF-8, surrogates pass     r     range: three ints
b B   bytes, bytearray                g     one-shot iterator: count, items, how it ended
D     Decimal: its text               Q     Fraction: two ints
o     opaque: type name               R     record: class name, dict (only towards a solution)
====  ==============================  ====  ==================================================

Subclasses of built-in types are read with the base class's own methods and arrive as the base
type. Generators, ``map``, ``zip`` and the like are drained (bounded) and arrive as a generator
that yields the same items once, then ends, or raises, as the original did. Any other object
arrives as ``Opaque``, which equals nothing. Depth and size are bounded in both directions.
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .plain import Malformed, Opaque, Unsendable, builtin_name, rebuild, text_of

MAX_DEPTH = 200
MAX_BYTES = 16 << 20
"""Of one message between judge and solution; the parent's own messages may be larger."""

MAX_DRAINED = 100_000
"""Items taken from a one-shot iterator; one that goes on longer raises on the other side."""

_LENGTH = struct.Struct(">I")
_FLOAT = struct.Struct(">d")
_COMPLEX = struct.Struct(">dd")
_SEQUENCES: dict[bytes, Callable[[list[Any]], Any]] = {
    b"l": lambda items: items,
    b"t": tuple,
    b"S": set,
    b"Z": frozenset,
    b"k": lambda items: dict.fromkeys(items).keys(),
    b"v": lambda items: dict(enumerate(items)).values(),
    b"I": lambda items: dict(items).items(),
}
_VIEWS: tuple[tuple[type, bytes], ...] = (
    (type({}.keys()), b"k"),
    (type({}.values()), b"v"),
    (type({}.items()), b"I"),
)
_ONE_SHOT: tuple[type, ...] = (
    type(_ for _ in ()),
    map,
    filter,
    zip,
    enumerate,
    reversed,
    type(iter([])),
    type(iter(())),
    type(iter({})),
    type(iter({}.values())),
    type(iter({}.items())),
    type(iter(set())),
    type(iter("")),
    type(iter("\u00e9")),
    type(iter(b"")),
    type(iter(range(0))),
    type(reversed([])),
    type(reversed({})),
    *(kind for kind in vars(itertools).values() if isinstance(kind, type)),
)


def encode(
    value: object,
    *,
    argument: bool = False,
    home: str = "",
    drain: bool = True,
    bound: int = MAX_BYTES,
) -> bytes:
    """Return the bytes of a value.

    Args:
        value: what to send.
        argument: towards a solution: an object without plain value is refused, not made opaque.
        home: with ``argument``, module name whose classes' instances are sent as records.
        drain: False leaves one-shot iterators alone; they become opaque.
        bound: the most bytes to produce.

    Raises:
        Unsendable: the value is too deep, too large, or (``argument``) has no plain value.
    """
    encoder = _Encoder(argument=argument, home=home, drain=drain, bound=bound)
    encoder.put(value, 0)
    return b"".join(encoder.parts)


def decode(data: bytes, record: Callable[[str, dict[str, Any]], object] | None = None) -> Any:
    """Return the value of bytes that may come from an adversary.

    ``record`` builds an object from a class name and attributes; without it records are refused.

    Raises:
        Malformed: anything but exactly one well-formed, bounded value.
    """
    decoder = _Decoder(data, record)
    try:
        value = decoder.take(0)
    except (ValueError, TypeError, ArithmeticError, struct.error) as exc:
        # Unhashable keys, bad UTF-8, zero denominators: one word for all of them.
        raise Malformed(f"bad value: {type(exc).__name__}") from None
    if decoder.at != len(data):
        raise Malformed("bytes after the value")
    return value


class _Encoder:
    """Collects the parts of one encoding and watches its bounds."""

    def __init__(self, *, argument: bool, home: str, drain: bool, bound: int) -> None:
        self.parts: list[bytes] = []
        self._size = 0
        self._argument = argument
        self._home = home
        self._drains = drain
        self._bound = bound

    def put(self, value: Any, depth: int) -> None:
        """Append one value."""
        if depth > MAX_DEPTH:
            raise Unsendable(f"nested deeper than {MAX_DEPTH} levels")
        exact = type(value)
        for kind in (exact, *exact.__mro__[1:-1]):
            writer = _WRITERS.get(kind)
            if writer is not None:
                writer(self, value, depth)
                return
        if exact in _ONE_SHOT and self._drains:
            self._drain(value, depth)
        elif not self._put_number(value, depth):
            self._put_object(value, depth)

    def add(self, part: bytes) -> None:
        """Append bytes within the bound."""
        self._size += len(part)
        if self._size > self._bound:
            raise Unsendable(f"larger than {self._bound} bytes")
        self.parts.append(part)

    def block(self, tag: bytes, content: bytes) -> None:
        """Append a tag, a length and content."""
        if len(content) > self._bound:
            raise Unsendable(f"larger than {self._bound} bytes")
        self.add(tag + _LENGTH.pack(len(content)))
        self.add(content)

    def items(self, tag: bytes, items: list[Any], depth: int) -> None:
        """Append a container's items; its length is bounded by the byte bound."""
        self.add(tag + _LENGTH.pack(len(items)))
        for item in items:
            self.put(item, depth + 1)

    def _drain(self, value: Iterator[Any], depth: int) -> None:
        items: list[Any] = []
        ending: tuple[str, str] | None = None
        try:
            items.extend(itertools.islice(value, MAX_DRAINED))
            if len(items) == MAX_DRAINED:
                ending = ("RuntimeError", f"sent only {MAX_DRAINED} items of this iterator")
        except Exception as exc:  # noqa: BLE001 (the iterator's own error is part of its value)
            ending = (builtin_name(exc), text_of(exc))
        self.items(b"g", items, depth)
        self.put(ending, depth + 1)

    def _put_number(self, value: Any, depth: int) -> bool:
        """Append a Decimal or Fraction by value; the sender has imported what it has made."""
        decimal: Any = sys.modules.get("decimal")
        if decimal is not None and isinstance(value, decimal.Decimal):
            self.block(b"D", decimal.Decimal.__str__(value).encode())
            return True
        fractions: Any = sys.modules.get("fractions")
        if fractions is not None and isinstance(value, fractions.Fraction):
            self.add(b"Q")
            self.put(int(value.numerator), depth + 1)
            self.put(int(value.denominator), depth + 1)
            return True
        return False

    def _put_object(self, value: Any, depth: int) -> None:
        kind = type(value)
        name = str(kind.__name__)[:200]
        if not self._argument:
            self.block(b"o", name.encode("utf-8", "replace"))
        elif self._home and kind.__module__ == self._home and hasattr(value, "__dict__"):
            self.block(b"R", name.encode("utf-8", "replace"))
            self.put(dict(vars(value)), depth + 1)
        else:
            raise Unsendable(f"an argument of type {name} has no plain value")


def _put_int(out: _Encoder, value: int, _depth: int) -> None:
    n = int.bit_length(value) // 8 + 1
    out.block(b"i", int.to_bytes(value, n, "little", signed=True))


def _put_dict(out: _Encoder, value: dict[Any, Any], depth: int) -> None:
    pairs = list(dict.items(value))
    out.add(b"m" + _LENGTH.pack(len(pairs)))
    for key, item in pairs:
        out.put(key, depth + 1)
        out.put(item, depth + 1)


def _put_range(out: _Encoder, value: range, depth: int) -> None:
    out.add(b"r")
    for part in (value.start, value.stop, value.step):
        out.put(part, depth + 1)


def _put_str(out: _Encoder, value: str, _depth: int) -> None:
    out.block(b"s", str.encode(value, "utf-8", "surrogatepass"))


def _put_complex(out: _Encoder, value: complex, _depth: int) -> None:
    real, imag = complex.real.__get__(value), complex.imag.__get__(value)
    out.add(b"c" + _COMPLEX.pack(real, imag))


def _sequence(
    tag: bytes, iterate: Callable[[Any], Iterator[Any]]
) -> Callable[[_Encoder, Any, int], None]:
    def put(out: _Encoder, value: Any, depth: int) -> None:
        out.items(tag, list(iterate(value)), depth)

    return put


_WRITERS: dict[type, Callable[[_Encoder, Any, int], None]] = {
    type(None): lambda out, _value, _depth: out.add(b"N"),
    bool: lambda out, value, _depth: out.add(b"T" if value is True else b"F"),
    int: _put_int,
    float: lambda out, value, _depth: out.add(b"d" + _FLOAT.pack(float.__float__(value))),
    complex: _put_complex,
    str: _put_str,
    bytes: lambda out, value, _depth: out.block(b"b", bytes.join(b"", (value,))),
    bytearray: lambda out, value, _depth: out.block(b"B", bytes(bytearray.copy(value))),
    list: _sequence(b"l", list.__iter__),
    tuple: _sequence(b"t", tuple.__iter__),
    set: _sequence(b"S", set.__iter__),
    frozenset: _sequence(b"Z", frozenset.__iter__),
    dict: _put_dict,
    range: _put_range,
    **{kind: _sequence(tag, iter) for kind, tag in _VIEWS},
}


class _Decoder:
    """Reads one value from bytes that it does not trust."""

    def __init__(self, data: bytes, record: Callable[[str, dict[str, Any]], object] | None) -> None:
        self._data = data
        self._record = record
        self.at = 0

    def take(self, depth: int) -> Any:
        """Read the next value."""
        if depth > MAX_DEPTH + 2:
            raise Malformed("too deep")
        tag = self._bytes(1)
        reader = _READERS.get(tag)
        if reader is not None:
            return reader(self)
        if tag in _SEQUENCES:
            return _SEQUENCES[tag](self._items(depth))
        if tag in _COMPOUNDS:
            return _COMPOUNDS[tag](self, depth)
        raise Malformed("unknown tag")

    def dictionary(self, depth: int) -> dict[Any, Any]:
        """Read keys and values."""
        return {self.take(depth + 1): self.take(depth + 1) for _ in range(self._count(2))}

    def progression(self, depth: int) -> range:
        """Read a range."""
        return range(*(self._int(depth) for _ in range(3)))

    def fraction(self, depth: int) -> Any:
        """Read a Fraction."""
        from fractions import Fraction

        return Fraction(self._int(depth), self._int(depth))

    def one_shot(self, depth: int) -> Iterator[Any]:
        """Read an iterator's items and how it ended."""
        items = self._items(depth)
        return _replay(items, self._ending(depth))

    def instance(self, depth: int) -> Any:
        """Read an object by its attributes, where the caller wants such."""
        name, attributes = self.text(), self.take(depth + 1)
        if self._record is None or type(attributes) is not dict:
            raise Malformed("an object where none may be")
        return self._record(name, attributes)

    def block(self) -> bytes:
        """Read a length and that many bytes."""
        return self._bytes(_LENGTH.unpack(self._bytes(4))[0])

    def fixed(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Read a fixed layout."""
        return layout.unpack(self._bytes(layout.size))

    def _bytes(self, count: int) -> bytes:
        part = self._data[self.at : self.at + count]
        if len(part) != count:
            raise Malformed("cut off")
        self.at += count
        return part

    def _count(self, smallest: int) -> int:
        """Read a count; more items than bytes are left is a lie that must not allocate."""
        count: int = _LENGTH.unpack(self._bytes(4))[0]
        if count * smallest > len(self._data) - self.at:
            raise Malformed("count exceeds the bytes")
        return count

    def _items(self, depth: int) -> list[Any]:
        return [self.take(depth + 1) for _ in range(self._count(1))]

    def _int(self, depth: int) -> int:
        value = self.take(depth + 1)
        if type(value) is not int:
            raise Malformed("not an int")
        return value

    def text(self) -> str:
        """Read text."""
        return self.block().decode("utf-8", "surrogatepass")

    def _ending(self, depth: int) -> Exception | None:
        value = self.take(depth + 1)
        if value is None:
            return None
        if type(value) is tuple and len(value) == 2 and all(type(v) is str for v in value):  # noqa: PLR2004 (a pair)
            return rebuild(value[0], (value[1],))
        raise Malformed("bad ending")

    def decimal(self) -> Any:
        """Read a Decimal."""
        from decimal import Decimal

        return Decimal(self.text())


_READERS: dict[bytes, Callable[[_Decoder], Any]] = {
    b"N": lambda _r: None,
    b"T": lambda _r: True,
    b"F": lambda _r: False,
    b"i": lambda r: int.from_bytes(r.block(), "little", signed=True),
    b"d": lambda r: r.fixed(_FLOAT)[0],
    b"c": lambda r: complex(*r.fixed(_COMPLEX)),
    b"s": _Decoder.text,
    b"b": lambda r: r.block(),
    b"B": lambda r: bytearray(r.block()),
    b"D": _Decoder.decimal,
    b"o": lambda r: Opaque(r.block().decode("utf-8", "replace")),
}

_COMPOUNDS: dict[bytes, Callable[[_Decoder, int], Any]] = {
    b"m": _Decoder.dictionary,
    b"r": _Decoder.progression,
    b"Q": _Decoder.fraction,
    b"g": _Decoder.one_shot,
    b"R": _Decoder.instance,
}


def _replay(items: list[Any], ending: Exception | None) -> Iterator[Any]:
    """Yield the items once, then end as the original did."""
    yield from items
    if ending is not None:
        raise ending
