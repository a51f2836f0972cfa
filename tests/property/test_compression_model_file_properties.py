"""Laws of reading and writing models, over random models, metadata, recipes and damage."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.catalog.tensor_types import TENSOR_TYPES
from lichen.compression.metadata import CODES, MetaValue
from lichen.compression.model_file import LazyTensor, ModelFile, open_model, write_model
from lichen.compression.toml_text import toml_text
from lichen.compression.types import fitting, row_bytes
from lichen.core.errors import LichenError
from lichen.testing.gguf_files import TinyModel

RANGES = {0: (0, 255), 1: (-128, 127), 2: (0, 2**16 - 1), 3: (-(2**15), 2**15 - 1)} | {
    4: (0, 2**32 - 1),
    5: (-(2**31), 2**31 - 1),
    10: (0, 2**64 - 1),
    11: (-(2**63), 2**63 - 1),
}
KINDS = list(TENSOR_TYPES.values())
TEXTS = st.binary(max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def numbers(kind: int) -> st.SearchStrategy[object]:
    if kind == 7:
        return st.booleans()
    if kind in (6, 12):
        return st.floats(width=32 if kind == 6 else 64, allow_nan=False)
    low, high = RANGES[kind]
    return st.integers(low, high)


SCALARS = st.one_of(
    [numbers(k).map(lambda v, k=k: MetaValue(k, None, v)) for k in CODES]
    + [TEXTS.map(MetaValue.text)]
)
ARRAYS = st.one_of(
    [st.lists(numbers(k), max_size=5).map(lambda v, k=k: MetaValue(9, k, v)) for k in CODES]
    + [st.lists(TEXTS, max_size=5).map(MetaValue.texts)]
)
NESTED = st.lists(ARRAYS, max_size=3).map(lambda v: MetaValue(9, 9, v))
KEYS = st.text("abc._é", min_size=1, max_size=8).filter(lambda k: k != "general.alignment")
METADATA = st.dictionaries(KEYS, st.one_of(SCALARS, ARRAYS, NESTED), max_size=6)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[LazyTensor, ...]:
    names = draw(st.lists(st.text("abc.", min_size=1, max_size=6), max_size=5, unique=True))
    return tuple(tensor(draw, name) for name in names)


def tensor(draw: st.DrawFn, name: str) -> LazyTensor:
    kind = draw(st.sampled_from(KINDS))
    width = kind.block * draw(st.integers(1, 3))
    outer = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
    rows = int(np.prod(outer, dtype=int))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    data = rng.integers(0, 256, (rows, row_bytes(width, kind)), dtype=np.uint8)
    return LazyTensor(name=name, shape=(width, *outer), type=kind, read=lambda a, b: data[a:b])


@settings(max_examples=60)
@given(METADATA, tensors())
def test_any_model_comes_back_as_it_was_written(
    metadata: dict[str, MetaValue], found: tuple[LazyTensor, ...]
) -> None:
    """Metadata of all kinds, and tensors of all types and shapes, survive; the bytes are stable."""
    model = ModelFile(metadata=metadata, tensors=found)
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "a", Path(folder) / "b"
        digest = write_model(model, path)
        back = open_model(path)
        assert list(back.metadata.items()) == list(metadata.items())
        assert path.stat().st_size == model.file_bytes
        assert [(t.name, t.shape, t.type) for t in back.tensors] == [
            (t.name, t.shape, t.type) for t in found
        ]
        for mine, theirs in zip(back.tensors, found, strict=True):
            assert (mine.read(0, mine.rows) == theirs.read(0, theirs.rows)).all()
        assert write_model(back, copy) == digest


WHOLE = TinyModel(layers=1, words=("ab",)).to_bytes()


@settings(max_examples=150)
@given(
    st.integers(0, len(WHOLE)),
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
)
def test_damaged_files_are_an_error_or_a_model(cut: int, flips: list[tuple[int, int]]) -> None:
    """Cut and flipped bytes, most of them in the header, never crash or allocate without end."""
    data = bytearray(WHOLE)
    for at, byte in flips:
        data[at % 12_000] = byte  # the header and the vocabulary
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(data[: cut or None] if cut % 3 == 0 else data)
        try:
            model = open_model(path)
            write_model(model, Path(folder) / "b")
            model.shape()
        except LichenError as error:
            assert str(error)  # noqa: PT017 (either outcome is fine; anything else escapes)


PLAIN_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100)
@given(st.dictionaries(st.text(), PLAIN_VALUES, max_size=4))
def test_any_plain_document_survives_toml(document: dict[str, object]) -> None:
    """What is written as TOML reads back as the same values, whatever the keys and texts."""
    assert tomllib.loads(toml_text(document)) == document


@given(st.sampled_from(KINDS), st.integers(1, 10_000))
def test_the_stand_in_for_a_type_always_fits(kind: object, width: int) -> None:
    """Rows of any width get a type whose blocks divide them, the one asked for if it does."""
    found = fitting(kind, width)
    assert width % found.block == 0
    if width % kind.block == 0:
        assert found == kind
