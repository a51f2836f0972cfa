"""What a solution's strategies did, request by request summed up: where a saving comes from.

A solution's cost per attempt is what it writes times what a written token costs, so these two are
shown first; below them, per strategy, how often it did what, which tokens it spent in vain, and the
CPU time that it took itself. All of it is read from the records' ledgers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lichen.core.generation import Step
from lichen.core.interval import Interval
from lichen.core.measurement import Reading
from lichen.core.record import SampleRecord
from lichen.core.summary import Dimension, Summary
from lichen.report import cells
from lichen.report import format as fmt
from lichen.report.clean import one_line

MOST_ACTIONS: Final = 12
"""Kinds of action listed per strategy; the rarest ones are summed up."""

LONGEST_EXAMPLE: Final = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Did:
    """One kind of action: how often, what was wasted, CPU time outside the engine, an example."""

    action: str
    times: str
    wasted: str
    cpu: str
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One strategy of a solution."""

    name: str
    did: tuple[Did, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionLedger:
    """One solution; ``actors`` from the engine outwards, empty if it has no strategy."""

    look: int
    name: str
    actors: tuple[Actor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One quantity per attempt over all solutions; ``ratio`` is B over A, "" without a pair."""

    label: str
    unit: str
    values: tuple[str, ...]
    ratio: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The section: where the cost comes from, and what each strategy did."""

    origins: tuple[Origin, ...]
    solutions: tuple[SolutionLedger, ...]


def ledger(samples: Sequence[SampleRecord], summary: Summary) -> Ledger | None:
    """Sum up the ledgers of all solutions; None if no strategy wrote anything."""
    own = [[s for s in samples if s.solution == x.name] for x in summary.solutions]
    solutions = tuple(
        SolutionLedger(look=i, name=one_line(x.name), actors=_actors(found))
        for i, (x, found) in enumerate(zip(summary.solutions, own, strict=True))
    )
    if not any(s.actors for s in solutions):
        return None
    return Ledger(
        origins=_origins(own, paired=cells.duel(summary) is not None), solutions=solutions
    )


def _origins(own: Sequence[Sequence[SampleRecord]], *, paired: bool) -> tuple[Origin, ...]:
    wanted: tuple[tuple[str, str, Callable[[Sequence[SampleRecord]], float | None]], ...] = (
        ("tokens read", "", lambda x: _mean([s.usage.prefilled for s in x])),
        ("tokens reused", "", lambda x: _mean([s.usage.cached for s in x])),
        ("tokens written", "", lambda x: _mean([s.usage.completion for s in x])),
        ("CPU time per written token", "CPU-ms", _cpu_ms_per_token),
    )
    rows = []
    for label, unit, read in wanted:
        found = [read(x) for x in own]
        if any(found):
            rows.append(
                Origin(
                    label=label,
                    unit=unit,
                    values=tuple(
                        cells.NOT_MEASURED if v is None else fmt.significant(v) for v in found
                    ),
                    ratio=_ratio(found) if paired else "",
                )
            )
    ended = [Counter(str(s.finish) for s in x) for x in own]
    for end in dict.fromkeys(e for c in ended for e in c):
        values = tuple(f"{c[end]} of {len(x)}" for c, x in zip(ended, own, strict=True))
        rows.append(Origin(label=f"ended by {end}", unit="answers", values=values, ratio=""))
    return tuple(rows)


def _ratio(found: Sequence[float | None]) -> str:
    first, second = found[0], found[-1]
    return f"{fmt.significant(second / first)}\u00d7" if first and second is not None else ""


def _mean(values: Sequence[int]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _cpu_ms_per_token(samples: Sequence[SampleRecord]) -> float | None:
    spent = [s.generation.cpu_s for s in samples]
    written = sum(s.usage.completion for s in samples)
    known = [q.value.value for q in spent if isinstance(q, Reading)]
    return 1e3 * math.fsum(known) / written if written and len(known) == len(spent) else None


def _actors(samples: Sequence[SampleRecord]) -> tuple[Actor, ...]:
    steps: dict[str, list[Step]] = {}
    for s in samples:
        for step in s.ledger:
            steps.setdefault(step.actor, []).append(step)
    return tuple(
        Actor(name=one_line(actor), did=_did(found, len(samples))) for actor, found in steps.items()
    )


def _did(steps: Sequence[Step], attempts: int) -> tuple[Did, ...]:
    kinds = Counter(s.action for s in steps).most_common()
    rows = [_row(a, [s for s in steps if s.action == a], attempts) for a, _ in kinds[:MOST_ACTIONS]]
    rest = {a for a, _ in kinds[MOST_ACTIONS:]}
    if rest:
        label = f"{fmt.count(len(rest))} rarer kinds"
        rows.append(_row(label, [s for s in steps if s.action in rest], attempts))
    return tuple(rows)


def _row(action: str, steps: Sequence[Step], attempts: int) -> Did:
    cpu = [s.cpu_s for s in steps if s.cpu_s is not None]
    details = Counter(one_line(s.detail) for s in steps if s.detail).most_common(1)
    return Did(
        action=one_line(action),
        times=f"{fmt.count(len(steps))} of {fmt.count(attempts)}",
        wasted=_wasted(steps),
        cpu=_cpu(math.fsum(cpu)),
        example=details[0][0][:LONGEST_EXAMPLE] if details else "",
    )


def _wasted(steps: Sequence[Step]) -> str:
    read = sum(s.usage.prefilled for s in steps)
    written = sum(s.usage.completion for s in steps)
    parts = [(written, "written"), (read, "read")]
    return ", ".join(f"{fmt.count(n)} {what}" for n, what in parts if n)


def _cpu(seconds: float) -> str:
    if not seconds:
        return ""
    unit = fmt.unit_for(Dimension.CPU_TIME, [Interval.exact(seconds)])
    return f"{fmt.significant(unit.of(seconds))} {unit.symbol}"
