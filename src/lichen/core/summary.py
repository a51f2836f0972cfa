"""Summaries: what a benchmark concludes. Computed in ``benchmark``, drawn in ``report``.

Everything here is a value, so that a report is a function of records and summaries alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lichen.core.footprint import FactorSet, Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Method, Missing


class Dimension(StrEnum):
    """What a solution costs, always in this order. Quality stands beside these, never inside."""

    COMPUTATION = "computation"
    MEMORY = "memory"
    TIME = "time"
    CPU_TIME = "cpu_time"
    ENERGY = "energy"
    WATER = "water"
    CARBON = "carbon"
    MONEY = "money"

    @property
    def unit(self) -> str:
        """The SI unit that costs of this dimension are given in."""
        return {
            Dimension.COMPUTATION: "FLOP",
            Dimension.MEMORY: "B",
            Dimension.TIME: "s",
            Dimension.CPU_TIME: "CPU-s",
            Dimension.ENERGY: "J",
            Dimension.WATER: "L",
            Dimension.CARBON: "gCO2e",
            Dimension.MONEY: "USD",
        }[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One dimension of one solution.

    ``per_attempt`` and ``per_solved`` carry the *sampling* interval (95 % bootstrap over problems)
    around the best estimate; ``systematic`` carries the best estimate of ``per_solved`` with the
    measurement and factor bounds instead. The two kinds of uncertainty are never mixed.
    ``per_solved`` divides the cost of **all** attempts by the number solved; its high end is
    infinite when a resample solved nothing. For memory both are the peak.
    """

    dimension: Dimension
    total: Priced
    per_attempt: Priced
    per_solved: Priced
    systematic: Priced
    method: Method | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """A latency distribution in seconds; ``n`` observations."""

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShare:
    """Where a solution's CPU time and energy went: prefill, decode, sandbox or idle."""

    stage: str
    cpu_s: Priced
    energy_j: Priced


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionSummary:
    """One solution's row.

    ``quality`` is the mean of the task's metric with its 95 % interval over problems; ``solved``
    the number of solved attempts; ``waste_share`` the part of energy (or CPU time where there is
    no energy) spent on attempts that did not solve their problem, 0..1.
    """

    name: str
    metric: str
    problems: int
    attempts: int
    solved: int
    quality: Interval
    pass_at_k: tuple[tuple[int, Interval], ...]
    costs: tuple[Cost, ...]
    stages: tuple[StageShare, ...]
    ttft_s: Percentiles | None
    tpot_s: Percentiles | None
    latency_s: Percentiles | None
    decode_tokens_per_s: float | None
    prompt_tokens: int
    completion_tokens: int
    waste_share: float | None
    verdicts: tuple[tuple[str, int], ...]
    errors: int

    def cost(self, dimension: Dimension) -> Cost:
        """Return the cost of one dimension; raises KeyError if the summary lacks it."""
        for c in self.costs:
            if c.dimension is dimension:
                return c
        raise KeyError(dimension)


class Claim(StrEnum):
    """What an interleaved comparison allows one to say about B against A."""

    LESS = "uses less"
    MORE = "uses more"
    NO_DIFFERENCE = "no difference"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRatio:
    """B's cost per attempt and per solved task over A's, in one dimension, with 95 % intervals.

    ``claim`` follows the per-attempt interval: it excludes 1 or it does not.
    """

    dimension: Dimension
    per_attempt: Priced
    per_solved: Priced
    claim: Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """B against A on the same problems.

    ``quality_difference`` is B - A with its 95 % paired interval; ``mcnemar_p`` the exact
    two-sided p-value over first samples (None where nothing is pass/fail); ``non_inferior``
    whether the low end lies above ``-margin``; ``p_dominates`` the joint bootstrap probability that
    B is at least as good *and* costs no more energy (CPU time where energy is missing) per attempt,
    and is better in one.
    """

    a: str
    b: str
    quality_difference: Interval
    margin: float
    non_inferior: bool
    mcnemar_p: float | None
    only_a: int
    only_b: int
    ratios: tuple[CostRatio, ...]
    p_dominates: float
    interleaved: bool
    conclusion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLevel:
    """One engine of a solution that routes requests, from cheap to dear.

    Args:
        name: as in the ledgers.
        attempts: how often it was asked.
        handed_on: how many of those went on to the next level.
        cost_cpu_s: of one attempt and its check; 90 % interval.
        rate: share handed on; 90 % interval.
        limit: share handed on from which asking it first costs more than it saves.
    """

    name: str
    attempts: int
    handed_on: int
    cost_cpu_s: Interval | Missing
    rate: Interval | Missing
    limit: Interval | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePoint:
    """A routing solution at one threshold, as means per attempt.

    Args:
        threshold: answers whose score is below it are handed on; -inf hands nothing on.
        cost_cpu_s: all levels that are asked, and their checks.
        quality: share of attempts solved.
        handed_on: share of attempts that leave the first level.
    """

    threshold: float
    cost_cpu_s: float
    quality: float
    handed_on: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSummary:
    """What a solution that asks a cheap engine first did, and what other thresholds would have.

    Args:
        solution: its name.
        levels: from cheap to dear.
        attempts: requests that it routed.
        skipped: of those, requests that began further up since a level did not pay.
        points: by rising threshold; the last one is the threshold of the run.
        others: (name, CPU-seconds per attempt, share solved) of the run's other solutions.
        conclusion: whether asking the first level pays, in a sentence.
        note: why there are no points, or what they leave out; "" if nothing.
    """

    solution: str
    levels: tuple[RouteLevel, ...]
    attempts: int
    skipped: int
    points: tuple[RoutePoint, ...]
    others: tuple[tuple[str, float, float], ...]
    conclusion: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything a report says about one run (or several runs of the same task)."""

    run_ids: tuple[str, ...]
    task: str
    metric: str
    solutions: tuple[SolutionSummary, ...]
    comparisons: tuple[Comparison, ...]
    pareto: tuple[str, ...]
    factors: FactorSet
    confidence: float
    not_measured: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    routes: tuple[RouteSummary, ...] = ()
