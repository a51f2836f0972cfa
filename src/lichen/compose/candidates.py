"""What a search tries for a solution here: what depends on machine, cache and task is looked up.

Slots are screened on the engine alone, with the rounds' own engines, so that nothing is loaded
twice; the result is kept with the search, since another look would choose others and the stored
rounds would not be found again. Smaller models of the same family become a cascade's first level
if they are on this machine; nothing is fetched.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from lichen.acceleration.candidates import RECIPE, Choice, default_candidates
from lichen.acceleration.free_cpus import free_cpus
from lichen.acceleration.free_memory import free_bytes
from lichen.acceleration.searched import Round
from lichen.acceleration.slot_screening import (
    SlotLook,
    SlotScreening,
    ladder,
    screen_slots,
    worth_racing,
)
from lichen.catalog import Catalog, Entry
from lichen.catalog.part import write_atomically
from lichen.compose.acceleration import Halves, base_of, solution_of
from lichen.compose.build import EXITS_EARLY, make_solution
from lichen.compose.made_models import recipe_of
from lichen.compose.rounds import Rounds
from lichen.compose.spec import RunSpec, SolutionSpec
from lichen.core.errors import ConfigError
from lichen.core.measurement import Missing
from lichen.core.model import ModelArtifact
from lichen.core.ports import Engine

_log = logging.getLogger(__name__)

_SIZE: Final = re.compile(r"-\d+(?:\.\d+)?[bm](?=-|$)")
"""The part of a model's name that says how many weights it has: ``-0.5b``, ``-135m``."""

_CONTEXT: Final = 4096
"""Tokens a slot holds where the solution does not say: the default of ``LlamaCppOptions``."""

SCREENING_SHARE: Final = 0.1
"""Part of the budget after which no further number of slots is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user says of the candidates.

    Args:
        barred: strategies not to try on this task.
        draft: a draft model for speculation, "" for none.
        first: a model for a cascade to ask first, or the file of a solution that names it; "" for
            those that are here.
        recipes: names or files of compression recipes for the solution's model.
        latency: whether answers have to come within a bound.
        seconds: of the whole budget.
    """

    barred: frozenset[str] = frozenset()
    draft: str = ""
    first: str = ""
    recipes: tuple[str, ...] = ()
    latency: bool = False
    seconds: float = 3600.0


def candidates(
    rounds: Rounds, spec: RunSpec, both: Halves, wanted: Wanted
) -> tuple[tuple[Choice, ...], SlotScreening | None]:
    """Return the choices to search, and the screening of slots; None if there was none.

    Raises:
        LichenError: a model, file or recipe that was named cannot be used.
    """
    _check(spec, _choices(spec, rounds.ground.catalog, both, wanted, ()))
    screening = None
    slots: tuple[Choice, ...] = ()
    if "concurrency" not in _present(spec):
        screening = _screened(rounds, spec, wanted.seconds * SCREENING_SHARE)
        own = _own_slots(base_of(spec))
        slots = worth_racing(screening, own=own, all_that_pay=wanted.latency)
    return _choices(spec, rounds.ground.catalog, both, wanted, slots), screening


def planned(
    spec: RunSpec, catalog: Catalog, both: Halves, wanted: Wanted
) -> tuple[tuple[Choice, ...], tuple[int, ...]]:
    """Return the choices that are certain, and the slots that would be screened; loads nothing.

    Raises:
        LichenError: as ``candidates``.
    """
    choices = _choices(spec, catalog, both, wanted, ())
    _check(spec, choices)
    present = "concurrency" in _present(spec)
    slots = () if present else _ladder(base_of(spec), catalog)
    return choices, slots


def charged(screening: SlotScreening | None) -> tuple[Round, ...]:
    """Return what a screening took, as the search pays for it."""
    if screening is None:
        return ()
    return (Round(observed=(), cpu_s=screening.cpu_s, seconds=screening.seconds),)


def smaller_relatives(catalog: Catalog, model: str) -> tuple[str, ...]:
    """Return the smaller models of the same family that are in the cache, the largest first."""
    entry = _entry(catalog, model)
    if entry is None or entry.parameters is None:
        return ()
    family, size = _SIZE.sub("", entry.name), entry.parameters
    found = [
        (e.parameters, e.name)
        for e in catalog.models()
        if _SIZE.search(e.name)
        and _SIZE.sub("", e.name) == family
        and e.parameters is not None
        and e.parameters < size
        and catalog.located(e.name) is not None
    ]
    return tuple(name for _, name in sorted(found, reverse=True))


def _entry(catalog: Catalog, model: str) -> Entry | None:
    """Return the catalog's entry of a model, also one given by the path of the same file."""
    named = next((e for e in catalog.models() if e.name == model), None)
    if named is not None or catalog.located(model) is None:
        return named
    sha256 = catalog.model(model).sha256
    return next((e for e in catalog.models() if e.sha256 == sha256), None)


def _present(spec: RunSpec) -> frozenset[str]:
    base = base_of(spec)
    found = frozenset(s.name for s in base.strategies)
    return found | {RECIPE} if base.recipe else found


def _choices(
    spec: RunSpec, catalog: Catalog, both: Halves, wanted: Wanted, slots: tuple[Choice, ...]
) -> tuple[Choice, ...]:
    model = base_of(spec).model
    here = smaller_relatives(catalog, model) if model is not None else ()
    return default_candidates(
        present=_present(spec) | wanted.barred,
        slots=slots,
        draft=wanted.draft,
        firsts=(wanted.first,) if wanted.first else here,
        recipes=wanted.recipes,
        exits=base_of(spec).engine.name in EXITS_EARLY,
        asked=both.asked,
    )


def _check(spec: RunSpec, choices: tuple[Choice, ...]) -> None:
    """Have wrong names and files told now, not in the middle of a search."""
    for choice in choices:
        solution = solution_of(base_of(spec), (choice,), choice.strategy)
        if solution.recipe:
            recipe_of(solution)


def _own_slots(base: SolutionSpec) -> int:
    found = base.engine.options.get("slots", 1)
    return found if isinstance(found, int) and found > 0 else 1


def _ladder(base: SolutionSpec, catalog: Catalog) -> tuple[int, ...]:
    model: ModelArtifact | None = None
    if base.model is not None and catalog.located(base.model) is not None:
        model = catalog.model(base.model)
    context = base.engine.options.get("context", _CONTEXT)
    return ladder(
        own=_own_slots(base),
        model=model,
        context=context if isinstance(context, int) and context > 0 else _CONTEXT,
        free=free_bytes(),
    )


def _screened(rounds: Rounds, spec: RunSpec, seconds: float) -> SlotScreening:
    """Return the search's screening of slots, from its notes if it is there."""
    known = _read(rounds)
    if known is not None:
        return known
    base, ground = base_of(spec), rounds.ground

    def open_engine(options: Mapping[str, object]) -> Engine:
        plain = tuple((k, v) for k, v in options.items() if isinstance(v, int))
        choice = Choice(strategy="concurrency", options=plain)
        solution = solution_of(base, (choice,), "slots")
        return make_solution(solution, ground.catalog, ground.sandbox, ground.load).open()

    usable = ground.environment.usable_cpus
    free = free_cpus(ground.meter, usable)
    found = screen_slots(
        open_engine,
        _ladder(base, ground.catalog),
        ground.meter,
        threads=free if free < usable and "threads" not in base.engine.options else 0,
        seconds=seconds,
    )
    try:
        rounds.notes.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(rounds.notes, json.dumps(asdict(found), indent=1))
    except OSError as exc:
        raise ConfigError(f"cannot write {rounds.notes}: {exc.strerror or exc}") from exc
    return found


def _read(rounds: Rounds) -> SlotScreening | None:
    try:
        document = json.loads(rounds.notes.read_text(encoding="utf-8"))
        return SlotScreening(**{**document, "looks": tuple(_look(v) for v in document["looks"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as exc:
        _log.warning("%s cannot be used; slots are screened anew: %r", rounds.notes, exc)
        return None


def _look(data: Mapping[str, Any]) -> SlotLook:
    cost = data["cpu_s_per_token"]
    known = Missing(**cost) if isinstance(cost, Mapping) else float(cost)
    return SlotLook(slots=int(data["slots"]), cpu_s_per_token=known)
