"""Intervals: a value that keeps its low and high bound through arithmetic.

The arithmetic is plain interval arithmetic (Moore, 1966): the result's bounds enclose every
combination of the operands' bounds. It never understates uncertainty and ignores correlation, so
``x - x`` is not zero. Where correlation matters (ratios of two solutions on one machine) lichen
resamples instead; see ``docs/explanation/methodology.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lichen.core.value import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval(Value):
    """``low <= value <= high``; bounds may be infinite, none may be NaN.

    ``value`` is the best single estimate. The unit lives in the name of whatever holds the
    interval.

    Raises:
        ValueError: a bound is NaN, or the order is broken.
    """

    low: float
    value: float
    high: float

    def __post_init__(self) -> None:
        """Refuse NaN and broken order: silent NaN becomes null, then 0, in other people's files."""
        if any(math.isnan(x) for x in (self.low, self.value, self.high)):
            msg = f"an interval cannot hold NaN: ({self.low}, {self.value}, {self.high})"
            raise ValueError(msg)
        if not self.low <= self.value <= self.high:
            msg = f"an interval needs low <= value <= high: ({self.low}, {self.value}, {self.high})"
            raise ValueError(msg)

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Build an interval of zero width."""
        return cls(low=value, value=value, high=value)

    @classmethod
    def around(cls, value: float, relative: float) -> Interval:
        """Build ``value`` ± ``relative`` (0.05 = 5 %); ``relative`` >= 0."""
        if relative < 0:
            msg = f"a relative half-width cannot be negative: {relative}"
            raise ValueError(msg)
        half = abs(value) * relative
        return cls(low=value - half, value=value, high=value + half)

    @property
    def is_exact(self) -> bool:
        """Whether low and high coincide."""
        return self.low == self.high

    @property
    def width(self) -> float:
        """``high - low``."""
        return self.high - self.low

    def contains(self, x: float) -> bool:
        """Whether ``low <= x <= high``."""
        return self.low <= x <= self.high

    def __add__(self, other: Interval | float) -> Interval:
        """Add; bounds add."""
        o = _lift(other)
        return Interval(low=self.low + o.low, value=self.value + o.value, high=self.high + o.high)

    __radd__ = __add__

    def __neg__(self) -> Interval:
        """Mirror at zero."""
        return Interval(low=-self.high, value=-self.value, high=-self.low)

    def __sub__(self, other: Interval | float) -> Interval:
        """Subtract; bounds cross over."""
        return self + -_lift(other)

    def __rsub__(self, other: float) -> Interval:
        """Subtract from a number."""
        return _lift(other) - self

    def __mul__(self, other: Interval | float) -> Interval:
        """Multiply; the bounds are the extreme products."""
        o = _lift(other)
        products = [_product(a, b) for a in (self.low, self.high) for b in (o.low, o.high)]
        return Interval(low=min(products), value=_product(self.value, o.value), high=max(products))

    __rmul__ = __mul__

    def __truediv__(self, other: Interval | float) -> Interval:
        """Divide; raises ZeroDivisionError when the divisor's interval contains 0."""
        o = _lift(other)
        if o.contains(0.0):
            msg = f"cannot divide by an interval that contains 0: {o}"
            raise ZeroDivisionError(msg)
        return self * Interval(low=1 / o.high, value=1 / o.value, high=1 / o.low)

    def __rtruediv__(self, other: float) -> Interval:
        """Divide a number by this interval."""
        return _lift(other) / self


def _lift(x: Interval | float) -> Interval:
    return x if isinstance(x, Interval) else Interval.exact(float(x))


def _product(a: float, b: float) -> float:
    # 0 * inf is NaN in IEEE 754; for bounds the useful limit is 0.
    return 0.0 if a == 0 or b == 0 else a * b
