"""One cost of one solution as text: what the terminal table and the page share.

A cell is a number with its sampling interval, its systematic range and the rung of the method
ladder it stands on; or the reason why there is none. It never shows 0 for "not measured".
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.summary import Comparison, Cost, CostRatio, Dimension, SolutionSummary, Summary
from lichen.report import format as fmt
from lichen.report.clean import one_line

NOT_MEASURED = "not measured"
NO_RATIO = "no ratio"
"""Where one side was not measured, or solved nothing."""

NOTHING_SOLVED = "no attempt solved its problem, so the cost per solved task has no bound"


PRICED: Final = (Dimension.ENERGY, Dimension.CARBON, Dimension.WATER, Dimension.MONEY)
"""What a table of several grids shows: energy, which stays, and what the grid changes."""


_COMPONENT: Final = re.compile(r"energy_j\[(\w+)\]")
_PARTS: Final = {"gpu": "GPU", "cpu": "CPU", "dram": "memory (DRAM)", "system": "whole machine"}
_SUBJECTS: Final = {
    "wall_s": "time",
    "cpu_s": "CPU time",
    "peak_memory_bytes": "peak memory",
    "flop": "computation",
    "bytes_moved": "memory traffic",
    "foreign_cpu_s": "CPU time of other processes",
    "steal_s": "CPU time taken by the hypervisor",
    "ttft_s": "time to first token",
    "idle": "idle baseline",
    "carbon_g": "carbon",
    "water_l": "water",
    "electricity_cost": "cost of electricity",
}


class Basis(StrEnum):
    """What a cost is divided by."""

    SOLVED = "per solved task"
    ATTEMPT = "per attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """``value`` and ``sampling`` are in the column's unit; ``reason`` explains ``value`` if set.

    ``systematic`` is the range of measurement and factors, "" where the value has none.
    """

    value: str
    sampling: str = ""
    systematic: str = ""
    method: str = ""
    reason: str = ""
    measured: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One dimension over all solutions, in one unit."""

    dimension: Dimension
    label: str
    unit: fmt.Unit
    cells: tuple[Cell, ...]

    @property
    def methods(self) -> str:
        """The rungs used in this row, joined; "" if nothing was measured."""
        return " / ".join(dict.fromkeys(c.method for c in self.cells if c.method))


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedTable:
    """Costs per solved task on several grids: (label, unit) columns; (region, solution, cells)."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]


def rows(summary: Summary, basis: Basis) -> tuple[Row, ...]:
    """Return one row per dimension, always in the order of ``Dimension``."""
    return tuple(_row(summary, dimension, basis) for dimension in Dimension)


def quality(solution: SolutionSummary) -> Cell:
    """Return a solution's quality with its sampling interval."""
    value, sampling = fmt.parts(solution.quality)
    return Cell(value=value, sampling=sampling)


def priced(summaries: Sequence[Summary]) -> PricedTable:
    """Arrange one run priced for several grids; a column keeps one unit over all of them."""
    units = {
        d: fmt.unit_for(
            d, [cost_of(s, d).per_solved for summary in summaries for s in summary.solutions]
        )
        for d in PRICED
    }
    return PricedTable(
        columns=tuple((fmt.LABELS[d], u.symbol) for d, u in units.items()),
        rows=tuple(
            (
                one_line(summary.factors.region),
                one_line(solution.name),
                tuple(_cell(cost_of(solution, d), Basis.SOLVED, u) for d, u in units.items()),
            )
            for summary in summaries
            for solution in summary.solutions
        ),
    )


def ratios(comparison: Comparison, basis: Basis) -> tuple[tuple[Cell, str], ...]:
    """Return a comparison's ratio and claim for every dimension, in the order of ``rows``."""
    found = {r.dimension: r for r in comparison.ratios}
    return tuple(_ratio(found.get(dimension), basis) for dimension in Dimension)


def duel(summary: Summary) -> Comparison | None:
    """Return the one comparison of a summary of two solutions, B against A; None of others.

    Only then a table has room and meaning for ratios beside the costs.
    """
    names = tuple(s.name for s in summary.solutions)
    if len(summary.comparisons) != 1:
        return None
    (found,) = summary.comparisons
    return found if names == (found.a, found.b) else None


def difference(comparison: Comparison) -> Cell:
    """Return how much better B's quality is than A's, with the paired interval."""
    best, _, rest = fmt.signed(comparison.quality_difference).partition(" ")
    return Cell(value=best, sampling=rest.strip("[]").replace(", ", " to "))


def footnotes(table: tuple[Row, ...]) -> tuple[str, ...]:
    """Return the distinct reasons in reading order; a cell's mark is its place here plus one."""
    return tuple(dict.fromkeys(c.reason for row in table for c in row.cells if c.reason))


def subject(field: str) -> str:
    """Return a measurement's field name in words; what is not known stays as it is."""
    stage, _, rest = field.rpartition(" ")
    component = _COMPONENT.fullmatch(rest)
    if component:
        words = f"energy of the {_PARTS.get(component[1], component[1])}"
    elif rest in _SUBJECTS:
        words = _SUBJECTS[rest]
    else:
        return field
    return f"{words} ({stage})" if stage else words


def missing(summary: Summary) -> tuple[tuple[str, str], ...]:
    """Return what was not measured, in words, and why."""
    return tuple((one_line(subject(w)), one_line(why)) for w, why in summary.not_measured)


def cost_of(solution: SolutionSummary, dimension: Dimension) -> Cost:
    """Return a solution's cost; a dimension that the summary lacks is missing, not an error."""
    for cost in solution.costs:
        if cost.dimension is dimension:
            return cost
    absent = Missing(reason="not part of this summary")
    return Cost(
        dimension=dimension,
        total=absent,
        per_attempt=absent,
        per_solved=absent,
        systematic=absent,
        method=None,
    )


def _row(summary: Summary, dimension: Dimension, basis: Basis) -> Row:
    costs = [cost_of(s, dimension) for s in summary.solutions]
    chosen = [c.per_solved if basis is Basis.SOLVED else c.per_attempt for c in costs]
    unit = fmt.unit_for(dimension, chosen)
    return Row(
        dimension=dimension,
        label=fmt.LABELS[dimension],
        unit=unit,
        cells=tuple(_cell(cost, basis, unit) for cost in costs),
    )


def _cell(cost: Cost, basis: Basis, unit: fmt.Unit) -> Cell:
    chosen = cost.per_solved if basis is Basis.SOLVED else cost.per_attempt
    if isinstance(chosen, Missing):
        return Cell(value=NOT_MEASURED, reason=one_line(chosen.reason), measured=False)
    value, sampling = fmt.parts(unit.interval(chosen))
    systematic = _systematic(cost, basis)
    span = fmt.span(unit.interval(systematic)) if systematic else ""
    return Cell(
        value=value,
        sampling=sampling,
        systematic=span if fmt.EN_DASH in span else "",
        method="" if cost.method is None else str(cost.method),
        reason=NOTHING_SOLVED if math.isinf(chosen.value) else "",
    )


def _ratio(ratio: CostRatio | None, basis: Basis) -> tuple[Cell, str]:
    absent = Cell(value=NO_RATIO, measured=False)
    if ratio is None:
        return absent, ""
    chosen = ratio.per_solved if basis is Basis.SOLVED else ratio.per_attempt
    if isinstance(chosen, Missing):
        return absent, ""
    value, sampling = fmt.parts(chosen)
    # The claim follows the interval per attempt; beside the one per solved task it could contradict
    # what the reader sees.
    claim = str(ratio.claim) if basis is Basis.ATTEMPT else ""
    return Cell(value=f"{value}\u00d7", sampling=sampling), claim


def _systematic(cost: Cost, basis: Basis) -> Interval | None:
    """Return the systematic range for a basis; the summary gives it per solved task."""
    found = cost.systematic
    if isinstance(found, Missing) or fmt.sharp(found) or math.isinf(found.value):
        return None
    if basis is Basis.SOLVED:
        return found
    if isinstance(cost.per_attempt, Missing) or not found.value:
        return None
    return found * (cost.per_attempt.value / found.value)
