"""Two solutions' attempts at the same problems, resampled together.

A ``Pair`` answers, for each cost, how the log-ratio of B to A is distributed: over problems by the
bootstrap, and over measuring windows by widening (``paired``). Both solutions see the same
resamples, so what they share (hard problems, long answers, a power model's factor) cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from lichen.benchmark.attempts import Indices
from lichen.benchmark.bootstrap import Array, percentile, resampled_sums, stretched
from lichen.benchmark.costs import Sampling, log_quotient, unlogged
from lichen.benchmark.paired import Spread, clustered_spread, p_dominates, p_value, stretch_over
from lichen.core.interval import Interval
from lichen.core.summary import Dimension

Count = Literal["attempts", "solved"]

_QUALITY: Final = "quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One solution's attempts, a row each.

    Args:
        problem: number of the problem, the same numbers for both arms, from 0 without gaps.
        block: number of the measuring window; windows of a pair share one.
        quality: score in [0, 1].
        solved: 1.0 or 0.0.
        costs: additive costs >= 0, those that are known.
    """

    problem: Indices
    block: Indices
    quality: Array
    solved: Array
    costs: Mapping[Dimension, Array]

    @property
    def problems(self) -> int:
        """How many problems there are."""
        return int(self.problem.max()) + 1

    def rows(self) -> dict[str, Array]:
        """Return everything that is summed, by name."""
        costs = {str(d): column for d, column in self.costs.items()}
        return {"attempts": np.ones_like(self.solved), "solved": self.solved, **costs}

    def per_problem(self, column: Array) -> Array:
        """Sum a column over each problem's attempts."""
        sums = np.bincount(self.problem, weights=column, minlength=self.problems)
        return sums.astype(np.float64)  # an empty column counts in whole numbers

    def mean_quality(self) -> Array:
        """Return each problem's mean score."""
        return self.per_problem(self.quality) / self.per_problem(np.ones_like(self.quality))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRatio:
    """The log of B's cost over A's: best estimate, widened draws, and the spread behind them."""

    estimate: float
    draws: Array
    spread: Spread

    def interval(self, confidence: float) -> Interval:
        """Return the ratio itself with its interval."""
        return unlogged(percentile(self.draws, self.estimate, confidence=confidence))

    @property
    def p_value(self) -> float:
        """Two-sided p-value of "the ratio is 1"."""
        return p_value(self.draws)

    @property
    def p_less(self) -> float:
        """Probability that B costs less than A."""
        return float(np.mean(self.draws < 0))


class Pair:
    """B against A on the same problems."""

    def __init__(self, a: Arm, b: Arm, how: Sampling) -> None:
        self.a, self.b, self.how = a, b, how
        self.known = tuple(
            d for d in Dimension if all(d in s.costs and s.costs[d].sum() > 0 for s in (a, b))
        )
        self._rows = (a.rows(), b.rows())
        self._draws = self._resample()
        self._ratios: dict[tuple[Dimension, Count], LogRatio] = {}

    @property
    def both_solved_some(self) -> bool:
        """Whether a cost per solved problem exists on both sides."""
        return bool(self.a.solved.any() and self.b.solved.any())

    def ratio(self, d: Dimension, per: Count) -> LogRatio:
        """Return the log-ratio of the cost per attempt, or per solved one (if both solved some).

        ``d`` must be in ``known``: of the other dimensions there is no ratio.
        """
        if (d, per) not in self._ratios:
            self._ratios[d, per] = self._ratio(str(d), per)
        return self._ratios[d, per]

    def quality_differences(self) -> Array:
        """Return B's mean score minus A's, per problem."""
        return self.b.mean_quality() - self.a.mean_quality()

    def p_dominates(self, d: Dimension) -> float:
        """Return the joint probability that B is as good and as cheap, and better in one."""
        quality = self._draws[1][_QUALITY] - self._draws[0][_QUALITY]
        return p_dominates(quality, self.ratio(d, "attempts").draws)

    def _ratio(self, cost: str, per: Count) -> LogRatio:
        (rows_a, rows_b), (draws_a, draws_b) = self._rows, self._draws
        above = float(rows_b[cost].sum() * rows_a[per].sum())
        below = float(rows_a[cost].sum() * rows_b[per].sum())
        estimate = math.log(above / below)
        draws = log_quotient(draws_b[cost] * draws_a[per], draws_a[cost] * draws_b[per])
        spread = self._spread(cost, per)
        factor = stretch_over(
            draws, spread, problems=self.a.problems, confidence=self.how.confidence
        )
        return LogRatio(estimate=estimate, draws=stretched(draws, estimate, factor), spread=spread)

    def _spread(self, cost: str, per: Count) -> Spread:
        terms, weights = [], []
        for rows, sign in zip(self._rows, (-1.0, 1.0), strict=True):
            share = rows[cost] / rows[cost].sum()
            terms.append(sign * (share - rows[per] / rows[per].sum()))
            weights.append(share / 2.0)
        return clustered_spread(
            np.concatenate(terms),
            np.concatenate(weights),
            np.concatenate([self.a.problem, self.b.problem]),
            np.concatenate([self.a.block, self.b.block]),
        )

    def _resample(self) -> tuple[dict[str, Array], dict[str, Array]]:
        features: list[Array] = []
        for arm, rows in zip((self.a, self.b), self._rows, strict=True):
            features += [arm.per_problem(column) for column in rows.values()]
            features.append(arm.mean_quality())
        sums = resampled_sums(np.stack(features, 1), draws=self.how.draws, rng=self.how.rng())
        columns = iter(sums.T)
        first, second = ({name: next(columns) for name in (*r, _QUALITY)} for r in self._rows)
        return first, second
