"""The codec: faithful for plain values, closed to everything else."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.sandbox.inside import codec, plain

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters()),
    st.text(st.sampled_from("\ud800\udfff\x00a")),
    st.binary(),
    st.fractions(),
    st.decimals(allow_nan=False),
)
_HASHABLE = st.recursive(_SCALARS, lambda inner: st.tuples(inner, inner), max_leaves=5)
_VALUES = st.recursive(
    st.one_of(_SCALARS, st.binary().map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(_HASHABLE, inner),
        st.sets(_HASHABLE),
        st.frozensets(_HASHABLE),
    ),
    max_leaves=10,
)

_few = settings(max_examples=60)  # building such values is slow


def same(a: Any, b: Any) -> bool:  # noqa: PLR0911 (one line per type)
    """Equal in type and value, NaN and the sign of zero included."""
    if type(a) is not type(b):
        return False
    match a:
        case float():
            return struct.pack("d", a) == struct.pack("d", b)
        case complex():
            return same((a.real, a.imag), (b.real, b.imag))
        case list() | tuple():
            return len(a) == len(b) and all(map(same, a, b))
        case dict():
            return same(list(a.items()), list(b.items()))
        case set() | frozenset():
            return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    return bool(a == b)


@_few
@given(_VALUES)
def test_plain_values_survive_the_round_trip(value):
    """Decoding gives back type, value and order."""
    assert same(codec.decode(codec.encode(value)), value)


@_few
@given(_VALUES)
def test_encoding_is_deterministic(value):
    """The same value gives the same bytes, so that changes can be told by comparing them."""
    assert codec.encode(value) == codec.encode(value)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_value_or_malformed(data):
    """Hostile bytes never raise anything but Malformed."""
    with contextlib.suppress(plain.Malformed):
        codec.decode(data)


@_few
@given(_VALUES, st.data())
def test_damaged_encodings_are_a_value_or_malformed(value, data):
    """Neither do almost right ones: flipped, cut and extended."""
    encoded = bytearray(codec.encode(value))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    for damaged in (bytes(encoded), bytes(encoded[:cut]), bytes(encoded) + b"N"):
        with contextlib.suppress(plain.Malformed):
            codec.decode(damaged)


@given(st.sampled_from(["l", "t", "S", "Z", "m", "k", "v", "I", "g", "s", "b", "i"]))
def test_false_counts_do_not_allocate(tag):
    """A count of four thousand million items without their bytes is malformed at once."""
    with pytest.raises(plain.Malformed):
        codec.decode(tag.encode() + b"\xff\xff\xff\xff")


@given(st.sampled_from([b"l", b"t", b"Z"]), st.integers(codec.MAX_DEPTH + 3, 5000))
def test_depth_is_bounded_when_decoding(tag, depth):
    """Nesting beyond the bound is malformed, not a crash."""
    with pytest.raises(plain.Malformed):
        codec.decode((tag + b"\x00\x00\x00\x01") * depth + b"N")


@_few
@given(_VALUES)
def test_records_are_refused_where_none_are_asked_for(value):
    """Bytes that ask for an object to be built are malformed on the judge's side."""
    body = codec.encode({"a": value})
    with pytest.raises(plain.Malformed):
        codec.decode(b"R" + b"\x00\x00\x00\x01A" + body)


@given(st.text(max_size=30), st.tuples(_SCALARS))
def test_rebuilt_exceptions_are_builtin_exceptions(name, arguments):
    """Whatever name arrives, the result is an ordinary built-in exception."""
    rebuilt = plain.rebuild(name, arguments)
    assert isinstance(rebuilt, Exception)
    assert type(rebuilt).__module__ == "builtins"
