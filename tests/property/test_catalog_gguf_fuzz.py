from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.catalog.gguf import GgufHeader, read_header
from lichen.catalog.shape import groups_of, shape_of
from lichen.core.errors import ConfigError, IntegrityError
from lichen.testing.gguf_files import gguf_bytes, tiny_model

VALUES = st.recursive(
    st.booleans() | st.integers(0, 2**32 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=1),
    max_leaves=4,
)


def read(data: bytes) -> GgufHeader | None:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(data)
        file.flush()
        try:
            header = read_header(Path(file.name))
            shape_of(header)
        except (ConfigError, IntegrityError):
            return None
        groups_of(header)
        return header


@given(data=st.binary(max_size=400), whole_head=st.booleans())
def test_any_bytes_end_in_a_header_or_a_sentence(data: bytes, whole_head: bool) -> None:
    """No input makes the reader crash, loop or raise anything but its two errors."""
    read((b"GGUF\x03\x00\x00\x00" if whole_head else b"") + data)


@settings(max_examples=300)
@given(
    edits=st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 12_000),
)
def test_a_damaged_model_ends_in_a_header_or_a_sentence(
    edits: list[tuple[int, int]], cut: int
) -> None:
    """Flipped bytes and a cut tail in a whole model are survived; tensors stay in the file."""
    data = bytearray(tiny_model(experts=2, used=1))
    for place, value in edits:
        data[place] = value
    kept = bytes(data[: len(data) - cut])
    header = read(kept)
    if header is not None:
        assert all(t.offset + t.size <= len(kept) for t in header.tensors)


@given(metadata=st.dictionaries(st.text(max_size=20), VALUES, max_size=5))
def test_metadata_reads_back(metadata: dict[str, object]) -> None:
    """Scalars written come back equal under their keys."""
    metadata.pop("general.alignment", None)
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(gguf_bytes(metadata))
        file.flush()
        read_back = read_header(Path(file.name)).metadata
    assert read_back.keys() == metadata.keys()
    for key, value in metadata.items():
        if not isinstance(value, list):
            assert read_back[key] == value
