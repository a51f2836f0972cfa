"""Two solutions' attempts at the same problems, resampled together.

A ``Pair`` answers, for each cost, how the log-ratio of B to A is distributed: over problems by the
bootstrap, and over measuring windows by widening (``paired``). Both solutions see the same
resamples, so what they share (hard problems, long answers, a power model's factor) cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from lichen.benchmark.attempts import Indices, Table
from lichen.benchmark.bootstrap import Array, percentile, resampled_sums, stretched
from lichen.benchmark.costs import Sampling, log_quotient, unlogged
from lichen.benchmark.paired import Spread, clustered_spread, p_dominates, p_value, stretch_over
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.record import SampleRecord
from lichen.core.summary import Dimension

Count = Literal["attempts", "solved"]

_QUALITY: Final = "quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One solution of a comparison: its attempts and their additive costs."""

    table: Table
    columns: Mapping[Dimension, Array | Missing]

    def only(self, problem_ids: Sequence[str]) -> Side:
        """Return the side on these problems alone."""
        wanted = frozenset(problem_ids)
        rows = [i for i, s in enumerate(self.table.samples) if s.problem_id in wanted]
        columns = {d: c if isinstance(c, Missing) else c[rows] for d, c in self.columns.items()}
        return Side(table=self.table.only(problem_ids), columns=columns)

    def usable(self, d: Dimension) -> bool:
        """Whether the cost is known and not zero altogether."""
        column = self.columns.get(d)
        return column is not None and not isinstance(column, Missing) and float(column.sum()) > 0

    def rows(self) -> dict[str, Array]:
        """Return everything that is summed over attempts, by name."""
        known = {str(d): c for d, c in self.columns.items() if not isinstance(c, Missing)}
        return {"attempts": np.ones(len(self.table.samples)), "solved": self.table.solved, **known}


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
    """B against A on the problems both attempted.

    Args:
        a, b: the sides; only common problems are used, of which there must be one.
        how: resampling.
    """

    def __init__(self, a: Side, b: Side, how: Sampling) -> None:
        shared = frozenset(b.table.problem_ids)
        common = tuple(p for p in a.table.problem_ids if p in shared)
        self.a, self.b, self.how = a.only(common), b.only(common), how
        self.problems = len(common)
        self.known = tuple(d for d in Dimension if self.a.usable(d) and self.b.usable(d))
        self._rows = (self.a.rows(), self.b.rows())
        self._blocks = paired_blocks(self.a.table, self.b.table)
        self._draws = self._resample()
        self._ratios: dict[tuple[Dimension, Count], LogRatio] = {}

    def ratio(self, d: Dimension, per: Count) -> LogRatio:
        """Return the log-ratio of the cost per attempt or per solved one; ``d`` in ``known``."""
        if (d, per) not in self._ratios:
            self._ratios[d, per] = self._ratio(str(d), per)
        return self._ratios[d, per]

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
        factor = stretch_over(draws, spread, problems=self.problems, confidence=self.how.confidence)
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
            np.concatenate([self.a.table.problem, self.b.table.problem]),
            self._blocks,
        )

    def _resample(self) -> tuple[dict[str, Array], dict[str, Array]]:
        features: list[Array] = []
        for side, rows in zip((self.a, self.b), self._rows, strict=True):
            features += [side.table.per_problem(column) for column in rows.values()]
            features.append(side.table.mean_quality)
        sums = resampled_sums(np.stack(features, 1), draws=self.how.draws, rng=self.how.rng())
        columns = iter(sums.T)
        first, second = ({name: next(columns) for name in (*rows, _QUALITY)} for rows in self._rows)
        return first, second


def is_interleaved(a: Table, b: Table) -> bool:
    """Whether two solutions took turns within one run.

    One block each is a turn; of several, neither solution's may all come before the other's.
    """
    if a.run.id != b.run.id:
        return False
    first, second = ({s.block for s in t.samples} for t in (a, b))
    if len(first) == len(second) == 1:
        return True
    return not (max(first) < min(second) or max(second) < min(first))


def paired_blocks(a: Table, b: Table) -> Indices:
    """Number the blocks of A's rows, then B's, so that windows on the same attempts share one.

    Blocks are joined when they hold the same (problem, sample), directly or through others.
    """
    leader: dict[tuple[int, int], tuple[int, int]] = {}

    def find(block: tuple[int, int]) -> tuple[int, int]:
        while leader.setdefault(block, block) != block:
            block = leader[block]
        return block

    held: dict[tuple[str, int], tuple[int, int]] = {}
    rows: list[tuple[int, int]] = []
    for side, table in enumerate((a, b)):
        for s in table.samples:
            block = (side, s.block)
            rows.append(block)
            other = held.setdefault(attempt_key(s), block)
            one, two = sorted((find(block), find(other)))
            leader[two] = one
    number: dict[tuple[int, int], int] = {}
    return np.array([number.setdefault(find(r), len(number)) for r in rows], dtype=np.intp)


def attempt_key(sample: SampleRecord) -> tuple[str, int]:
    """Return what a sample has in common with the other solution's."""
    return sample.problem_id, sample.sample
