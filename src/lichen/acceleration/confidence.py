"""From a model's own log-probabilities to the probability that its answer is right.

A raw score is no probability: models are over-confident, small ones most. A calibration learns the
relation on one half of the problems and is judged on the other half by its ``reliability``.

Two fits: *isotonic* (pool adjacent violators, Ayer et al., 1955; for calibration Zadrozny and
Elkan, 2002) assumes only that a higher score is never worse; *Platt* (1999) fits
``P = 1 / (1 + exp(-(a s + b)))`` with his smoothed targets, for few samples. Pure functions.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from lichen.core.generation import Completion

STATISTICS: Final = ("mean", "min")
"""Which log-probability stands for a completion. Both separate about equally well (AUROC 0.71 and
0.70 in our first trial of 99 HumanEval problems with a 0.5B); first-token entropy does not."""

Pair = tuple[float, bool]
"""A score and whether the answer was right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A non-decreasing, piecewise linear map from score to P(right).

    Args:
        points: (score, probability) with strictly rising scores and non-falling probabilities.

    Raises:
        ValueError: no point, a number out of range, or an order that is broken.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        """Check the points; NaN fails every comparison."""
        if not self.points:
            raise ValueError("a calibration needs at least one point (score, probability)")
        if not all(math.isfinite(s) and 0.0 <= p <= 1.0 for s, p in self.points):
            raise ValueError("calibration points are (finite score, probability in [0, 1])")
        if not all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(self.points)):
            raise ValueError("calibration scores must rise and probabilities must not fall")

    def probability(self, score: float) -> float:
        """Return P(right); scores beyond the outermost points get those points' probability."""
        scores = [s for s, _ in self.points]
        after = bisect_right(scores, score)
        if after == 0:
            return self.points[0][1]
        if after == len(scores):
            return self.points[-1][1]
        (s0, p0), (s1, p1) = self.points[after - 1], self.points[after]
        return p0 + (p1 - p0) * (score - s0) / (s1 - s0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Answers of similar predicted probability: how many, what was predicted, what came true."""

    count: int
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How far a calibration can be trusted, on samples that it was not fitted on.

    Args:
        bins: of equal width in predicted probability; empty ones are left out.
        expected_error: mean of |predicted - observed| over bins, weighted by count (ECE, Naeini et
            al., 2015).
        brier: mean squared error (Brier, 1950); 0 is perfect, always saying 1/2 gives 0.25.
        auroc: chance that a right answer scores higher than a wrong one (ties half), None if all
            are right or all are wrong.
    """

    bins: tuple[Bin, ...]
    expected_error: float
    brier: float
    auroc: float | None


def score_of(completion: Completion, statistic: str) -> float | None:
    """Return the mean or smallest log-probability of a completion, None if none was reported."""
    found = completion.confidence
    if found is None:
        return None
    score = found.mean_logprob if statistic == "mean" else found.min_logprob
    return score if math.isfinite(score) else None


def fit_isotonic(pairs: Sequence[Pair]) -> Calibration:
    """Fit the non-decreasing function with the least squared error.

    Each block of pooled scores becomes up to two points (its ends), so that the map is flat inside
    a block and linear between blocks.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("a calibration needs (score, right) pairs; there are none")
    blocks: list[tuple[float, float, float, int]] = []  # first score, last score, sum, count
    by_score: dict[float, list[bool]] = {}
    for score, right in pairs:
        by_score.setdefault(score, []).append(right)
    for score, rights in sorted(by_score.items()):
        block = (score, score, float(sum(rights)), len(rights))
        while blocks and blocks[-1][2] / blocks[-1][3] >= block[2] / block[3]:
            before = blocks.pop()
            block = (before[0], block[1], before[2] + block[2], before[3] + block[3])
        blocks.append(block)
    points: list[tuple[float, float]] = []
    for first, last, total, count in blocks:
        points.append((first, total / count))
        if last > first:
            points.append((last, total / count))
    return Calibration(points=tuple(points))


def fit_platt(pairs: Sequence[Pair], *, points: int = 33) -> Calibration:
    """Fit a logistic curve by Newton's method and return it as ``points`` >= 2 points.

    A curve that would fall (higher scores were worse) becomes flat at the overall rate.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("a calibration needs (score, right) pairs; there are none")
    scores = [s for s, _ in pairs]
    low, high = min(scores), max(scores)
    right = sum(r for _, r in pairs)
    yes, no = (right + 1) / (right + 2), 1 / (len(pairs) - right + 2)  # Platt's targets
    rate = (right * yes + (len(pairs) - right) * no) / len(pairs)
    if high <= low:
        return Calibration(points=((low, rate),))
    middle, spread = (low + high) / 2, (high - low) / 2
    data = [((s - middle) / spread, yes if r else no) for s, r in pairs]
    a, b = _logistic(data)
    if a <= 0:
        return Calibration(points=((low, rate),))
    grid = [-1 + 2 * i / (points - 1) for i in range(points)]
    # Rounding may repeat a score, or let a flat curve fall by a last digit.
    curve: dict[float, float] = {}
    highest = 0.0
    for x in grid:
        highest = max(highest, _sigmoid(a * x + b))
        curve[middle + spread * x] = highest
    return Calibration(points=tuple(curve.items()))


def reliability(
    probability: Callable[[float], float], pairs: Sequence[Pair], *, bins: int = 10
) -> Reliability:
    """Judge a map from score to P(right) on pairs that it was not fitted on.

    Raises:
        ValueError: no pair.
    """
    if not pairs:
        raise ValueError("reliability needs (score, right) pairs; there are none")
    n = len(pairs)
    held: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for score, right in pairs:
        p = probability(score)
        held[min(int(p * bins), bins - 1)].append((p, right))
    found = tuple(
        Bin(
            count=len(b),
            predicted=sum(p for p, _ in b) / len(b),
            observed=sum(r for _, r in b) / len(b),
        )
        for b in held
        if b
    )
    return Reliability(
        bins=found,
        expected_error=sum(b.count * abs(b.predicted - b.observed) for b in found) / n,
        brier=sum((p - r) ** 2 for b in held for p, r in b) / n,
        auroc=_auroc(pairs),
    )


def _auroc(pairs: Sequence[Pair]) -> float | None:
    good = [s for s, r in pairs if r]
    bad = [s for s, r in pairs if not r]
    if not good or not bad:
        return None
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    return wins / (len(good) * len(bad))


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    return math.exp(x) / (1 + math.exp(x))


def _logistic(data: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return (slope, offset) of the logistic regression of targets in (0, 1) on x in [-1, 1]."""
    a = b = 0.0
    ridge = 1e-3  # keeps separable data finite; far below one sample's weight
    for _ in range(50):
        ga, gb, haa, hab, hbb = -ridge * a, 0.0, ridge, 0.0, ridge
        for x, target in data:
            p = _sigmoid(a * x + b)
            w = p * (1 - p)
            ga += (target - p) * x
            gb += target - p
            haa += w * x * x
            hab += w * x
            hbb += w
        det = haa * hbb - hab * hab
        da, db = (hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det
        size = max(abs(da), abs(db))
        shrink = min(1.0, 4.0 / size) if size else 1.0  # full steps may overshoot far from the end
        a, b = a + shrink * da, b + shrink * db
        if size < 1e-9:  # noqa: PLR2004 (far below what a probability shows)
            break
    return a, b
