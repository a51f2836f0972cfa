"""The recipes that ``recipes.py`` measures, and which documentation page shows which of them.

Every method alone, rounding with and without what helps it, methods together, and recipes that
lichen ships. The table is the same for all models: what one of them does not allow is part of the
result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lichen.compression.methods import METHODS
from lichen.compression.recipe import Recipe, RecipeStep
from lichen.compression.shipped import shipped_recipe

COMBINED: Final = "combined"
"""Stands for the method of recipes with several steps."""

EVERYTHING: Final = ("gate", "measured")
"""Pages that show all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One recipe.

    Args:
        label: what tables, pictures and the results call it; unique.
        steps: the recipe's.
        skipped: why there is nothing to measure here, in words; "" where there is.
    """

    label: str
    steps: tuple[RecipeStep, ...]
    skipped: str = ""

    @property
    def recipe(self) -> Recipe:
        """What to do to the model."""
        return Recipe(steps=self.steps)

    @property
    def method(self) -> str:
        """The one method, or ``COMBINED``."""
        return self.steps[0].method if len(self.steps) == 1 else COMBINED

    @property
    def compensated(self) -> bool:
        """Whether rounding errors are made up for."""
        return any(step.options.get("compensate") for step in self.steps)


_RETIE: Final = RecipeStep("retie")


def _trim(inflation: float) -> RecipeStep:
    return RecipeStep("trim_vocabulary", {"inflation": inflation})


def _layers(kind: str, **more: object) -> tuple[RecipeStep, ...]:
    return (RecipeStep("requantise", {"types": {"layers": kind}, **more}),)


def _mixed(cost: float) -> RecipeStep:
    options = {"cost": cost, "types": ["IQ4_NL", "Q4_K"], "compensate": True}
    return RecipeStep("mixed_precision", options)


_THREE: Final = (
    Row(label="IQ4_NL", steps=_layers("IQ4_NL", importance="ignore")),
    Row(label="IQ4_NL, importance", steps=_layers("IQ4_NL", importance="require")),
    Row(label="IQ4_NL, compensated", steps=_layers("IQ4_NL", compensate=True)),
)
"""One type three times: each weight by itself, by importance, with errors made up for."""

TABLE: Final = (
    Row(label="retie", steps=(_RETIE,)),
    Row(label="trim 0.1 %", steps=(_trim(0.001),)),
    Row(label="trim 0.5 %", steps=(_trim(0.005),)),
    *_THREE,
    Row(label="Q4_0, compensated", steps=_layers("Q4_0", compensate=True)),
    Row(label="Q4_K, compensated", steps=_layers("Q4_K", compensate=True)),
    Row(label="mixed, cost 0.85", steps=(_mixed(0.85),)),
    Row(label="mixed, cost 0.7", steps=(_mixed(0.7),)),
    Row(label="drop 1 layer", steps=(RecipeStep("drop_layers", {"count": 1}),)),
    Row(label="narrow to 95 %", steps=(RecipeStep("narrow_ffn", {"keep": 0.95}),)),
    Row(
        label="kv_cache q8_0",
        steps=(RecipeStep("kv_cache", {"keys": "q8_0", "values": "q8_0"}),),
        skipped=(
            "no weight changes, so the two files agree exactly; what the cache's types do shows "
            "only where an engine runs with them"
        ),
    ),
    Row(label="trim + mixed 0.8", steps=(_trim(0.005), _mixed(0.8))),
    Row(label="retie + trim + mixed 0.8", steps=(_RETIE, _trim(0.005), _mixed(0.8))),
    Row(label="shipped recipe small", steps=shipped_recipe("small").steps),
    Row(label="shipped recipe smallest", steps=shipped_recipe("smallest").steps),
)


def rows_of(page: str) -> tuple[Row, ...]:
    """Return the rows that a page shows.

    Raises:
        ValueError: a page of which nothing is known here.
    """
    if page in EVERYTHING:
        return TABLE
    if page == "importance":
        return _THREE
    if page == "compensation":
        return tuple(r for r in TABLE if r in _THREE or r.compensated)
    if page not in METHODS:
        raise ValueError(f"{page}.md has the marker line, but rows_of does not know its rows")
    return tuple(r for r in TABLE if r.method == page)


def chosen(names: list[str] | None) -> tuple[Row, ...]:
    """Return the rows of these labels or methods, all of them for None.

    Raises:
        ValueError: a name that is neither.
    """
    if names is None:
        return TABLE
    known = dict.fromkeys([*(r.method for r in TABLE), *(r.label for r in TABLE)])
    for name in names:
        if name not in known:
            raise ValueError(f"--only: {name!r} is not among {', '.join(map(repr, known))}")
    return tuple(r for r in TABLE if r.label in names or r.method in names)
