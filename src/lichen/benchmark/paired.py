"""Two solutions on the same problems: is one better, is one cheaper?

Costs. Attempts share measuring windows, so a disturbance of one window (another tenant, a cache
gone cold) moves all its attempts together. The log-ratio of two sums is therefore clustered twice,
by problem and by block, and its variance is that of Cameron, Gelbach and Miller (2011, JBES
29:238): ``V = V_problem + V_block - V_problem-and-block``, each from the linearised terms
``z_i = b_i / sum(b) - a_i / sum(a)`` (for costs per solved task the solved counts enter the same
way with the opposite sign). ``stretch_over`` widens bootstrap draws over problems to Student's t
with one degree of freedom less than there are blocks: two blocks say next to nothing, and they
shall not look as if they did.

Quality. Whether an answer is right does not depend on its window, so problems are the only
clusters. Differences use the adjusted interval of Agresti and Min (2005, Stat. Med. 24:729).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lichen.benchmark.bootstrap import Array, normal_quantile, stretch_for, student_t_quantile
from lichen.core.interval import Interval

_EXACT_BELOW: Final = 1000
"""Discordant pairs up to which McNemar's tail is summed in whole numbers."""

FEWEST_BLOCKS: Final = 1.01
"""Below this effective number, one block holds everything and cannot show its own noise."""

_TINY: Final = 1e-9
"""Keeps a group that holds all the weight from dividing by zero."""


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (binomial with p = 1/2).

    Args:
        only_a: problems that only A solved, >= 0.
        only_b: problems that only B solved, >= 0.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    if n <= _EXACT_BELOW:
        return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / (1 << n))
    choose = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1)
    ]
    top = max(choose)
    log_tail = top + math.log(math.fsum(math.exp(c - top) for c in choose)) - n * math.log(2)
    return min(1.0, 2.0 * math.exp(log_tail))


def mean_difference(differences: Array, *, confidence: float) -> Interval:
    """Return the mean of paired differences (each in [-1, 1]) with the Agresti-Min interval.

    Two problems are added, on which the pair disagrees once, half in each direction:
    ``variance = (sum(d^2) + 1) / N - (sum(d) / N)^2`` with ``N = n + 2``. So two solutions that
    agreed on 20 problems are not "equal to within 0": they could still differ by 9 points. Uses
    Student's t; with several attempts per problem, d is the difference of the means.
    """
    n = differences.size
    size = n + 2
    centre = float(np.sum(differences)) / size
    variance = (float(np.sum(differences**2)) + 1.0) / size - centre**2
    upper = (1.0 + confidence) / 2.0
    quantile = student_t_quantile(upper, n - 1) if n > 1 else normal_quantile(upper)
    half = quantile * math.sqrt(max(variance, 0.0) / size)
    value = min(max(float(np.mean(differences)), -1.0), 1.0)
    return Interval(
        low=min(max(centre - half, -1.0), value),
        value=value,
        high=max(min(centre + half, 1.0), value),
    )


@dataclass(frozen=True, slots=True)
class Spread:
    """How uncertain a log-ratio is: its variance, and how many blocks that was learnt from.

    ``blocks`` is the effective number, ``1 / sum(share^2)`` (Carter, Schnepel and Steigerwald
    2017, Rev. Econ. Stat. 99:698), so one giant block does not count as many; 1 or less than 2
    means that block noise cannot be told from one window.
    """

    variance: float
    blocks: float


def clustered_spread(
    terms: Array, weights: Array, problems: NDArray[np.intp], blocks: NDArray[np.intp]
) -> Spread:
    """Return the two-way clustered variance of a log-ratio of sums.

    Args:
        terms: the linearised z of each attempt of both solutions; they sum to 0.
        weights: each attempt's share of its solution's cost, halved, so that they sum to 1.
        problems: problem number of each attempt.
        blocks: block number of each; the windows of a pair share a number.

    Each one-way part is the jackknife's: a group's sum is divided by ``1 - h``, h its weight,
    since leaving out a heavy group moves the total too (CR3; Bell and McCaffrey 2002).
    """
    both = problems * (int(blocks.max()) + 1) + blocks
    by_problem, by_block, by_both = (
        _jackknife(terms, weights, g) for g in (problems, blocks, both)
    )
    held = np.bincount(blocks, weights=weights)
    return Spread(
        # By chance the sum can fall below its parts; the larger part is then the estimate.
        variance=max(by_problem + by_block - by_both, by_problem, by_block),
        blocks=float(1.0 / np.sum(held**2)),
    )


def stretch_over(log_draws: Array, spread: Spread, *, problems: int, confidence: float) -> float:
    """Return the factor >= 1 by which draws over problems understate the whole spread.

    The larger of the small-sample factor of so many problems and the one that takes the draws'
    half-width to Student's t of the clustered spread. Infinite draws are left out of the latter.
    """
    few = stretch_for(problems, confidence)
    finite = log_draws[np.isfinite(log_draws)]
    if spread.blocks < FEWEST_BLOCKS or finite.size == 0:
        return few
    upper = (1.0 + confidence) / 2.0
    low, high = np.quantile(finite, [1.0 - upper, upper])
    half = float(high - low) / 2.0
    df = max(1, math.floor(spread.blocks + 1e-9) - 1)
    wanted = student_t_quantile(upper, df) * math.sqrt(spread.variance)
    return max(few, wanted / half) if half > 0 else few


def p_value(log_draws: Array) -> float:
    """Return the two-sided bootstrap p-value of "the ratio is 1", never below 2 / (draws + 1)."""
    n = log_draws.size
    side = min(int(np.sum(log_draws >= 0)), int(np.sum(log_draws <= 0)))
    return min(1.0, 2.0 * (1 + side) / (n + 1))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm-adjusted p-values (1979, Scand. J. Stat. 6:65) in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return tuple(adjusted)


def p_dominates(quality_differences: Array, log_cost_ratios: Array) -> float:
    """Return the share of joint draws in which B dominates A.

    That is: quality at least as high, cost no higher, one of the two strictly better.
    """
    as_good = quality_differences >= 0
    as_cheap = log_cost_ratios <= 0
    better = (quality_differences > 0) | (log_cost_ratios < 0)
    return float(np.mean(as_good & as_cheap & better))


def pareto_front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Return the names that nothing dominates; points are (quality, cost), in the order given."""

    def dominated(name: str) -> bool:
        quality, cost = points[name]
        return any(
            q >= quality and c <= cost and (q > quality or c < cost) for q, c in points.values()
        )

    return tuple(name for name in points if not dominated(name))


def _jackknife(terms: Array, weights: Array, groups: NDArray[np.intp]) -> float:
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, weights=terms)
    rest = np.maximum(1.0 - np.bincount(index, weights=weights), _TINY)
    n = sums.size
    return float(np.sum((sums / rest) ** 2)) * (n - 1) / n
