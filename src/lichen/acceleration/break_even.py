"""Does a cascade pay? The break-even of each level, from costs and escalations as they are seen.

A level k that answers or hands on costs ``C_k`` each time and hands on with the rate ``e_k``. What
a request costs from level k on is ``V_k = C_k + e_k V_(k+1)``; for the last level it is ``C_k``.
Asking level k first is worth it if ``V_k < V_(k+1)``, that is, if::

    e_k < 1 - C_k / V_(k+1)

which for two levels is the known ``escalation rate < 1 - C_small / C_large``. A level fails only
with confidence: the low end of its rate is above the high end of the limit. What led to that is
then forgotten, and the level comes back when enough later looks are favourable (the estimates
themselves, so that it does not flap). Only the last ``window`` looks count, since what people ask
changes.

Costs of upper levels are seen on what is handed up to them, the harder questions; once a level is
skipped they are seen on all.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lichen.core.interval import Interval
from lichen.core.measurement import Missing

Z_90: Final = 1.645
"""Two-sided 90 % of the normal distribution: each decision errs in 5 % of the cases on its side."""

MIN_COSTS: Final = 5
"""Costs seen before their mean is used for a decision; below, the spread itself is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelBalance:
    """What is known of one level.

    Args:
        attempts: requests that it was asked, of the window; since it was switched off, if it is.
        escalated: how many of those it handed on.
        cost: mean cost of one attempt with its 90 % interval.
        rate: escalation rate with its 90 % interval (Wilson, 1927).
        limit: rate at which asking it first stops paying; missing for the last level.
        skipped: whether it is switched off.
    """

    attempts: int
    escalated: int
    cost: Interval | Missing
    rate: Interval | Missing
    limit: Interval | Missing
    skipped: bool


class BreakEven:
    """Follows costs and escalations of a cascade, and says at which level to begin.

    Args:
        levels: how many, >= 1; the last one never hands on.
        minimum: attempts at a level before it may be skipped, >= 1.
        window: most recent looks that count, >= ``minimum``.
    """

    def __init__(self, levels: int, *, minimum: int = 20, window: int = 200) -> None:
        if levels < 1 or minimum < 1 or window < minimum:
            msg = f"levels and minimum >= 1, window >= minimum; got {levels}, {minimum}, {window}"
            raise ValueError(msg)
        self._minimum = minimum
        self._costs: list[deque[float]] = [deque(maxlen=window) for _ in range(levels)]
        self._handed: list[deque[bool]] = [deque(maxlen=window) for _ in range(levels)]
        self._skipped = [False] * levels
        self._why = [""] * levels

    def observe(self, level: int, *, cost: float | None, escalated: bool) -> None:
        """Take in one attempt.

        Args:
            level: 0 is the cheapest.
            cost: what it cost, >= 0, in any one unit; None if that could not be seen.
            escalated: whether the answer was not good enough for this level's check.
        """
        if cost is not None and math.isfinite(cost) and cost >= 0:
            self._costs[level].append(cost)
        self._handed[level].append(escalated)
        self._decide()

    @property
    def start(self) -> int:
        """The level to begin with: the first that is not skipped."""
        return self._skipped.index(False)

    def skipped(self, level: int) -> bool:
        """Whether asking ``level`` first does not pay."""
        return self._skipped[level]

    def why(self, level: int) -> str:
        """Return what switched ``level`` off, "" if it is on."""
        return self._why[level] if self._skipped[level] else ""

    def balance(self) -> tuple[LevelBalance, ...]:
        """Return what is known of every level."""
        return tuple(
            LevelBalance(
                attempts=len(self._handed[k]),
                escalated=sum(self._handed[k]),
                cost=self._cost(k) or Missing(reason=f"fewer than {MIN_COSTS} costs were seen"),
                rate=self._rate(k) or Missing(reason="it was not asked"),
                limit=self._limit(k) or Missing(reason=self._why_no_limit(k)),
                skipped=self._skipped[k],
            )
            for k in range(len(self._costs))
        )

    def _why_no_limit(self, k: int) -> str:
        if k == len(self._costs) - 1:
            return "the last level hands nothing on"
        return "too few costs of this level and those above were seen"

    def _decide(self) -> None:
        # From the top, so that a level is held against what the levels above it really do.
        for k in reversed(range(len(self._costs) - 1)):
            rate, limit = self._rate(k), self._limit(k)
            if rate is None or limit is None or len(self._handed[k]) < self._minimum:
                continue
            if self._skipped[k]:
                self._skipped[k] = rate.value >= limit.value
            elif rate.low >= limit.high:
                self._skipped[k] = True
                self._handed[k].clear()
                self._why[k] = (
                    f"it hands on {rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}], which pays "
                    f"only below {limit.value:.0%} [{limit.low:.0%}, {limit.high:.0%}]"
                )

    def _cost(self, k: int) -> Interval | None:
        return mean_interval(self._costs[k]) if len(self._costs[k]) >= MIN_COSTS else None

    def _rate(self, k: int) -> Interval | None:
        if not self._handed[k]:
            return None
        return wilson(sum(self._handed[k]), len(self._handed[k]))

    def _value(self, k: int) -> Interval | None:
        """Return ``V_k``: what a request costs from level ``k`` on."""
        if self._skipped[k]:
            return self._value(k + 1)
        cost = self._cost(k)
        if cost is None or k == len(self._costs) - 1:
            return cost
        rate, above = self._rate(k), self._value(k + 1)
        if rate is None or above is None:
            # Without an escalation nothing is known, nor needed, of the levels above.
            return cost if rate is not None and rate.value == 0 else None
        return cost + rate * above

    def _limit(self, k: int) -> Interval | None:
        cost, above = self._cost(k), self._value(k + 1) if k + 1 < len(self._costs) else None
        if cost is None or above is None or above.low <= 0:
            return None
        return Interval(
            low=1 - cost.high / above.low,
            value=1 - cost.value / above.value,
            high=1 - cost.low / above.high,
        )


def wilson(hits: int, n: int, *, z: float = Z_90) -> Interval:
    """Return the rate ``hits / n`` with Wilson's score interval (1927); ``n`` >= 1."""
    rate = hits / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return Interval(low=min(low, rate), value=rate, high=max(high, rate))


def mean_interval(values: Sequence[float] | deque[float], *, z: float = Z_90) -> Interval:
    """Return the mean of values >= 0 with ``z`` standard errors each side, not below 0."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(low=0.0, value=mean, high=math.inf)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = z * spread / math.sqrt(n)
    return Interval(low=max(mean - half, 0.0), value=mean, high=mean + half)
