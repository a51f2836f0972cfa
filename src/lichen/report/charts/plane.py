"""The quality-energy plane: every solution with both intervals, and the Pareto front.

Up is better, left is cheaper. The cost is per attempt, so that quality is not in it twice. The
front joins the solutions that no other beats in both (dashed steps); its members wear a ring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from lichen.core.interval import Interval
from lichen.report import format as fmt
from lichen.report.charts import ink

LOG_FROM: Final = 6.0
"""Ratio of largest to smallest cost from which the axis is logarithmic."""


_Axis = Callable[[str], Any]
"""Makes a channel of one axis for a field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One solution on the plane; ``cost`` is in the axis' unit, ``look`` its series number."""

    name: str
    look: int
    cost: Interval
    quality: Interval
    on_front: bool


def plane(points: Sequence[Point], *, cost_title: str, metric: str, size: tuple[int, int]) -> Any:
    """Return the plane as an Altair chart of ``size`` = (width, height) in pixels.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        msg = "a plane needs a point"
        raise ValueError(msg)
    alt = ink.altair()
    x_scale, right_edge = _cost_scale(points)
    low = max(0.0, min(p.quality.low for p in points) - 0.06)
    high = min(1.0, max(p.quality.high for p in points) + 0.06)
    x = partial(alt.X, title=cost_title, scale=x_scale, axis=alt.Axis(tickCount=5, grid=False))
    y = partial(
        alt.Y,
        title=metric,
        scale=alt.Scale(domain=[low, high], nice=False, zero=False),
        axis=alt.Axis(tickCount=5, format=".2f", domain=False, ticks=False),
    )
    layers = [_front(points, x, y)] if sum(p.on_front for p in points) > 1 else []
    for rank, p in enumerate(sorted(points, key=lambda p: p.quality.value, reverse=True)):
        layers += _marks(p, x, y, above=rank % 2 == 0, flip=_flips(p, points, right_edge))
    layers.append(_hint())
    return alt.layer(*layers).properties(width=size[0], height=size[1])


def describe(points: Sequence[Point], *, metric: str, unit: str) -> str:
    """Return the plane in words, for those who do not see it."""
    listed = "; ".join(
        f"{p.name}: {metric} {fmt.interval(p.quality)} at {fmt.interval(p.cost)} {unit} per attempt"
        for p in points
    )
    front = ", ".join(p.name for p in points if p.on_front)
    return f"{listed}. On the Pareto front: {front or 'none'}."


def _cost_scale(points: Sequence[Point]) -> tuple[Any, float]:
    alt = ink.altair()
    lows = [p.cost.low for p in points]
    highs = [p.cost.high for p in points if not math.isinf(p.cost.high)]
    top = max([*highs, *(p.cost.value for p in points)])
    if min(lows) > 0 and top / min(lows) > LOG_FROM:
        scale = alt.Scale(type="log", domain=[min(lows) / 1.3, top * 1.3], nice=False)
        return scale, top * 1.3
    return alt.Scale(domain=[0, top * 1.12 or 1.0], nice=False), top * 1.12


def _flips(p: Point, points: Sequence[Point], right_edge: float) -> bool:
    """Whether the label goes to the left, because the right edge is near."""
    smallest = min(q.cost.low for q in points)
    if smallest > 0 and right_edge / smallest > LOG_FROM:
        return math.log(p.cost.value / smallest) > 0.55 * math.log(right_edge / smallest)
    return p.cost.value > 0.55 * right_edge


def _front(points: Sequence[Point], x: _Axis, y: _Axis) -> Any:
    alt = ink.altair()
    members = sorted((p for p in points if p.on_front), key=lambda p: p.cost.value)
    rows = [{"x": p.cost.value, "y": p.quality.value} for p in members]
    return (
        alt.Chart(ink.values(rows))
        .mark_line(
            interpolate="step-after", color=ink.ink("quiet"), strokeDash=[3, 4], strokeWidth=1.25
        )
        .encode(x=x("x:Q"), y=y("y:Q"))
    )


def _marks(p: Point, x: _Axis, y: _Axis, *, above: bool, flip: bool) -> list[Any]:
    alt = ink.altair()
    top = p.cost.value if math.isinf(p.cost.high) else p.cost.high
    row = {
        "x": p.cost.value,
        "x1": p.cost.low,
        "x2": top,
        "y": p.quality.value,
        "y1": p.quality.low,
        "y2": p.quality.high,
        "name": p.name,
    }
    base = alt.Chart(ink.values([row]))
    colour = ink.series(p.look)
    line = {"color": colour, "strokeWidth": 1.75, "strokeDash": ink.dash(p.look)}
    here = {"x": x("x:Q"), "y": y("y:Q")}
    marks = [
        base.mark_rule(**line).encode(x=x("x1:Q"), x2="x2:Q", y=y("y:Q")),
        base.mark_rule(**line).encode(x=x("x:Q"), y=y("y1:Q"), y2="y2:Q"),
        base.mark_point(
            shape=ink.shape(p.look), filled=True, size=130, color=colour, opacity=1
        ).encode(**here),
        base.mark_text(
            align="right" if flip else "left",
            baseline="bottom" if above else "top",
            dx=-12 if flip else 12,
            dy=-7 if above else 7,
            fontSize=14,
            fontWeight=600,
            color=colour,
            limit=220,
        ).encode(**here, text="name:N"),
    ]
    if p.on_front:
        ring = {"shape": "circle", "filled": False, "size": 420, "strokeWidth": 1.25}
        marks.append(base.mark_point(color=colour, opacity=1, **ring).encode(**here))
    return marks


def _hint() -> Any:
    alt = ink.altair()
    return (
        alt.Chart(ink.values([{"t": "better ↖"}]))
        .mark_text(align="left", baseline="top", fontSize=12, color=ink.ink("quiet"))
        .encode(x=alt.value(6), y=alt.value(2), text="t:N")
    )
