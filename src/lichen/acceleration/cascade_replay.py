"""From stored records of a cascade: does it pay, and what would other thresholds have given?

Nothing is run. A record's ledger has a step per level that was asked, with the tokens, the check's
CPU-seconds and its score; the benchmark has judged the answers that were set aside. That is all
that thresholds *up to the one of the run* need: a lower threshold only ever gives an answer that
is already there. A higher one would ask levels that were not asked; run it to see that.

What the engines took is shared out by tokens (a decoded one weighs ``DECODE_WEIGHT`` prefilled
ones). A level whose answers were set aside has been measured by the cascade; the one level that
never hands on gets what remains of the measured whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lichen.acceleration import cascade_steps
from lichen.acceleration.break_even import BreakEven, LevelBalance
from lichen.acceleration.cascade_costs import DECODE_WEIGHT
from lichen.acceleration.cascade_steps import NAME, SWITCHED_OFF, End
from lichen.acceleration.cost_quality import LevelOutcome, at
from lichen.core.generation import Step
from lichen.core.interval import Interval
from lichen.core.measurement import Measurement, Missing
from lichen.core.record import RunRecord, SampleRecord
from lichen.core.summary import RouteLevel, RoutePoint, RouteSummary

_UNSEEN: Final = "the CPU time of its levels cannot be told apart"


@dataclass(frozen=True, slots=True)
class _Try:
    """One level's part in one attempt; ``work`` is in decoded tokens."""

    level: str
    end: End
    step: Step
    work: float


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One routed request: the levels it went through, in order."""

    sample: SampleRecord
    tries: tuple[_Try, ...]
    skipped: str

    @property
    def answers(self) -> tuple[_Try, ...]:
        """The levels that answered."""
        return tuple(t for t in self.tries if t.end is not End.FAILED)


def routes(run: RunRecord, samples: Sequence[SampleRecord]) -> tuple[RouteSummary, ...]:
    """Summarise every solution of a run whose ledgers show a cascade, in the run's order."""
    by_name = {s.name: [x for x in samples if x.solution == s.name] for s in run.solutions}
    found = []
    for name, own in by_name.items():
        attempts = [a for a in map(_attempt, own) if a is not None]
        if attempts:
            others = {n: s for n, s in by_name.items() if n != name and s}
            found.append(_route(name, attempts, others))
    return tuple(found)


def _attempt(sample: SampleRecord) -> _Attempt | None:
    own = [s for s in sample.ledger if s.actor == NAME]
    parts = [(*told, s) for s in own if (told := cascade_steps.read(s)) is not None]
    if not parts:
        return None
    wasted = sum(_work(s.usage.prefilled, s.usage.completion) for _, end, s in parts if end.wastes)
    whole = _work(sample.usage.prefilled, sample.usage.completion)
    return _Attempt(
        sample,
        tuple(
            _Try(
                level,
                end,
                step,
                _work(step.usage.prefilled, step.usage.completion)
                if end.wastes
                else whole - wasted,
            )
            for level, end, step in parts
        ),
        next((s.detail or SWITCHED_OFF for s in own if s.action == SWITCHED_OFF), ""),
    )


def _work(prefilled: int, decoded: int) -> float:
    return prefilled / DECODE_WEIGHT + decoded


def _route(
    name: str, attempts: Sequence[_Attempt], others: Mapping[str, Sequence[SampleRecord]]
) -> RouteSummary:
    levels = _levels(attempts)
    rates = _rates(levels, attempts)
    balances = _balances(levels, attempts, rates)
    points, note = _points(attempts, rates)
    skipped = [a for a in attempts if a.skipped]
    return RouteSummary(
        solution=name,
        levels=tuple(
            RouteLevel(
                name=level,
                attempts=b.attempts,
                handed_on=b.escalated,
                cost_cpu_s=b.cost,
                rate=b.rate,
                limit=b.limit,
            )
            for level, b in zip(levels, balances, strict=True)
        ),
        attempts=len(attempts),
        skipped=len(skipped),
        points=points,
        others=tuple(
            (other, cost, _share_solved(found))
            for other, found in others.items()
            if (cost := _mean_cpu_s(found)) is not None
        ),
        conclusion=_conclusion(levels[0], balances[0], skipped, len(attempts)),
        note=note,
    )


def _levels(attempts: Sequence[_Attempt]) -> tuple[str, ...]:
    """Return the levels' names from cheap to dear: attempts that went through more come first."""
    paths = sorted((tuple(t.level for t in a.tries) for a in attempts), key=len, reverse=True)
    names: list[str] = []
    for path in paths:
        for k, level in enumerate(path):
            if level not in names:
                after = [names.index(x) for x in path[:k]]
                names.insert(max(after) + 1 if after else 0, level)
    return tuple(names)


def _rates(levels: Sequence[str], attempts: Sequence[_Attempt]) -> dict[str, float]:
    """Return CPU-seconds per decoded token of each level; a level that cannot be told is absent."""
    tries = [t for a in attempts for t in a.tries]
    work = {level: math.fsum(t.work for t in tries if t.level == level) for level in levels}
    rates = {}
    for level in levels:
        seen = [t for t in tries if t.level == level and t.step.engine_cpu_s is not None]
        if (measured := math.fsum(t.work for t in seen)) > 0:
            rates[level] = math.fsum(t.step.engine_cpu_s or 0.0 for t in seen) / measured
    rest = [level for level in levels if level not in rates]
    spent = [_cpu_s(a.sample.generation) for a in attempts]
    if len(rest) == 1 and work[rest[0]] > 0 and None not in spent:
        checks = math.fsum(t.step.cpu_s or 0.0 for t in tries)
        known = math.fsum(rates[level] * work[level] for level in rates)
        left = math.fsum(s for s in spent if s is not None) - checks - known
        if left > 0:
            rates[rest[0]] = left / work[rest[0]]
    return rates


def _cost(t: _Try, rates: Mapping[str, float]) -> float | None:
    rate = rates.get(t.level)
    return None if rate is None else rate * t.work + (t.step.cpu_s or 0.0)


def _balances(
    levels: Sequence[str], attempts: Sequence[_Attempt], rates: Mapping[str, float]
) -> tuple[LevelBalance, ...]:
    """Hold all attempts against the break-even; nothing is switched off in hindsight."""
    never = sum(len(a.tries) for a in attempts) + 1
    balance = BreakEven(len(levels), minimum=never, window=never)
    for a in attempts:
        answers = a.answers
        for k, t in enumerate(answers):
            on = k < len(answers) - 1
            balance.observe(levels.index(t.level), cost=_cost(t, rates), escalated=on)
    return balance.balance()


def _points(
    attempts: Sequence[_Attempt], rates: Mapping[str, float]
) -> tuple[tuple[RoutePoint, ...], str]:
    """Return the curve up to the run's own threshold, and what it leaves out or why it is empty."""
    usable = [
        a
        for a in attempts
        if not a.skipped
        and a.answers
        and all(_judged(t) and _cost(t, rates) is not None for t in a.answers[:-1])
        and _cost(a.answers[-1], rates) is not None
    ]
    if not usable:
        return (), _UNSEEN if len(rates) == 0 else "no attempt began at the first level"
    handed = {t.step.score or 0.0 for a in usable for t in a.answers[:-1]}
    outcomes = [_outcomes(a, rates) for a in usable]
    thresholds = [-math.inf, *sorted(math.nextafter(x, math.inf) for x in handed)]
    points = tuple(
        RoutePoint(
            threshold=p.threshold,
            cost_cpu_s=p.cost,
            quality=p.quality,
            handed_on=p.reached[1] if len(p.reached) > 1 else 0.0,
        )
        for p in (at(outcomes, t) for t in thresholds)
    )
    left_out = len(attempts) - len(usable)
    note = f"{left_out} of {len(attempts)} attempts did not begin at the first level: left out here"
    return points, note if left_out else ""


def _judged(t: _Try) -> bool:
    return t.end is End.GAVE or t.step.solved is not None


def _outcomes(a: _Attempt, rates: Mapping[str, float]) -> list[LevelOutcome]:
    """Return what each level made of it; what was given in the end stands for the last one."""
    last = len(a.answers) - 1
    return [
        LevelOutcome(
            score=t.step.score or 0.0,
            solved=a.sample.score.solved if k == last or t.end is End.GAVE else bool(t.step.solved),
            cost=_cost(t, rates) or 0.0,
        )
        for k, t in enumerate(a.answers)
    ]


def _conclusion(
    level: str, balance: LevelBalance, skipped: Sequence[_Attempt], attempts: int
) -> str:
    said = _balanced(level, balance)
    if skipped:
        said += f". It switched itself off for {len(skipped)} of {attempts} requests"
    return f"{said}."


def _balanced(level: str, balance: LevelBalance) -> str:
    rate, limit = balance.rate, balance.limit
    if isinstance(rate, Missing):
        return f"Whether asking {level} first pays cannot be said: {rate.reason}"
    if isinstance(limit, Missing):
        return f"Whether asking {level} first pays cannot be said: {limit.reason}"
    if limit.high <= 0:
        return f"It does not pay: {level} costs no less than what is above it"
    fact = f"{level} hands on {_percent(rate)}, and asking it first pays below {_percent(limit)}"
    if rate.high < limit.low:
        return f"It pays: {fact}"
    if rate.low > limit.high:
        return f"It does not pay: {fact}"
    return f"Whether it pays is not settled: {fact}"


def _percent(x: Interval) -> str:
    best, low, high = (f"{100 * v:.0f}" for v in (x.value, x.low, x.high))
    return f"{best} %" if low == high else f"{best} % [{low}, {high}]"


def _cpu_s(window: Measurement) -> float | None:
    return None if isinstance(window.cpu_s, Missing) else window.cpu_s.value.value


def _mean_cpu_s(samples: Sequence[SampleRecord]) -> float | None:
    spent = [_cpu_s(s.generation) for s in samples]
    known = [s for s in spent if s is not None]
    return math.fsum(known) / len(known) if len(known) == len(spent) else None


def _share_solved(samples: Sequence[SampleRecord]) -> float:
    return sum(s.score.solved for s in samples) / len(samples)
