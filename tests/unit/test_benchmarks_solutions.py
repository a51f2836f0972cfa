"""The solution files that figures were made with can be read, and their recipes applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.compose.made_models import recipe_of
from lichen.compose.spec import SolutionSpec, load
from lichen.compression.applying import methods_of

FOLDER = Path(__file__).parents[2] / "benchmarks"
SOLUTIONS = sorted(f for f in FOLDER.glob("*/*.toml") if "model = " in f.read_text("utf-8"))


def test_there_are_some() -> None:
    """At least those of the README and of the lab notes."""
    assert {f.parent.name for f in SOLUTIONS} >= {"headline", "smaller"}


@pytest.mark.parametrize("file", SOLUTIONS, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_each_says_something_usable(file: Path) -> None:
    """Keys are known, and so is every method of a recipe at any level, with its options."""
    (solution,) = load([file]).solutions
    levels = [
        SolutionSpec.model_validate(level)
        for strategy in solution.strategies
        for level in strategy.options.get("levels", ())
    ]
    for spec in (solution, *levels):
        if spec.recipe:
            assert methods_of(recipe_of(spec))
