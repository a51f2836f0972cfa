"""Latency as cumulative distributions: the share of answers that had come after so long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lichen.report.charts import ink

STEPS: Final = 120
"""Most steps drawn per curve, however many answers there were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One solution's observations in the axis' unit, sorted, never empty."""

    name: str
    look: int
    values: tuple[float, ...]


def ecdf(curves: Sequence[Curve], *, title: str, size: tuple[int, int]) -> Any:
    """Return the curves as an Altair chart; a marker sits at each median.

    Raises:
        ValueError: there is no curve.
    """
    if not curves:
        msg = "a distribution needs a curve"
        raise ValueError(msg)
    alt = ink.altair()
    top = max(c.values[-1] for c in curves) or 1.0
    scale = alt.Scale(domain=[0, top * 1.03], nice=False)
    x = alt.X("x:Q", title=title, scale=scale, axis=alt.Axis(tickCount=4, grid=False))
    y = alt.Y(
        "y:Q",
        title=None,
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1], domain=False, ticks=False),
    )
    layers = []
    for c in curves:
        layers.append(
            alt.Chart(ink.values(_steps(c)))
            .mark_line(
                interpolate="step-after",
                color=ink.series(c.look),
                strokeWidth=2,
                strokeDash=ink.dash(c.look),
            )
            .encode(x=x, y=y)
        )
        layers.append(
            alt.Chart(ink.values([{"x": quantile(c.values, 0.5), "y": 0.5}]))
            .mark_point(
                shape=ink.shape(c.look), filled=True, size=100, color=ink.series(c.look), opacity=1
            )
            .encode(x=x, y=y)
        )
    return alt.layer(*layers).properties(width=size[0], height=size[1])


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest observation that at least ``share`` of all do not exceed."""
    index = min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))
    return ordered[index]


def _steps(curve: Curve) -> list[dict[str, float]]:
    n = len(curve.values)
    picked = range(n) if n <= STEPS else [round(i * (n - 1) / (STEPS - 1)) for i in range(STEPS)]
    start = {"x": curve.values[0], "y": 0.0}
    return [start, *({"x": curve.values[i], "y": (i + 1) / n} for i in picked)]
