"""What a search over strategies is asked for, and what it found: values and ports only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from lichen.acceleration.candidates import CandidateSet, Choice
from lichen.acceleration.racing import Observed, Standing
from lichen.core.errors import EngineError
from lichen.core.interval import Interval
from lichen.core.measurement import Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What came of running some candidates on a few problems.

    Args:
        observed: the candidates', in order.
        cpu_s: CPU-seconds it took: answering, judging, loading, failures.
        seconds: the same in seconds.
        stored: whether it was run before and only read now.
    """

    observed: tuple[Observed, ...]
    cpu_s: float
    seconds: float
    stored: bool = False


Evaluate = Callable[[Sequence[CandidateSet], Sequence[str]], Round]
"""Runs these candidates on these problems, interleaved; the empty one is plain.

A candidate that cannot be run comes back with its ``error``; a plain solution that cannot is
raised.
"""


@dataclass(slots=True)
class Pace:
    """How long rounds take, from those that were run: the slowest so far.

    A candidate that has not answered yet is taken for as slow as the first of its round.
    """

    answer_s: dict[CandidateSet, float] = field(default_factory=dict)
    load_s: float = 0.0

    def learn(self, group: Sequence[CandidateSet], ran: Round, problems: int) -> None:
        """Take in a round of so many problems."""
        for candidate, seen in zip(group, ran.observed, strict=True):
            slowest_s = self.answer_s.get(candidate, 0.0)
            self.answer_s[candidate] = max(slowest_s, seen.wall_s / problems)
        answering_s = math.fsum(seen.wall_s for seen in ran.observed)
        self.load_s = max(self.load_s, (ran.seconds - answering_s) / len(group))

    def expects(self, group: Sequence[CandidateSet], problems: int) -> float:
        """Return the seconds that a round would take."""
        first_s = self.answer_s[group[0]]
        answers_s = math.fsum(self.answer_s.get(c, first_s) for c in group)
        return problems * answers_s + len(group) * self.load_s


Progress = Callable[[str, float], None]
"""Told what is run next, and the share of the budget that is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much may be spent.

    Args:
        seconds: for all: screening, joining and verification; no round is begun that would not end
            in time, > 0.
        problems_per_round: at most, >= 1; as many as the most slots that are tried, or more. Fewer
            are taken where the pilot shows that two rounds of screening would not fit.
        together: candidates in one round beside the first, >= 2 (all are in memory at once).
        proof: answers that plain and the winner each give in the verification, >= 0. The time that
            plain would need for both is set aside before the search begins.
    """

    seconds: float = 3600.0
    problems_per_round: int = 8
    together: int = 3
    proof: int = 0

    def __post_init__(self) -> None:
        """Check ranges."""
        counts = self.problems_per_round >= 1 and self.together >= 2 and self.proof >= 0  # noqa: PLR2004 (two are compared)
        if not (self.seconds > 0 and counts):
            msg = f"seconds > 0, problems_per_round >= 1, together >= 2 and proof >= 0: {self}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One measurement: a candidate (or plain, the empty one) in one round."""

    round: int
    candidate: CandidateSet
    problems: tuple[str, ...]
    observed: Observed


def plain_quality(looks: Iterable[Look]) -> dict[str, float]:
    """Return plain's quality by problem, as far as plain is among these looks.

    Raises:
        EngineError: plain could not be run.
    """
    found: dict[str, float] = {}
    for look in looks:
        if look.candidate:
            continue
        if look.observed.error:
            raise EngineError(f"plain itself cannot be run: {look.observed.error}")
        found |= zip(look.problems, look.observed.quality, strict=True)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How one candidate fared against what was best then.

    ``ratio`` is its cost over the other's with a 90 % interval, ``quality`` that to plain.
    """

    stage: str
    candidate: CandidateSet
    against: CandidateSet
    standing: Standing
    ratio: Interval | Missing
    quality: Interval | Missing
    rounds: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search found, and everything it measured.

    Args:
        best: the winner; empty if nothing pays.
        ratio: its cost to plain's, 90 % interval.
        quality: its quality difference to plain, 90 % interval.
        contributions: per strategy of the winner, the cost without it over the cost with it.
        races: in order.
        looks: every measurement, in order.
        spent_cpu_s: what the search cost in CPU-seconds, loading included.
        spent_s: what it took in seconds.
        reserved_s: seconds of the budget that were set aside for the verification.
        rounds: how many there were on the task.
        stored_rounds: how many of them were not run now, but read.
        pays_after: requests after which that is paid back; missing if nothing is saved.
        complete: False if the budget ended the search.
    """

    best: CandidateSet
    ratio: Interval | Missing
    quality: Interval | Missing
    contributions: tuple[tuple[Choice, Interval | Missing], ...]
    races: tuple[Race, ...]
    looks: tuple[Look, ...]
    spent_cpu_s: float
    spent_s: float
    reserved_s: float
    rounds: int
    stored_rounds: int
    pays_after: float | Missing
    complete: bool


_MINUTE_S = 60.0
_HOUR_S = 3600.0


def in_words(seconds: float) -> str:
    """Write seconds for people: ``90 s``, ``25 min``, ``2.5 h``."""
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"


@dataclass(frozen=True, slots=True)
class Spending:
    """What a search would need, in seconds: an answer, the verification, one look, all of it."""

    answer_s: float
    proof_s: float
    look_s: float
    all_s: float


def too_small(budget: Budget, needs: Spending, *, stored: bool) -> str:
    """Say that a budget holds no look at candidates beside the verification, and which one would.

    ``stored``: the times are not of now.
    """
    proof = f"{budget.proof} answers of {in_words(needs.answer_s)} each, twice"
    before = "; times are of an earlier start (--fresh looks again)" if stored else ""
    return (
        f"a budget of {in_words(budget.seconds)} is too small: verifying takes about "
        f"{in_words(needs.proof_s)} ({proof}), and one look at candidates "
        f"{in_words(needs.look_s)}; give it at least {math.ceil(needs.all_s / _MINUTE_S)}m, or "
        f"fewer problems (--limit){before}"
    )


def pays_after(looks: Sequence[Look], spent_cpu_s: float, log_ratio: Interval) -> float | Missing:
    """Return requests after which a search is paid back, from its looks at plain."""
    plain = statistics.fmean(x for k in looks if not k.candidate for x in k.observed.cpu_s)
    return pays_back(spent_cpu_s, plain, plain * math.exp(log_ratio.value))


def pays_back(spent_cpu_s: float, plain_cpu_s: float, best_cpu_s: float) -> float | Missing:
    """Return requests after which what was spent is saved: ``spent / (plain - best)``."""
    saved = plain_cpu_s - best_cpu_s
    if saved <= 0:
        return Missing(reason="nothing is saved per request, so it is never paid back")
    return spent_cpu_s / saved
