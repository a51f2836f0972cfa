"""The solutions and recipes that published figures name can be read by this version."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.acceleration import STRATEGIES
from lichen.compose.made_models import recipe_of
from lichen.compose.spec import load
from lichen.compression.recipe import read_recipe

FOLDER = Path(__file__).parents[2] / "benchmarks"
FILES = sorted(FOLDER.glob("*/*.toml"))


def is_recipe(path: Path) -> bool:
    return "[[step]]" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_benchmark_files_are_read(path: Path) -> None:
    """Names of strategies, recipes and methods are all known."""
    if is_recipe(path):
        assert read_recipe(path).steps
        return
    (solution,) = load([path]).solutions
    assert solution.model
    assert {s.name for s in solution.strategies} <= set(STRATEGIES)
    if solution.recipe:
        assert recipe_of(solution).steps


def test_there_are_both_kinds() -> None:
    """The pattern above finds what it is meant to."""
    assert {is_recipe(p) for p in FILES} == {True, False}
