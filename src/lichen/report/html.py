"""One self-contained page per run: no network, no font, no script needed to read it.

Everything shown is text from records, neutralised (``clean``) and then escaped by Jinja2. The
content security policy in the page forbids whatever else a browser could be made to fetch or run:
the style sheet and the small sorting script are allowed by their hash alone.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from lichen.core.errors import MissingDependencyError
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.record import RunRecord, RunState, SampleRecord
from lichen.core.summary import Comparison, Dimension, SolutionSummary, Summary
from lichen.report import cells, facts, figures, routes, terminal
from lichen.report import format as fmt
from lichen.report.cells import Basis, Row
from lichen.report.charts import ink
from lichen.report.clean import one_line, visible
from lichen.report.ledger import ledger
from lichen.report.problems import problems

if TYPE_CHECKING:
    from jinja2 import Environment

_BRACKETS: Final = re.compile(r"\s*\(([^()]*)\)")

MOST_FORESTS: Final = 4
"""Comparisons that get a drawing; further ones have their sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonView:
    """A comparison in words (``short`` without its numbers) and, for the first few, drawn."""

    conclusion: str
    short: str
    lines: tuple[str, ...]
    figure: figures.Figure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """A cost table on one basis; ``ratios`` is empty unless exactly two solutions compete."""

    basis: Basis
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    ratios: tuple[tuple[cells.Cell, str], ...]


def render(
    run: RunRecord,
    samples: Sequence[SampleRecord],
    summary: Summary,
    *,
    elsewhere: Sequence[Summary] = (),
) -> str:
    """Return the page of a run as HTML text.

    Args:
        run: the head of the run; its environment and spec are shown.
        samples: the run's attempts.
        summary: what was concluded from them.
        elsewhere: the same run priced for other grids, shown beside the first.

    Raises:
        MissingDependencyError: jinja2, altair or vl-convert-python is not installed.
    """
    templates = _templates()
    style = _asset("style.css")
    script = _asset("script.js.html")
    context = _context(run, samples, summary, elsewhere)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    from markupsafe import Markup

    trusted = {"style": Markup(style), "script": Markup(script), "policy": policy}  # noqa: S704 (our own files)
    return templates.get_template("page.html").render(**trusted, **context)


def _context(
    run: RunRecord,
    samples: Sequence[SampleRecord],
    summary: Summary,
    elsewhere: Sequence[Summary],
) -> dict[str, Any]:
    looks = {s.name: i for i, s in enumerate(summary.solutions)}
    return {
        "run": run,
        "summary": summary,
        "names": [(i, one_line(s.name)) for i, s in enumerate(summary.solutions)],
        "headline": headline(summary),
        "evidence": _evidence(summary),
        "lede": _lede(run, summary),
        "tables": [_table(summary, basis) for basis in (Basis.SOLVED, Basis.ATTEMPT)],
        **_against(summary),
        "qualities": [cells.quality(s) for s in summary.solutions],
        "extras": _extras(summary),
        "comparisons": [
            _comparison(c, n, looks.get(c.b, 1)) for n, c in enumerate(summary.comparisons)
        ],
        "plane": figures.quality_plane(summary),
        "stages": figures.stage_bars(summary),
        "stage_rows": figures.stage_rows(summary),
        "facets": figures.latencies(summary, samples),
        "ledger": ledger(samples, summary),
        "routes": [
            (routes.view(r), figures.threshold_curve(r, n, looks))
            for n, r in enumerate(summary.routes)
        ],
        "problems": problems(run, samples, summary),
        "factors": facts.factors(summary.factors),
        "elsewhere": cells.priced((summary, *elsewhere)) if elsewhere else None,
        "ladder": facts.ladder(summary),
        "solutions": facts.solutions(run.solutions, summary),
        "environment": facts.environment(run.environment),
        "data": facts.data(run),
        "idle": facts.idle(run),
        "redo": facts.redo(run),
        "confidence": fmt.percent(summary.confidence),
        "notes": [one_line(n) for n in dict.fromkeys((*run.notes, *summary.notes))],
        "missing": cells.missing(summary),
        "stage_names": ink.STAGES,
        "markers": tuple(
            (ink.shape(i), " ".join(map(str, ink.dash(i)))) for i in range(ink.SERIES)
        ),
    }


def headline(summary: Summary) -> str:
    """Return the page's first sentence: what the first comparison concludes, or what one buys.

    Brackets (ratios, intervals) are left out of it; the page has the whole sentence below.
    """
    if summary.comparisons:
        return _split(summary.comparisons[0])[0]
    if not summary.solutions:
        return f"Nothing was run on {one_line(summary.task)}."
    s = summary.solutions[0]
    return (
        f"{one_line(s.name)} scores {fmt.interval(s.quality)} {one_line(summary.metric)} on "
        f"{one_line(summary.task)}{_price(s)}."
    )


def _evidence(summary: Summary) -> str:
    return " · ".join(_split(summary.comparisons[0])[1]) if summary.comparisons else ""


def _split(c: Comparison) -> tuple[str, list[str]]:
    """Return a conclusion without its brackets, and what was in them; names keep theirs."""
    taken: list[str] = []

    def take(match: re.Match[str]) -> str:
        if match[0].strip() in f"{one_line(c.a)} {one_line(c.b)}":
            return match[0]
        taken.append(match[1])
        return ""

    return _BRACKETS.sub(take, one_line(c.conclusion)), taken


def _price(s: SolutionSummary) -> str:
    """Return what a solved task costs; a modelled energy is only ever its range."""
    for dimension in (Dimension.ENERGY, Dimension.CPU_TIME):
        cost = cells.cost_of(s, dimension)
        if isinstance(cost.per_solved, Missing) or math.isinf(cost.per_solved.value):
            continue
        unit = fmt.unit_for(dimension, [cost.per_solved])
        if isinstance(cost.systematic, Interval) and not fmt.sharp(cost.systematic):
            span = fmt.span(unit.interval(cost.systematic))
            return f", at {span} {unit.symbol} ({cost.method}) per solved task"
        return f", at {fmt.interval(unit.interval(cost.per_solved))} {unit.symbol} per solved task"
    return ""


def _lede(run: RunRecord, summary: Summary) -> list[str]:
    problem_count = max((s.problems for s in summary.solutions), default=0)
    parts = [
        one_line(summary.task),
        fmt.plural(problem_count, "problem"),
        f"{fmt.plural(run.samples_per_problem, 'attempt')} each",
        f"priced for {one_line(summary.factors.region)}",
        one_line(run.created_at[:10]),
    ]
    if run.state is not RunState.FINISHED:
        parts.append(f"the run is {run.state}: this is what is stored so far")
    return parts


def _table(summary: Summary, basis: Basis) -> TableView:
    table = cells.rows(summary, basis)
    duel = cells.duel(summary)
    return TableView(
        basis=basis,
        rows=table,
        notes=cells.footnotes(table),
        ratios=cells.ratios(duel, basis) if duel is not None else (),
    )


def _against(summary: Summary) -> dict[str, Any]:
    c = cells.duel(summary)
    if c is None:
        return {"difference": None, "standing": ""}
    return {
        "difference": cells.difference(c),
        "standing": "difference; not inferior" if c.non_inferior else "difference; may be inferior",
    }


def _extras(summary: Summary) -> list[tuple[str, list[str]]]:
    """Return further rows of the headline table: what the attempts were."""
    s = summary.solutions
    return [
        ("solved", [f"{fmt.count(x.solved)} of {fmt.count(x.attempts)}" for x in s]),
        (
            "waste",
            ["unknown" if x.waste_share is None else fmt.percent(x.waste_share) for x in s],
        ),
        ("tokens out", [fmt.count(x.completion_tokens) for x in s]),
        (
            "tokens/s",
            [
                "not measured"
                if x.decode_tokens_per_s is None
                else fmt.significant(x.decode_tokens_per_s)
                for x in s
            ],
        ),
        ("failed requests", [fmt.count(x.errors) for x in s]),
    ]


def _comparison(c: Comparison, n: int, look: int) -> ComparisonView:
    return ComparisonView(
        conclusion=one_line(c.conclusion),
        short=_split(c)[0],
        lines=terminal.quality_lines(c),
        figure=figures.ratio_forest(c, n, look) if n < MOST_FORESTS else None,
    )


def _templates() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as exc:
        raise MissingDependencyError.for_extra("jinja2", "report", "writing a report page") from exc
    return Environment(
        loader=PackageLoader("lichen.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )


def _harmless(value: object) -> object:
    """Neutralise whatever a template prints, so that no field can be forgotten."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return visible(value)
    return value


def _asset(name: str) -> str:
    return files("lichen.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
