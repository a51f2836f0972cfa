"""Mixed precision and the search's predictions, on tiny models whose numbers are known."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from lichen.catalog.tensor_types import TensorType
from lichen.compression.allocation import Pricing, as_patterns, items, kinds_of, matched
from lichen.compression.applying import apply_recipe
from lichen.compression.candidates import Origin, Outlook, Structure
from lichen.compression.error_table import (
    ErrorCache,
    TensorErrors,
    TypeChoice,
    is_matrix,
    measure_errors,
    relative_error,
)
from lichen.compression.kept_blocks import KeptBlocks
from lichen.compression.kernel_cost import Workload, kernel_cost, tensor_cpu_s
from lichen.compression.knapsack import Frontier
from lichen.compression.method import Floats, MethodContext, Raw, predict
from lichen.compression.methods.mixed_precision import make, size_bytes
from lichen.compression.model_file import ModelFile, open_model, write_model
from lichen.compression.recipe import Recipe, RecipeStep, parse_recipe
from lichen.compression.shipped import shipped_names, shipped_recipe
from lichen.compression.types import row_bytes, type_named
from lichen.core.errors import ConfigError, LichenError, UnknownNameError
from lichen.testing.gguf_files import TinyModel

quants = pytest.importorskip("gguf.quants", reason="needs the extra [compress]")

TYPES = ("Q4_0", "Q5_0", "Q8_0")


@dataclass
class NumpyQuantiser:
    """Writes the simple types with numpy, and counts."""

    calls: list[str] = field(default_factory=list)

    def quantise(self, rows: Floats, kind: TensorType, weights: Floats | None = None) -> Raw:
        """Write blocks."""
        from gguf import GGMLQuantizationType

        self.calls.append(kind.name)
        found: Raw = quants.quantize(rows, GGMLQuantizationType[kind.name])
        return found


@dataclass
class Weights:
    """Importance by name."""

    weights: dict[str, Floats]


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    """Two layers of width 64 in F16, the output matrix stored twice."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(TinyModel(output_kind="F16").to_bytes())
    return open_model(path)


def context(notes: list[str] | None = None, **more: object) -> MethodContext:
    """A context with the numpy quantiser."""
    heard = notes if notes is not None else []
    values = {"quantiser": NumpyQuantiser(), "source": Path("tiny.gguf"), **more}
    return MethodContext(note=heard.append, **values)  # type: ignore[arg-type]


def matrices(model: ModelFile) -> list[str]:
    """Names of what may change."""
    return [t.name for t in model.tensors if is_matrix(t)]


@pytest.mark.parametrize("share", [0.35, 0.4, 0.6])
def test_the_file_keeps_its_size_limit(model: ModelFile, tmp_path: Path, share: float) -> None:
    """A size limit is met by the written file, and most of it is used."""
    limit = int(model.file_bytes * share)
    made = make({"size": str(limit), "types": list(TYPES)}).apply(model, context())
    write_model(made, tmp_path / "out.gguf")
    written = (tmp_path / "out.gguf").stat().st_size
    assert written <= limit
    assert written > 0.9 * min(limit, 0.54 * model.file_bytes)
    assert predict(made).file_bytes == written


def test_bits_are_a_mean_over_the_chosen(model: ModelFile) -> None:
    """``bits`` bounds the mean bits a weight of the groups that are chosen for; others stay."""
    made = make({"bits": 6.0, "types": list(TYPES), "groups": ["ffn_up", "ffn_down"]}).apply(
        model, context()
    )
    chosen = [t for t in made.tensors if "ffn_up" in t.name or "ffn_down" in t.name]
    bits = 8 * sum(t.size_bytes for t in chosen) / sum(t.elements for t in chosen)
    assert bits <= 6.0
    assert {t.type.name for t in chosen} <= set(TYPES)
    assert made.tensor("blk.0.attn_q.weight").type.name == "F16"


def test_a_cost_limit_prefers_fast_types(model: ModelFile) -> None:
    """Charged for CPU time, the cheapest types win, not the smallest files."""
    made = make({"cost": 0.585, "types": ["Q4_0", "Q8_0", "MXFP4"]}).apply(model, context())
    kinds = {t.type.name for t in made.tensors if t.name.startswith("blk.0.ffn") and is_matrix(t)}
    assert kinds == {"Q4_0"}


def test_a_limit_that_nothing_meets_is_said(model: ModelFile) -> None:
    """Too small a size names what is needed."""
    with pytest.raises(ConfigError, match="nothing fits"):
        make({"size": "2kB", "types": ["Q4_0"]}).apply(model, context())


def test_assigned_types_are_taken_as_written(model: ModelFile) -> None:
    """``assign`` searches nothing: patterns and names get their types, others stay."""
    quantiser = NumpyQuantiser()
    made = make({"assign": {"Q4_0": ["blk.*.ffn_up.weight"], "Q8_0": ["output.weight"]}}).apply(
        model, context(quantiser=quantiser)
    )
    assert quantiser.calls == []
    assert {made.tensor(f"blk.{i}.ffn_up.weight").type.name for i in (0, 1)} == {"Q4_0"}
    assert made.tensor("output.weight").type.name == "Q8_0"
    assert made.tensor("blk.0.ffn_down.weight").type.name == "F16"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "exactly one of"),
        ({"bits": 4, "size": "1MB"}, "size and bits"),
        ({"bits": -1}, "above 0"),
        ({"cost": 1.5}, "share of the present"),
        ({"size": "huge"}, "no size above 0"),
        ({"bits": 4, "sample_rows": 0}, "at least 1"),
        ({"bits": 4, "sensitivity": {"ffn_up": 0}}, "number above 0"),
        ({"assign": {"Q4_0": "all"}}, "list of tensor names"),
        ({"bits": 4, "types": ["Q9_0"]}, "no tensor type"),
        ({"bitz": 4}, "did you mean 'bits'"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, object], why: str) -> None:
    """Each mistake is one sentence, before anything is read."""
    with pytest.raises(LichenError, match=why):
        make(options)


@pytest.mark.parametrize(
    ("text", "size"), [("300MB", 300_000_000), ("1.5 GB", 1_500_000_000), ("7", 7)]
)
def test_sizes_are_decimal(text: str, size: int) -> None:
    """Sizes are read as files are sold."""
    assert size_bytes(text) == size


def test_patterns_come_back_as_they_went(model: ModelFile) -> None:
    """Whole groups become one pattern, single tensors their names; reading gives the same."""
    names = [t.name for t in model.tensors]
    kinds = {
        "blk.0.ffn_up.weight": "Q4_0",
        "blk.1.ffn_up.weight": "Q4_0",
        "blk.1.ffn_down.weight": "Q8_0",
        "output.weight": "Q8_0",
    }
    written = as_patterns(kinds, names)
    assert written["Q4_0"] == ["blk.*.ffn_up.weight"]
    assert matched(written, names) == kinds
    recipe = Recipe(steps=(RecipeStep("mixed_precision", {"assign": written}),))
    assert parse_recipe(recipe.to_toml()) == recipe


def test_contradicting_or_idle_patterns_are_refused(model: ModelFile) -> None:
    """A tensor that two types claim, or a name that fits nothing, is a mistake in the recipe."""
    names = [t.name for t in model.tensors]
    with pytest.raises(ConfigError, match="both as"):
        matched({"Q4_0": ["blk.*.ffn_up.weight"], "Q8_0": ["blk.0.ffn_up.weight"]}, names)
    with pytest.raises(ConfigError, match="no tensor is called"):
        matched({"Q4_0": ["blk.7.ffn_up.weight"]}, names)


def test_errors_fall_with_bits_and_follow_importance() -> None:
    """More bits lose less, and a channel that matters not costs nothing."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((32, 64)).astype(np.float32)
    quantiser = NumpyQuantiser()
    errors = [relative_error(rows, type_named(k), None, quantiser) for k in TYPES]
    assert errors == sorted(errors, reverse=True)
    assert 0.004 < errors[0] < 0.02
    blind = np.zeros(64, np.float32)
    blind[0] = 1.0
    exact = rows.copy()
    exact[:, 1:] = 0.0
    exact[:, 0] = 8.0
    assert relative_error(exact, type_named("Q8_0"), blind, quantiser) < 1e-6
    assert relative_error(np.zeros((4, 64), np.float32), type_named("Q4_0"), None, quantiser) == 0


def test_the_table_is_kept_by_content(model: ModelFile, tmp_path: Path) -> None:
    """A second table computes nothing; other importance is another entry; a torn file is none."""
    tensors = [t for t in model.tensors if is_matrix(t)]
    kinds = [type_named(k) for k in TYPES]
    path = tmp_path / "cache" / "errors.json"
    quantiser = NumpyQuantiser()
    first = measure_errors(tensors, kinds, quantiser=quantiser, cache=ErrorCache(path))
    computed = len(quantiser.calls)
    assert computed == 3 * (len(tensors) - 1)  # the output is a copy of the embedding
    assert measure_errors(tensors, kinds, quantiser=quantiser, cache=ErrorCache(path)) == first
    assert len(quantiser.calls) == computed
    weights = Weights({"blk.0.ffn_up.weight": np.arange(64, dtype=np.float32)})
    again = measure_errors(
        tensors, kinds, quantiser=quantiser, importance=weights, cache=ErrorCache(path)
    )
    assert len(quantiser.calls) == computed + 3
    assert sum(t.weighted for t in again) == 1
    path.write_text("{", "utf-8")
    assert measure_errors(tensors, kinds, quantiser=quantiser, cache=ErrorCache(path)) == first


def test_types_that_rows_do_not_fit_are_no_choice(model: ModelFile) -> None:
    """Rows of 64 cannot be stored in blocks of 256."""
    (row,) = measure_errors(
        [model.tensor("blk.0.ffn_up.weight")],
        [type_named("Q4_K"), type_named("Q4_0")],
        quantiser=NumpyQuantiser(),
    )
    assert [c.kind for c in row.choices] == ["F16", "Q4_0"]
    assert row.choices[0].error == 0


def table(*errors: float) -> tuple[TensorErrors, ...]:
    """One tensor per error, with a plain and a four-bit choice."""
    return tuple(
        TensorErrors(
            name=f"blk.{i}.ffn_up.weight",
            weights=3200,
            sampled_rows=1,
            weighted=False,
            choices=(
                TypeChoice(kind="Q8_0", size_bytes=3400, error=0.0),
                TypeChoice(kind="Q4_0", size_bytes=1800, error=e),
            ),
        )
        for i, e in enumerate(errors)
    )


def test_sensitive_tensors_keep_their_bits() -> None:
    """Under a limit, the tensors that lose most stay; a group's sensitivity scales its errors."""
    found = Frontier(items(table(0.01, 0.03, 0.02), Pricing())).within(3400 + 2 * 1800)
    assert kinds_of(table(0.01, 0.03, 0.02), found) == {
        "blk.0.ffn_up.weight": "Q4_0",
        "blk.2.ffn_up.weight": "Q4_0",
    }
    scaled = items(table(0.01), Pricing(sensitivity={"ffn_up": 5.0}))
    assert scaled[0][1].error == pytest.approx(0.05)
    shares = items(table(0.01, 0.02), Pricing(cpu_share=0.5))
    assert sum(options[0].price for options in shares) == pytest.approx(1.0)


def test_costs_follow_the_role_and_the_cpu() -> None:
    """An embedding that is only looked up is free; without fast kernels four bits count as plain."""
    load = Workload(prompt=100, completion=10)
    fast = kernel_cost("Q4_0")
    assert tensor_cpu_s(fast, 1000, "token_embd.weight", tied=False, load=load) == 0
    head = tensor_cpu_s(fast, 1000, "token_embd.weight", tied=True, load=load)
    layer = tensor_cpu_s(fast, 1000, "blk.0.ffn_up.weight", tied=True, load=load)
    assert 0 < head < layer
    assert kernel_cost("Q4_0", frozenset()).decode_ns > fast.decode_ns
    assert kernel_cost("IQ2_XXS").decode_ns > kernel_cost("Q5_0").decode_ns


def outlook(model: ModelFile, notes: list[str], *structures: Structure) -> Outlook:
    """An outlook over some structures."""
    return Outlook(
        model=model, context=context(notes), structures=structures, types=TYPES, points=4
    )


def test_predictions_are_what_is_written(model: ModelFile, tmp_path: Path) -> None:
    """Every candidate's recipe can be applied, and gives the predicted size."""
    notes: list[str] = []
    seen = outlook(
        model,
        notes,
        Structure(label="as it is"),
        Structure(label="retied", before=(RecipeStep("retie"),)),
        Structure(
            label="shorter",
            before=(RecipeStep("retie"),),
            after=(RecipeStep("drop_layers", {"layers": [1]}),),
        ),
    )
    found = list(seen.predicted())
    assert {c.label.split(",")[0] for c in found} == {"as it is", "retied", "shorter"}
    for c in found:
        made = apply_recipe(model, c.recipe, context())
        write_model(made, tmp_path / "out.gguf")
        size = (tmp_path / "out.gguf").stat().st_size
        assert size == pytest.approx(c.predicted.file_bytes, rel=0.01)
        retyped = any(step.method == "mixed_precision" for step in c.recipe.steps)
        assert ("lichen.engine.mmap" in made.metadata) == retyped
    shorter = [c.predicted.error for c in found if c.label.startswith("shorter")]
    assert min(shorter) >= 7.0
    assert seen.parent().error == 0


def test_a_structure_that_is_refused_is_noted(tmp_path: Path) -> None:
    """An output matrix of its own is not tied: that structure is left out with the reason."""
    path = tmp_path / "own.gguf"
    path.write_bytes(TinyModel(output_kind="F16", copied_output=False).to_bytes())
    notes: list[str] = []
    seen = outlook(
        open_model(path),
        notes,
        Structure(label="as it is"),
        Structure(label="retied", before=(RecipeStep("retie"),)),
    )
    assert {c.label.split(",")[0] for c in seen.predicted()} == {"as it is"}
    assert any("retied: not tried" in n for n in notes)


def test_random_recipes_are_drawn_by_seed(model: ModelFile) -> None:
    """The baseline's recipes are one type per group, and the same for the same seed."""
    seen = outlook(model, [], Structure(label="as it is"))
    first = list(seen.random(3, random.Random(1)))
    assert first == list(seen.random(3, random.Random(1)))
    assert {c.origin for c in first} == {Origin.RANDOM}
    for c in first:
        made = apply_recipe(model, c.recipe, context())
        assert made.tensor("blk.0.ffn_up.weight").type == made.tensor("blk.1.ffn_up.weight").type


def test_kept_blocks_are_computed_once(tmp_path: Path) -> None:
    """The same numbers come from the folder; other importance and torn files do not."""
    rows = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    kind, inner = type_named("Q8_0"), NumpyQuantiser()
    kept = KeptBlocks(inner, tmp_path / "blocks", least=0)
    first = kept.quantise(rows, kind)
    assert (kept.quantise(rows, kind) == first).all()
    assert len(inner.calls) == 1
    kept.quantise(rows, kind, np.ones(64, np.float32))
    assert len(inner.calls) == 2
    for file in (tmp_path / "blocks").iterdir():
        file.write_bytes(b"torn")
    assert (kept.quantise(rows, kind) == first).all()
    assert first.shape == (8, row_bytes(64, kind))


def test_shipped_recipes_are_usable() -> None:
    """Every recipe that comes with lichen parses, its methods and options exist."""
    from lichen.compression.applying import methods_of

    assert {"fast", "small", "smallest"} <= set(shipped_names())
    for name in shipped_names():
        recipe = shipped_recipe(name)
        assert recipe.name == name
        assert recipe.description
        assert methods_of(recipe)
    with pytest.raises(UnknownNameError, match="did you mean 'fast'"):
        shipped_recipe("fst")
