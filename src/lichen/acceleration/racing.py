"""Who is ahead? Judging candidates by few interleaved rounds, with confidence.

A *round* is a handful of problems that some candidates answer, each side by side with the one to
beat. A candidate's figure is the log of the ratio of their CPU-seconds, so that drift of the
machine cancels. Two candidates are compared by the differences of these figures over the rounds
that both ran. A race ends as soon as an interval decides (Maron and Moore, 1994, Hoeffding races;
Student's t over rounds stands in for their bound, as in ``log_ratio``).

Quality is the mean paired difference per problem, with an interval after Agresti and Min (2005),
who add half a count to each cell: small samples that happen to agree prove little.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from typing import Final, Self

from lichen.acceleration.break_even import Z_90
from lichen.acceleration.candidates import CandidateSet
from lichen.acceleration.log_ratio import log_ratio
from lichen.core.interval import Interval

FAR_BEHIND: Final = 1.25
"""Cost ratio at the first look from which a race is not worth a second one (as in ``tuning``)."""

LATENCY_SHARE: Final = 0.9
"""The latency bound holds for this share of the answers; higher shares need more answers."""

_PSEUDO_COUNTS: Final = 2.0
"""Agresti and Min (2005): half a count in each of the four cells of paired outcomes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one solution did with the problems of one round, in their order.

    Args:
        quality: per problem, in [0, 1].
        cpu_s: CPU-seconds per problem, > 0 in sum.
        latency_s: seconds from question to answer, per problem.
        wall_s: seconds for all of them, judging included.
        error: a sentence if it could not be run at all; everything else is empty then.
    """

    quality: tuple[float, ...] = ()
    cpu_s: tuple[float, ...] = ()
    latency_s: tuple[float, ...] = ()
    wall_s: float = 0.0
    error: str = ""


class Standing(StrEnum):
    """What is known of a challenger."""

    PAYS = "pays"
    OPEN = "open"
    NO_BETTER = "no better"
    DEARER = "dearer"
    WORSE = "lower quality"
    TOO_SLOW = "too slow"
    BEATEN = "beaten by another setting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a race is decided.

    Args:
        margin: how much worse quality may be, in [0, 1].
        max_latency_s: bound for ``LATENCY_SHARE`` of the answers; None for no bound.
        min_gain: least saving worth a strategy, in [0, 1).
        rounds: looks at a candidate at most, >= 2.
        quality_rounds: the same for one that is cheaper, while its quality is in doubt; quality
            needs more answers than cost does.
    """

    margin: float = 0.02
    max_latency_s: float | None = None
    min_gain: float = 0.02
    rounds: int = 4
    quality_rounds: int = 10

    def __post_init__(self) -> None:
        """Check ranges."""
        if not (0 <= self.margin <= 1 and 0 <= self.min_gain < 1 and self.rounds >= 2):  # noqa: PLR2004 (one round has no spread)
            msg = f"margin in [0, 1], min_gain in [0, 1) and two rounds at least: {self}"
            raise ValueError(msg)
        if self.max_latency_s is not None and not self.max_latency_s > 0:
            msg = f"a latency bound is above 0 s, got {self.max_latency_s:g}"
            raise ValueError(msg)

    def for_problems(self, rounds: int) -> Self:
        """Return these rules where all problems have been asked after so many rounds.

        To ask the same ones again says nothing new about quality.
        """
        return replace(self, quality_rounds=min(self.quality_rounds, max(self.rounds, rounds)))


@dataclass(slots=True)
class Track:
    """Everything seen of one candidate: its log-ratio per round, and all its answers."""

    logs: dict[int, float] = field(default_factory=dict)
    differences: dict[str, list[float]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    def add(
        self, number: int, seen: Observed, beside: Observed, plain: Mapping[str, float]
    ) -> None:
        """Take in a round, run beside the one to beat; ``plain`` has plain's quality by problem.

        The problems' ids, in their order, are the keys of ``plain``.
        """
        self.logs[number] = math.log(math.fsum(seen.cpu_s) / math.fsum(beside.cpu_s))
        for (problem, before), quality in zip(plain.items(), seen.quality, strict=True):
            self.differences.setdefault(problem, []).append(quality - before)
        self.latencies += seen.latency_s

    def quality(self) -> Interval:
        """Return the mean quality difference to plain with its 90 % interval over problems.

        A problem that was asked again counts once, with its mean.
        """
        seen = [statistics.fmean(d) for d in self.differences.values()]
        n, total = len(seen), math.fsum(seen)
        padded = n + _PSEUDO_COUNTS
        squares = math.fsum(d * d for d in seen) + _PSEUDO_COUNTS / 2
        spread = math.sqrt(max(squares - total * total / padded, 0.0)) / padded
        centre, mean = total / padded, total / max(n, 1)
        low, high = centre - Z_90 * spread, centre + Z_90 * spread
        return Interval(low=min(low, mean), value=mean, high=max(high, mean))

    def slow_s(self) -> float | None:
        """Return the latency that ``LATENCY_SHARE`` of the answers keep; None if none was seen."""
        if not self.latencies:
            return None
        ranked = sorted(self.latencies)
        return ranked[min(len(ranked) - 1, math.ceil(LATENCY_SHARE * len(ranked)) - 1)]


Tracks = Mapping[CandidateSet, Track]


def cost_against(tracks: Tracks, a: CandidateSet, b: CandidateSet) -> Interval | None:
    """Return the log of b's cost over a's, 90 % interval, over common rounds; None without any.

    The empty candidate is plain.
    """
    if a == b:
        return Interval.exact(0.0)
    if a not in tracks or b not in tracks:
        return None
    one, two = tracks[a].logs, tracks[b].logs
    logs = [two[k] - one[k] for k in sorted(one.keys() & two.keys())]
    return log_ratio([(1.0, math.exp(x)) for x in logs]) if logs else None


def cost_along(tracks: Tracks, path: Sequence[CandidateSet]) -> Interval | None:
    """Return the log of the last one's cost over the first one's; None if it cannot be known.

    Where the two met in rounds enough for an interval, that is it; else the costs of all steps are
    added, and so are their bounds, which is wider than need be.
    """
    met = cost_against(tracks, path[0], path[-1])
    if met is not None and math.isfinite(met.high):
        return met
    steps = [cost_against(tracks, a, b) for a, b in pairwise(path)]
    known = [s for s in steps if s is not None]
    if len(known) < len(steps):
        return met
    low, value, high = (math.fsum(getattr(s, k) for s in known) for k in ("low", "value", "high"))
    return Interval(low=low, value=value, high=high)


def judged(
    tracks: Tracks,
    challenger: CandidateSet,
    incumbent: CandidateSet,
    rules: Rules,
    *,
    same_answers: bool = False,
) -> Standing:
    """Say how a challenger stands against the incumbent after the rounds that both ran.

    ``same_answers``: by its nature it leaves answers alone, so that its quality is doubted only if
    it is lower with confidence; a batch that rounds otherwise may lose a problem and win another.
    """
    cost = cost_against(tracks, incumbent, challenger)
    if cost is None:
        return Standing.OPEN
    shared = _shared(tracks, challenger, incumbent)
    broken = broken_promise(tracks[challenger], rules, early=shared == 1)
    if broken is not None:
        return broken
    if cost.low > 0 or cost.value > math.log(FAR_BEHIND):
        return Standing.DEARER
    last = shared >= rules.rounds
    needed = math.log1p(-rules.min_gain)
    cheaper = cost.high < needed or (last and cost.value < needed and cost.high < 0)
    if cheaper:
        if same_answers or tracks[challenger].quality().value >= -rules.margin:
            return Standing.PAYS
        return Standing.WORSE if shared >= rules.quality_rounds else Standing.OPEN
    return Standing.NO_BETTER if last or cost.low > needed else Standing.OPEN


def broken_promise(track: Track, rules: Rules, *, early: bool = False) -> Standing | None:
    """Return which promise a candidate breaks: quality (with confidence) or latency; else None.

    ``early``: so little was seen that only a latency far beyond the bound counts.
    """
    if track.quality().high < -rules.margin:
        return Standing.WORSE
    slow_s, bound = track.slow_s(), rules.max_latency_s
    if bound is not None and slow_s is not None and slow_s > bound * (FAR_BEHIND if early else 1.0):
        return Standing.TOO_SLOW
    return None


def missed(tracks: Tracks, smaller: CandidateSet, whole: CandidateSet, rules: Rules) -> Standing:
    """Judge a set without one strategy of the whole: dearer (it was missed), or not."""
    cost = cost_against(tracks, whole, smaller)
    if cost is None:
        return Standing.OPEN
    needed = -math.log1p(-rules.min_gain)
    if cost.low > 0 and cost.value > needed:
        return Standing.DEARER
    if cost.high < needed:
        return Standing.PAYS
    last = _shared(tracks, smaller, whole) >= rules.rounds
    return Standing.NO_BETTER if last else Standing.OPEN


def beaten(tracks: Tracks, candidate: CandidateSet, rivals: Sequence[CandidateSet]) -> bool:
    """Whether another candidate is cheaper with confidence and gives no worse answers so far."""
    mine = tracks[candidate].quality().value
    for rival in rivals:
        if rival == candidate or rival not in tracks:
            continue
        cost = cost_against(tracks, rival, candidate)
        if cost is not None and cost.low > 0 and tracks[rival].quality().value >= mine:
            return True
    return False


def _shared(tracks: Tracks, a: CandidateSet, b: CandidateSet) -> int:
    return len(tracks[a].logs.keys() & tracks[b].logs.keys())
