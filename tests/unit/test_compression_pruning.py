"""Dropping layers and narrowing feed-forward parts: what goes, what stays, what the engine says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lichen.compression.agreement import Comparing, measure_agreement
from lichen.compression.corpus import Corpus, Document
from lichen.compression.importance import Importance, Measuring, measure_importance
from lichen.compression.layer_curve import layer_curve
from lichen.compression.metadata import ARRAY, U32, MetaValue
from lichen.compression.method import MethodContext, predict
from lichen.compression.methods import METHODS
from lichen.compression.model_file import LazyTensor, ModelFile, open_model, write_model
from lichen.core.errors import ConfigError
from lichen.engines.llama_cpp.native.quantise import Quantiser
from lichen.testing.gguf_files import TinyModel

pytest.importorskip("gguf")

CODE = tuple(
    Document(f"m{i}.py", f"def f{i}(x):\n    return self.the({i})\n" * 12) for i in range(8)
)
LAYERS = 4
WIDE = 128


def opened(tmp_path: Path, **shape: object) -> tuple[ModelFile, Path]:
    path = tmp_path / "source.gguf"
    tiny = TinyModel(**{"layers": LAYERS, "feed_forward": WIDE, **shape})  # type: ignore[arg-type]
    path.write_bytes(tiny.to_bytes())
    return open_model(path), path


def context(path: Path, notes: list[str] | None = None, **more: object) -> MethodContext:
    heard = notes if notes is not None else []
    return MethodContext(quantiser=Quantiser(), source=path, note=heard.append, **more)  # type: ignore[arg-type]


def influence(*values: float) -> Importance:
    return Importance({}, {}, influence=values)


def numbers(tensor: LazyTensor) -> np.ndarray:
    return tensor.floats(0, tensor.rows)


def with_numbers(tensor: LazyTensor, values: np.ndarray) -> LazyTensor:
    """Return an F16 tensor with other numbers."""
    raw = values.astype(np.float16).view(np.uint8).reshape(len(values), -1)
    return replace(tensor, read=lambda start, stop: raw[start:stop])


def silenced(model: ModelFile, layer: int) -> ModelFile:
    """Return a model in which a layer adds nothing to what flows past it."""
    names = (f"blk.{layer}.attn_output.weight", f"blk.{layer}.ffn_down.weight")
    return model.replaced(*(with_numbers(t, 0 * numbers(t)) for t in map(model.tensor, names)))


def test_layers_are_dropped_and_the_others_renumbered(tmp_path: Path) -> None:
    """Tensors keep their bytes under new numbers and know their old names; the count follows."""
    model, path = opened(tmp_path)
    notes: list[str] = []
    child = METHODS.get("drop_layers")({"layers": [1]}).apply(model, context(path, notes))
    assert child.layers == child.value("llama.block_count") == LAYERS - 1
    for new, old in enumerate((0, 2, 3)):
        ours, theirs = (
            child.tensor(f"blk.{new}.attn_q.weight"),
            model.tensor(f"blk.{old}.attn_q.weight"),
        )
        assert (numbers(ours) == numbers(theirs)).all()
        assert (ours.origin or ours.name) == theirs.name
    assert len(child.tensors) == len(model.tensors) - 9
    assert notes == ["drop_layers: drops the layers 1 of 4"]
    assert predict(child).file_bytes < predict(model).file_bytes


def test_lists_with_one_entry_per_layer_follow(tmp_path: Path) -> None:
    """Per-layer metadata is cut like the layers; lists of other lengths are left alone."""
    model, path = opened(tmp_path)
    model = model.with_metadata(
        {
            "llama.attention.head_count_kv": MetaValue(ARRAY, U32, [2, 3, 4, 5]),
            "llama.rope.dimension_sections": MetaValue(ARRAY, U32, [1, 2, 3]),
            "general.tags": MetaValue.texts(["a", "b", "c", "d"]),
        }
    )
    child = METHODS.get("drop_layers")({"layers": [0, 2]}).apply(model, context(path))
    assert child.value("llama.attention.head_count_kv") == [3, 5]
    assert child.value("llama.rope.dimension_sections") == [1, 2, 3]
    assert child.value("general.tags") == ["a", "b", "c", "d"]


def test_layers_are_chosen_by_measured_influence(tmp_path: Path) -> None:
    """``count`` takes those that change the hidden state least."""
    model, path = opened(tmp_path)
    notes: list[str] = []
    world = context(path, notes, importance=influence(0.9, 0.1, 0.05, 0.7))
    METHODS.get("drop_layers")({"count": 2}).apply(model, world)
    assert notes == ["drop_layers: drops the layers 1, 2 of 4"]


@pytest.mark.parametrize(
    ("options", "known", "reason"),
    [
        ({"layers": [4]}, (), "layers 0 to 3"),
        ({"layers": [0, 1, 2, 3]}, (), "needs one"),
        ({"count": 1}, (), "needs importance"),
        ({"count": 1}, (0.1, 0.2), "measured on 2 layers, but here the model has 4"),
        ({"count": 4}, (0.1, 0.2, 0.3, 0.4), "at least one has to stay"),
    ],
)
def test_layers_that_cannot_go_are_refused(
    tmp_path: Path, options: dict[str, object], known: tuple[float, ...], reason: str
) -> None:
    """A wrong number, too many, or nothing to choose by gives one sentence."""
    model, path = opened(tmp_path)
    world = context(path, importance=influence(*known)) if known else context(path)
    with pytest.raises(ConfigError, match=reason):
        METHODS.get("drop_layers")(options).apply(model, world)


@pytest.mark.parametrize(
    "options", [{}, {"count": 1, "layers": [1]}, {"layers": [1, 1]}, {"count": -1}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    """Exactly one way of saying which layers go."""
    with pytest.raises(ConfigError, match="drop_layers"):
        METHODS.get("drop_layers")(options)


def test_layers_that_differ_by_number_are_refused(tmp_path: Path) -> None:
    """A model whose layers alternate by number would silently become another."""
    model, path = opened(tmp_path)
    model = model.with_metadata({"llama.attention.sliding_window_pattern": MetaValue.count(2)})
    with pytest.raises(ConfigError, match="differ by their number"):
        METHODS.get("drop_layers")({"layers": [1]}).apply(model, context(path))


def test_a_layer_that_adds_nothing_is_found_and_costs_nothing(tmp_path: Path) -> None:
    """Influence measured by the engine finds it; without it, the next token is the same."""
    pytest.importorskip("xllamacpp")
    model, _ = opened(tmp_path)
    parent, child = tmp_path / "parent.gguf", tmp_path / "child.gguf"
    write_model(silenced(model, 2), parent)
    corpus = Corpus(CODE, CODE)
    found = measure_importance(parent, corpus, Measuring(tokens=600))
    assert found.influence[2] == pytest.approx(0.0, abs=1e-5)
    assert min(found.influence[i] for i in (0, 1, 3)) > 0.01
    world = context(parent, importance=found)
    (free, dear) = layer_curve(
        world,
        found.influence,
        (1, 2),
        tmp_path,
        lambda a, b: measure_agreement(a, b, CODE, Comparing(tokens=400)),
    )
    assert free.dropped == (2,)
    assert free.agreement.kl_nats.value < 1e-5
    assert free.agreement.flips.value == 0
    assert dear.agreement.kl_nats.value > 0.01
    assert sorted(p.name for p in tmp_path.glob("*without*")) == []
    assert not child.exists()


def crippled(model: ModelFile) -> tuple[ModelFile, np.ndarray]:
    """Return a model in which a random half of the neurons say nothing, and which half speaks."""
    alive = np.sort(np.random.default_rng(5).permutation(WIDE)[: WIDE // 2])
    changed = []
    for layer in range(LAYERS):
        down = model.tensor(f"blk.{layer}.ffn_down.weight")
        values = numbers(down)
        values[:, np.setdiff1d(np.arange(WIDE), alive)] = 0
        changed.append(with_numbers(down, values))
    return model.replaced(*changed), alive


def flat(model: ModelFile) -> Importance:
    """Return importance that finds all channels alike."""
    matrices = [t for t in model.tensors if len(t.shape) == 2]
    return Importance(
        {t.name: np.ones(t.width, np.float32) for t in matrices}, {t.name: 1.0 for t in matrices}
    )


@pytest.mark.parametrize("options", [{"score": "weight"}, {}])
def test_neurons_that_say_nothing_go_first(tmp_path: Path, options: dict[str, object]) -> None:
    """Rows of gate and up and columns of down go together, and no number is changed."""
    model, path = opened(tmp_path)
    model, alive = crippled(model)
    world = context(path, importance=flat(model))
    child = METHODS.get("narrow_ffn")({"keep": 0.5, **options}).apply(model, world)
    assert child.value("llama.feed_forward_length") == WIDE // 2
    for layer in range(LAYERS):
        for part in ("gate", "up"):
            ours, theirs = (m.tensor(f"blk.{layer}.ffn_{part}.weight") for m in (child, model))
            assert (numbers(ours) == numbers(theirs)[alive]).all()
        ours, theirs = (m.tensor(f"blk.{layer}.ffn_down.weight") for m in (child, model))
        assert (numbers(ours) == numbers(theirs)[:, alive]).all()
        assert ours.channels is not None
        assert ours.channels.tolist() == alive.tolist()


def test_the_engine_runs_a_narrower_model_that_says_the_same(tmp_path: Path) -> None:
    """Without the neurons that say nothing, the next token is the same."""
    pytest.importorskip("xllamacpp")
    model, _ = opened(tmp_path)
    model, _ = crippled(model)
    parent, child = tmp_path / "parent.gguf", tmp_path / "child.gguf"
    write_model(model, parent)
    narrow = METHODS.get("narrow_ffn")({"keep": 0.5, "score": "weight"})
    write_model(narrow.apply(open_model(parent), context(parent)), child)
    found = measure_agreement(parent, child, CODE, Comparing(tokens=400))
    assert found.kl_nats.value < 1e-5
    assert found.flips.value == 0


def test_activations_alone_can_choose(tmp_path: Path) -> None:
    """Neurons that never fire go, however large their weights."""
    model, path = opened(tmp_path)
    flow = np.arange(WIDE, dtype=np.float32)[::-1].copy()
    names = [f"blk.{i}.ffn_down.weight" for i in range(LAYERS)]
    known = Importance(dict.fromkeys(names, flow), dict.fromkeys(names, 1.0))
    method = METHODS.get("narrow_ffn")({"keep": 0.25, "score": "activation"})
    child = method.apply(model, context(path, importance=known))
    kept = child.tensor(names[1]).channels
    assert kept is not None
    assert kept.tolist() == list(range(32))


def test_quantised_columns_are_stored_anew_and_rows_are_not(tmp_path: Path) -> None:
    """Gate and up keep their blocks bit for bit; down is close to its numbers, and the note says so."""
    model, path = opened(tmp_path, kind="Q8_0")
    notes: list[str] = []
    method = METHODS.get("narrow_ffn")({"keep": 0.5, "score": "weight"})
    child = method.apply(model, context(path, notes))
    up, down = child.tensor("blk.0.ffn_up.weight"), child.tensor("blk.0.ffn_down.weight")
    kept = down.channels
    assert kept is not None
    source = model.tensor("blk.0.ffn_up.weight")
    assert (up.read(0, up.rows) == source.read(0, source.rows)[kept]).all()
    wanted = numbers(model.tensor("blk.0.ffn_down.weight"))[:, kept]
    assert down.type.name == "Q8_0"
    assert np.abs(numbers(down) - wanted).max() < 0.01 * np.abs(wanted).max()
    assert "quantised again in 4 layers" in notes[0]


def test_whole_blocks_go_without_changing_a_weight(tmp_path: Path) -> None:
    """Picking blocks keeps down's stored bytes, block by block."""
    model, path = opened(tmp_path, kind="Q8_0")
    notes: list[str] = []
    method = METHODS.get("narrow_ffn")({"keep": 0.5, "score": "weight", "pick": "blocks"})
    child = method.apply(model, context(path, notes))
    down = child.tensor("blk.0.ffn_down.weight")
    kept = down.channels
    assert kept is not None
    assert (kept.reshape(-1, 32) == kept[::32, None] + np.arange(32)).all()
    assert (numbers(down) == numbers(model.tensor("blk.0.ffn_down.weight"))[:, kept]).all()
    assert "in 0 layers" in notes[0]


def test_down_can_be_stored_plainly_for_a_later_step(tmp_path: Path) -> None:
    """``down_type`` spares a second loss before requantising."""
    model, path = opened(tmp_path, kind="Q8_0")
    method = METHODS.get("narrow_ffn")({"keep": 0.5, "score": "weight", "down_type": "F16"})
    child = method.apply(model, context(path))
    down = child.tensor("blk.0.ffn_down.weight")
    wanted = numbers(model.tensor("blk.0.ffn_down.weight"))[:, down.channels]
    assert down.type.name == "F16"
    assert np.allclose(numbers(down), wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keep": 0.99, "score": "weight"}, "is all of them"),
        ({"keep": 0.5}, "needs importance"),
        ({"keep": 1.0}, "between 0 and 1"),
        ({"keep": 0.5, "pick": "rows"}, "pick one of"),
        ({"keep": 0.5, "pick": "blocks", "down_type": "F16"}, "goes with"),
        ({}, "needs the option 'keep'"),
    ],
)
def test_narrowing_that_cannot_be_done_is_refused(
    tmp_path: Path, options: dict[str, object], reason: str
) -> None:
    """What is asked for is impossible or unclear: one sentence, before anything is written."""
    model, path = opened(tmp_path)
    with pytest.raises(ConfigError, match=reason):
        METHODS.get("narrow_ffn")(options).apply(model, context(path))


def test_layers_without_a_plain_feed_forward_part_are_refused(tmp_path: Path) -> None:
    """Mixtures of experts and odd architectures are not cut by mistake."""
    model, path = opened(tmp_path)
    model = model.without("blk.1.ffn_down.weight")
    with pytest.raises(ConfigError, match="layer 1"):
        METHODS.get("narrow_ffn")({"keep": 0.5, "score": "weight"}).apply(model, context(path))
