"""Choose the factors of one pricing: a place, a year, a facility. Nothing is chosen silently.

A region without its own water or tariff row gets the world's; the factor's ``region`` then says
``WORLD`` and its note says why. A year that the file lacks gives the nearest one, and the note
says so. ``facility.pue`` and ``water.onsite`` come from one facility profile (``site.*`` rows).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.footprint import Factor, FactorSet
from lichen.core.interval import Interval
from lichen.core.registry import unknown
from lichen.footprint.regions import WORLD, region_code
from lichen.footprint.table import GRID, OFFSITE, TARIFF, check, load_factors

PUE: Final = "facility.pue"
ONSITE: Final = "water.onsite"
REGIONAL: Final = (GRID, OFFSITE, TARIFF)
DEFAULT_SITE: Final = "unknown"


def factor_set(
    region: str = WORLD,
    *,
    year: int | None = None,
    pue: str | float | None = None,
    overrides: Mapping[str, float] | None = None,
    files: Sequence[Path] = (),
) -> FactorSet:
    """Choose every factor that pricing and estimates need.

    Args:
        region: ISO alpha-3 or alpha-2 code or English name of the grid; ``WORLD`` for the average.
        year: the year whose grid, water and tariff rows are wanted; None takes the newest of each.
        pue: a facility profile (``device``, ``us-average``, ``google`` ...), a number >= 1, or
            None for ``unknown``, whose range spans from no facility at all to the survey average.
        overrides: factor name -> number, taken as exact and marked as given by the user.
        files: the user's factor files; see ``load_factors``.

    Raises:
        UnknownNameError: no such region, facility profile or factor.
        ConfigError: a file or a number is not usable.
    """
    rows = load_factors(files)
    code = region_code(region, also={f.region for f in rows if f.region})
    chosen = [_regional(rows, name, code, year) for name in REGIONAL]
    chosen += _facility(rows, pue)
    names = sorted({f.name for f in rows if not f.name.startswith(("site.", *REGIONAL))})
    chosen += [_newest([f for f in rows if f.name == name], None) for name in names]
    result = FactorSet(region=code, factors=tuple(chosen))
    for name, value in (overrides or {}).items():
        result = override(result, name, value)
    return result


def override(factors: FactorSet, name: str, value: float) -> FactorSet:
    """Return the set with one factor replaced by the user's own exact number.

    Raises:
        UnknownNameError: the set has no such factor.
        ConfigError: the number is impossible for it.
    """
    known = [f.name for f in factors.factors]
    if name not in known:
        raise UnknownNameError(unknown("factor", name, sorted(known)))
    if not math.isfinite(value) or value < 0:
        raise ConfigError(f"the factor {name} must be finite and not negative, got {value}")
    exact = Interval.exact(value)
    family = {PUE: "site.user.pue", ONSITE: "site.user.wue"}.get(name, name)
    check(family, exact, unit=None, at="override")
    given = dataclasses.replace(
        factors[name],
        value=exact,
        year=0,
        source="given by the user",
        licence="none",
        region=factors.region if name in REGIONAL else "",
        note="",
    )
    return factors.replaced(given)


def fallbacks(factors: FactorSet) -> tuple[str, ...]:
    """Names of regional factors for which the world's value stands in."""
    return tuple(
        f.name for f in factors.factors if f.name in REGIONAL and f.region != factors.region
    )


def facility_profiles(files: Sequence[Path] = ()) -> tuple[str, ...]:
    """Names that ``factor_set(pue=...)`` accepts, sorted."""
    return _profiles(load_factors(files))


def _profiles(rows: Iterable[Factor]) -> tuple[str, ...]:
    found = {f.name.split(".")[1] for f in rows if f.name.startswith("site.")}
    return tuple(sorted(found))


def _regional(rows: Sequence[Factor], name: str, code: str, year: int | None) -> Factor:
    own = [f for f in rows if f.name == name and f.region == code]
    if own:
        return _newest(own, year)
    world = _newest([f for f in rows if f.name == name and f.region == WORLD], year)
    return _noted(world, f"the file has no row for {code}: the world's value stands in")


def _newest(rows: Sequence[Factor], year: int | None) -> Factor:
    if year is None:
        return max(rows, key=lambda f: f.year)
    nearest = min(rows, key=lambda f: (abs(f.year - year), -f.year))
    if nearest.year in (year, 0):
        return nearest
    return _noted(nearest, f"asked for {year}: {nearest.year} is the nearest in the file")


def _facility(rows: Sequence[Factor], pue: str | float | None) -> list[Factor]:
    profile = pue if isinstance(pue, str) else DEFAULT_SITE
    known = _profiles(rows)
    if profile not in known:
        raise UnknownNameError(unknown("facility profile", profile, known))
    by_name = {f.name: f for f in rows if f.name.startswith("site.")}
    chosen = []
    for name, column in ((PUE, "pue"), (ONSITE, "wue")):
        row = by_name.get(f"site.{profile}.{column}")
        if row is None:
            row = by_name[f"site.{DEFAULT_SITE}.{column}"]
            row = _noted(row, f"profile {profile} has no {column}: that of {DEFAULT_SITE}")
        chosen.append(dataclasses.replace(_noted(row, f"facility profile {profile}"), name=name))
    if isinstance(pue, int | float):
        exact = override(FactorSet(region="", factors=tuple(chosen)), PUE, float(pue))
        return [exact[PUE], exact[ONSITE]]
    return chosen


def _noted(factor: Factor, remark: str) -> Factor:
    note = f"{remark}; {factor.note}" if factor.note else remark
    return dataclasses.replace(factor, note=note)
