"""The strategy that leaves layers out: what it asks of the engine, and its control row."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.acceleration.strategies.early_exit import can_exit, make, never
from lichen.acceleration.strategy import StrategyContext
from lichen.compose.build import make_solution
from lichen.compose.controls import with_controls
from lichen.compose.spec import EngineSpec, RunSpec, SolutionSpec, StrategySpec
from lichen.core.errors import CapabilityError, ConfigError
from lichen.core.generation import Completion, Request
from lichen.testing.engine import ScriptedEngine
from lichen.testing.in_process_sandbox import InProcessSandbox


def test_the_engine_is_told_when_to_leave() -> None:
    """Other options stay; what the strategy does not know is not set."""
    strategy = make({"threshold": 0.8, "first": 0.5}, StrategyContext())
    told = strategy.configure({"dtype": "float32"})
    assert told["dtype"] == "float32"
    exits = told["early_exit"]
    assert isinstance(exits, dict)
    assert (exits["controller"], exits["threshold"], exits["first"]) == ("confidence", 0.8, 0.5)
    assert exits["weights"] == ""


def test_a_linear_controller_has_a_file_of_its_own_for_each_model(tmp_path: Path) -> None:
    """Thresholds share one classifier; another model, or other layers, need another."""
    context = StrategyContext(data_dir=tmp_path)

    def weights(**options: object) -> str:
        return make({"controller": "linear", **options}, context).options.weights

    assert weights(model="a") == weights(model="a", threshold=0.5, stop_threshold=0.9)
    assert len({weights(model="a"), weights(model="b"), weights(model="a", first=0.5)}) == 3
    assert weights(model="a").startswith(str(tmp_path))


def test_texts_are_the_standard_library_or_what_is_given(tmp_path: Path) -> None:
    """A folder is read at any depth, a file alone; none is a mistake."""
    context = StrategyContext(data_dir=tmp_path)
    assert len(make({"controller": "linear"}, context).options.texts) == 64
    folder = tmp_path / "mine" / "deep"
    folder.mkdir(parents=True)
    code = folder / "a.py"
    code.write_text("x = 1\n", encoding="utf-8")
    for where in (tmp_path / "mine", code):
        found = make({"controller": "linear", "texts": str(where)}, context).options.texts
        assert found == (str(code),)
    with pytest.raises(ConfigError, match="no Python files under"):
        make({"controller": "linear", "texts": str(tmp_path / "nothing")}, context)


def test_each_answer_says_which_controller_was_on() -> None:
    """A control says that it never exits."""
    for options, action in (
        ({}, "controller confidence"),
        ({"threshold": 2.0}, "controller confidence, never exits"),
    ):
        engine = make(options, StrategyContext()).wrap(ScriptedEngine(lambda _: "x"))
        request = Request(id="a", prompt="say", max_tokens=4, seed=0)
        (done,) = (c for c in engine.generate([request]) if isinstance(c, Completion))
        assert [(s.actor, s.action) for s in done.ledger][-1] == ("early_exit", action)


def solution(name: str, **options: object) -> SolutionSpec:
    """A solution that exits early with these options."""
    return SolutionSpec(
        name=name,
        engine=EngineSpec(name="transformers"),
        strategies=(
            StrategySpec(name="early_exit", **options),
            StrategySpec(name="stop_when_complete"),
        ),
    )


def test_a_solution_that_exits_gets_its_control_beside_it() -> None:
    """Same tests, same order of strategies, thresholds out of reach; nothing else is touched."""
    plain = SolutionSpec(name="plain")
    early = solution("early", threshold=0.8, first=0.5)
    spec = RunSpec(solutions=(early, plain))
    found = with_controls(spec).solutions
    assert [s.name for s in found] == ["early", "early, never exits", "plain"]
    assert found[1].strategies[0].options == {
        "threshold": 2.0,
        "first": 0.5,
        "stop_threshold": 2.0,
    }
    assert found[1].strategies[1:] == early.strategies[1:]
    assert found[1].engine == early.engine


def test_one_control_serves_solutions_that_test_alike() -> None:
    """Nor does a control, or a solution without the strategy, get one."""
    spec = RunSpec(
        solutions=(
            solution("a", threshold=0.8),
            solution("b", threshold=0.9),
            solution("c", threshold=3.0),
            SolutionSpec(name="plain"),
        )
    )
    names = [s.name for s in with_controls(spec).solutions]
    assert names == ["a", "a, never exits", "b", "c", "plain"]
    assert with_controls(with_controls(spec)) == with_controls(spec)


def test_what_can_exit_is_told_from_its_options() -> None:
    """A threshold that no probability reaches never does; a mistake is said at once."""
    assert can_exit({})
    assert can_exit({"threshold": 2.0, "stop_threshold": 0.9})
    assert not can_exit(never({"threshold": 0.7, "every": 2}))
    with pytest.raises(ConfigError, match="treshold"):
        can_exit({"treshold": 0.7})


@pytest.mark.parametrize("engine", ["llama_cpp", "openai_http"])
def test_an_engine_that_runs_models_whole_is_refused(engine: str) -> None:
    """Before anything is loaded, in a sentence that says which engine can."""
    spec = solution("early").model_copy(update={"engine": EngineSpec(name=engine)})
    with pytest.raises(CapabilityError, match=f"'{engine}' cannot: use the engine transformers"):
        make_solution(spec, None, InProcessSandbox())  # type: ignore[arg-type]
