"""What a cascade did, what other thresholds would have given, and whether it pays: as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.summary import Dimension, RouteLevel, RoutePoint, RouteSummary
from lichen.report import format as fmt
from lichen.report.clean import one_line

MOST_POINTS: Final = 8
"""Thresholds listed in a table; a drawing has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRow:
    """One level: how often it was asked and handed on, what that costs, and the break-even."""

    name: str
    attempts: str
    handed_on: str
    cost: str
    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """One threshold: up to which score answers are handed on, how many that is, cost, quality."""

    scores: str
    handed_on: str
    cost: str
    quality: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteView:
    """One cascade as text."""

    name: str
    conclusion: str
    levels: tuple[LevelRow, ...]
    points: tuple[PointRow, ...]
    unit: str
    note: str


def view(route: RouteSummary) -> RouteView:
    """Return a cascade as text; points are thinned out to ``MOST_POINTS``."""
    costs = [Interval.exact(p.cost_cpu_s) for p in route.points]
    unit = fmt.unit_for(Dimension.CPU_TIME, costs)
    return RouteView(
        name=one_line(route.solution),
        conclusion=one_line(route.conclusion),
        levels=tuple(map(_level, route.levels)),
        points=tuple(_point(p, unit) for p in thinned(route.points)),
        unit=unit.symbol,
        note=one_line(route.note),
    )


def thinned(points: Sequence[RoutePoint]) -> tuple[RoutePoint, ...]:
    """Return at most ``MOST_POINTS`` of them, evenly spread, the first and the last included."""
    n = len(points)
    if n <= MOST_POINTS:
        return tuple(points)
    chosen = dict.fromkeys(round(i * (n - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS))
    return tuple(points[i] for i in chosen)


def scores(point: RoutePoint) -> str:
    """Return up to which score a threshold hands answers on."""
    if math.isinf(point.threshold):
        return "none"
    # A threshold lies just above a score, be that 0.
    return f"up to {fmt.significant(round(point.threshold, 6), 2)}"


def _level(level: RouteLevel) -> LevelRow:
    rate = "" if isinstance(level.rate, Missing) else f" ({_share(level.rate)})"
    return LevelRow(
        name=one_line(level.name),
        attempts=fmt.count(level.attempts),
        handed_on=f"{fmt.count(level.handed_on)}{rate if level.handed_on else ''}",
        cost=_cost(level.cost_cpu_s),
        limit=one_line(level.limit.reason)
        if isinstance(level.limit, Missing)
        else f"below {_share(level.limit)}",
    )


def _point(point: RoutePoint, unit: fmt.Unit) -> PointRow:
    return PointRow(
        scores=scores(point),
        handed_on=fmt.percent(point.handed_on),
        cost=fmt.significant(unit.of(point.cost_cpu_s)),
        quality=f"{point.quality:.2f}",
    )


def _cost(value: Interval | Missing) -> str:
    if isinstance(value, Missing):
        return f"not measured: {one_line(value.reason)}"
    unit = fmt.unit_for(Dimension.CPU_TIME, [value])
    return f"{fmt.interval(unit.interval(value))} {unit.symbol}"


def _share(x: Interval) -> str:
    best, low, high = (fmt.number(100 * v, 0) for v in (x.value, x.low, x.high))
    return f"{best} %" if low == high else f"{best} % [{low}, {high}]"
