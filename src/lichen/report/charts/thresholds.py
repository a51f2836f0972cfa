"""Cost and quality of a cascade over its threshold, beside the run's other solutions.

A line goes through all thresholds, from "hand nothing on" (open end) to the threshold of the run
(filled end); the other solutions are points in their own looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lichen.report import format as fmt
from lichen.report.charts import ink

_FLOOR: Final = 0.12
"""Share of the height near the axis where there is no room for a name below its point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A named point; ``cost`` is in the axis' unit, ``look`` its series number."""

    name: str
    look: int
    cost: float
    quality: float
    filled: bool = True


def thresholds(
    line: Sequence[tuple[float, float]],
    spots: Sequence[Spot],
    *,
    look: int,
    title: str,
    size: tuple[int, int],
) -> Any:
    """Return the curve as an Altair chart of ``size`` = (width, height) in pixels.

    Args:
        line: (cost, quality) by rising threshold.
        spots: the other solutions and the line's ends; later ones are drawn on top.
        look: series number of the cascade.
        title: of the cost axis.
        size: in pixels.

    Raises:
        ValueError: there is no spot.
    """
    if not spots:
        msg = "a curve needs a spot"
        raise ValueError(msg)
    alt = ink.altair()
    top = max(s.cost for s in spots) or 1.0
    heights = [s.quality for s in spots] + [q for _, q in line]
    low, high = max(0.0, min(heights) - 0.08), min(1.0, max(heights) + 0.08)
    x = alt.X(
        "x:Q",
        title=title,
        scale=alt.Scale(domain=[0, top * 1.12], nice=False),
        axis=alt.Axis(tickCount=5, grid=False),
    )
    y = alt.Y(
        "y:Q",
        title="share solved",
        scale=alt.Scale(domain=[low, high], nice=False, zero=False),
        axis=alt.Axis(tickCount=5, format=".2f", domain=False, ticks=False),
    )
    rows = [{"x": cost, "y": quality, "i": i} for i, (cost, quality) in enumerate(line)]
    layers = [
        alt.Chart(ink.values(rows))
        .mark_line(color=ink.series(look), strokeWidth=2, strokeDash=ink.dash(look))
        .encode(x=x, y=y, order="i:Q")
    ]
    ranked = sorted(spots, key=lambda s: (s.quality, s.cost), reverse=True)
    for spot in spots:
        # Names alternate, so that close ones do not meet; a name below would cross the axis.
        above = ranked.index(spot) % 2 == 0 or spot.quality - low < _FLOOR * (high - low)
        layers += _marks(spot, x, y, above=above, flip=spot.cost > 0.5 * top)
    return alt.layer(*layers).properties(width=size[0], height=size[1])


def describe(spots: Sequence[Spot], *, unit: str) -> str:
    """Return the spots in words."""
    return "; ".join(
        f"{s.name}: {s.quality:.2f} solved at {fmt.significant(s.cost)} {unit} per attempt"
        for s in spots
    )


def _marks(spot: Spot, x: Any, y: Any, *, above: bool, flip: bool) -> list[Any]:
    alt = ink.altair()
    colour = ink.series(spot.look)
    base = alt.Chart(ink.values([{"x": spot.cost, "y": spot.quality, "name": spot.name}]))
    point = {"shape": ink.shape(spot.look), "size": 130, "color": colour, "opacity": 1}
    return [
        base.mark_point(filled=spot.filled, strokeWidth=2, **point).encode(x=x, y=y),
        base.mark_text(
            align="right" if flip else "left",
            baseline="bottom" if above else "top",
            dx=-10 if flip else 10,
            dy=-6 if above else 6,
            fontSize=13,
            fontWeight=600,
            color=colour,
            limit=210,
        ).encode(x=x, y=y, text="name:N"),
    ]
