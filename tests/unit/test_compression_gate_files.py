"""The gate's checks that read files: every planted fault is found, and honest children pass."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lichen.compression.gate import Gate, GatePorts, GateReport, Level
from lichen.compression.gate.chat_template import KEY as TEMPLATE
from lichen.compression.gate.chat_template import well_formed
from lichen.compression.gate.folder import safetensors_names
from lichen.compression.gate.vocabulary import byte_alphabet
from lichen.compression.metadata import MetaValue
from lichen.compression.model_file import ModelFile, open_model, write_model
from lichen.core.errors import IntegrityError
from lichen.testing import damage
from lichen.testing.gguf_files import CHAT_TEMPLATE, TinyModel, byte_letters

FILES = ("structure", "weights", "chat_template")


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    """A model of four layers with an output matrix of its own."""
    path = tmp_path_factory.mktemp("gate") / "parent.gguf"
    path.write_bytes(TinyModel(layers=4, output_kind="F16", copied_output=False).to_bytes())
    return path


def judged(parent: Path, child: ModelFile, tmp_path: Path) -> GateReport:
    """Write a child and run the checks that need no engine."""
    path = tmp_path / "child.gguf"
    write_model(child, path)
    return Gate(only=FILES).run(parent, path, GatePorts())


def failed(report: GateReport) -> dict[str, str]:
    return {c.name: c.what for c in report.failed}


def value(model: ModelFile, key: str) -> list:
    return list(model.metadata[key].value)


# -- honest children -------------------------------------------------------------------------------


def test_a_copy_passes(parent, tmp_path):
    """The same model again is the same model."""
    report = judged(parent, open_model(parent), tmp_path)
    assert report.passed
    assert failed(report) == {}
    assert report.check("weights").numbers["compared"] == len(open_model(parent).tensors)


def test_rounding_to_fewer_bits_passes(tmp_path):
    """Four and eight bits turn rows a little; that is no other tensor."""
    pytest.importorskip("gguf", reason="needs the extra [compress]")
    parent, child = tmp_path / "p.gguf", tmp_path / "c.gguf"
    parent.write_bytes(TinyModel().to_bytes())
    child.write_bytes(TinyModel(kind="Q4_0", embedding_kind="Q8_0").to_bytes())
    report = Gate(only=FILES).run(parent, child, GatePorts())
    assert failed(report) == {}
    assert report.check("weights").numbers["least_tensor_cosine"] < 0.9999


def test_a_dropped_output_matrix_passes_whichever_copy_was_kept(tmp_path):
    """Retying leaves one matrix, the embedding's rows or the output's."""
    path = tmp_path / "p.gguf"
    path.write_bytes(TinyModel(output_kind="F16").to_bytes())
    model = open_model(path)
    assert failed(judged(path, model.without("output.weight"), tmp_path)) == {}
    output = replace(model.tensor("output.weight"), name="token_embd.weight")
    kept = model.without("output.weight").replaced(output)
    assert failed(judged(path, kept, tmp_path)) == {}


def test_a_properly_dropped_layer_passes_the_file_checks(parent, tmp_path):
    """Depth pruning is allowed; what it costs is for the agreement to say."""
    child = damage.without_layer(open_model(parent), 1, renumber=True, count=True)
    report = judged(parent, child, tmp_path)
    assert failed(report) == {}
    assert report.check("structure").numbers["layers"] == 3


def test_a_consistently_trimmed_vocabulary_passes(parent, tmp_path):
    """Fewer tokens, with everything that counts them adjusted."""
    child = trimmed(open_model(parent), lose="print")
    assert failed(judged(parent, child, tmp_path)) == {}


def test_narrower_feed_forward_layers_pass_when_the_metadata_says_so(parent, tmp_path):
    """The width may shrink together with its number, and only then."""
    model, width = open_model(parent), 96
    tensors = []
    for t in model.tensors:
        if t.name.endswith(("ffn_gate.weight", "ffn_up.weight")):
            tensors.append(t.selected(range(width)))
        elif t.name.endswith("ffn_down.weight"):
            read = t.read
            tensors.append(
                replace(t, shape=(width, t.rows), read=lambda a, b, r=read: r(a, b)[:, : 2 * width])
            )
    narrow = model.replaced(*tensors)
    key = f"{model.architecture}.feed_forward_length"
    said = narrow.with_metadata({key: MetaValue.count(width)})
    assert failed(judged(parent, said, tmp_path)) == {}
    assert "has the shape" in failed(judged(parent, narrow, tmp_path))["structure"]


def trimmed(model: ModelFile, lose: str) -> ModelFile:
    """Drop one word's last token, its merge and its rows."""
    tokens, merges = value(model, "tokenizer.ggml.tokens"), value(model, "tokenizer.ggml.merges")
    types = value(model, "tokenizer.ggml.token_type")
    at = tokens.index(lose)
    rows = [i for i in range(len(tokens)) if i != at]
    meta = model.metadata
    return model.replaced(
        model.tensor("token_embd.weight").selected(rows),
        model.tensor("output.weight").selected(rows),
    ).with_metadata(
        {
            key: meta[key].like(v)
            for key, v in {
                "tokenizer.ggml.tokens": [tokens[i] for i in rows],
                "tokenizer.ggml.token_type": [types[i] for i in rows],
                "tokenizer.ggml.merges": [m for m in merges if m.replace(" ", "") != lose],
            }.items()
        }
    )


# -- planted damage --------------------------------------------------------------------------------


def test_a_truncated_file_is_found_and_nothing_else_is_run(parent, tmp_path):
    """The structure check says so, and no engine is given the file."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(parent.read_bytes()[:-1000])
    report = Gate().run(parent, path, GatePorts())
    assert not report.passed
    assert "tensors end at byte" in failed(report)["structure"]
    assert {c.what for c in report.not_run} == {"not run: the file is damaged"}
    assert len(report.not_run) == len(report.checks) - 1
    assert path.exists()


def test_swapped_tensors_are_found(parent, tmp_path):
    """Two matrices of one shape that changed places leave the header as it was."""
    model = open_model(parent)
    child = damage.swapped_tensors(model, "blk.1.ffn_up.weight", "blk.2.ffn_up.weight")
    found = failed(judged(parent, child, tmp_path))
    assert found.keys() == {"weights"}
    assert "'blk.1.ffn_up.weight' is not the parent's" in found["weights"]


def test_one_wrongly_remapped_token_is_found(parent, tmp_path):
    """Two rows of the embedding changed places: all other rows agree, and it is still found."""
    model = open_model(parent)
    child = damage.swapped_rows(model, "token_embd.weight", 40, 41)
    found = failed(judged(parent, child, tmp_path))
    assert found.keys() == {"weights"}
    assert "row 40 of 'token_embd.weight'" in found["weights"]
    assert "1 more like it" in found["weights"]


def test_a_wrong_id_in_a_trimmed_vocabulary_is_found(parent, tmp_path):
    """Off by one from some token on: the list says one thing, the rows another."""
    child = trimmed(open_model(parent), lose="print")
    rows = child.tensor("token_embd.weight").rows
    order = [*range(rows - 4), rows - 1, *range(rows - 4, rows - 1)]
    child = child.replaced(child.tensor("token_embd.weight").selected(order))
    assert failed(judged(parent, child, tmp_path)).keys() == {"weights"}


def test_swapped_norms_are_found(parent, tmp_path):
    """Vectors of neighbouring layers look alike, but they are stored exactly."""
    model = open_model(parent)
    norms = [f"blk.{i}.attn_norm.weight" for i in range(2)]

    def alike(seed):
        values = (1 + 0.05 * np.random.default_rng(seed).standard_normal(64)).astype("<f4")
        return lambda _a, _b: values.view(np.uint8).reshape(1, -1)

    made = model.replaced(*(replace(model.tensor(n), read=alike(i)) for i, n in enumerate(norms)))
    first = tmp_path / "first.gguf"
    write_model(made, first)
    found = failed(judged(first, damage.swapped_tensors(open_model(first), *norms), tmp_path))
    assert "'blk.0.attn_norm.weight' is not the parent's" in found["weights"]


def test_a_special_id_that_means_another_token_is_found(parent, tmp_path):
    """The end-of-text id still points to its old place after tokens moved."""
    model = open_model(parent)
    key = "tokenizer.ggml.eos_token_id"
    child = model.with_metadata({key: model.metadata[key].like(0)})
    what = failed(judged(parent, child, tmp_path))["structure"]
    assert "'tokenizer.ggml.eos_token_id' meant '<|im_end|>' and now means '<|endoftext|>'" in what


@pytest.mark.parametrize(
    ("renumber", "count", "said"),
    [
        (False, False, "block_count is 4 but 3 layers have tensors, layer 1 has no tensors"),
        (False, True, "block_count is 3 but 3 layers"),
        (True, False, "block_count is 4 but 3 layers"),
    ],
)
def test_a_layer_dropped_by_halves_is_found(parent, tmp_path, renumber, count, said):
    """A gap in the numbers, or a count that no longer fits."""
    child = damage.without_layer(open_model(parent), 1, renumber=renumber, count=count)
    assert said in failed(judged(parent, child, tmp_path))["structure"]


def test_a_layer_dropped_twice_under_one_count_is_found(parent, tmp_path):
    """The step ran twice, the number was lowered once."""
    once = damage.without_layer(open_model(parent), 1, renumber=True, count=True)
    twice = damage.without_layer(once, 1, renumber=True, count=False)
    assert "block_count is 3 but 2 layers" in failed(judged(parent, twice, tmp_path))["structure"]


def test_a_layer_stored_twice_is_found(parent, tmp_path):
    """One layer's weights stand in another's place, with and without a dropped layer."""
    repeated = damage.repeated_layer(open_model(parent), 1, 2)
    assert "'blk.2.attn_q.weight' is not" in failed(judged(parent, repeated, tmp_path))["weights"]
    shorter = damage.without_layer(repeated, 0, renumber=True, count=True)
    assert "again or out of order" in failed(judged(parent, shorter, tmp_path))["weights"]


def test_weights_that_are_no_numbers_are_found(parent, tmp_path):
    """NaN in one row of a norm or a matrix."""
    model = open_model(parent)
    for name in ("blk.0.attn_norm.weight", "token_embd.weight"):
        tensor = model.tensor(name)
        nan = np.full(tensor.width, np.nan, "<f4" if tensor.type.name == "F32" else "<f2")

        def read(a, b, tensor=tensor, nan=nan):
            rows = tensor.read(a, b).copy()
            if a == 0:
                rows[0] = nan.view(np.uint8)
            return rows

        found = failed(judged(parent, model.replaced(replace(tensor, read=read)), tmp_path))
        assert f"'{name}' holds weights that are no numbers" in found["weights"]


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        ("tokenizer.ggml.tokens", lambda v: v[:-1], "entries for"),
        ("tokenizer.ggml.tokens", lambda v: [*v[:-1], "new"], "'new' was not there before"),
        ("tokenizer.ggml.tokens", lambda v: [*v[:9], v[10], v[9], *v[11:]], "left its place"),
        ("tokenizer.ggml.merges", lambda v: v[::-1], "new or out of order"),
        ("tokenizer.ggml.merges", lambda v: [*v, "x y"], "new or out of order"),
        ("tokenizer.ggml.token_type", lambda v: v[:-1], "entries for"),
        ("tokenizer.ggml.token_type", lambda v: [1, *v[1:]], "types of some tokens changed"),
        ("tokenizer.ggml.pre", lambda _: "qwen2", "'tokenizer.ggml.pre' is 'qwen2'"),
        ("tokenizer.ggml.add_bos_token", lambda _: True, "add_bos_token"),
        ("llama.rope.freq_base", lambda _: 5.0, "changed from 10000.0 to 5.0"),
        ("llama.attention.head_count", lambda _: 8, "head_count' changed"),
        ("llama.feed_forward_length", lambda _: [128] * 3, "3 values for 4 layers"),
        ("general.architecture", lambda _: "qwen2", "the architecture is 'qwen2'"),
    ],
)
def test_metadata_that_does_not_fit_is_found(parent, tmp_path, key, change, said):
    """Each list and number of the header is held against the others and the parent's."""
    model = open_model(parent)
    old = model.metadata[key]
    new = change(old.value)
    kind = (
        old.like(new)
        if isinstance(new, list) == isinstance(old.value, list)
        else MetaValue(9, 4, new)
    )
    assert said in failed(judged(parent, model.with_metadata({key: kind}), tmp_path))["structure"]


def test_a_lost_control_token_or_byte_is_found(parent, tmp_path):
    """Without them not every text can be encoded, or no answer ended."""
    for lost in ("<|im_start|>", byte_letters()[0]):
        child = trimmed(open_model(parent), lose=lost)
        assert "is gone" in failed(judged(parent, child, tmp_path))["structure"]


def test_a_lost_tensor_is_found(parent, tmp_path):
    """Of the model or of one layer."""
    model = open_model(parent)
    for name, said in (
        ("output_norm.weight", "'output_norm.weight' is gone"),
        ("blk.2.ffn_down.weight", "layer 2 lacks 'ffn_down.weight'"),
    ):
        assert said in failed(judged(parent, model.without(name), tmp_path))["structure"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "gone"),
        ("{% for message in messages %}{{ message['content'] }}", "not closed"),
        (CHAT_TEMPLATE.replace("{% endfor %}", "{% endfor", 1), "not closed"),
        (CHAT_TEMPLATE.replace("assistant", "asistant"), "changed"),
    ],
)
def test_a_broken_chat_template_is_found(parent, tmp_path, template, said):
    """Gone, cut, or other text than before."""
    new = None if template is None else MetaValue.text(template)
    child = open_model(parent).with_metadata({TEMPLATE: new})
    found = failed(judged(parent, child, tmp_path))
    assert found.keys() == {"chat_template"}
    assert said in found["chat_template"]


@pytest.mark.parametrize(
    ("template", "fine"),
    [
        (CHAT_TEMPLATE, True),
        ("{%- if a == '}' -%}{{- {'x': 1}['x'] -}}{%- else -%}{# note #}{%- endif -%}", True),
        ("{% set x = 1 %}{% macro f() %}{% endmacro %}text }} %}", True),
        ("{% if x %}{% for y in z %}{% endif %}{% endfor %}", False),
        ("{% endif %}", False),
        ("{{ x", False),
        ("{# note", False),
    ],
)
def test_templates_are_scanned_for_tags_that_are_left_open(template, fine):
    """Blocks end in order, tags are closed."""
    assert well_formed(template) is fine


# -- folders ---------------------------------------------------------------------------------------


def safetensors(tensors: dict[str, int]) -> bytes:
    """Return a file with these tensors of so many bytes."""
    header, at = {}, 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(at)


def folder(root: Path, **config: object) -> Path:
    """Make a small model folder."""
    root.mkdir()
    (root / "model.safetensors").write_bytes(safetensors({"a": 8, "b": 8}))
    (root / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 4} | config))
    (root / "tokenizer.json").write_text('{"model": {}}')
    return root


def test_a_sound_folder_passes(tmp_path):
    """What a GPU tool writes is checked by its own format."""
    parent, child = folder(tmp_path / "p"), folder(tmp_path / "c", quantization_config={"bits": 4})
    report = Gate(only=FILES).run(parent, child, GatePorts())
    assert failed(report) == {}
    assert [c.name for c in report.not_run] == ["weights", "chat_template"]


def test_a_damaged_folder_is_found(tmp_path):
    """Cut weights, an index that lies, another tokenizer, another vocabulary."""
    parent = folder(tmp_path / "p")
    child = folder(tmp_path / "c", vocab_size=5)
    weights = child / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    (child / "tokenizer.json").write_text('{"model": {"x": 1}}')
    (child / "model.safetensors.index.json").write_text('{"weight_map": {"gone": "x"}}')
    what = failed(Gate(only=FILES).run(parent, child, GatePorts()))["structure"]
    for said in (
        "'b' lies outside",
        "'gone', which no file holds",
        "vocab_size changed",
        "tokenizer.json",
    ):
        assert said in what


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 16,
        struct.pack("<Q", 1 << 40),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 50000) + b"[" * 50000,
        struct.pack("<Q", 39) + b'{"a": {"data_offsets": [-1, 3.5, true]}}',
    ],
)
def test_hostile_safetensors_headers_are_refused(tmp_path, raw):
    """Lengths, nesting and types that a header cannot have are an error, nothing else."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)
    with pytest.raises(IntegrityError):
        safetensors_names(path)


# -- the gate itself -------------------------------------------------------------------------------


def test_report_level_stops_nobody_and_runs_everything(parent, tmp_path):
    """It tells what the others would have failed."""
    child = damage.swapped_rows(open_model(parent), "token_embd.weight", 40, 41)
    path = tmp_path / "c.gguf"
    write_model(child, path)
    report = Gate(Level.REPORT).run(parent, path, GatePorts())
    assert report.passed
    assert [c.name for c in report.failed] == ["weights"]
    assert all("failed already" not in c.what for c in report.checks)


def test_expensive_checks_wait_for_cheap_ones(parent, tmp_path):
    """A child that failed already does not generate for minutes."""
    path = tmp_path / "c.gguf"
    write_model(damage.swapped_rows(open_model(parent), "token_embd.weight", 40, 41), path)
    report = Gate().run(parent, path, GatePorts())
    assert report.check("quality").what == "not run: weights failed already"
    assert report.check("agreement").what == "not run: it was not asked for"


def test_strict_asks_for_every_check(parent):
    """A check that could not be made is not a check that was passed."""
    report = Gate(Level.STRICT).run(parent, parent, GatePorts())
    assert not report.passed
    assert not report.failed
    assert "these were not run: tokenizer, agreement, cost" in report.sentence
    assert Gate(Level.NORMAL).run(parent, parent, GatePorts()).passed


def test_rows_name_check_verdict_and_sentence(parent):
    """The report is a table for people."""
    report = Gate(only=("structure", "quality")).run(parent, parent, GatePorts())
    assert [row[:2] for row in report.rows()] == [("structure", "passed"), ("quality", "not run")]
    assert report.sentence == "the gate (normal) found nothing wrong"


def test_the_byte_alphabet_is_gpt2s():
    """256 letters, one for each byte."""
    assert byte_alphabet() == frozenset(byte_letters())
