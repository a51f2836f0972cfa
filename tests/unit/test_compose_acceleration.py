"""Candidates as solutions, measured by the real benchmark on an engine whose costs are known."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lichen.acceleration.candidates import Choice
from lichen.acceleration.search import search
from lichen.acceleration.searched import Budget
from lichen.catalog import Catalog
from lichen.compose.acceleration import (
    BenchmarkEvaluate,
    base_of,
    halves,
    solution_of,
    verification,
)
from lichen.compose.rounds import Rounds, rounds_for, spent_on
from lichen.compose.solution_file import check_writable, solution_text, write_solution
from lichen.compose.spec import EngineSpec, RunSpec, SolutionSpec, StrategySpec, TaskSpec, load
from lichen.core.errors import ConfigError, EngineError, LichenError
from lichen.testing.costed_engine import Costs
from lichen.testing.costed_world import install

FOUR = Choice(strategy="concurrency", options=(("slots", 4),))
SEVEN = Choice(strategy="concurrency", options=(("slots", 7),))
STOP = Choice(strategy="stop_when_complete")
COSTED = SolutionSpec(name="mine", engine=EngineSpec(name="costed"))


def surface(options: Mapping[str, object]) -> Costs:
    """Four slots cost half; seven cannot be had."""
    if options.get("slots") == 7:
        raise EngineError("seven slots do not fit")
    return Costs(decode_s=0.005 if options.get("slots") == 4 else 0.01, prefill_s=0.0)


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A spec in a world whose costs are known."""
    monkeypatch.setenv("LICHEN_CACHE", str(tmp_path / "cache"))
    install(monkeypatch.setattr, surface, tmp_path)
    return RunSpec(solutions=(COSTED,), idle_s=0.0)


@pytest.fixture
def rounds(spec: RunSpec, tmp_path: Path) -> Iterator[Rounds]:
    """What runs the rounds of a search over that spec."""
    catalog = Catalog(cache_dir=tmp_path, mirror_dirs=(), offline=True)
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    with rounds_for(spec, store_url=url, catalog=catalog) as opened:
        yield opened


@pytest.fixture
def evaluate(spec: RunSpec, rounds: Rounds) -> BenchmarkEvaluate:
    """The port over that spec."""
    return BenchmarkEvaluate(spec=spec, rounds=rounds)


class Watching:
    """An observer that only listens."""

    def stage(self, text: str) -> None:
        """Ignore it."""

    def advanced(self, attempts: int, text: str) -> None:
        """Ignore it."""


def test_halves_are_even_and_odd(spec: RunSpec, tmp_path: Path) -> None:
    """Calibration takes the even problems, verification the odd ones; a limit holds for each."""
    catalog = Catalog(cache_dir=tmp_path, mirror_dirs=(), offline=True)
    both = halves(spec, catalog)
    assert [int(i.split("/")[1]) % 2 for i in both.calibration] == [0] * 6
    assert [int(i.split("/")[1]) % 2 for i in both.verification] == [1] * 6
    few = halves(spec.model_copy(update={"task": TaskSpec(limit=2)}), catalog)
    assert (len(few.calibration), len(few.verification)) == (2, 2)


def test_evaluate_measures_plain_and_candidates_in_one_run(evaluate: BenchmarkEvaluate) -> None:
    """All are in one run, and a candidate that costs half is seen to cost half."""
    ids = ["HumanEval/0", "HumanEval/2"]
    seen = evaluate([(), (FOUR,)], ids)
    plain, four = seen.observed
    assert sum(four.cpu_s) == pytest.approx(sum(plain.cpu_s) / 2)
    assert len(four.quality) == len(four.latency_s) == 2
    assert plain.wall_s == pytest.approx(2 * four.wall_s)
    assert seen.cpu_s >= sum(plain.cpu_s) + sum(four.cpu_s)
    assert len(evaluate.run_ids) == 1


def test_evaluate_sorts_out_what_cannot_be_loaded(evaluate: BenchmarkEvaluate) -> None:
    """A broken candidate comes back with its reason; the others are measured all the same."""
    plain, broken, four = evaluate([(), (SEVEN,), (FOUR,)], ["HumanEval/0", "HumanEval/2"]).observed
    assert "seven slots" in broken.error
    assert sum(four.cpu_s) == pytest.approx(sum(plain.cpu_s) / 2)


def test_evaluate_raises_if_plain_does_not_work(evaluate: BenchmarkEvaluate) -> None:
    """A solution that cannot be run at all is no candidate's fault."""
    broken = COSTED.model_copy(
        update={"engine": EngineSpec.model_validate({"name": "costed", "slots": 7})}
    )
    evaluate.spec = evaluate.spec.model_copy(update={"solutions": (broken,)})
    with pytest.raises(LichenError, match="seven slots"):
        evaluate([(), (STOP,)], ["HumanEval/0"])


def test_evaluate_survives_an_incumbent_that_cannot_be_loaded(evaluate: BenchmarkEvaluate) -> None:
    """What all else is held against fails: the round says so, and nothing is raised."""
    seen = evaluate([(SEVEN,), (SEVEN, STOP)], ["HumanEval/0"]).observed
    assert all("seven slots" in o.error for o in seen)


def test_search_over_the_benchmark_finds_what_pays(
    evaluate: BenchmarkEvaluate, spec: RunSpec, tmp_path: Path
) -> None:
    """From spec to verified result: the search finds the cheap setting, the other half shows it."""
    even = [f"HumanEval/{i}" for i in range(0, 12, 2)]
    result = search(
        evaluate, [SEVEN, FOUR, STOP], even, budget=Budget(seconds=1e6, problems_per_round=2)
    )
    assert result.best == (FOUR,)
    proof = verification(spec, result.best, ["HumanEval/1", "HumanEval/3"], ablation=True)
    stored = evaluate.rounds.prove(proof, fresh=False, observer=Watching())
    assert [s.name for s in stored.run.solutions] == ["plain", "green"]
    assert set(stored.run.problem_ids) == {"HumanEval/1", "HumanEval/3"}
    assert spent_on(stored).cpu_s > 0
    again = evaluate.rounds.prove(proof, fresh=False, observer=Watching())
    assert again.run.id == stored.run.id
    fresh = evaluate.rounds.prove(proof, fresh=True, observer=Watching())
    assert fresh.run.id != stored.run.id


def test_verification_can_leave_out_each_strategy() -> None:
    """Ablation rows are green without one strategy each."""
    spec = RunSpec(solutions=(COSTED,))
    proof = verification(spec, (FOUR, STOP), ["p"], ablation=True)
    assert [(s.name, [t.name for t in s.strategies]) for s in proof.solutions] == [
        ("plain", []),
        ("green", ["concurrency", "stop_when_complete"]),
        ("green without concurrency", ["stop_when_complete"]),
        ("green without stop_when_complete", ["concurrency"]),
    ]


def test_solution_keeps_its_own_strategies() -> None:
    """What the user configured stays as it is, and new strategies go where their layer is."""
    own = COSTED.model_copy(
        update={"strategies": (StrategySpec.model_validate({"name": "answer_cache", "typed": 8}),)}
    )
    made = solution_of(own, (FOUR,), "green")
    assert [s.name for s in made.strategies] == ["concurrency", "answer_cache"]
    assert made.strategies[1].options == {"typed": 8}


def test_cascade_asks_the_named_model_first() -> None:
    """The solution's own model becomes the second level, with the same inner strategies."""
    base = SolutionSpec(name="big", model="big-model")
    cascade = Choice(strategy="cascade", options=(("first", "small-model"),))
    made = solution_of(base, (STOP, cascade), "green")
    assert made.model == "small-model"
    level = made.strategies[1].options["levels"][0]
    assert level["model"] == "big-model"
    assert [s["name"] for s in level["strategies"]] == ["stop_when_complete"]


RECIPE = '[[step]]\nmethod = "requantise"\ntypes = { layers = "Q4_K" }\n'


def test_a_recipe_is_tried_on_the_solutions_own_model(tmp_path: Path) -> None:
    """The made model takes the model's place, also where it becomes a cascade's last level."""
    file = tmp_path / "mine.toml"
    file.write_text(RECIPE, encoding="utf-8")
    base = SolutionSpec(name="big", model="big-model")
    made = Choice(strategy="recipe", options=(("name", str(file)),))
    alone = solution_of(base, (made, STOP), "green")
    assert (alone.model, alone.recipe) == ("big-model", RECIPE)
    assert [s.name for s in alone.strategies] == ["stop_when_complete"]
    named = Choice(strategy="recipe", options=(("name", "fast"),))
    cascade = Choice(strategy="cascade", options=(("first", "small-model"),))
    both = solution_of(base, (named, STOP, cascade), "green")
    assert (both.model, both.recipe) == ("small-model", "")
    (level,) = both.strategies[1].options["levels"]
    assert (level["model"], level["recipe"]) == ("big-model", "fast")


def test_the_model_asked_first_may_be_made_too(tmp_path: Path) -> None:
    """Its solution file names model and recipe; what else it says is refused, not forgotten."""
    (tmp_path / "mine.toml").write_text(RECIPE, encoding="utf-8")
    file = tmp_path / "first.toml"
    file.write_text('model = "small-model"\nrecipe = "mine.toml"\n', encoding="utf-8")
    base = SolutionSpec(name="big", model="big-model")
    cascade = Choice(strategy="cascade", options=(("first", str(file)),))
    made = solution_of(base, (cascade,), "green")
    assert (made.model, made.recipe) == ("small-model", RECIPE)
    (level,) = made.strategies[0].options["levels"]
    assert (level["model"], level.get("recipe")) == ("big-model", None)
    with file.open("a", encoding="utf-8") as out:
        out.write('[[strategies]]\nname = "stop_when_complete"\n')
    with pytest.raises(ConfigError, match="no strategies, which the search chooses"):
        solution_of(base, (cascade,), "green")


def test_a_cascade_may_ask_its_second_model_in_another_form() -> None:
    """Only that level's ``answer_prefix`` differs, in its place behind the engine's strategies."""
    options = (("first", "small"), ("unchecked", "last"), ("form", "shown"))
    cascade = Choice(strategy="cascade", options=options)
    given = Choice(strategy="answer_prefix", options=(("style", "given"),))
    base = SolutionSpec(name="b", model="big")
    made = solution_of(base, (FOUR, given, STOP, cascade), "green")
    (level,) = made.strategies[-1].options["levels"]
    assert [s.name for s in made.strategies] == [s["name"] for s in level["strategies"]] + [
        "cascade"
    ]
    assert made.strategies[1].options == {"style": "given"}
    assert level["strategies"][1] == {"name": "answer_prefix", "style": "shown"}
    assert "form" not in made.strategies[-1].options
    bare = solution_of(base, (FOUR, STOP, cascade), "green")
    (level,) = bare.strategies[-1].options["levels"]
    assert [s["name"] for s in level["strategies"]] == [
        "concurrency",
        "answer_prefix",
        "stop_when_complete",
    ]


def test_written_solution_is_read_back(tmp_path: Path) -> None:
    """A green file, cascade levels and odd names included, is the same solution when loaded."""
    base = SolutionSpec(name="b", model='a "quoted"\\name\x7f')
    cascade = Choice(strategy="cascade", options=(("first", "small"),))
    made = solution_of(base, (FOUR, STOP, cascade), "green")
    path = tmp_path / "green.toml"
    write_solution(path, made, ["two\nlines stay one comment"])
    assert load([path]).solutions == (made,)
    assert solution_text(made).count("[[strategies]]") == 3


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    """A file that somebody else wrote is refused; one's own is replaced."""
    path = tmp_path / "green.toml"
    write_solution(path, COSTED)
    write_solution(path, COSTED)
    path.write_text('model = "theirs"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="choose another path"):
        check_writable(path)
    with pytest.raises(ConfigError, match="folder does not exist"):
        check_writable(tmp_path / "no" / "green.toml")
    assert tomllib.loads(path.read_text(encoding="utf-8"))["model"] == "theirs"


def test_only_one_solution_that_runs_here_is_accelerated() -> None:
    """Several solutions, or one that computes elsewhere, are refused with the reason."""
    with pytest.raises(ConfigError, match="one solution"):
        base_of(RunSpec(solutions=(COSTED, COSTED)))
    remote = SolutionSpec(name="far", model="m", engine=EngineSpec(name="openai_http"))
    with pytest.raises(ConfigError, match="outside this process"):
        base_of(RunSpec(solutions=(remote,)))
