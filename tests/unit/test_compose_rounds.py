"""The rounds of a search: engines stay loaded, references are judged once, stored is not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lichen.acceleration.candidates import CandidateSet, Choice
from lichen.acceleration.racing import Observed
from lichen.benchmark.run import judge_references
from lichen.catalog import Catalog
from lichen.compose.acceleration import BenchmarkEvaluate
from lichen.compose.parts import label_for, part_of
from lichen.compose.rounds import Rounds, rounds_for
from lichen.compose.spec import EngineSpec, RunSpec, SolutionSpec
from lichen.core.errors import EngineError
from lichen.core.ports import Task
from lichen.core.record import OracleRecord, RunState
from lichen.core.task import Problem
from lichen.testing.costed_engine import Costs
from lichen.testing.costed_world import install

FOUR = (Choice(strategy="concurrency", options=(("slots", 4),)),)
SEVEN = (Choice(strategy="concurrency", options=(("slots", 7),)),)
STOP = (Choice(strategy="stop_when_complete"),)
CACHE = (Choice(strategy="prefix_cache"),)
COSTED = SolutionSpec(name="mine", engine=EngineSpec(name="costed"))
TWO = ["HumanEval/0", "HumanEval/2"]
TWO_MORE = ["HumanEval/2", "HumanEval/4"]

Opens = Callable[..., AbstractContextManager[Rounds]]


class World:
    """Counts what is loaded and judged."""

    def __init__(self) -> None:
        self.loads: list[dict[str, object]] = []
        self.judged: list[str] = []
        self.stop_at_load = 0

    def surface(self, options: Mapping[str, object]) -> Costs:
        """Four slots cost half, seven cannot be had; the process may end at some load."""
        self.loads.append(dict(options))
        if len(self.loads) == self.stop_at_load:
            raise KeyboardInterrupt
        if options.get("slots") == 7:
            raise EngineError("seven slots do not fit")
        return Costs(decode_s=0.005 if options.get("slots") == 4 else 0.01, prefill_s=0.0)

    def judge(self, task: Task, problems: Sequence[Problem]) -> OracleRecord:
        """Judge references and note which."""
        self.judged += [p.id for p in problems]
        return judge_references(task, problems)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose costs are known and whose work is counted."""
    made = World()
    monkeypatch.setenv("LICHEN_CACHE", str(tmp_path / "cache"))
    install(monkeypatch.setattr, made.surface, tmp_path)
    for module in ("compose.rounds", "benchmark.run"):
        monkeypatch.setattr(f"lichen.{module}.judge_references", made.judge)
    return made


@pytest.fixture
def opens(world: World, tmp_path: Path) -> Opens:
    """Opens the rounds of a search, as one invocation of the command does."""
    assert world.loads == []
    catalog = Catalog(cache_dir=tmp_path, mirror_dirs=(), offline=True)
    spec = RunSpec(solutions=(COSTED,), idle_s=0.0)

    def again(*, fresh: bool = False) -> AbstractContextManager[Rounds]:
        url = f"sqlite:///{tmp_path}/runs.sqlite"
        return rounds_for(spec, store_url=url, catalog=catalog, fresh=fresh)

    return again


def three_rounds(rounds: Rounds) -> Iterator[tuple[Observed, ...]]:
    """Run what a small search would."""
    evaluate = BenchmarkEvaluate(spec=RunSpec(solutions=(COSTED,), idle_s=0.0), rounds=rounds)
    asked: list[tuple[list[CandidateSet], list[str]]] = [
        ([()], TWO),
        ([(), FOUR, SEVEN, STOP], TWO),
        ([(), FOUR, STOP], TWO_MORE),
    ]
    for candidates, problems in asked:
        yield evaluate(candidates, problems).observed


def test_engines_of_one_configuration_are_loaded_once(world: World, opens: Opens) -> None:
    """Plain and strategies around the same engine share it, in all rounds."""
    with opens() as rounds:
        list(three_rounds(rounds))
    assert [o for o in world.loads if o.get("slots") != 7] == [{}, {"slots": 4}]


def test_references_are_judged_once(world: World, opens: Opens) -> None:
    """Each problem's reference is judged when it first comes up; every run says how it fared."""
    with opens() as rounds:
        list(three_rounds(rounds))
        oracles = [r.oracle for r in rounds.ground.store.runs() if r.state is RunState.FINISHED]
    assert sorted(world.judged) == ["HumanEval/0", "HumanEval/2", "HumanEval/4"]
    assert all(o is not None and o.passed == o.problems > 0 for o in oracles)


def test_stored_rounds_are_not_run_again(world: World, opens: Opens) -> None:
    """A second invocation sees the same without loading or judging; failures are remembered."""
    with opens() as rounds:
        first, spent = list(three_rounds(rounds)), rounds.spent
    world.loads.clear()
    world.judged.clear()
    with opens() as rounds:
        assert list(three_rounds(rounds)) == first
        assert rounds.ran == 0
        assert rounds.spent.cpu_s == pytest.approx(spent.cpu_s)
    assert (world.loads, world.judged) == ([], [])
    assert "seven slots" in first[1][2].error


def test_interrupted_rounds_go_on(world: World, opens: Opens) -> None:
    """A process that ends in the second round loses that round alone."""
    world.stop_at_load = 2
    with opens() as rounds:
        running = three_rounds(rounds)
        first = next(running)
        with pytest.raises(KeyboardInterrupt):
            next(running)
    world.loads.clear()
    world.stop_at_load = 0
    with opens() as rounds:
        assert next(three_rounds(rounds)) == first
        assert (rounds.ran, rounds.stored) == (0, 1)
        assert len(list(three_rounds(rounds))) == 3


def test_fresh_leaves_stored_rounds_aside(world: World, opens: Opens) -> None:
    """--fresh runs all again under a new name, and the next invocation goes on with that."""
    with opens() as rounds:
        next(three_rounds(rounds))
        first = rounds.label
    with opens(fresh=True) as rounds:
        assert rounds.label == f"{first}-2"
        list(three_rounds(rounds))
        assert rounds.stored == 0
    with opens() as rounds:
        assert rounds.label == f"{first}-2"
        list(three_rounds(rounds))
        assert rounds.ran == 0
    assert world.loads


def test_rounds_say_what_they_are_part_of(opens: Opens) -> None:
    """All runs of a search carry its name; a search over another solution has another."""
    with opens() as rounds:
        list(three_rounds(rounds))
        store = rounds.ground.store
        assert {part_of(r) for r in store.runs()} == {rounds.label}
        other = COSTED.model_copy(update={"name": "other"})
        assert label_for(RunSpec(solutions=(other,)), store) != rounds.label


def test_engines_that_remember_are_not_kept(world: World, opens: Opens) -> None:
    """A prompt cache of an earlier round would make the next one look cheap: it is loaded anew."""
    with opens() as rounds:
        evaluate = BenchmarkEvaluate(spec=RunSpec(solutions=(COSTED,), idle_s=0.0), rounds=rounds)
        evaluate([(), CACHE], TWO)
        evaluate([(), CACHE], TWO_MORE)
    cached = [o for o in world.loads if o.get("prompt_cache")]
    assert len(cached) == 2
    assert len(world.loads) == 3
