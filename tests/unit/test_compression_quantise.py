"""The quantiser: llama.cpp's kernels by ctypes, held against an independent reader."""

from __future__ import annotations

import numpy as np
import pytest

from lichen.catalog.tensor_types import TENSOR_TYPES
from lichen.compression.types import dequantised, row_bytes, type_named
from lichen.core.errors import ConfigError, EngineError
from lichen.engines.llama_cpp.native import quantise as module
from lichen.engines.llama_cpp.native.quantise import WRITABLE, Quantiser

pytest.importorskip("gguf")

SLOW_TABLES = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"}
"""Types whose search tables llama.cpp builds at first use, for seconds to half a minute."""
ROWS = np.random.default_rng(7).standard_normal((33, 512)).astype(np.float32)


def error(kind: str, weights: np.ndarray | None = None) -> np.ndarray:
    """Squared error by channel."""
    raw = Quantiser().quantise(ROWS, type_named(kind), weights)
    return np.square(dequantised(raw, type_named(kind)) - ROWS).mean(axis=0)


@pytest.fixture(autouse=True)
def _engine() -> None:
    pytest.importorskip("xllamacpp")


@pytest.mark.parametrize("name", [n for n in WRITABLE if n not in SLOW_TABLES])
def test_every_type_is_written_close_to_its_numbers(name: str) -> None:
    """What is written has the size of the type and reads back close, without and with weights."""
    kind = type_named(name)
    raw = Quantiser().quantise(ROWS, kind)
    assert raw.shape == (33, row_bytes(512, kind))
    assert error(name).mean() < 0.65
    assert error(name, np.ones(512, np.float32)).mean() < 0.65


def test_rows_do_not_depend_on_their_neighbours_or_on_threads() -> None:
    """Any cut into blocks and any number of threads gives the same bytes."""
    kind = type_named("Q4_K")
    rows = np.tile(ROWS, (8, 1))
    whole = Quantiser(workers=1).quantise(rows, kind)
    assert (Quantiser(workers=3).quantise(rows, kind) == whole).all()
    assert (Quantiser(workers=1).quantise(rows[5:6], kind) == whole[5:6]).all()


def test_important_channels_lose_less() -> None:
    """Weights move the error away from the channels that matter."""
    weights = np.where(np.arange(512) % 4 == 0, 100.0, 1.0).astype(np.float32)
    plain, weighed = error("Q4_0"), error("Q4_0", weights)
    assert weighed[::4].mean() < 0.9 * plain[::4].mean()


@pytest.mark.parametrize("name", ["Q4_0", "IQ4_NL", "Q4_K", "Q2_K"])
def test_channels_that_never_fired_still_have_a_scale(name: str) -> None:
    """Blocks whose channels all weigh nothing come back as numbers close to what they were."""
    weights = np.zeros(512, np.float32)
    weights[:32] = 1.0
    found = error(name, weights)
    assert np.isfinite(found).all()
    assert found[256:].mean() < 0.3
    assert np.isfinite(error(name, np.zeros(512, np.float32))).all()


@pytest.mark.parametrize(
    ("rows", "kind", "weights", "said"),
    [
        (ROWS[:, :48], "Q4_0", None, "blocks of 32"),
        (ROWS[:, :96], "Q4_K", None, "blocks of 256"),
        (np.full((1, 32), np.nan, np.float32), "Q4_0", None, "not finite"),
        (np.full((1, 32), np.inf, np.float32), "IQ4_NL", None, "not finite"),
        (np.full((1, 32), 1e6, np.float32), "F16", None, "too large for F16"),
        (ROWS, "Q4_0", np.ones(3, np.float32), "importance weights"),
        (ROWS, "Q4_0", -np.ones(512, np.float32), "importance weights"),
        (ROWS, "IQ2_XXS", None, "without importance weights"),
        (ROWS, "Q8_K", None, "no type for weights"),
        (ROWS, "I8", None, "no type for weights"),
        (ROWS[0], "Q4_0", None, "rows of numbers"),
    ],
)
def test_what_would_abort_the_process_is_refused(
    rows: np.ndarray, kind: str, weights: np.ndarray | None, said: str
) -> None:
    """Whatever llama.cpp would answer by ending the process is a sentence before it is called."""
    with pytest.raises(ConfigError, match=said):
        Quantiser().quantise(rows, type_named(kind), weights)


def test_no_rows_are_no_bytes() -> None:
    """An empty range of rows is written as an empty array of the right width."""
    assert Quantiser().quantise(ROWS[:0], type_named("Q4_0")).shape == (0, 288)


def test_without_the_symbol_numpy_writes_the_simple_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simple types are written all the same, the user is told once, others are refused by name."""

    def lacking(*functions: str, purpose: str) -> object:
        msg = "the installed xllamacpp does not export it"
        raise EngineError(msg)

    native = Quantiser().quantise(ROWS, type_named("Q8_0"))
    monkeypatch.setattr(module, "library", lacking)
    notes: list[str] = []
    quantiser = Quantiser(note=notes.append)
    assert (quantiser.quantise(ROWS, type_named("Q8_0")) == native).mean() > 0.99
    quantiser.quantise(ROWS, type_named("Q4_0"), np.ones(512, np.float32))
    assert len(notes) == 1
    assert "without importance weights" in notes[0]
    with pytest.raises(ConfigError, match=r"these can: .*Q4_0"):
        quantiser.quantise(ROWS, type_named("Q4_K"))


def test_an_engine_that_writes_something_else_fails_its_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bytes in another layout, as another version might write them, are caught at first use."""
    true_write = Quantiser._write

    def shuffled(self: Quantiser, *args: object) -> np.ndarray:
        return np.flip(true_write(self, *args), axis=1)

    monkeypatch.setattr(Quantiser, "_write", shuffled)
    with pytest.raises(EngineError, match="fails its test for Q4_0"):
        Quantiser().quantise(ROWS, type_named("Q4_0"))


def test_types_of_ggml_are_all_known_by_name() -> None:
    """Every type that can be written is in the table that reads files."""
    assert set(WRITABLE) <= {kind.name for kind in TENSOR_TYPES.values()}
