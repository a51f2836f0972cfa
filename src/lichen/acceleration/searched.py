"""What a search over strategies is asked for, and what it found: values and ports only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lichen.acceleration.candidates import CandidateSet, Choice
from lichen.acceleration.racing import Observed, Standing
from lichen.core.interval import Interval
from lichen.core.measurement import Missing

Evaluate = Callable[[Sequence[CandidateSet], Sequence[str]], Sequence[Observed]]
"""Runs plain and these candidates on these problems, interleaved; plain's outcome comes first.

A candidate that cannot be run comes back with its ``error``; a plain solution that cannot is
raised.
"""

Progress = Callable[[str, float], None]
"""Told what is run next, and the share of the budget that is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much may be spent.

    Args:
        seconds: wall clock; no round is begun that would not end in time, > 0.
        problems_per_round: at most, >= 1; as many as the most slots that are tried, or more. Fewer
            are taken where the pilot shows that two rounds of screening would not fit.
        together: candidates in one round beside plain, >= 2 (all are in memory at once).
    """

    seconds: float = 600.0
    problems_per_round: int = 8
    together: int = 3

    def __post_init__(self) -> None:
        """Check ranges."""
        if not self.seconds > 0 or self.problems_per_round < 1 or self.together < 2:  # noqa: PLR2004 (two are compared)
            msg = f"seconds > 0, problems_per_round >= 1 and together >= 2: {self}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One measurement: a candidate (or plain, the empty one) in one round."""

    round: int
    candidate: CandidateSet
    problems: tuple[str, ...]
    observed: Observed


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
    pays_after: float | Missing
    complete: bool


def pays_back(spent_cpu_s: float, plain_cpu_s: float, best_cpu_s: float) -> float | Missing:
    """Return requests after which what was spent is saved: ``spent / (plain - best)``."""
    saved = plain_cpu_s - best_cpu_s
    if saved <= 0:
        return Missing(reason="nothing is saved per request, so it is never paid back")
    return spent_cpu_s / saved
