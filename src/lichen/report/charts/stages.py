"""Where a solution's cost went: one stacked bar per solution, segments named where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lichen.report import format as fmt
from lichen.report.charts import ink

ROW_PX: Final = 64
_CHARACTER_PX: Final = 7.5
"""Width of a character at the segment labels' size, generously."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One solution's stages as (stage, cost in the axis' unit), and what they sum to as text."""

    name: str
    parts: tuple[tuple[str, float], ...]
    total: str


def stages(bars: Sequence[Bar], *, title: str, width: int) -> Any:
    """Return the stacked bars as an Altair chart ``width`` pixels wide.

    Raises:
        ValueError: there is no bar.
    """
    if not bars:
        msg = "a breakdown needs a bar"
        raise ValueError(msg)
    alt = ink.altair()
    top = max(sum(cost for _, cost in b.parts) for b in bars) or 1.0
    scale = alt.Scale(domain=[0, top * 1.02], nice=False)
    x = alt.X("x0:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5, grid=False))
    y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0.55, paddingOuter=0.5))
    layers = []
    for stage in ink.STAGES:
        rows = [r for i, b in enumerate(bars) for r in _segments(i, b, stage, width / top)]
        if not rows:
            continue
        base = alt.Chart(ink.values(rows))
        layers.append(
            base.mark_bar(
                color=ink.ink(f"stage-{stage}"), stroke=ink.ink("ink"), strokeWidth=0.6, height=26
            ).encode(x=x, x2="x1:Q", y=y)
        )
        layers.append(
            base.mark_text(fontSize=12, color=ink.ink(f"on-{stage}")).encode(
                x=alt.X("mid:Q", scale=scale), y=y, text="label:N"
            )
        )
    layers += _names(bars, y)
    height = ROW_PX * len(bars) + 50
    return alt.layer(*layers).properties(width=width, height=height)


def describe(bars: Sequence[Bar]) -> str:
    """Return the bars in words."""
    return " ".join(
        f"{b.name}, {b.total} in all: "
        + ", ".join(f"{stage} {fmt.percent(share)}" for stage, share in shares(b))
        + "."
        for b in bars
    )


def shares(bar: Bar) -> list[tuple[str, float]]:
    """Return each stage's share of the bar, 0..1; 0 throughout where the sum is 0."""
    whole = sum(cost for _, cost in bar.parts)
    return [(stage, cost / whole if whole else 0.0) for stage, cost in bar.parts]


def _segments(row: int, bar: Bar, wanted: str, px: float) -> list[dict[str, Any]]:
    start = 0.0
    for (stage, cost), (_, share) in zip(bar.parts, shares(bar), strict=True):
        if stage == wanted and cost > 0:
            label = f"{stage} {fmt.percent(share)}"
            fits = len(label) * _CHARACTER_PX < cost * px
            return [
                {
                    "row": row,
                    "x0": start,
                    "x1": start + cost,
                    "mid": start + cost / 2,
                    "label": label if fits else "",
                }
            ]
        start += cost
    return []


def _names(bars: Sequence[Bar], y: Any) -> list[Any]:
    alt = ink.altair()
    rows = [{"row": i, "name": b.name, "total": b.total} for i, b in enumerate(bars)]
    base = alt.Chart(ink.values(rows))
    text = {"baseline": "bottom", "dy": -17, "fontSize": 13, "color": ink.ink("ink")}
    return [
        base.mark_text(align="left", fontWeight=600, limit=200, **text).encode(
            x=alt.value(0), y=y, text="name:N"
        ),
        base.mark_text(align="right", **text).encode(x=alt.value("width"), y=y, text="total:N"),
    ]
