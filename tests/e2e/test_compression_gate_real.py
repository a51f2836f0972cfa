"""The gate with the real engine: a tiny model through every check, planted damage in a real one."""

from __future__ import annotations

import inspect
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lichen.catalog import Catalog
from lichen.compose.compression_gate import GateRuns, gate_ports, rendered
from lichen.compose.cost_in_turns import cost_in_turns, load_alone, open_file
from lichen.compose.spec import load
from lichen.compression.agreement import Comparing
from lichen.compression.corpus import Document
from lichen.compression.gate import Gate, GatePorts, Level
from lichen.compression.metadata import MetaValue
from lichen.compression.model_file import ModelFile, open_model, write_model
from lichen.core.errors import LichenError
from lichen.core.measurement import Missing
from lichen.meter import open_meter
from lichen.testing import damage
from lichen.testing.gguf_files import CHAT_TEMPLATE, TinyModel
from lichen.testing.task_data import ADD_STUB, HUMANEVAL_ROWS, write_rows

pytest.importorskip("xllamacpp", reason="needs the extra [llama]")

OPTIONS = ("engine.context=256", "engine.threads=1", "generation.max_tokens=8")
CODE = tuple(
    Document(f"{i}.py", f"class C{i}:\n    def f(self, x):\n        return x + {i}\n" * 12)
    for i in range(4)
)


def tiny(path: Path, **changes: object) -> Path:
    path.write_bytes(TinyModel(**changes).to_bytes())
    return path


def ports(parent: Path, runs: GateRuns | Missing) -> GatePorts:
    spec = load([], models=[str(parent)], sets=OPTIONS)
    return gate_ports(spec, held_out=CODE, runs=runs, comparing=Comparing(tokens=256, threads=1))


@pytest.fixture
def world(tmp_path) -> tuple[Path, GateRuns]:
    """A tiny parent, and runs on two problems that all rewrites together can change."""
    parent = tiny(tmp_path / "parent.gguf")
    two = 'add(2, 3)\n    5\n    >>> add(4, 4)\n    8\n    """'
    stub = ADD_STUB.replace('add(2, 3)\n    5\n    """', two)
    rows = [{**row, "prompt": stub} if i == 0 else row for i, row in enumerate(HUMANEVAL_ROWS)]
    data = write_rows(tmp_path / "humaneval.jsonl", rows)
    spec = load(
        [],
        models=[str(parent)],
        flags={"task.data": str(data), "idle_s": 0.0, "sandbox.workers": 1},
        sets=OPTIONS,
    )
    catalog = Catalog(cache_dir=tmp_path / "cache", mirror_dirs=(), offline=True)
    store = f"sqlite:///{tmp_path / 'runs.sqlite'}"
    return parent, GateRuns(spec=spec, catalog=catalog, store_url=store)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_copy_passes_every_check_of_the_real_engine(world, tmp_path):
    """Files, tokenizer, template, agreement, task and rewrites: eight checks are made and passed."""
    parent, runs = world
    child = tmp_path / "child.gguf"
    write_model(open_model(parent), child)
    # On a busy machine the cost of a tiny model differs by any factor: it has a test of its own.
    without_cost = replace(ports(parent, runs), cost=Missing(reason="see the next test"))
    report = Gate(Level.REPORT).run(parent, child, without_cost)
    found = {c.name: c.passed for c in report.checks}
    assert found.pop("cost") is None
    assert found == dict.fromkeys(found, True)
    assert report.check("agreement").numbers["kl_nats"] == 0.0
    assert report.check("quality").numbers["problems"] == 2
    assert report.check("metamorphic").what.startswith("0 of 5 verdicts flip")
    assert len(runs.run_ids) == 4


@pytest.mark.slow
def test_the_cost_of_a_real_model_is_measured(tmp_path):
    """Every number is there and above zero; which is larger, a tiny model cannot tell."""
    longer = {"llama.context_length": 512}
    parent = tiny(tmp_path / "parent.gguf", metadata=longer)
    meter = open_meter()
    try:
        found = cost_in_turns(
            parent,
            tiny(tmp_path / "child.gguf", layers=1, metadata=longer),
            open_engine=lambda path: open_file("llama_cpp", {"context": 512, "threads": 1}, path),
            meter=meter,
            load=lambda path: load_alone("llama_cpp", {"context": 512, "threads": 1}, path),
            rounds=2,
            loads=2,
        )
    finally:
        meter.close()
    for ratio in (found.prefill, found.decode, found.load):
        assert ratio.value > 0
    assert found.memory.value.value > 0
    assert found.child_decode_s > 0


def test_a_file_is_opened_as_it_recommends_itself(tmp_path):
    """What the gate measures is what users run; options that are given win."""
    recommends = tiny(tmp_path / "m.gguf", metadata={"lichen.engine.mmap": "sideways"})
    for opened in (open_file, load_alone):
        with pytest.raises(LichenError, match="mmap must be one of"):
            opened("llama_cpp", {"context": 64}, recommends)
    open_file("llama_cpp", {"context": 64, "mmap": "off"}, recommends).close()


def test_the_engine_sees_a_template_that_renders_something_else(tmp_path):
    """A well-formed template with one word changed, and one the engine cannot parse."""
    parent = tiny(tmp_path / "parent.gguf")
    child = tmp_path / "child.gguf"
    key = "tokenizer.chat_template"
    chats = ports(parent, Missing(reason="not here"))
    for template in (
        CHAT_TEMPLATE.replace("assistant", "asistant"),
        CHAT_TEMPLATE.replace("message['content']", "message['content'] | no_such_filter"),
    ):
        write_model(open_model(parent).with_metadata({key: MetaValue.text(template)}), child)
        report = Gate(only=("chat_template",)).run(parent, child, chats)
        assert report.check("chat_template").passed is False, template


def test_conversations_are_rendered_in_a_process_of_their_own(tmp_path):
    """The engine's own rendering, odd characters included."""
    texts = rendered("llama_cpp", {"context": 64}, tiny(tmp_path / "m.gguf"))
    assert len(texts) == 3
    assert texts[0].endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "You answer with code only." in texts[1]
    assert "\N{ROCKET}" in texts[2]


DAMAGED: dict[str, Callable[[ModelFile], ModelFile]] = {
    "a two-bit head": lambda m: damage.two_bit(m, "token_embd.weight"),
    "a layer dropped twice": lambda m: damage.without_layer(
        damage.without_layer(m, 5, renumber=True, count=True), 5, renumber=True, count=True
    ),
}


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("fault", DAMAGED)
def test_damage_that_leaves_the_file_in_order_is_found_by_agreement(model_135m, tmp_path, fault):
    """The header is right and the weights resemble the parent's, yet the model is another one."""
    pytest.importorskip("gguf", reason="needs the extra [compress]")
    child = tmp_path / "child.gguf"
    write_model(DAMAGED[fault](open_model(model_135m)), child)
    spec = load([], models=[str(model_135m)])
    found = Gate(only=("structure", "weights", "agreement")).run(
        model_135m,
        child,
        gate_ports(
            spec,
            held_out=[Document(m.__name__, inspect.getsource(m)) for m in (textwrap, shlex)],
            runs=Missing(reason="not here"),
            comparing=Comparing(tokens=512),
        ),
    )
    assert [c.name for c in found.failed] == ["agreement"]


@pytest.mark.model
@pytest.mark.slow
def test_swapped_tensors_and_tokens_of_a_real_model_are_found(model_135m, tmp_path):
    """In quantised tensors, among tens of thousands of rows."""
    pytest.importorskip("gguf", reason="needs the extra [compress]")
    model = open_model(model_135m)
    child = tmp_path / "child.gguf"
    write_model(damage.swapped_rows(model, "token_embd.weight", 20_000, 20_001), child)
    weights = Gate(only=("weights",)).run(model_135m, child, GatePorts()).check("weights")
    assert "row 20,000 of 'token_embd.weight'" in weights.what
    assert weights.numbers["faults"] == 2
    write_model(
        damage.swapped_tensors(model, "blk.10.ffn_up.weight", "blk.11.ffn_up.weight"), child
    )
    weights = Gate(only=("weights",)).run(model_135m, child, GatePorts()).check("weights")
    assert weights.numbers["faults"] == 2
