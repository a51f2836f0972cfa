"""What a search over strategies tries: a table of strategies and the settings worth a look.

Adding a row is all that a new strategy needs to be searched. Strategies whose settings depend on
the machine (slots) or on further models (a draft, a cascade's first) become candidates with what is
passed in, and so does the solution's own model, made smaller by a recipe. The ``answer_cache`` is
not in the table: a benchmark never asks the same question twice, so that what a cache saves there
would say nothing; it pays by the repetition in real traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lichen.acceleration.strategy import Layer
from lichen.core.generation import Hints, Request

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
    "recipe": Layer.ENGINE,
    "concurrency": Layer.ENGINE,
    "prefix_cache": Layer.ENGINE,
    "kv_cache_type": Layer.ENGINE,
    "speculation": Layer.ENGINE,
    "early_exit": Layer.ENGINE,
    "answer_prefix": Layer.TEXT,
    "stop_when_complete": Layer.TEXT,
    "stop_when_passing": Layer.TEXT,
    "backtrack": Layer.TEXT,
    "cascade": Layer.ROUTE,
    "answer_cache": Layer.CACHE,
}
"""Where each strategy sits, known without loading it; within a layer, the order of this table."""

TABLE: Final[tuple[Choice, ...]] = (
    Choice(strategy="stop_when_complete"),
    Choice(strategy="answer_prefix", options=(("style", "given"),)),
    Choice(strategy="answer_prefix", options=(("style", "fence"),)),
    Choice(strategy="answer_prefix", options=(("style", "raw"),)),
    Choice(strategy="answer_prefix", options=(("style", "shown"),)),
    Choice(strategy="stop_when_passing"),
    Choice(strategy="backtrack"),
    Choice(strategy="prefix_cache"),
    Choice(strategy="kv_cache_type", options=(("keys", "q8_0"), ("values", "q8_0"))),
    Choice(strategy="speculation", options=(("ngram", "simple"), ("switch", "on"))),
)
"""What is tried without being asked for, those first that usually matter most."""

SECOND_FORM: Final = "form"
"""Option of a ``cascade`` choice: the style of ``answer_prefix`` in which the solution's own model
is asked, where it is to be another one than the first model's. Two forms fail on different
questions, and the cheaper one will do where an easier question has been answered already."""

_SECOND: Final = "shown"

_CASCADES: Final[tuple[tuple[tuple[str, Setting], ...], ...]] = (
    (("unchecked", "last"),),
    (("unchecked", "last"), (SECOND_FORM, _SECOND)),
    (("unchecked", "give"),),
)

EXITS: Final = (("confidence", 0.9), ("linear", 0.9))
"""Controllers of ``early_exit`` and their thresholds that are tried where the engine has it."""

RUN_EXAMPLES: Final = frozenset({"stop_when_passing", "backtrack", "cascade"})
"""Strategies that run the question's own examples. Where these are the very tests that decide, what
they seem to save in quality is a leak, so that a search has to leave them out."""

LEAVE_ANSWERS: Final = frozenset({"concurrency", "prefix_cache", "stop_when_complete"})
"""Strategies that leave the code alone that a model writes (greedy answers may differ where a batch
rounds otherwise), so that what they save together can be shown before anything else is tried."""

FIRST_MODEL: Final = "first"
"""Option of a ``cascade`` choice: the model asked first, or the file of a solution that names it;
the solution's own becomes the second."""

RECIPE: Final = "recipe"
"""A choice that is no strategy: the solution's model, made by the recipe in the option ``name``."""


def default_candidates(
    *,
    present: Iterable[str] = (),
    slots: Iterable[Choice] = (),
    draft: str = "",
    firsts: Iterable[str] = (),
    recipes: Iterable[str] = (),
    exits: bool = False,
    asked: Request | None = None,
) -> tuple[Choice, ...]:
    """Return the choices to screen, in the order in which a short budget looks at them.

    What the caller names comes first: other models, which change the most. Other numbers of slots
    than the opening's come last.

    Args:
        present: strategies that the solution has already; they stay as they are.
        slots: settings of ``concurrency``, see ``slot_screening``.
        draft: name of a draft model for ``speculation``, "" for none.
        firsts: small models that a ``cascade`` asks first, see ``FIRST_MODEL``; questions that show
            no examples go to the solution's own model at once, or are answered by the small one,
            or go up and are asked in a second form, see ``SECOND_FORM``.
        recipes: names or files of compression recipes for the solution's model.
        exits: whether the engine can leave layers out.
        asked: a question of the task; what has nothing to work on there is left out.
    """
    taken = frozenset(present)
    named = [Choice(strategy=RECIPE, options=(("name", r),)) for r in dict.fromkeys(recipes)]
    named += [
        Choice(strategy="cascade", options=((FIRST_MODEL, first), *how))
        for first in dict.fromkeys(firsts)
        for how in _CASCADES
    ]
    if draft:
        options = (("draft", draft), ("ngram", ""), ("switch", "on"))
        named.append(Choice(strategy="speculation", options=options))
    layers = [
        Choice(strategy="early_exit", options=(("controller", c), ("threshold", t)))
        for c, t in (EXITS if exits else ())
    ]
    return tuple(
        c
        for c in (*named, *TABLE, *layers, *slots)
        if c.strategy not in taken and (asked is None or has_work(c, asked))
    )


def has_work(choice: Choice, asked: Request) -> bool:
    """Whether a choice can do something on questions like this one, by what the question gives.

    A hint, not a promise: a strategy that finds nothing to do says so in the ledger.
    """
    hints = asked.hints or Hints()
    options = dict(choice.options)
    if choice.strategy == "answer_prefix" or SECOND_FORM in options:
        given = hints.language if options.get("style") == "fence" else hints.given
        return asked.kind == "chat" and bool(given.strip())
    if choice.strategy in ("stop_when_passing", "backtrack"):
        return asked.kind != "infill" and bool(hints.entry_point)
    return True


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


def opening(choices: Iterable[Choice]) -> CandidateSet:
    """Return what a search tries first, together: of ``LEAVE_ANSWERS`` the first settings given.

    Empty where there are fewer than two, since one alone is what screening looks at.
    """
    first: dict[str, Choice] = {}
    for choice in choices:
        if choice.strategy in LEAVE_ANSWERS:
            first.setdefault(choice.strategy, choice)
    return ordered(first.values()) if len(first) > 1 else ()


def label(candidate: CandidateSet) -> str:
    """Name a candidate for people."""
    return " + ".join(c.label for c in candidate) or "plain"
