"""The summary in a terminal: rich renderables that read well without colour, at 80 columns too.

Nothing is printed here; the command line's console does that. Text from outside goes into
``rich.text.Text`` (which knows no markup) after ``clean.one_line``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lichen.core.footprint import Priced
from lichen.core.interval import Interval
from lichen.core.record import RunRecord, RunState
from lichen.core.summary import Comparison, Dimension, RouteSummary, SolutionSummary, Summary
from lichen.report import cells, routes
from lichen.report import format as fmt
from lichen.report.cells import Basis, Cell, Row
from lichen.report.clean import one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table
    from rich.text import Text

SIDE_BY_SIDE: Final = 3
"""Solutions in one table where metrics are rows; more than that continue below."""

_NAME_WIDTH: Final = 15
_UNLIMITED: Final = 10_000


def render(
    run: RunRecord, summary: Summary, *, width: int | None = None, basis: Basis = Basis.SOLVED
) -> tuple[RenderableType, ...]:
    """Return everything a terminal shows of a run.

    Args:
        run: gives the id, the state and how the reference solutions fared.
        summary: what to show.
        width: columns to lay the table out for; None asks the console.
        basis: cost per solved task or per attempt.

    Returns:
        The headline table, the comparisons' conclusions, what was not measured, remarks.
    """
    return (
        Headline(summary=summary, basis=basis, width=width),
        *(verdict(c) for c in summary.comparisons),
        *(item for route in summary.routes for item in way(route)),
        *not_measured(summary),
        *_remarks(run, summary),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The headline table. Solutions are rows where the terminal is wide enough, else columns."""

    summary: Summary
    basis: Basis = Basis.SOLVED
    width: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose the layout by the width there is."""
        table = cells.rows(self.summary, self.basis)
        notes = cells.footnotes(table)
        against = _against(self.summary, self.basis)
        yield _title(self.summary, self.basis)
        wide = _wide(self.summary, table, notes, against)
        needed = console.measure(wide, options=options.update(width=_UNLIMITED)).maximum
        if needed <= (self.width or options.max_width):
            yield wide
        else:
            yield from _tall(self.summary, table, notes, against)
        yield _legend(self.summary, table)
        for i, reason in enumerate(notes, 1):
            yield _text(f"{fmt.superscript(i)} {reason}", style="dim")


def verdict(comparison: Comparison) -> Text:
    """Return a comparison's conclusion as one paragraph."""
    return _text(one_line(comparison.conclusion), style="bold")


def not_measured(summary: Summary) -> tuple[Text, ...]:
    """Return the line that lists what was not measured and why; nothing if all was."""
    found = cells.missing(summary)
    if not found:
        return ()
    listed = "; ".join(f"{what} ({why})" for what, why in found)
    return (_text(f"Not measured: {listed}"),)


def _remarks(run: RunRecord, summary: Summary) -> tuple[Text, ...]:
    lines = [f"Run {one_line(run.id)}"]
    if run.state is not RunState.FINISHED:
        lines[0] += f" is {run.state}: these numbers are of the part that is stored"
    if run.oracle is not None:
        o = run.oracle
        lines[0] += f"; reference solutions that pass: {o.passed} of {o.problems}"
    lines[0] += "."
    lines += [one_line(n) for n in dict.fromkeys((*run.notes, *summary.notes))]
    return tuple(_text(line, style="dim") for line in lines)


def comparison(c: Comparison) -> tuple[RenderableType, ...]:
    """Return a comparison in full: conclusion, quality, ratios with intervals, dominance."""
    return (verdict(c), *(_text(line) for line in quality_lines(c)), _ratios(c))


def quality_lines(c: Comparison) -> tuple[str, ...]:
    """Return the sentences about quality, discordant problems, dominance and interleaving."""
    a, b = one_line(c.a), one_line(c.b)
    standing = "not inferior" if c.non_inferior else "not shown to be non-inferior"
    difference = fmt.signed(c.quality_difference)
    lines = [f"Quality, {b} {fmt.MINUS} {a}: {difference}; {standing} at the margin {c.margin:g}."]
    if c.mcnemar_p is not None:
        lines.append(
            f"Solved by {a} alone: {fmt.count(c.only_a)}, by {b} alone: {fmt.count(c.only_b)}; "
            f"exact McNemar p\u00a0{fmt.probability(c.mcnemar_p)}."
        )
    lines.append(
        f"Probability that {b} is at least as good at no higher cost, and better in one: "
        f"p\u00a0{fmt.probability(c.p_dominates)}."
    )
    if not c.interleaved:
        lines.append(
            "The two did not run interleaved: differences in cost may be the machine's, not theirs."
        )
    return tuple(lines)


def way(route: RouteSummary) -> tuple[RenderableType, ...]:
    """Return how requests went through a cascade: a conclusion, and its curve if there is one."""
    found = routes.view(route)
    said = _text(f"{found.name}, small model first. {found.conclusion}")
    if len(found.points) < 2:  # noqa: PLR2004 (one point is no curve)
        return (said,)
    grid = _table()
    for title in ("scores handed on", "answers", f"CPU time, {found.unit}", "solved"):
        grid.add_column(title, justify="right", no_wrap=True)
    for p in found.points:
        grid.add_row(p.scores, p.handed_on, p.cost, p.quality)
    return (said, grid)


def priced(summaries: Sequence[Summary]) -> RenderableType:
    """Return one table of a run priced for several grids: energy stays, the rest moves."""
    found = cells.priced(summaries)
    table = _table()
    table.add_column("grid")
    table.add_column("solution", max_width=_NAME_WIDTH, overflow="fold")
    for label, unit in found.columns:
        table.add_column(f"{label}\n{unit}", justify="right", no_wrap=True)
    before = ""
    for region, solution, row in found.rows:
        table.add_row(
            _text("" if region == before else region),
            _text(solution),
            *(_compact(cell, ()) for cell in row),
        )
        before = region
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Against:
    """B against A: the difference in quality, then a ratio for every row of the table."""

    label: str
    cells: tuple[Cell, ...]


def _against(summary: Summary, basis: Basis) -> _Against | None:
    duel = cells.duel(summary)
    if duel is None:
        return None
    ratios = (ratio for ratio, _ in cells.ratios(duel, basis))
    return _Against(
        label=f"{one_line(duel.b)} / {one_line(duel.a)}",
        cells=(cells.difference(duel), *ratios),
    )


def _wide(
    summary: Summary, table: tuple[Row, ...], notes: tuple[str, ...], against: _Against | None
) -> Table:
    grid = _table()
    grid.add_column("solution", max_width=_NAME_WIDTH, min_width=6, overflow="fold")
    grid.add_column(_text(one_line(summary.metric)), justify="right", no_wrap=True)
    for row in table:
        label = row.label.removeprefix("peak ")
        header = _stacked((label, "bold"), (row.unit.symbol, "bold"), (row.methods, "dim"))
        grid.add_column(header, justify="right", no_wrap=True)
    for i, solution in enumerate(summary.solutions):
        grid.add_row(
            _text(one_line(solution.name)),
            _compact(cells.quality(solution), notes),
            *(_compact(row.cells[i], notes, ranged=_ranged(row)) for row in table),
        )
    if against is not None:
        grid.add_row(_text(against.label), *(_compact(cell, notes) for cell in against.cells))
    return grid


def _tall(
    summary: Summary, table: tuple[Row, ...], notes: tuple[str, ...], against: _Against | None
) -> list[Table]:
    indices = range(len(summary.solutions))
    chunks = [indices[i : i + SIDE_BY_SIDE] for i in range(0, len(indices), SIDE_BY_SIDE)]
    return [_tall_part(summary, table, notes, chunk, against) for chunk in chunks]


def _tall_part(
    summary: Summary,
    table: tuple[Row, ...],
    notes: tuple[str, ...],
    chunk: Sequence[int],
    against: _Against | None,
) -> Table:
    grid = _table()
    grid.add_column("", no_wrap=True)
    chosen: list[SolutionSummary] = [summary.solutions[i] for i in chunk]
    for solution in chosen:
        grid.add_column(_text(one_line(solution.name)), justify="right", overflow="fold")
    last: list[list[Text]] = [[] for _ in range(len(table) + 1)]
    if against is not None:
        grid.add_column(_text(against.label), justify="right", overflow="fold")
        last = [[_compact(cell, notes)] for cell in against.cells]
    grid.add_row(
        _text(one_line(summary.metric), style="bold"),
        *(_spacious(cells.quality(s), notes) for s in chosen),
        *last[0],
    )
    for row, ratio in zip(table, last[1:], strict=True):
        rung_unit = row.unit.symbol if _ranged(row) else ""
        label = _stacked((f"{row.label}, {row.unit.symbol}", "bold"), (row.methods, "dim"))
        values = (_spacious(row.cells[i], notes, rung_unit=rung_unit) for i in chunk)
        grid.add_row(label, *values, *ratio)
    return grid


def _ranged(row: Row) -> bool:
    """Whether a row shows its rung and systematic range: energy, which the rest follows from."""
    return row.dimension is Dimension.ENERGY


def _compact(cell: Cell, notes: tuple[str, ...], *, ranged: bool = False) -> Text:
    if not cell.measured:
        first, _, second = cell.value.partition(" ")
        return _stacked((first, "dim"), (second + _mark(cell, notes), "dim"))
    rung = ((cell.method, ""), (cell.systematic, "")) if ranged else ()
    return _stacked((cell.value + _mark(cell, notes), ""), (cell.sampling, "dim"), *rung)


def _spacious(cell: Cell, notes: tuple[str, ...], *, rung_unit: str = "") -> Text:
    if not cell.measured:
        return _text(cell.value + _mark(cell, notes), style="dim")
    first = _text(cell.value + _mark(cell, notes))
    if cell.sampling:
        low, high = cell.sampling.split(fmt.EN_DASH)
        first.append(f" [{low}, {high}]", style="dim")
    if rung_unit and cell.method:
        how_far = f" {cell.systematic} {rung_unit}" if cell.systematic else ""
        first.append(f"\n{cell.method}{how_far}")
    return first


def _mark(cell: Cell, notes: tuple[str, ...]) -> str:
    return fmt.superscript(notes.index(cell.reason) + 1) if cell.reason in notes else ""


def _ratios(c: Comparison) -> Table:
    grid = _table()
    grid.add_column(_text(f"{one_line(c.b)} / {one_line(c.a)}"), overflow="fold")
    for basis in (Basis.ATTEMPT, Basis.SOLVED):
        grid.add_column(str(basis), justify="right", no_wrap=True)
    grid.add_column("claim")
    for r in c.ratios:
        grid.add_row(
            fmt.LABELS[r.dimension], _ratio(r.per_attempt), _ratio(r.per_solved), str(r.claim)
        )
    return grid


def _ratio(value: Priced) -> Text:
    if isinstance(value, Interval):
        return _text(fmt.ratio(value))
    return _text(cells.NOT_MEASURED, style="dim")


def _title(summary: Summary, basis: Basis) -> Text:
    problems = max((s.problems for s in summary.solutions), default=0)
    parts = (
        one_line(summary.task),
        fmt.plural(problems, "problem"),
        f"costs {basis}",
        f"grid {one_line(summary.factors.region)}",
    )
    return _text(" · ".join(parts), style="bold")


def _legend(summary: Summary, table: tuple[Row, ...]) -> Text:
    confidence = fmt.percent(summary.confidence)
    text = f"Ranges beside the numbers: {confidence} of resampled problems."
    if (duel := cells.duel(summary)) is not None:
        standing = "not inferior" if duel.non_inferior else "not shown to be non-inferior"
        text += (
            f" {one_line(duel.b)} / {one_line(duel.a)}: costs as ratios, quality as the difference"
            f" ({standing} at the margin {duel.margin:g})."
        )
    energy = next(r for r in table if r.dimension is Dimension.ENERGY)
    if any(c.systematic for c in energy.cells):
        text += " Range under the energy: how it was obtained, and how far off it may be."
    if any("m¢" in r.unit.symbol for r in table):
        text += " 1 m¢ = 0.001 US cent."
    return _text(text, style="dim")


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", leading=0
    )


def _text(content: str, *, style: str = "") -> Text:
    from rich.text import Text

    return Text(content, style=style)


def _stacked(*lines: tuple[str, str]) -> Text:
    from rich.text import Text

    kept = [Text(line, style=style) for line, style in lines if line]
    return Text("\n").join(kept)
