"""From stored runs and engines to the gate's values: pairs, ratios, flips, costs in turns."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lichen.benchmark.summarise import StoredRun
from lichen.compose.compression_gate import ANSWER_SLOTS, GateRuns, base_of, gate_ports, in_batches
from lichen.compose.cost_in_turns import cost_in_turns
from lichen.compose.own_process import in_own_process, used
from lichen.compose.paired_runs import (
    CHILD,
    PARENT,
    flips_value,
    mean_ratio,
    pairs_of,
    ratio_of_sums,
    task_value,
)
from lichen.compose.spec import RunSpec, load
from lichen.core.errors import ConfigError, EngineError
from lichen.core.generation import Finish
from lichen.core.measurement import Missing
from lichen.core.task import Score, Status, Verdict
from lichen.testing.clock import FakeClock
from lichen.testing.costed_engine import ClockMeter, CostedEngine, Costs
from lichen.testing.records import fake_run


def stored(solved: dict[str, list[bool]], **changes: object) -> StoredRun:
    """Return a run of parent and child with these verdicts, problem by problem."""
    count = len(solved[PARENT])
    fake = fake_run(solutions=(PARENT, CHILD), problems=count, cost_ratio=1.0)
    place = {p: i for i, p in enumerate(fake.run.problem_ids)}
    samples = []
    for s in fake.samples:
        passed = solved[s.solution][place[s.problem_id]]
        verdict = Verdict(status=Status.PASSED if passed else Status.FAILED)
        score = Score(metric="pass@1", value=float(passed), verdict=verdict)
        clean = replace(s, score=score, finish=Finish.STOP, error="")
        samples.append(replace(clean, **(changes if s.solution == CHILD else {})))
    return StoredRun(run=fake.run, samples=samples, blocks=fake.blocks)


def test_quality_counts_what_only_one_of_the_two_solved():
    """The table of McNemar's test, and child minus parent."""
    value = task_value(
        stored({PARENT: [True] * 6 + [False] * 4, CHILD: [True] * 4 + [False] * 5 + [True]})
    ).quality
    assert (value.problems, value.parent_solved, value.child_solved) == (10, 6, 5)
    assert (value.only_parent, value.only_child) == (2, 1)
    assert value.difference.value == pytest.approx(-0.1)
    assert value.difference.low < -0.1 < value.difference.high
    assert value.mcnemar_p == 1.0


def test_answers_are_compared_by_tokens_and_by_how_they_ended():
    """Twice the tokens is a ratio of two; answers that were cut are counted."""
    run = stored({PARENT: [True] * 8, CHILD: [True] * 8}, finish=Finish.LENGTH)
    doubled = [
        replace(s, usage=replace(s.usage, completion=200 if s.solution == CHILD else 100))
        for s in run.samples
    ]
    value = task_value(StoredRun(run=run.run, samples=doubled, blocks=run.blocks)).answers
    assert value.answers == 8
    assert value.length_ratio.value == pytest.approx(2.0)
    assert value.length_ratio.low == pytest.approx(2.0)
    assert (value.parent_truncated, value.child_truncated) == (0, 8)
    assert value.truncated_excess.value == 1.0
    assert value.finishes == (("length", 0, 8), ("stop", 8, 0))


def test_flips_are_counted_pair_by_pair():
    """A verdict that changed for the child alone is the excess; unpaired problems do not count."""
    plain = stored({PARENT: [True, True, False, True], CHILD: [True, True, False, True]})
    renamed = stored({PARENT: [False, True, False, True], CHILD: [False, False, True, True]})
    value = flips_value(plain, {"rename": renamed})
    assert (value.pairs, value.parent_flips, value.child_flips) == (4, 1, 3)
    assert (value.only_parent, value.only_child) == (0, 2)
    assert value.excess.value == pytest.approx(0.5)
    other = StoredRun(
        run=renamed.run,
        samples=[replace(s, problem_id="x" + s.problem_id) for s in renamed.samples],
        blocks=renamed.blocks,
    )
    assert flips_value(plain, {"rename": other}).pairs == 0


def test_two_rewrites_of_a_problem_are_one_unit():
    """Flips of one problem go together, so the interval is not narrower for repeating it."""
    rng = random.Random(3)
    n = 30
    plain = stored({PARENT: [True] * n, CHILD: [True] * n})
    child = [rng.random() < 0.8 for _ in range(n)]
    once = stored({PARENT: [True] * n, CHILD: child})
    single = flips_value(plain, {"rename": once})
    double = flips_value(plain, {"rename": once, "reorder": once})
    assert double.pairs == 2 * single.pairs
    assert double.excess == single.excess


def test_a_model_that_answered_nothing_cannot_be_compared():
    """All errors on one side is an error of the run, not a loss of quality."""
    run = stored({PARENT: [True] * 3, CHILD: [False] * 3}, error="the engine failed")
    with pytest.raises(EngineError, match="child cannot be compared: the engine failed"):
        pairs_of(run)


def test_ratios_carry_an_interval():
    """Equal sums are a ratio of one; silence is no division by zero."""
    rng = np.random.default_rng(0)
    parent = rng.uniform(50, 150, 40)
    found = ratio_of_sums(parent, parent * rng.uniform(0.9, 1.3, 40))
    assert 1.0 < found.low < found.value < found.high < 1.2
    assert ratio_of_sums(parent, np.zeros(40)).value == pytest.approx(1 / parent.sum())
    assert ratio_of_sums(np.zeros(3), np.zeros(3)).value == 1.0


def test_the_mean_of_ratios_is_geometric_with_students_interval():
    """Half and double cancel; a single pair teaches nothing about spread."""
    found = mean_ratio([1.0, 1.0], [0.5, 2.0])
    assert found.value == pytest.approx(1.0)
    assert found.low * found.high == pytest.approx(1.0)
    assert mean_ratio([2.0], [1.0]).high == math.inf


def test_costs_in_turns_are_the_engines_own():
    """Twice as cheap to decode, half as dear to prefill: the ratios come out, without the load."""
    cpu = FakeClock()
    costs = {
        "parent": Costs(prefill_s=0.002, decode_s=0.02),
        "child": Costs(prefill_s=0.001, decode_s=0.01),
    }
    engines: list[CostedEngine] = []

    def open_engine(path: Path) -> CostedEngine:
        engines.append(CostedEngine(lambda _options: costs[path.stem], cpu=cpu))
        return engines[-1]

    loads = {"parent": (3.0, 400e6), "child": (1.5, 300e6)}
    found = cost_in_turns(
        Path("parent.gguf"),
        Path("child.gguf"),
        open_engine=open_engine,
        meter=ClockMeter(cpu),
        load=lambda path: loads[path.stem],
    )
    assert found.load.value == pytest.approx(0.5)
    assert found.memory.value.value == pytest.approx(0.75)
    assert found.prefill.value == pytest.approx(0.5, rel=0.1)
    assert found.decode.value == pytest.approx(0.5, rel=0.1)
    assert found.decode.low == pytest.approx(found.decode.high)
    assert all(e.closed for e in engines)


def test_memory_that_did_not_grow_is_missing():
    """Not a ratio of zeros."""
    cpu = FakeClock()
    found = cost_in_turns(
        Path("a"),
        Path("b"),
        open_engine=lambda _path: CostedEngine(lambda _options: Costs(), cpu=cpu),
        meter=ClockMeter(cpu),
        load=lambda _path: (1.0, 0.0),
    )
    assert isinstance(found.memory, Missing)


def test_a_child_that_cannot_be_opened_closes_the_parent():
    """Nothing stays loaded."""
    engines = []

    def open_engine(path: Path) -> CostedEngine:
        if path.stem == "b":
            raise EngineError("no")
        engines.append(CostedEngine(lambda _options: Costs(), cpu=FakeClock()))
        return engines[-1]

    with pytest.raises(EngineError):
        cost_in_turns(
            Path("a"),
            Path("b"),
            open_engine=open_engine,
            meter=ClockMeter(FakeClock()),
            load=lambda _path: (1.0, 1.0),
        )
    assert engines[0].closed


def test_a_process_of_its_own_answers_raises_and_may_crash():
    """Values and errors come back; a crash is one sentence."""
    assert in_own_process(math.sqrt, 4.0) == 2.0
    with pytest.raises(ValueError, match="math domain error"):
        in_own_process(math.sqrt, -1.0)
    with pytest.raises(EngineError, match="ended without an answer"):
        in_own_process(_crash)


def _crash() -> None:
    import os

    os.abort()


def test_a_process_knows_what_it_uses():
    """CPU time that grows, and memory."""
    before = used()
    sum(i * i for i in range(200_000))
    after = used()
    assert after.cpu_s > before.cpu_s
    assert after.resident_bytes > 1 << 20


def test_one_model_is_compressed_at_a_time():
    """Two solutions leave open which is meant."""
    spec = load([], models=["a", "b"])
    with pytest.raises(ConfigError, match="one model is compressed at a time"):
        base_of(spec)


def test_without_a_task_only_its_checks_are_missing():
    """The reason is carried to the report."""
    reason = Missing(reason="no --task was given")
    ports = gate_ports(load([], models=["a"]), held_out=(), runs=reason)
    assert ports.task is reason
    assert ports.flips is reason
    assert callable(ports.agreement)


@pytest.mark.parametrize(
    ("problems", "sets", "answers"),
    [
        (164, [], 164 + 3 * 40),
        (82, [], 82 + 3 * 21),
        (3, [], 3 + 3 * 3),
        (164, ["task.half=odd", "samples=2"], 2 * (82 + 3 * 21)),
    ],
)
def test_answers_at_the_gate_are_counted_beforehand(
    monkeypatch: pytest.MonkeyPatch, problems: int, sets: list[str], answers: int
) -> None:
    """All that the spec asks, and at most a quarter of it rewritten in each of three ways."""
    asked = [SimpleNamespace(id=f"p{i}") for i in range(problems)]
    task = SimpleNamespace(problems=lambda: asked)
    monkeypatch.setattr("lichen.compose.compression_gate.make_task", lambda *_: task)
    spec = load([], models=["a"], sets=sets)
    assert GateRuns(spec=spec, catalog=None, store_url="").answers() == answers  # type: ignore[arg-type]


def test_answers_at_the_gate_are_given_together_unless_the_user_says_otherwise():
    """Slots of the spec stay, and an engine that has none is left alone."""
    open_spec = load([], models=["a"])
    (slots,) = in_batches(base_of(open_spec)).strategies
    assert (slots.name, slots.options) == ("concurrency", {"slots": ANSWER_SLOTS})
    assert in_batches(in_batches(base_of(open_spec))) == in_batches(base_of(open_spec))
    for sets in (["engine.slots=1"], ["engine.name=transformers"]):
        own = base_of(load([], models=["a"], sets=sets))
        assert in_batches(own) == own


def test_the_gate_runs_the_task_in_batches(monkeypatch):
    """What is run are both files, by name, with slots."""
    asked: list[RunSpec] = []

    def stop(spec: RunSpec, **_: object) -> object:
        asked.append(spec)
        raise ConfigError("far enough")

    monkeypatch.setattr("lichen.compose.compression_gate.workbench", stop)
    runs = GateRuns(spec=load([], models=["a"]), catalog=None, store_url="")
    with pytest.raises(ConfigError, match="far enough"):
        runs.task(Path("a"), Path("b"))
    assert [(s.name, s.model, s.strategies[0].name) for s in asked[0].solutions] == [
        (PARENT, "a", "concurrency"),
        (CHILD, "b", "concurrency"),
    ]


def test_each_run_is_made_once(monkeypatch):
    """Quality, answers and rewrites read one plain run; a rewrite without problems is left out."""
    asked: list[tuple[str, tuple[str, ...]]] = []
    plain = stored({PARENT: [True] * 4, CHILD: [True] * 4})

    def run(_self: GateRuns, spec, _parent, _child) -> StoredRun:
        asked.append((spec.task.rewrite, spec.task.problems))
        return plain

    ids = {"rename": plain.run.problem_ids[:2], "reformat": plain.run.problem_ids[2:]}
    monkeypatch.setattr(GateRuns, "_run", run)
    monkeypatch.setattr(GateRuns, "_rewritten_ids", lambda _s, rewrite, _ids: ids.get(rewrite, ()))
    runs = GateRuns(spec=load([], models=["a"]), catalog=None, store_url="")
    runs.task(Path("a"), Path("b"))
    flips = runs.flips(Path("a"), Path("b"))
    assert flips.rewrites == ("rename", "reformat")
    assert asked == [
        ("", ()),
        ("rename", tuple(ids["rename"])),
        ("reformat", tuple(ids["reformat"])),
    ]
    ids.clear()
    with pytest.raises(ConfigError, match="could be rewritten"):
        runs.flips(Path("a"), Path("b"))
