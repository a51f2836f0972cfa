"""The bootstrap over problems: resampled sums, and intervals from them.

Every statistic of lichen is a smooth function of sums over problems (a mean is a sum over a count,
a cost per solved task a sum over a sum), so resampling is one matrix product: draws x problems of
multinomial counts, times problems x features. All features of one call see the same resamples,
so differences and ratios formed from the columns are paired.

The counts come from problems, not attempts: attempts at one problem are not independent
(Miller 2024, arXiv 2411.00640, section 2.2 "clustered standard errors").

Percentile intervals from few units are too narrow: by sqrt((n - 1) / n), and because they use the
normal in place of Student's t (Hesterberg 2015, arXiv 1411.5279, section 4.3). ``stretch_for``
gives the factor that undoes both; ``benchmarks/coverage.py`` shows what it buys.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lichen.core.interval import Interval

Array = NDArray[np.float64]

_CELLS_AT_ONCE: Final = 2_000_000
"""Counts held at a time (16 MB), so that memory does not grow with problems x draws."""

_NORMAL: Final = NormalDist()


def resampled_sums(features: Array, *, draws: int, rng: np.random.Generator) -> Array:
    """Sum the rows of ``features`` over ``draws`` resamples of the rows with replacement.

    Args:
        features: units x columns.
        draws: how many resamples, >= 1.
        rng: source of randomness; the same state gives the same draws.

    Returns:
        draws x columns.
    """
    units = features.shape[0]
    step = max(1, _CELLS_AT_ONCE // max(units, 1))
    parts: list[Array] = []
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        picks = rng.integers(units, size=(rows, units)) + np.arange(rows)[:, None] * units
        counts = np.bincount(picks.ravel(), minlength=rows * units).reshape(rows, units)
        parts.append(counts.astype(np.float64) @ features)
    return np.concatenate(parts)


def percentile(draws: Array, estimate: float, *, confidence: float) -> Interval:
    """Return the percentile interval; order statistics only, so that draws may be infinite.

    The interval always contains ``estimate``.
    """
    tail = (1.0 - confidence) / 2.0
    return _between(draws, estimate, tail, 1.0 - tail)


def bca(draws: Array, estimate: float, jackknife: Array, *, confidence: float) -> Interval:
    """Return the bias-corrected and accelerated interval (Efron 1987, JASA 82:171).

    ``z0 = Phi^-1(share of draws below the estimate)`` corrects the bias, and
    ``a = sum(d^3) / (6 sum(d^2)^1.5)``, with d the jackknife values' deviations from their mean,
    corrects the skew. ``jackknife`` holds the statistic with each unit left out, in turn.
    """
    below = (np.sum(draws < estimate) + 0.5 * np.sum(draws == estimate)) / draws.size
    if not 0.0 < below < 1.0:
        return percentile(draws, estimate, confidence=confidence)
    deviation = float(np.mean(jackknife)) - jackknife
    spread = float(np.sum(deviation**2)) ** 1.5
    skew = float(np.sum(deviation**3)) / (6.0 * spread) if spread > 0 else 0.0
    z0 = _NORMAL.inv_cdf(float(below))
    tail = (1.0 - confidence) / 2.0

    def level(p: float) -> float:
        z = z0 + _NORMAL.inv_cdf(p)
        return _NORMAL.cdf(z0 + z / (1.0 - skew * z))

    return _between(draws, estimate, level(tail), level(1.0 - tail))


def stretched(draws: Array, estimate: float, factor: float) -> Array:
    """Move draws away from the estimate by ``factor`` >= 1; infinite draws stay where they are."""
    if not math.isfinite(estimate):
        return draws
    return estimate + (draws - estimate) * factor


def stretch_for(units: int, confidence: float) -> float:
    """Return the factor that a percentile interval from ``units`` units is too narrow by.

    ``sqrt(n / (n - 1)) * t(n - 1) / z``: 1.10 for 20 units, 1.01 for 164, 1 for a single one,
    from which nothing can be learnt about spread.
    """
    if units < 2:  # noqa: PLR2004 (a spread needs two)
        return 1.0
    upper = (1.0 + confidence) / 2.0
    t = student_t_quantile(upper, units - 1)
    return math.sqrt(units / (units - 1)) * t / _NORMAL.inv_cdf(upper)


def normal_quantile(p: float) -> float:
    """Return the standard normal's quantile; 0 < p < 1."""
    return _NORMAL.inv_cdf(p)


def student_t_quantile(p: float, df: int) -> float:
    """Return Student's t quantile for p in (0.5, 1) and integer ``df`` >= 1, to about 1e-10.

    Bisects the finite series for integer degrees of freedom
    (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4); the normal stands in above 2,000.
    """
    if df > 2000:  # noqa: PLR2004 (t and normal agree to 0.1 % here, and the series is long)
        return _NORMAL.inv_cdf(p)
    low, high = 0.0, 1.0
    while _student_t_cdf(high, df) < p:
        high *= 2.0
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _student_t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2.0


def _student_t_cdf(t: float, df: int) -> float:
    angle = math.atan(t / math.sqrt(df))
    cos2 = math.cos(angle) ** 2
    odd = df % 2 == 1
    term = math.cos(angle) if odd else 1.0
    series = term if df > 1 else 0.0
    for k in range(3 if odd else 2, df - 1, 2):
        term *= cos2 * (k - 1) / k
        series += term
    inside = math.sin(angle) * series
    two_sided = 2.0 / math.pi * (angle + inside) if odd else inside
    return 0.5 + two_sided / 2.0


def _between(draws: Array, estimate: float, low: float, high: float) -> Interval:
    ordered = np.sort(draws)
    last = ordered.size - 1
    first_index = min(max(math.floor(low * ordered.size), 0), last)
    last_index = min(max(math.ceil(high * ordered.size) - 1, 0), last)
    return Interval(
        low=min(float(ordered[first_index]), estimate),
        value=estimate,
        high=max(float(ordered[last_index]), estimate),
    )
