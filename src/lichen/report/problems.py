"""The problem-by-problem part of a page: verdicts, tokens, costs and the answers themselves.

A page must stay small enough to send: answers share a budget, longer ones are cut with the number
of characters left out stated, and beyond ``MOST_PROBLEMS`` problems the rest is counted, not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lichen.core.interval import Interval
from lichen.core.measurement import Measurement, Quantity, Reading
from lichen.core.record import RunRecord, SampleRecord
from lichen.core.summary import Dimension, Summary
from lichen.report import format as fmt
from lichen.report.clean import one_line, shortened, visible

ANSWERS_BUDGET: Final = 3_000_000
"""Characters of all answers together; markup and escaping come on top."""

LONGEST_ANSWER: Final = 6_000
SHORTEST_CUT: Final = 120
MOST_PROBLEMS: Final = 2_000
MOST_ATTEMPTS: Final = 12_000
MESSAGE_LIMIT: Final = 240


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
    """The units that all rows share, so that numbers compare down the page."""

    cpu: fmt.Unit
    energy: fmt.Unit

    @classmethod
    def of(cls, samples: Sequence[SampleRecord]) -> _Scale:
        costs = [_costs([s]) for s in samples]
        return cls(
            cpu=fmt.unit_for(
                Dimension.CPU_TIME, [Interval.exact(c) for c, _ in costs if c is not None]
            ),
            energy=fmt.unit_for(
                Dimension.ENERGY, [Interval.exact(e) for _, e in costs if e is not None]
            ),
        )

    def text(self, cpu_s: float | None, energy_j: float | None) -> tuple[str, str]:
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
    cpu_s, energy_j = _costs(found)
    shares = {sum(s.score.solved for s in side) for side in by_solution.values() if side}
    return ProblemRow(
        id=one_line(problem),
        order=order,
        solved=sum(s.score.solved for s in found),
        tokens=sum(s.usage.completion for s in found),
        cpu_s=cpu_s or 0.0,
        energy_j=energy_j or 0.0,
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
    cpu, energy = scale.text(*_costs(found))
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
    text, left_out = shortened(s.text, limit)
    mark, outcome = _outcome(s)
    message = s.error or (s.score.verdict.message if s.score.verdict else "")
    cpu, energy = scale.text(*_costs([s]))
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
        detail=one_line(shortened(message, MESSAGE_LIMIT)[0]),
        facts=" · ".join(facts),
        text=visible(text),
        left_out=fmt.count(left_out) if left_out else "",
    )


def _costs(samples: Sequence[SampleRecord]) -> tuple[float | None, float | None]:
    """Return CPU-seconds and joules of all samples, judging included; None if one is missing."""
    windows = [w for s in samples for w in (s.generation, s.judging) if w is not None]
    return _sum([w.cpu_s for w in windows]), _sum([_energy(w) for w in windows])


def _energy(window: Measurement) -> Quantity:
    return window.it_energy_j


def _sum(found: Sequence[Quantity]) -> float | None:
    present = [q.value.value for q in found if isinstance(q, Reading)]
    return sum(present) if found and len(present) == len(found) else None
