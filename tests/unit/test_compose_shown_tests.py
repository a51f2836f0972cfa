"""Runs in which quality may be looked up say so."""

from __future__ import annotations

import pytest

from lichen.compose.shown_tests import oracle_notes
from lichen.compose.spec import RunSpec, SolutionSpec, StrategySpec, TaskSpec


@pytest.mark.parametrize(
    ("task", "strategy", "told"),
    [
        ("mbpp", {"name": "cascade"}, True),
        ("mbpp", {"name": "cascade", "signal": "confidence"}, False),
        ("mbpp", {"name": "stop_when_passing"}, True),
        ("mbpp", {"name": "prefix_cache"}, False),
        ("humaneval", {"name": "cascade"}, False),
    ],
)
def test_who_runs_the_tests_that_decide(task: str, strategy: dict[str, str], told: bool) -> None:
    """Only where the questions show them, and only strategies that run examples."""
    plain = SolutionSpec(name="plain")
    tried = SolutionSpec(name="tried", strategies=(StrategySpec.model_validate(strategy),))
    spec = RunSpec(solutions=(plain, tried), task=TaskSpec(name=task))
    notes = oracle_notes(spec, ["plain", "tried"])
    assert len(notes) == told
    assert all("tried runs them" in note for note in notes)
