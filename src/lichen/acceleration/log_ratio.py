"""Is B cheaper than A? The interval of a mean log-ratio over few interleaved pairs.

Costs on a shared machine drift by factors, but two neighbouring looks drift together: for pairs
(a_i, b_i) taken next to each other, ``d_i = ln(b_i / a_i)``, and the mean of the d_i has Student's
interval ``mean +- t * s / sqrt(n)`` (Student, 1908). One pair alone says nothing about spread, so
its interval is unbounded. Quick decisions only; published claims come from the benchmark's
bootstrap over problems.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

from lichen.core.interval import Interval

T_90: Final = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782)
"""95 % quantiles of Student's t at 1 to 12 degrees of freedom (two-sided 90 %): NIST handbook,
section 1.3.6.7.2."""

MIN_RELATIVE_SD: Final = 0.005
"""CPU clocks are not better than half a percent on windows of a second or so (10 ms ticks), so two
pairs that happen to agree exactly do not prove anything finer."""


def log_ratio(pairs: Sequence[tuple[float, float]]) -> Interval:
    """Return the 90 % interval of the mean of ``ln(b / a)`` over pairs of costs > 0.

    Raises:
        ValueError: no pair, or a cost that is not above 0.
    """
    if not pairs or any(a <= 0 or b <= 0 for a, b in pairs):
        msg = f"a log-ratio needs pairs of costs above 0, got {list(pairs)}"
        raise ValueError(msg)
    logs = [math.log(b / a) for a, b in pairs]
    mean = statistics.fmean(logs)
    n = len(logs)
    if n == 1:
        return Interval(low=-math.inf, value=mean, high=math.inf)
    spread = max(statistics.stdev(logs), MIN_RELATIVE_SD)
    half = T_90[min(n - 2, len(T_90) - 1)] * spread / math.sqrt(n)
    return Interval(low=mean - half, value=mean, high=mean + half)


def as_ratio(logs: Interval) -> Interval:
    """Return the interval of the ratio itself; an unbounded side becomes 0 or infinity."""
    high = math.inf if logs.high == math.inf else math.exp(logs.high)
    return Interval(low=math.exp(logs.low), value=math.exp(logs.value), high=high)


def shown(ratio: Interval) -> str:
    """Write a ratio for people: ``0.94 [0.90, 0.98]``."""
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
