"""Compensated quantisation: codes, moments, the errors it removes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lichen.compression.applying import apply_recipe, compress_file
from lichen.compression.block_codes import CODED
from lichen.compression.compensation import Compensator, compensated, factor_of
from lichen.compression.corpus import Corpus, Document
from lichen.compression.kept_blocks import KeptRows
from lichen.compression.method import MethodContext
from lichen.compression.model_file import open_model
from lichen.compression.recipe import Recipe, RecipeStep
from lichen.compression.types import dequantised, type_named
from lichen.core.errors import ConfigError
from lichen.engines.llama_cpp.native.moments import cut, measure_moments
from lichen.engines.llama_cpp.native.quantise import Quantiser

TOKENS = list(range(40, 240)) * 2
TYPES = sorted(CODED)
STEP = {"types": {"layers": "IQ4_NL"}, "compensate": True}


@pytest.fixture
def corpus() -> Corpus:
    """Texts that the tiny model can read."""
    texts = [f"def f{i}(x):\n    return x + {i}\n" * 20 for i in range(8)]
    return Corpus(
        calibration=tuple(Document(f"{i}.py", t) for i, t in enumerate(texts)),
        held_out=(),
    )


def correlated(rng: np.random.Generator, width: int) -> np.ndarray:
    """Return second moments of inputs that follow a few common causes, as activations do."""
    causes = rng.standard_normal((8, width)) * rng.gamma(1.0, 2.0, width)
    inputs = rng.standard_normal((4 * width, 8)) @ causes
    inputs += 0.3 * rng.standard_normal(inputs.shape)
    return (inputs.T @ inputs / len(inputs)).astype(np.float32)


def output_error(rows: np.ndarray, raw: np.ndarray, kind: str, moment: np.ndarray) -> float:
    """Return the mean square error of what the matrix computes."""
    lost = dequantised(raw, type_named(kind)).astype(np.float64) - rows
    return float(np.einsum("ij,jk,ik->", lost, moment.astype(np.float64), lost, optimize=True))


@pytest.mark.parametrize("name", TYPES)
def test_codes_stand_for_what_an_independent_reader_reads(name: str) -> None:
    """Any codes under the quantiser's scales come back as the numbers promised."""
    rng, kind = np.random.default_rng(1), type_named(name)
    rows = rng.standard_normal((50, kind.block)).astype(np.float32) * 3 + 0.5
    stored = Quantiser().quantise(rows, kind)
    steps = CODED[name].steps(stored)
    codes = rng.integers(0, len(CODED[name].levels), rows.shape).astype(np.uint8)
    sub = np.arange(kind.block) // 32
    promised = steps.offset[:, sub] + steps.scale[:, sub] * steps.levels[codes]
    found = dequantised(CODED[name].with_codes(stored, codes), kind)
    assert np.allclose(found, promised, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TYPES)
def test_the_nearest_code_is_the_nearest(name: str) -> None:
    """No other code of the block stands for a nearer number; a block of zeros stays zero."""
    rng, kind = np.random.default_rng(2), type_named(name)
    rows = rng.standard_normal((20, kind.block)).astype(np.float32)
    rows[3] = 0.0
    steps = CODED[name].steps(Quantiser().quantise(rows, kind))
    for column in (0, kind.block - 1):
        _, values = steps.nearest(rows[:, column], column)
        sub = column // 32
        every = steps.offset[:, sub, None] + steps.scale[:, sub, None] * steps.levels
        best = np.abs(every - rows[:, column, None]).min(axis=1)
        assert np.allclose(np.abs(values - rows[:, column]), best, atol=1e-6)
        assert values[3] == 0.0


@pytest.mark.parametrize("name", TYPES)
def test_errors_are_made_up_for(name: str) -> None:
    """With correlated inputs the output's error falls to a fraction; without it does not grow."""
    rng, kind = np.random.default_rng(3), type_named(name)
    rows = rng.standard_normal((64, 512)).astype(np.float32)
    moment = correlated(rng, 512)
    plain = Quantiser().quantise(rows, kind, np.diagonal(moment).copy())
    better = compensated(rows, kind, (factor_of(moment),), Quantiser())
    assert output_error(rows, better, name, moment) < 0.5 * output_error(rows, plain, name, moment)
    alone = np.eye(512, dtype=np.float32)
    plain = Quantiser().quantise(rows, kind, np.ones(512, np.float32))
    same = compensated(rows, kind, (factor_of(alone),), Quantiser())
    assert output_error(rows, same, name, alone) < 1.01 * output_error(rows, plain, name, alone)


def test_spans_are_stored_each_for_itself() -> None:
    """A matrix wider than a span is the spans' matrices side by side, and chunks change nothing."""
    rng, kind = np.random.default_rng(4), type_named("IQ4_NL")
    rows = rng.standard_normal((40, 768)).astype(np.float32)
    first, second = correlated(rng, 512), correlated(rng, 256)
    factors = (factor_of(first), factor_of(second, start=512))
    whole = compensated(rows, kind, factors, Quantiser())
    left = compensated(rows[:, :512], kind, factors[:1], Quantiser())
    right = compensated(rows[:, 512:], kind, (factor_of(second),), Quantiser())
    assert (whole == np.concatenate([left, right], axis=1)).all()
    parts = [compensated(part, kind, factors, Quantiser()) for part in (rows[:13], rows[13:])]
    exact = [dequantised(raw, kind) for raw in (whole, np.concatenate(parts))]
    # A product of fewer rows may be rounded otherwise, which moves a code at a tie.
    assert (exact[0] == exact[1]).mean() > 0.99


@pytest.mark.parametrize(
    ("width", "span", "expected"),
    [
        (896, 4864, [(0, 896)]),
        (4864, 4864, [(0, 4864)]),
        (8960, 4864, [(0, 4608), (4608, 8960)]),
        (1536, 256, [(at, at + 256) for at in range(0, 1536, 256)]),
        (100, 1, [(0, 100)]),
    ],
)
def test_wide_inputs_are_cut_at_block_borders(
    width: int, span: int, expected: list[tuple[int, int]]
) -> None:
    """Spans cover every channel once and start at multiples of the largest block."""
    assert cut(width, span) == expected


def test_singular_moments_are_damped_and_damaged_ones_refused() -> None:
    """Channels that never vary do not stop it; numbers that are no moments do."""
    moment = np.zeros((64, 64), np.float32)
    moment[0, 0] = 1.0
    assert np.isfinite(factor_of(moment).upper).all()
    for bad in (np.zeros((64, 64)), np.full((64, 64), np.nan)):
        with pytest.raises(ConfigError, match="damaged"):
            factor_of(bad.astype(np.float32))


def test_moments_are_those_of_the_normalised_embeddings(tiny: Path, tmp_path: Path) -> None:
    """The first layer's moments follow from the file's numbers; matrices share their input's."""
    tokens = TOKENS[:100]
    seen = measure_moments(tiny, [tokens[:60], tokens[60:]], tmp_path, span=512)
    rows = open_model(tiny).tensor("token_embd.weight")
    embedded = rows.floats(0, rows.rows)[tokens].astype(np.float64)
    normal = embedded / np.sqrt(np.square(embedded).mean(axis=1, keepdims=True) + 1e-5)
    names = {seen.inputs[f"blk.0.attn_{part}.weight"] for part in "qkv"}
    assert len(names) == 1
    assert seen.inputs["blk.0.ffn_gate.weight"] == seen.inputs["blk.0.ffn_up.weight"]
    assert "token_embd.weight" not in seen.inputs
    (span,) = seen.spans[names.pop()]
    expected = normal.T @ normal
    assert np.allclose(span.matrix(), expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())
    assert seen.tokens == 100


def context(tiny: Path, corpus: Corpus) -> MethodContext:
    """Return a context that can compensate."""
    quantiser = Quantiser()
    compensator = Compensator(source=tiny, texts=lambda: corpus, quantiser=quantiser, tokens=600)
    return MethodContext(quantiser=quantiser, source=tiny, compensator=compensator)


def test_a_recipe_with_compensation_is_replayed_bit_for_bit(
    tiny: Path, corpus: Corpus, tmp_path: Path
) -> None:
    """The same recipe gives the same file, another one than without compensation."""
    recipe = Recipe(steps=(RecipeStep("requantise", STEP),))
    made = [
        compress_file(tiny, recipe, tmp_path / f"{i}.gguf", context(tiny, corpus)).sha256
        for i in range(2)
    ]
    assert made[0] == made[1]
    plain = Recipe(steps=(RecipeStep("requantise", {"types": {"layers": "IQ4_NL"}}),))
    other = compress_file(tiny, plain, tmp_path / "plain.gguf", context(tiny, corpus))
    assert other.sha256 != made[0]


def test_nothing_is_read_before_weights_are(tiny: Path, corpus: Corpus) -> None:
    """A dry run does not let the model read texts."""

    def texts() -> Corpus:
        raise AssertionError

    compensator = Compensator(source=tiny, texts=texts, quantiser=Quantiser())
    with_texts = MethodContext(quantiser=Quantiser(), source=tiny, compensator=compensator)
    model = apply_recipe(
        open_model(tiny), Recipe(steps=(RecipeStep("requantise", STEP),)), with_texts
    )
    assert model.tensor("blk.0.ffn_up.weight").type.name == "IQ4_NL"
    with pytest.raises(AssertionError):
        model.tensor("blk.0.ffn_up.weight").read(0, 4)


def test_without_texts_compensation_is_refused(tiny: Path, tmp_path: Path) -> None:
    """One sentence says what is missing."""
    alone = MethodContext(quantiser=Quantiser(), source=tiny)
    with pytest.raises(ConfigError, match="give a corpus"):
        compress_file(
            tiny, Recipe(steps=(RecipeStep("requantise", STEP),)), tmp_path / "x.gguf", alone
        )


def test_what_cannot_be_compensated_is_said(tiny: Path, corpus: Corpus, tmp_path: Path) -> None:
    """An embedding and types with unknown codes are stored as ever, and the user hears of it."""
    heard: list[str] = []
    options = {"types": {"layers": "IQ4_NL", "token_embd": "Q4_0"}, "compensate": True}
    listening = replace(context(tiny, corpus), note=heard.append)
    recipe = Recipe(steps=(RecipeStep("requantise", options),))
    compress_file(tiny, recipe, tmp_path / "x.gguf", listening)
    assert any("1 of" in note and "without compensation" in note for note in heard)


def test_kept_rows_are_computed_once(tiny: Path, tmp_path: Path) -> None:
    """A second candidate of a search takes the blocks of the first; another matrix does not."""
    calls: list[str] = []

    class Counting:
        def quantise(self, tensor, rows, kind, weights):
            calls.append(tensor.name)
            return Quantiser().quantise(rows, kind, weights)

    model = open_model(tiny)
    one, two = (model.tensor(f"blk.{i}.ffn_up.weight") for i in range(2))
    kept, kind = KeptRows(Counting(), tmp_path / "blocks"), type_named("IQ4_NL")
    rows = one.floats(0, 8)
    first = kept.quantise(one, rows, kind, None)
    assert (kept.quantise(one, rows, kind, None) == first).all()
    kept.quantise(two, rows, kind, None)
    assert calls == [one.name, two.name]
