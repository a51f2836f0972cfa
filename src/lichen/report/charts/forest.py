"""Cost ratios of two solutions with their intervals, on a logarithmic axis around 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.summary import CostRatio
from lichen.report import format as fmt
from lichen.report.charts import ink

TICKS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
ROW_PX: Final = 34
_WIDEST: Final = 100.0
"""Bounds beyond a factor of 100 are drawn at 100; the table has the numbers."""


def forest(ratios: Sequence[CostRatio], *, title: str, width: int, look: int) -> Any:
    """Return the ratios as an Altair chart; ``look`` is the series number that colours it.

    ``width`` is in pixels; the labels come on top. A filled circle and solid line is the cost per
    attempt, an open diamond and dashed line per solved task.
    """
    alt = ink.altair()
    order = [fmt.LABELS[r.dimension] for r in ratios]
    low, high = _domain(ratios)
    ticks = [t for t in TICKS if low <= t <= high]
    x = partial(
        alt.X,
        title=title,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=ticks, format="~g", grid=False),
    )
    y = alt.Y(
        "row:N",
        sort=order,
        title=None,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(
            domain=False, ticks=False, labelColor=ink.ink("ink"), labelFontSize=13, minExtent=96
        ),
    )
    one = alt.Chart(ink.values([{"x": 1}])).mark_rule(color=ink.ink("quiet"), strokeWidth=1)
    layers = [one.encode(x=x("x:Q"))]
    for solved in (False, True):
        rows = [row for r in ratios if (row := _row(r, solved=solved))]
        if rows:
            colour = ink.ink("quiet") if solved else ink.series(look)
            layers += _marks(rows, (x, y), colour, solved=solved)
    absent = [
        {"row": fmt.LABELS[r.dimension], "t": "not measured"}
        for r in ratios
        if isinstance(r.per_attempt, Missing) and isinstance(r.per_solved, Missing)
    ]
    if absent:
        layers.append(
            alt.Chart(ink.values(absent))
            .mark_text(align="left", fontSize=12, fontStyle="italic", color=ink.ink("quiet"))
            .encode(x=alt.value(4), y=y, text="t:N")
        )
    return alt.layer(*layers).properties(width=width, height=ROW_PX * len(order) + 50)


def describe(ratios: Sequence[CostRatio]) -> str:
    """Return the ratios in words."""
    return "; ".join(
        f"{fmt.LABELS[r.dimension]}: "
        + ("not measured" if isinstance(r.per_attempt, Missing) else fmt.ratio(r.per_attempt))
        + f", {r.claim}"
        for r in ratios
    )


def _row(ratio: CostRatio, *, solved: bool) -> dict[str, Any] | None:
    found = ratio.per_solved if solved else ratio.per_attempt
    if isinstance(found, Missing) or found.value <= 0:
        return None
    value, low, high = (
        min(max(v, 1 / _WIDEST), _WIDEST) for v in (found.value, found.low, found.high)
    )
    return {"row": fmt.LABELS[ratio.dimension], "x": value, "x1": low, "x2": high}


def _marks(
    rows: list[dict[str, Any]], axes: tuple[Callable[[str], Any], Any], colour: str, *, solved: bool
) -> list[Any]:
    alt = ink.altair()
    x, y = axes
    base = alt.Chart(ink.values(rows))
    offset = 7 if solved else -6
    rule: dict[str, Any] = {
        "color": colour,
        "strokeWidth": 1.25 if solved else 2,
        "yOffset": offset,
    }
    if solved:
        rule["strokeDash"] = [3, 3]
    return [
        base.mark_rule(**rule).encode(x=x("x1:Q"), x2="x2:Q", y=y),
        base.mark_point(
            shape="diamond" if solved else "circle",
            filled=True,
            fill=ink.ink("paper") if solved else colour,
            stroke=colour,
            strokeWidth=1.25,
            size=60 if solved else 80,
            opacity=1,
            yOffset=offset,
        ).encode(x=x("x:Q"), y=y),
    ]


def _domain(ratios: Sequence[CostRatio]) -> tuple[float, float]:
    bounds = [1.0]
    for r in ratios:
        for found in (r.per_attempt, r.per_solved):
            if isinstance(found, Interval):
                bounds += [b for b in (found.low, found.high) if b > 0 and not math.isinf(b)]
    low, high = max(min(bounds), 1 / _WIDEST), min(max(bounds), _WIDEST)
    return min(low / 1.12, 0.65), max(high * 1.12, 1.25)
