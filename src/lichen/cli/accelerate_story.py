"""The story of a search in sentences and cells: what was tried, why it was dropped, what it cost.

The terminal shows the cells; the sentences are stored with the verification's run, so that its
report tells how the winner was found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from lichen.acceleration.candidates import label
from lichen.acceleration.log_ratio import shown
from lichen.acceleration.racing import Standing
from lichen.acceleration.searched import Found, Race, in_words, pays_back
from lichen.compose.acceleration import GREEN, PLAIN
from lichen.compose.rounds import Spent
from lichen.core.footprint import Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.summary import Comparison, Dimension, Summary
from lichen.report import format as fmt

NOT_MEASURED: Final = "not measured"

_WHY: Final[Mapping[Standing, str]] = {
    Standing.PAYS: "pays",
    Standing.OPEN: "undecided: time was up",
    Standing.NO_BETTER: "dropped: it saves too little",
    Standing.DEARER: "dropped: it costs more",
    Standing.WORSE: "dropped: its quality is lower than allowed",
    Standing.TOO_SLOW: "dropped: slower than the latency bound",
    Standing.BEATEN: "dropped: another setting is cheaper",
    Standing.FAILED: "dropped: it cannot run",
}

_WHY_LEFT_OUT: Final[Mapping[Standing, str]] = {
    Standing.PAYS: "what it lacks is not missed",
    Standing.DEARER: "what it lacks is missed and stays",
    Standing.FAILED: "it cannot run",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What finding and proving a solution cost, and after how many requests it is paid back.

    Costs in CPU-seconds and seconds, loading included; savings per request are those of the
    verification.
    """

    search_cpu_s: float
    search_s: float
    verification_cpu_s: float
    verification_s: float
    search_pays_after: float | Missing
    all_pays_after: float | Missing

    @classmethod
    def of(cls, found: Found, summary: Summary, verification: Spent) -> Self:
        """Work it out from the search and the verification."""
        per_request = {
            s.name: s.cost(Dimension.CPU_TIME).per_attempt
            for s in summary.solutions
            if s.name in (PLAIN, GREEN)
        }
        plain, green = per_request[PLAIN], per_request[GREEN]

        def after(spent: float) -> float | Missing:
            if not isinstance(plain, Interval) or not isinstance(green, Interval):
                return Missing(reason="CPU time was not measured")
            return pays_back(spent, plain.value, green.value)

        return cls(
            search_cpu_s=found.spent_cpu_s,
            search_s=found.spent_s,
            verification_cpu_s=verification.cpu_s,
            verification_s=verification.seconds,
            search_pays_after=after(found.spent_cpu_s),
            all_pays_after=after(found.spent_cpu_s + verification.cpu_s),
        )


def why(race: Race) -> str:
    """Say what became of a candidate, and why."""
    if race.stage == "leaving out":
        said = _WHY_LEFT_OUT.get(race.standing, "not shown to be as good without: it stays")
    else:
        said = _WHY[race.standing]
    return f"{said}: {race.detail}" if race.detail else said


def tried(race: Race) -> str:
    """Name a candidate by how it differs from what it was raced with.

    ``+ a`` where a strategy was added, ``- a`` where one was left out, ``a for b`` where a setting
    took another one's place; against plain the whole candidate.
    """
    if not race.against:
        return label(race.candidate)
    gone = {c.strategy: c for c in race.against if c not in race.candidate}
    added = [c for c in race.candidate if c not in race.against]
    parts = [
        f"{c.label} for {gone.pop(c.strategy).label}" if c.strategy in gone else f"+ {c.label}"
        for c in added
    ]
    return ", ".join([*parts, *(f"- {c.label}" for c in gone.values())])


def race_cells(race: Race) -> tuple[str, ...]:
    """Return what was tried, cost ratio, quality difference, and looks with their result."""
    seen = f"{fmt.plural(race.rounds, 'look')}, {why(race)}"
    return tried(race), ratio(race.ratio), points(race.quality), seen


def staged(races: Sequence[Race]) -> dict[str, list[Race]]:
    """Return the races that had a look or an outcome, by their stage, in order."""
    by_stage: dict[str, list[Race]] = {}
    for race in races:
        if not _missed(race):
            by_stage.setdefault(race.stage, []).append(race)
    return by_stage


def missed(races: Sequence[Race]) -> str:
    """Name what the time did not suffice to look at, stage by stage; "" if there is nothing."""
    by_stage: dict[str, list[str]] = {}
    for race in filter(_missed, races):
        by_stage.setdefault(race.stage, []).append(tried(race))
    return "; ".join(f"{stage}: {', '.join(names)}" for stage, names in by_stage.items())


def _missed(race: Race) -> bool:
    return race.rounds == 0 and race.standing is Standing.OPEN


def proof_cells(summary: Summary) -> list[tuple[str, ...]]:
    """Return a row per solution of the verification: plain, the winner, the winner without each.

    Name, quality with interval, its difference to plain, and the ratios of CPU time to plain's per
    attempt and per solved problem, with intervals.
    """
    against = {c.b: c for c in summary.comparisons}
    return [
        (s.name, fmt.interval(s.quality), *_beside_plain(against.get(s.name)))
        for s in summary.solutions
    ]


def _beside_plain(found: Comparison | None) -> tuple[str, str, str]:
    if found is None:
        return "", "1", "1"
    cpu = next((r for r in found.ratios if r.dimension is Dimension.CPU_TIME), None)
    if cpu is None:
        return fmt.signed(found.quality_difference), NOT_MEASURED, NOT_MEASURED
    ratios = [_priced(v) for v in (cpu.per_attempt, cpu.per_solved)]
    return fmt.signed(found.quality_difference), ratios[0], ratios[1]


def bill_cells(bill: Bill) -> list[tuple[str, ...]]:
    """Return rows: what, CPU-seconds, time, after how many requests it is paid back."""
    whole = (
        bill.search_cpu_s + bill.verification_cpu_s,
        bill.search_s + bill.verification_s,
        bill.all_pays_after,
    )
    search = (bill.search_cpu_s, bill.search_s, bill.search_pays_after)
    return [
        (name, f"{cpu_s:.0f}", in_words(seconds), requests(after))
        for name, (cpu_s, seconds, after) in (("search", search), ("with verification", whole))
    ]


def sentences(found: Found, bill: Bill) -> tuple[str, ...]:
    """Return the search as sentences, one per race, contribution and bill."""
    races = [_told(r) for r in found.races]
    parts = [
        f"Search: without {c.label} the winner costs {ratio(r)} times as much"
        for c, r in found.contributions
    ]
    bills = [
        f"The {name.replace('with', 'search with')} took {cpu_s} CPU-s ({time}), paid back after "
        f"{after}"
        for name, cpu_s, time, after in bill_cells(bill)
    ]
    return (*races, *parts, *bills)


def _told(race: Race) -> str:
    _, cost, quality, said = race_cells(race)
    quality = f"{quality} points" if quality else NOT_MEASURED
    return (
        f"Search, {race.stage}: {label(race.candidate)} against {label(race.against)}: cost ratio "
        f"{cost}, quality against plain {quality}, {said}"
    )


def milliseconds(value: float | Missing) -> str:
    """Write seconds in thousandths."""
    return (
        f"{NOT_MEASURED}: {value.reason}" if isinstance(value, Missing) else f"{1000 * value:.1f}"
    )


def ratio(value: Interval | Missing) -> str:
    """Write a ratio with its interval; a single look has none."""
    if isinstance(value, Missing):
        return NOT_MEASURED
    return shown(value) if math.isfinite(value.high) else f"{value.value:.2f}, no interval"


def points(value: Interval | Missing) -> str:
    """Write a difference of shares in points of a hundred, "" if there is none."""
    if isinstance(value, Missing):
        return ""
    return f"{100 * value.value:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def requests(value: float | Missing) -> str:
    """Write after how many requests something is paid back."""
    return (
        f"never: {value.reason}" if isinstance(value, Missing) else f"{math.ceil(value):,} requests"
    )


def told_before(notes: Sequence[str], story: Sequence[str]) -> tuple[str, ...]:
    """Return the notes without those of a story: the terminal has shown it in tables."""
    return tuple(n for n in notes if n not in story)


def _priced(value: Priced) -> str:
    return fmt.ratio(value) if isinstance(value, Interval) else NOT_MEASURED


def doubt(difference: Interval, margin: float) -> str:
    """Return a warning, to be put behind a name, if a loss is likelier than not but not shown.

    Args:
        difference: quality of the winner minus plain's on the verification's problems, -1..1.
        margin: how much may be lost, 0..1.
    """
    if difference.value >= -margin:
        return ""
    return (
        f"; but it solved {-100 * difference.value:.1f} points less of the problems that the "
        "search had not seen, which are too few to tell chance from loss: compare the two on more "
        "of them before you switch"
    )
