"""What a search over strategies tries: a table of strategies and the settings worth a look.

Adding a row is all that a new strategy needs to be searched. Strategies that need something only
the user can name (a draft model, a small first model) become candidates when it is named. The
``answer_cache`` is not in the table: a benchmark never asks the same question twice, so that what
a cache saves there would say nothing; it pays by the repetition in real traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lichen.acceleration.strategy import Layer

Setting = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One strategy with its options, as a value that can be a key."""

    strategy: str
    options: tuple[tuple[str, Setting], ...] = ()

    @property
    def label(self) -> str:
        """The strategy for people: ``concurrency(slots=4)``."""
        inside = ", ".join(f"{k}={v}" for k, v in self.options)
        return f"{self.strategy}({inside})" if inside else self.strategy


CandidateSet = tuple[Choice, ...]
"""Strategies from the engine outwards; the empty one is the plain solution."""

LAYERS: Final[Mapping[str, Layer]] = {
    "concurrency": Layer.ENGINE,
    "prefix_cache": Layer.ENGINE,
    "kv_cache_type": Layer.ENGINE,
    "speculation": Layer.ENGINE,
    "answer_prefix": Layer.TEXT,
    "stop_when_complete": Layer.TEXT,
    "stop_when_passing": Layer.TEXT,
    "cascade": Layer.ROUTE,
    "answer_cache": Layer.CACHE,
}
"""Where each strategy sits, known without loading it; within a layer, the order of this table."""

TABLE: Final[tuple[Choice, ...]] = (
    Choice(strategy="stop_when_complete"),
    Choice(strategy="concurrency", options=(("slots", 4),)),
    Choice(strategy="concurrency", options=(("slots", 8),)),
    Choice(strategy="answer_prefix", options=(("style", "given"),)),
    Choice(strategy="answer_prefix", options=(("style", "fence"),)),
    Choice(strategy="answer_prefix", options=(("style", "raw"),)),
    Choice(strategy="stop_when_passing"),
    Choice(strategy="prefix_cache"),
    Choice(strategy="kv_cache_type", options=(("keys", "q8_0"), ("values", "q8_0"))),
    Choice(strategy="speculation", options=(("ngram", "simple"), ("switch", "on"))),
)
"""What is tried without being asked for, those first that usually matter most."""

RUN_EXAMPLES: Final = frozenset({"stop_when_passing", "cascade"})
"""Strategies that run the question's own examples. Where these are the very tests that decide, what
they seem to save in quality is a leak, so that a search has to leave them out."""

FIRST_MODEL: Final = "first"
"""Option of a ``cascade`` choice: the model asked first; the solution's own becomes the second."""


def default_candidates(
    *, present: Iterable[str] = (), draft: str = "", first: str = ""
) -> tuple[Choice, ...]:
    """Return the choices to screen.

    Args:
        present: strategies that the solution has already; they stay as they are.
        draft: name of a draft model for ``speculation``, "" for none.
        first: name of a small model that a ``cascade`` asks first, "" for none.
    """
    taken = frozenset(present)
    named: list[Choice] = []
    if draft:
        options = (("draft", draft), ("ngram", ""), ("switch", "on"))
        named.append(Choice(strategy="speculation", options=options))
    if first:
        named.append(Choice(strategy="cascade", options=((FIRST_MODEL, first),)))
    return tuple(c for c in (*TABLE, *named) if c.strategy not in taken)


def ordered(choices: Iterable[Choice]) -> CandidateSet:
    """Return choices in layer order, from the engine outwards; unknown strategies are text."""
    places = list(LAYERS)

    def place(choice: Choice) -> tuple[int, int]:
        layer = LAYERS.get(choice.strategy, Layer.TEXT)
        known = choice.strategy in LAYERS
        return layer, places.index(choice.strategy) if known else len(places)

    return tuple(sorted(choices, key=place))


def with_choice(candidate: CandidateSet, choice: Choice) -> CandidateSet:
    """Return the candidate with a choice added, in place of another one of the same strategy."""
    return ordered((*(c for c in candidate if c.strategy != choice.strategy), choice))


def label(candidate: CandidateSet) -> str:
    """Name a candidate for people."""
    return " + ".join(c.label for c in candidate) or "plain"
