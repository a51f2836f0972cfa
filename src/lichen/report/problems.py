"""The problem-by-problem part of a page: verdicts, tokens, costs and the answers themselves.

A page must stay small enough to send: answers share a budget, longer ones are cut with the number
of characters left out stated, and beyond ``MOST_PROBLEMS`` problems the rest is counted, not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from lichen.core.interval import Interval
from lichen.core.measurement import Quantity, Reading
from lichen.core.record import RunRecord, SampleRecord
from lichen.core.summary import Dimension, Summary
from lichen.report import format as fmt
from lichen.report.clean import one_line, visible

ANSWERS_BUDGET: Final = 4_000_000
"""Bytes of all answers together, escaped; other markup comes on top (about 350 an attempt)."""

LONGEST_ANSWER: Final = 6_000
SHORTEST_CUT: Final = 120
MOST_PROBLEMS: Final = 2_000
MOST_ATTEMPTS: Final = 12_000
LONGEST_MESSAGE: Final = 240


_UNKNOWN: Final = -1.0
"""Sort key of a cost that was not measured: below every cost that was."""

_Key = tuple[str, str, str, int]
_Cost = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One answer: how it was judged, what it took, and its text (``left_out`` characters cut)."""

    look: int
    solution: str
    label: str
    outcome: str
    mark: str
    detail: str
    facts: str
    text: str
    left_out: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One solution at one problem: ``mark`` is a sign, ``outcome`` the same in words."""

    look: int
    solution: str
    mark: str
    outcome: str
    tokens: str
    cpu: str
    energy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemRow:
    """One problem with every solution's side; the numbers are for sorting."""

    id: str
    order: int
    solved: int
    tokens: float
    cpu_s: float
    energy_j: float
    agree: bool
    sides: tuple[Side, ...]
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """All rows; ``note`` says what was left out, "" if nothing was."""

    rows: tuple[ProblemRow, ...]
    note: str


def problems(run: RunRecord, samples: Sequence[SampleRecord], summary: Summary) -> Problems:
    """Arrange samples by problem, in the run's order."""
    names = [s.name for s in summary.solutions]
    by_problem: dict[str, list[SampleRecord]] = {p: [] for p in run.problem_ids}
    for s in samples:
        if s.solution in names:
            by_problem.setdefault(s.problem_id, []).append(s)
    answered = [(p, found) for p, found in by_problem.items() if found]
    shown = answered[:MOST_PROBLEMS]
    if not shown:
        return Problems(rows=(), note="no attempt is stored")
    scale = _Scale.of([s for _, found in shown for s in found])
    attempts = sum(len(found) for _, found in shown)
    limit = max(SHORTEST_CUT, min(LONGEST_ANSWER, ANSWERS_BUDGET // max(1, attempts)))
    per_problem = max(1, MOST_ATTEMPTS // max(1, len(shown)))
    rows = tuple(
        _row(order, problem, found, names, (scale, limit, per_problem))
        for order, (problem, found) in enumerate(shown)
    )
    return Problems(rows=rows, note=_note(len(answered), len(shown), attempts, per_problem, rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Each attempt's (CPU-s, J) and the units that all rows share, so that numbers compare."""

    costs: dict[_Key, _Cost]
    cpu: fmt.Unit
    energy: fmt.Unit

    @classmethod
    def of(cls, samples: Sequence[SampleRecord]) -> _Scale:
        costs = {s.key: _cost(s) for s in samples}
        cpu, energy = (
            [Interval.exact(v) for v in side if v is not None]
            for side in zip(*costs.values(), strict=True)
        )
        return cls(
            costs=costs,
            cpu=fmt.unit_for(Dimension.CPU_TIME, cpu),
            energy=fmt.unit_for(Dimension.ENERGY, energy),
        )

    def total(self, samples: Sequence[SampleRecord]) -> _Cost:
        """Return CPU-seconds and joules of all samples; None where one is missing."""
        cpu, energy = zip(*(self.costs[s.key] for s in samples), strict=True)
        return _sum(cpu), _sum(energy)

    def text(self, samples: Sequence[SampleRecord]) -> tuple[str, str]:
        """Return CPU time and energy of all samples for people."""
        cpu_s, energy_j = self.total(samples)
        cpu, energy = (
            "not measured"
            if value is None
            else f"{fmt.significant(unit.of(value), 2)} {unit.symbol}"
            for value, unit in ((cpu_s, self.cpu), (energy_j, self.energy))
        )
        return cpu, energy


def _note(answered: int, shown: int, attempts: int, each: int, rows: Sequence[ProblemRow]) -> str:
    parts = []
    if answered > shown:
        parts.append(f"{fmt.count(answered - shown)} further problems are in the store only")
    listed = sum(len(r.attempts) for r in rows)
    if listed < attempts:
        parts.append(f"of each problem the first {fmt.count(each)} attempts are listed")
    return "; ".join(parts)


def _row(
    order: int,
    problem: str,
    found: Sequence[SampleRecord],
    names: Sequence[str],
    how: tuple[_Scale, int, int],
) -> ProblemRow:
    scale, limit, most = how
    by_solution = {n: [s for s in found if s.solution == n] for n in names}
    sides = tuple(_side(i, n, by_solution[n], scale) for i, n in enumerate(names))
    cpu_s, energy_j = scale.total(found)
    shares = {sum(s.score.solved for s in side) for side in by_solution.values() if side}
    return ProblemRow(
        id=one_line(problem),
        order=order,
        solved=sum(s.score.solved for s in found),
        tokens=sum(s.usage.completion for s in found),
        cpu_s=_UNKNOWN if cpu_s is None else cpu_s,
        energy_j=_UNKNOWN if energy_j is None else energy_j,
        agree=len(shares) < 2,  # noqa: PLR2004 (two different counts disagree)
        sides=sides,
        attempts=tuple(_attempt(s, names.index(s.solution), limit, scale) for s in found[:most]),
    )


def _side(look: int, name: str, found: Sequence[SampleRecord], scale: _Scale) -> Side:
    if not found:
        return Side(
            look=look, solution=one_line(name), mark="·", outcome="no attempt", tokens="", cpu="",
            energy="",
        )  # fmt: skip
    solved = sum(s.score.solved for s in found)
    if len(found) == 1:
        mark, outcome = _outcome(found[0])
    else:
        mark = "●" if solved == len(found) else "◐" if solved else "○"
        outcome = f"{solved} of {len(found)} solved"
    cpu, energy = scale.text(found)
    tokens = sum(s.usage.completion for s in found)
    return Side(
        look=look,
        solution=one_line(name),
        mark=mark,
        outcome=outcome,
        tokens=fmt.plural(tokens, "token"),
        cpu=cpu,
        energy=energy,
    )


def _outcome(s: SampleRecord) -> tuple[str, str]:
    mark = "●" if s.score.solved else "○"
    if s.score.verdict is None:
        return mark, f"{one_line(s.score.metric)} {fmt.significant(s.score.value)}"
    verdict = s.score.verdict
    kind = one_line(verdict.kind)
    return mark, f"{verdict.status}, {kind}" if kind else str(verdict.status)


def _attempt(s: SampleRecord, look: int, limit: int, scale: _Scale) -> Attempt:
    text, left_out = bounded(s.text, limit)
    mark, outcome = _outcome(s)
    message = one_line(s.error or (s.score.verdict.message if s.score.verdict else ""))
    cpu, energy = scale.text([s])
    facts = (
        f"{fmt.count(s.usage.completion)} tokens out, {fmt.count(s.usage.prompt)} in",
        f"ended by {s.finish}",
        cpu,
        energy,
    )
    return Attempt(
        look=look,
        solution=one_line(s.solution),
        label=f"attempt {s.sample + 1}",
        outcome=outcome,
        mark=mark,
        detail=bounded(message, min(LONGEST_MESSAGE, limit // 3))[0],
        facts=" · ".join(facts),
        text=text,
        left_out=fmt.count(left_out) if left_out else "",
    )


def bounded(text: str, limit: int) -> tuple[str, int]:
    """Neutralise and cut text so that it takes at most ``limit`` bytes once escaped.

    Returns:
        The text, ready to be escaped, and how many of the original's characters were left out.
    """
    kept = text[:limit]
    while (size := len(escape(visible(kept)).encode())) > limit:
        kept = kept[: min(len(kept) - 1, len(kept) * limit // size)]
    return visible(kept), len(text) - len(kept)


def _cost(s: SampleRecord) -> _Cost:
    """Return an attempt's CPU-seconds and joules, judging included."""
    windows = [w for w in (s.generation, s.judging) if w is not None]
    return _sum([_known(w.cpu_s) for w in windows]), _sum([_known(w.it_energy_j) for w in windows])


def _known(q: Quantity) -> float | None:
    return q.value.value if isinstance(q, Reading) else None


def _sum(found: Sequence[float | None]) -> float | None:
    present = [v for v in found if v is not None]
    return sum(present) if present and len(present) == len(found) else None
