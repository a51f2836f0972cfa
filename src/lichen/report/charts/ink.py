"""Turns an Altair chart into SVG that a page can colour, scale and read aloud.

Vega wants concrete colours; a page with a light and a dark theme wants variables. So charts are
drawn in placeholder colours that nobody would choose (``#0e00xx``), and each placeholder becomes
``var(--name)`` afterwards. Sizes become a ``viewBox`` that fills its column, and the drawing gets
a title and a description. Solutions differ in shape and dash as well as in colour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from lichen.core.errors import MissingDependencyError
from lichen.report.clean import visible

SERIES: Final = 6
"""Distinct looks for solutions; more than that start over."""

SHAPES: Final = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES: Final = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 4], [12, 3])
STAGES: Final = ("prefill", "decode", "sandbox", "idle")

_NAMES: Final = (
    "ink",
    "quiet",
    "hair",
    "paper",
    *(f"series-{i}" for i in range(SERIES)),
    *(f"stage-{s}" for s in STAGES),
    *(f"on-{s}" for s in STAGES),
)
_PLACEHOLDER: Final = {name: f"#0e00{i:02x}" for i, name in enumerate(_NAMES)}
_VARIABLE: Final = {v: k for k, v in _PLACEHOLDER.items()}
_PAINT: Final = re.compile(r'(fill|stroke)="(#0e00[0-9a-f]{2})"')
_ROOT: Final = re.compile(r'<svg [^>]*?width="([\d.]+)" height="([\d.]+)"[^>]*>')


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """An SVG with its name and its description, safe to place in HTML as it is."""

    svg: str
    title: str
    description: str


def ink(name: str) -> str:
    """Return the placeholder of a page colour; raises KeyError for an unknown name."""
    return _PLACEHOLDER[name]


def series(i: int) -> str:
    """Return the placeholder colour of the ``i``-th solution."""
    return ink(f"series-{i % SERIES}")


def shape(i: int) -> str:
    """Return the point shape of the ``i``-th solution."""
    return SHAPES[i % len(SHAPES)]


def dash(i: int) -> list[int]:
    """Return the dash pattern of the ``i``-th solution."""
    return DASHES[i % len(DASHES)]


def altair() -> Any:
    """Import Altair, or say which extra brings it."""
    try:
        import altair as alt
    except ImportError as exc:
        raise MissingDependencyError.for_extra("altair", "report", "drawing a report") from exc
    return alt


def values(rows: list[dict[str, Any]]) -> Any:
    """Wrap rows as chart data, inline and without pandas."""
    return altair().Data(values=rows)


def draw(chart: Any, *, id: str, title: str, description: str) -> Drawing:  # noqa: A002 (an SVG id)
    """Render a chart. ``id`` must be unique on the page and is trusted; the texts are not."""
    try:
        import vl_convert
    except ImportError as exc:
        raise MissingDependencyError.for_extra(
            "vl-convert-python", "report", "drawing a report"
        ) from exc
    # Validation is for people who write specs by hand; the renderer refuses a bad one too.
    spec = _themed(chart).to_dict(validate=False)
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    name, long = escape(visible(title)), escape(visible(description))
    svg = _PAINT.sub(lambda m: f'{m[1]}="var(--{_VARIABLE[m[2]]})"', str(svg))
    # Clip paths are numbered per drawing; on a page with several, ids must not meet.
    svg = re.sub(r'(id="|url\(#)(clip|gradient_)', rf"\1{id}-\2", svg)
    # aria-label rather than <title>, which browsers show as a tooltip over the whole drawing.
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{0}} {{1}}" role="img" '
        f'aria-label="{name}" aria-describedby="{id}-d"><desc id="{id}-d">{long}</desc>'
    )
    svg = _ROOT.sub(lambda m: root.replace("{0}", m[1]).replace("{1}", m[2]), svg, count=1)
    return Drawing(svg=svg, title=title, description=description)


def _themed(chart: Any) -> Any:
    text = {"labelColor": ink("quiet"), "titleColor": ink("quiet"), "labelFontSize": 12}
    return (
        chart.properties(autosize={"type": "fit", "contains": "padding"})
        .configure(
            background="transparent",
            aria=False,
            font="sans-serif",
            padding=2,
            customFormatTypes=False,
        )
        .configure_view(stroke=None)
        .configure_axis(
            **text,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=8,
            domainColor=ink("hair"),
            tickColor=ink("hair"),
            gridColor=ink("hair"),
            gridOpacity=0.6,
            labelLimit=180,
        )
    )
