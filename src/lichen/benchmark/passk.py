"""pass@k: the chance that at least one of k attempts solves a problem, and rates with intervals.

Unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, equation 1) from n >= k attempts of which
c passed: ``1 - C(n - c, k) / C(n, k)``, computed as a product so that no binomial overflows:
``1 - prod_{i = n - c + 1}^{n} (1 - k / i)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lichen.benchmark.bootstrap import Array, normal_quantile, student_t_quantile
from lichen.core.interval import Interval


def pass_at_k(attempts: int, passed: int, k: int) -> float:
    """Estimate pass@k of one problem, in [0, 1].

    Raises:
        ValueError: unless ``0 <= passed <= attempts`` and ``1 <= k <= attempts``.
    """
    if not 0 <= passed <= attempts or not 1 <= k <= attempts:
        msg = f"pass@k needs 0 <= passed <= attempts >= k >= 1: {passed} of {attempts}, k = {k}"
        raise ValueError(msg)
    if attempts - passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(attempts - passed + 1, attempts + 1))


def pass_at_k_all(attempts: Sequence[int], passed: Sequence[int], k: int) -> Array:
    """Estimate pass@k of every problem; repeated (attempts, passed) pairs are computed once."""
    known: dict[tuple[int, int], float] = {}
    for pair in zip(attempts, passed, strict=True):
        if pair not in known:
            known[pair] = pass_at_k(*pair, k)
    return np.array([known[pair] for pair in zip(attempts, passed, strict=True)])


def wilson(successes: float, trials: float, *, z: float) -> Interval:
    """Return Wilson's score interval (1927, JASA 22:209) of one rate.

    ``successes`` and ``trials`` may be fractional (effective counts); trials > 0. ``z`` is the
    quantile, 1.96 for 95 %.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        msg = f"a rate needs 0 <= successes <= trials > 0, got {successes} of {trials}"
        raise ValueError(msg)
    rate = successes / trials
    denominator = 1.0 + z * z / trials
    centre = (rate + z * z / (2.0 * trials)) / denominator
    half = z / denominator * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return Interval(
        low=min(max(0.0, centre - half), rate), value=rate, high=max(min(1.0, centre + half), rate)
    )


def mean_in_unit_range(values: Array, *, confidence: float) -> Interval:
    """Return the mean of per-problem values in [0, 1] with a Wilson interval of effective size.

    The effective number of trials is ``m (1 - m) / (s^2 / n)``, the size at which one rate would
    have the standard error that the problems show (Kish 1965, design effect), so several attempts
    per problem and partial scores are covered; with Student's t of n - 1 for the normal quantile.
    Unlike bootstrap intervals it does not collapse when every problem has the same value: then n
    counts as it is. Needs at least one value.
    """
    n = values.size
    mean = min(max(float(np.mean(values)), 0.0), 1.0)
    upper = (1.0 + confidence) / 2.0
    if n < 2:  # noqa: PLR2004 (a spread needs two)
        return wilson(mean * n, n, z=normal_quantile(upper))
    variance = float(np.var(values, ddof=1)) / n
    plain = mean * (1.0 - mean)
    trials = plain / variance if variance > 0 and plain > 0 else float(n)
    return wilson(mean * trials, trials, z=student_t_quantile(upper, n - 1))
