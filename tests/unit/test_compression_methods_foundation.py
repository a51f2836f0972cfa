"""Retie, requantise and the key/value recommendation, on tiny whole models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lichen.catalog.lineage import REQUANTISED
from lichen.compression.method import Floats, MethodContext, predict
from lichen.compression.methods import METHODS
from lichen.compression.methods.requantise import Requantise, RequantiseOptions
from lichen.compression.model_file import ModelFile, open_model
from lichen.compression.retyping import layer_of, role_of
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.engines.llama_cpp.native.quantise import Quantiser
from lichen.testing.gguf_files import TinyModel

pytest.importorskip("gguf")


class Importance:
    """Importance weights as a plain mapping."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        self.weights = weights


class Notes(list[str]):
    """What the user heard, as one text."""

    def __str__(self) -> str:
        return "\n".join(self)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def context(notes: Notes, tmp_path: Path) -> MethodContext:
    return MethodContext(quantiser=Quantiser(workers=1), source=tmp_path / "x", note=notes.append)


def opened(tmp_path: Path, model: TinyModel) -> ModelFile:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(model.to_bytes())
    return open_model(path)


def apply(model: ModelFile, context: MethodContext, method: str, **options: object) -> ModelFile:
    return METHODS.get(method)(options).apply(model, context)


def types(model: ModelFile, part: str) -> set[str]:
    return {t.type.name for t in model.tensors if part in t.name}


# --- retie


def test_a_copied_output_is_dropped_and_the_better_copy_stays(
    tmp_path: Path, context: MethodContext, notes: Notes
) -> None:
    """The finer of two quantisations of one matrix becomes the embedding, byte for byte."""
    model = opened(tmp_path, TinyModel(embedding_kind="Q5_0", output_kind="Q8_0"))
    tied = apply(model, context, "retie")
    assert not tied.has("output.weight")
    kept = tied.tensor("token_embd.weight")
    assert kept.type.name == "Q8_0"
    assert (kept.read(0, 9) == model.tensor("output.weight").read(0, 9)).all()
    assert predict(tied).file_bytes < predict(model).file_bytes
    assert "cosine 0.99" in str(notes)
    assert "embedding (Q5_0) is dropped" in str(notes)


@pytest.mark.parametrize(("keep", "left"), [("embedding", "Q5_0"), ("output", "Q8_0")])
def test_which_copy_stays_can_be_chosen(
    tmp_path: Path, context: MethodContext, keep: str, left: str
) -> None:
    """Either copy can be kept, and importance weights still know it as the output."""
    model = opened(tmp_path, TinyModel(embedding_kind="Q5_0", output_kind="Q8_0"))
    kept = apply(model, context, "retie", keep=keep).tensor("token_embd.weight")
    assert (kept.type.name, kept.origin) == (left, "output.weight")


def test_an_output_of_its_own_is_never_dropped(tmp_path: Path, context: MethodContext) -> None:
    """Matrices that differ are refused with the numbers that say so."""
    model = opened(tmp_path, TinyModel(output_kind="F16", copied_output=False))
    with pytest.raises(ConfigError, match=r"not a copy of the embedding \(cosine .* at least 0.99"):
        apply(model, context, "retie")


def test_a_scaled_copy_is_another_matrix(tmp_path: Path, context: MethodContext) -> None:
    """Rows of the same direction but another length would change every logit."""
    model = opened(tmp_path, TinyModel(embedding_kind="F32", output_kind="F32"))
    output = model.tensor("output.weight")

    def doubled(start: int, stop: int) -> np.ndarray:
        return (2.0 * output.floats(start, stop)).astype("<f4").view(np.uint8)

    with pytest.raises(ConfigError, match=r"lengths 2.000 to 1"):
        apply(model.replaced(replace(output, read=doubled)), context, "retie")


def test_a_few_swapped_rows_are_reported_at_worst(
    tmp_path: Path, context: MethodContext, notes: Notes
) -> None:
    """The worst row is told beside the mean, and a sample looks at as many rows as asked."""
    model = opened(tmp_path, TinyModel(embedding_kind="F32", output_kind="F32"))
    output = model.tensor("output.weight")
    order = list(range(output.rows))
    order[10], order[11] = 11, 10
    apply(model.replaced(output.selected(order)), context, "retie", agree=0.9)
    assert "1.0000 at worst" not in str(notes)
    apply(model, context, "retie", sample=7)
    assert "1.0000 at worst over 7 rows" in notes[-1]


def test_a_tied_model_is_left_alone(tmp_path: Path, context: MethodContext, notes: Notes) -> None:
    """Nothing happens, and it is said, where there is no output matrix."""
    model = opened(tmp_path, TinyModel())
    assert apply(model, context, "retie") is model
    assert "tied to the embedding already" in str(notes)


# --- requantise


def test_groups_get_their_types_and_the_most_exact_statement_wins(
    tmp_path: Path, context: MethodContext
) -> None:
    """Tensor before layer rule before role before family; norms keep full precision."""
    model = opened(tmp_path, TinyModel(layers=3, output_kind="F16"))
    made = apply(
        model,
        context,
        "requantise",
        types={"layers": "Q4_0", "attn": "Q5_0", "attn_v": "q8_0", "output": "Q5_1"},
        rules=[{"layers": "0, 2", "types": {"ffn_down": "IQ4_NL"}}],
        tensors={"blk.1.attn_q.weight": "Q4_1"},
    )
    assert types(made, "norm") == {"F32"}
    assert types(made, "token_embd") == {"F16"}
    assert types(made, "ffn_up") == {"Q4_0"}
    assert types(made, "attn_k") == {"Q5_0"}
    assert types(made, "attn_v") == {"Q8_0"}
    assert types(made, "output.weight") == {"Q5_1", "Q5_0"}
    assert [made.tensor(f"blk.{i}.ffn_down.weight").type.name for i in range(3)] == [
        "IQ4_NL",
        "Q4_0",
        "IQ4_NL",
    ]
    assert made.tensor("blk.1.attn_q.weight").type.name == "Q4_1"


def test_keep_leaves_weights_as_they_are(tmp_path: Path, context: MethodContext) -> None:
    """``keep`` exempts a role from what its family gets."""
    made = apply(
        opened(tmp_path, TinyModel()),
        context,
        "requantise",
        types={"layers": "Q4_0", "attn_v": "keep"},
    )
    assert types(made, "attn_v") == {"F16"}
    assert types(made, "attn_q") == {"Q4_0"}


def test_types_that_do_not_fit_are_replaced_and_told(
    tmp_path: Path, context: MethodContext, notes: Notes
) -> None:
    """Rows of 64 cannot be 256-wide blocks: the stand-in is used and named, per group of rows."""
    made = apply(opened(tmp_path, TinyModel()), context, "requantise", types={"ffn": "Q6_K"})
    assert types(made, "ffn_down") == {"Q8_0"}
    assert "4 tensors with rows of 64 cannot be Q6_K" in str(notes)
    assert "2 tensors with rows of 128 cannot be Q6_K" in str(notes)


def test_what_is_quantised_twice_is_marked(tmp_path: Path, context: MethodContext) -> None:
    """Re-quantising leaves a mark in the metadata; quantising full precision leaves none."""
    first = apply(
        opened(tmp_path, TinyModel(kind="Q8_0")), context, "requantise", types={"ffn": "Q4_0"}
    )
    assert first.value(REQUANTISED) == ["Q8_0 to Q4_0: 6 tensors"]
    second = apply(first, context, "requantise", types={"ffn_up": "IQ4_NL"})
    assert second.value(REQUANTISED) == ["Q8_0 to Q4_0: 6 tensors", "Q4_0 to IQ4_NL: 2 tensors"]
    fresh = apply(opened(tmp_path, TinyModel()), context, "requantise", types={"ffn": "Q4_0"})
    assert fresh.value(REQUANTISED) is None
    assert fresh.value("general.quantization_version") == 2


def test_nothing_to_change_changes_nothing(tmp_path: Path, context: MethodContext) -> None:
    """Asking for the types that are there gives the same model."""
    model = opened(tmp_path, TinyModel(kind="Q4_0"))
    assert apply(model, context, "requantise", types={"layers": "Q4_0"}) is model


def test_importance_reaches_the_tensors_it_was_measured_on(
    tmp_path: Path, context: MethodContext, notes: Notes
) -> None:
    """Weights are found by the source's names, for the channels that are left; gaps are told."""
    model = opened(tmp_path, TinyModel())
    heavy = np.where(np.arange(64) < 32, 1000.0, 0.001).astype(np.float32)
    weighed = replace(context, importance=Importance({"blk.0.attn_q.weight": heavy}))
    plain = apply(model, context, "requantise", types={"attn_q": "Q4_0"})
    with_weights = apply(model, weighed, "requantise", types={"attn_q": "Q4_0"})
    name = "blk.0.attn_q.weight"
    assert (with_weights.tensor(name).read(0, 8) != plain.tensor(name).read(0, 8)).any()
    assert "blk.1.attn_q.weight" in str(notes)
    moved = replace(
        model.tensor("blk.1.attn_q.weight"),
        origin=name,
        channels=np.arange(63, -1, -1),
        read=model.tensor(name).read,
    )
    turned = apply(model.replaced(moved), weighed, "requantise", types={"attn_q": "Q4_0"})
    expected = Quantiser().quantise(
        model.tensor(name).floats(0, 8), turned.tensor(moved.name).type, heavy[::-1].copy()
    )
    assert (turned.tensor(moved.name).read(0, 8) == expected).all()
    ignored = apply(model, weighed, "requantise", types={"attn_q": "Q4_0"}, importance="ignore")
    assert (ignored.tensor(name).read(0, 8) == plain.tensor(name).read(0, 8)).all()


def test_importance_of_another_model_is_refused(tmp_path: Path, context: MethodContext) -> None:
    """Weights of another width, or required ones that are lacking, stop the step."""
    model = opened(tmp_path, TinyModel())
    wrong = Importance({"blk.0.attn_q.weight": np.ones(3, np.float32)})
    with pytest.raises(ConfigError, match="come from another model"):
        apply(model, replace(context, importance=wrong), "requantise", types={"attn": "Q4_0"})
    with pytest.raises(ConfigError, match="needs importance weights"):
        apply(model, context, "requantise", types={"attn": "Q4_0"}, importance="require")


def test_types_without_a_fast_kernel_are_told(
    tmp_path: Path, context: MethodContext, notes: Notes
) -> None:
    """On a CPU with AVX2, Q5_0 is said to be slow and Q4_0 is not; an unknown CPU says nothing."""
    model = opened(tmp_path, TinyModel())
    options = RequantiseOptions(types={"ffn": "Q5_0", "attn": "Q4_0"})
    Requantise(options=options, features=lambda: frozenset({"avx2"})).apply(model, context)
    assert str(notes).count("no fast kernel") == 1
    assert "Q5_0 (6)" in str(notes)
    assert "Q4_0 (" not in str(notes)
    notes.clear()
    Requantise(options=options, features=frozenset).apply(model, context)
    assert str(notes) == ""


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({}, ConfigError, "nothing to store"),
        ({"types": {"ffn_dwn": "Q4_0"}}, UnknownNameError, "did you mean 'ffn_down'"),
        ({"types": {"ffn": "Q4_L"}}, UnknownNameError, "tensor type"),
        ({"types": {"ffn": "Q8_K"}}, ConfigError, "no type for weights"),
        ({"types": {"ffn": 4}}, ConfigError, "a text such as"),
        ({"types": {"ffn": "Q4_0"}, "importance": "maybe"}, ConfigError, "'require'"),
        ({"rules": [{"layers": "3-1", "types": {"ffn": "Q4_0"}}]}, ConfigError, "'0-3, 20'"),
        ({"rules": [{"layers": "all", "types": {"ffn": "Q4_0"}}]}, ConfigError, "'0-3, 20'"),
        ({"typs": {}}, UnknownNameError, "did you mean 'types'"),
    ],
)
def test_options_that_mean_nothing_are_one_sentence(
    options: dict[str, object], kind: type[Exception], said: str
) -> None:
    """Every mistake in a step is named before any model is opened."""
    with pytest.raises(kind, match=said):
        METHODS.get("requantise")(options)


def test_a_group_or_tensor_that_is_not_there_is_refused(
    tmp_path: Path, context: MethodContext
) -> None:
    """A type that would silently reach nothing is an error."""
    model = opened(tmp_path, TinyModel())
    with pytest.raises(ConfigError, match="no ffn_up_exps"):
        apply(model, context, "requantise", types={"ffn_up_exps": "Q4_0"})
    with pytest.raises(ConfigError, match=r"no tensor 'blk\.9"):
        apply(model, context, "requantise", tensors={"blk.9.attn_q.weight": "Q4_0"})
    with pytest.raises(ConfigError, match="is not a weight matrix"):
        apply(model, context, "requantise", tensors={"output_norm.weight": "Q4_0"})


def test_roles_and_layers_are_read_from_names() -> None:
    """Only known weight matrices have a role; hostile names have none."""
    assert role_of("blk.12.ffn_down.weight") == "ffn_down"
    assert role_of("token_embd.weight") == "token_embd"
    assert role_of("blk.0.attn_norm.weight") == ""
    assert role_of("blk.0.ffn_gate_inp.weight") == ""
    assert role_of("blk.0.attn_q.bias") == ""
    assert layer_of("blk.12.ffn_down.weight") == 12
    assert layer_of("output.weight") is None


# --- kv_cache


def test_cache_types_travel_in_the_metadata(
    tmp_path: Path, context: MethodContext, notes: Notes
) -> None:
    """The recommendation is engine options, with what quantised values need; weights stay."""
    model = opened(tmp_path, TinyModel())
    made = apply(model, context, "kv_cache")
    assert made.value("lichen.engine.cache_type_k") == "q8_0"
    assert made.value("lichen.engine.flash_attention") == "on"
    assert made.tensors == model.tensors
    assert str(notes) == ""
    apply(model, context, "kv_cache", keys="q4_0", values="f16")
    assert "below 8 bits" in str(notes)
    with pytest.raises(ConfigError, match="one of f32"):
        apply(model, context, "kv_cache", keys="q9")
