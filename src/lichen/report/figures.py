"""The drawings of a page, from records and a summary: what is drawn, in which unit and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lichen.core.footprint import Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.record import SampleRecord
from lichen.core.summary import Comparison, Dimension, RouteSummary, StageShare, Summary
from lichen.report import cells
from lichen.report import format as fmt
from lichen.report.charts import forest, ink, latency, plane, stages, thresholds
from lichen.report.charts.ink import Drawing
from lichen.report.clean import one_line

WIDE: Final = 640
NARROW: Final = 330
"""Widths in pixels of the two variants; the style sheet shows one of them."""


_QUANTILES: Final = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing in a wide and a narrow variant; ``note`` says why there is none."""

    wide: Drawing | None = None
    narrow: Drawing | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    """One latency distribution: its heading, drawing and a row of percentiles per solution."""

    title: str
    explanation: str
    drawing: Drawing
    rows: tuple[tuple[int, str, tuple[str, ...]], ...]


def quality_plane(summary: Summary) -> Figure:
    """Draw quality against energy per attempt; CPU time stands in where energy is missing."""
    for dimension in (Dimension.ENERGY, Dimension.CPU_TIME):
        found = [cells.cost_of(s, dimension).per_attempt for s in summary.solutions]
        present = [
            (i, s, cost)
            for i, (s, cost) in enumerate(zip(summary.solutions, found, strict=True))
            if isinstance(cost, Interval)
        ]
        if not present:
            continue
        unit = fmt.unit_for(dimension, found)
        points = [
            plane.Point(
                name=one_line(s.name),
                look=i,
                cost=unit.interval(cost),
                quality=s.quality,
                on_front=s.name in summary.pareto,
            )
            for i, s, cost in present
        ]
        title = f"{fmt.LABELS[dimension]} per attempt, {unit.symbol}"
        return _plane_figure(points, title, one_line(summary.metric), unit)
    return Figure(note="Neither energy nor CPU time was measured, so there is no cost to draw.")


def stage_bars(summary: Summary) -> Figure:
    """Draw where the energy went (CPU time where energy is missing), whole runs."""
    readers: tuple[tuple[Dimension, Callable[[StageShare], Priced]], ...] = (
        (Dimension.ENERGY, lambda s: s.energy_j),
        (Dimension.CPU_TIME, lambda s: s.cpu_s),
    )
    for dimension, read in readers:
        known = {
            s.name: [(p.stage, v.value) for p in s.stages if isinstance(v := read(p), Interval)]
            for s in summary.solutions
        }
        totals = {name: sum(cost for _, cost in parts) for name, parts in known.items()}
        if not any(totals.values()):
            continue
        unit = fmt.unit_for(dimension, [Interval.exact(t) for t in totals.values()])
        bars = [
            stages.Bar(
                name=one_line(name),
                parts=tuple((stage, unit.of(cost)) for stage, cost in parts),
                total=f"{fmt.significant(unit.of(totals[name]))} {unit.symbol}",
            )
            for name, parts in known.items()
        ]
        return _stage_figure(bars, f"{fmt.LABELS[dimension]} of the whole run, {unit.symbol}")
    return Figure(note="Nothing was measured per stage.")


def stage_rows(summary: Summary) -> tuple[tuple[int, str, str, str, str], ...]:
    """Return (look, solution, stage, CPU time, energy) for every stage, as text."""
    return tuple(
        (
            i,
            one_line(s.name),
            one_line(p.stage),
            _amount(Dimension.CPU_TIME, p.cpu_s),
            _amount(Dimension.ENERGY, p.energy_j),
        )
        for i, s in enumerate(summary.solutions)
        for p in s.stages
    )


def latencies(summary: Summary, samples: Sequence[SampleRecord]) -> tuple[Facet, ...]:
    """Draw the distributions that the engine reported: first token, per token, whole answer."""
    wanted: tuple[tuple[str, str, Callable[[SampleRecord], float | None]], ...] = (
        ("Time to first token", "submission to first token", lambda s: s.timings.ttft_s),
        (
            "Time per output token",
            "each token after the first",
            lambda s: s.timings.tpot_s(s.usage.completion),
        ),
        ("Whole answer", "submission to end", lambda s: s.timings.total_s),
    )
    facets = []
    for n, (title, explanation, read) in enumerate(wanted):
        observed = {
            s.name: sorted(
                v for r in samples if r.solution == s.name and not r.error if (v := read(r))
            )
            for s in summary.solutions
        }
        if any(observed.values()):
            looks = {s.name: i for i, s in enumerate(summary.solutions)}
            facets.append(_facet(f"latency-{n}", (title, explanation), observed, looks))
    return tuple(facets)


def ratio_forest(comparison: Comparison, n: int, look: int) -> Figure:
    """Draw a comparison's cost ratios; ``n`` makes the drawing's id unique on the page."""
    a, b = one_line(comparison.a), one_line(comparison.b)
    words = forest.describe(comparison.ratios)

    def build(width: int, tag: str) -> Drawing:
        chart = forest.forest(
            comparison.ratios, title=f"cost of {b} / cost of {a}", width=width, look=look
        )
        return ink.draw(
            chart, id=f"ratios-{n}-{tag}", title=f"Cost of {b} over {a}", description=words
        )

    return _both(build)


def threshold_curve(route: RouteSummary, n: int, looks: Mapping[str, int]) -> Figure:
    """Draw a cascade's cost and quality over its threshold; ``n`` makes the drawing's id unique.

    ``looks`` are the series numbers of the run's solutions.
    """
    points = route.points
    if not points or points[0].cost_cpu_s <= 0:
        return Figure(note=f"There is no curve: {one_line(route.note) or 'it cost nothing'}.")
    costs = [p.cost_cpu_s for p in points] + [cost for _, cost, _ in route.others]
    unit = fmt.unit_for(Dimension.CPU_TIME, map(Interval.exact, costs))
    line = [(unit.of(p.cost_cpu_s), p.quality) for p in points]
    look = looks.get(route.solution, 0)
    ends = [(one_line(route.solution), line[-1], True)]
    if len(line) > 1:
        ends.append(("hands nothing on", line[0], False))
    spots = [
        *(
            thresholds.Spot(
                name=one_line(name), look=looks.get(name, 0), cost=unit.of(cost), quality=quality
            )
            for name, cost, quality in route.others
        ),
        *(
            thresholds.Spot(name=name, look=look, cost=cost, quality=quality, filled=filled)
            for name, (cost, quality), filled in ends
        ),
    ]
    title = f"CPU time per attempt, {unit.symbol}"
    words = thresholds.describe(spots, unit=unit.symbol)

    def build(width: int, tag: str) -> Drawing:
        size = (width, round(width * (0.5 if width == WIDE else 0.9)))
        chart = thresholds.thresholds(line, spots, look=look, title=title, size=size)
        name = f"Share solved against {title}, over the threshold of {one_line(route.solution)}"
        return ink.draw(chart, id=f"route-{n}-{tag}", title=name, description=words)

    return _both(build)


def _both(build: Callable[[int, str], Drawing]) -> Figure:
    return Figure(wide=build(WIDE, "wide"), narrow=build(NARROW, "narrow"))


def _plane_figure(points: Sequence[plane.Point], title: str, metric: str, unit: fmt.Unit) -> Figure:
    words = plane.describe(points, metric=metric, unit=unit.symbol)

    def build(width: int, tag: str) -> Drawing:
        size = (width, round(width * (0.6 if width == WIDE else 1.0)))
        chart = plane.plane(points, cost_title=title, metric=metric, size=size)
        return ink.draw(
            chart, id=f"plane-{tag}", title=f"{metric} against {title}", description=words
        )

    return _both(build)


def _stage_figure(bars: Sequence[stages.Bar], title: str) -> Figure:
    words = stages.describe(bars)

    def build(width: int, tag: str) -> Drawing:
        chart = stages.stages(bars, title=title, width=width)
        return ink.draw(chart, id=f"stages-{tag}", title=title, description=words)

    return _both(build)


def _facet(
    id: str,  # noqa: A002 (an SVG id)
    texts: tuple[str, str],
    observed: dict[str, list[float]],
    looks: dict[str, int],
) -> Facet:
    medians = [Interval.exact(latency.quantile(v, 0.5)) for v in observed.values() if v]
    unit = fmt.unit_for(Dimension.TIME, medians)
    curves = [
        latency.Curve(
            name=one_line(name), look=looks[name], values=tuple(unit.of(v) for v in values)
        )
        for name, values in observed.items()
        if values
    ]
    chart = latency.ecdf(curves, title=unit.symbol, size=(290, 215))
    rows = tuple(
        (c.look, c.name, tuple(fmt.significant(latency.quantile(c.values, q)) for q in _QUANTILES))
        for c in curves
    )
    words = "; ".join(
        f"{name}: median {q[0]}, 90 % {q[1]}, 99 % {q[2]} {unit.symbol}" for _, name, q in rows
    )
    drawing = ink.draw(chart, id=id, title=texts[0], description=words)
    return Facet(
        title=f"{texts[0]}, {unit.symbol}", explanation=texts[1], drawing=drawing, rows=rows
    )


def _amount(dimension: Dimension, value: Priced) -> str:
    if isinstance(value, Missing):
        return f"{cells.NOT_MEASURED}: {one_line(value.reason)}"
    unit = fmt.unit_for(dimension, [value])
    return f"{fmt.interval(unit.interval(value))} {unit.symbol}"
