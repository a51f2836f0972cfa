"""Interval arithmetic encloses what it should."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.core.interval import Interval

numbers = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    return Interval(low=low, value=value, high=high)


def inside(i: Interval, share: float) -> float:
    return min(max(i.low + share * (i.high - i.low), i.low), i.high)


shares = st.floats(min_value=0, max_value=1)


@given(intervals(), intervals(), shares, shares)
def test_results_enclose_every_combination(a: Interval, b: Interval, s: float, t: float) -> None:
    """Sum, difference, product and quotient of inner points lie within the result's bounds."""
    x, y = inside(a, s), inside(b, t)
    slack = 1e-6 * (1 + abs(x) + abs(y) + abs(x * y))
    for result, point in ((a + b, x + y), (a - b, x - y), (a * b, x * y)):
        assert result.low - slack <= point <= result.high + slack
    if not b.contains(0) and min(abs(b.low), abs(b.high)) > 1e-3:
        quotient = a / b
        assert (
            quotient.low - 1e-3 * (1 + abs(x / y))
            <= x / y
            <= quotient.high + 1e-3 * (1 + abs(x / y))
        )


@given(intervals(), numbers)
def test_numbers_act_as_exact_intervals(a: Interval, x: float) -> None:
    """A plain number behaves like the interval of width 0, on both sides."""
    assert a + x == x + a == a + Interval.exact(x)
    assert a * x == x * a == a * Interval.exact(x)
    assert x - a == Interval.exact(x) - a


@given(intervals())
def test_negation_mirrors(a: Interval) -> None:
    """Negating twice gives the interval back, and width is kept."""
    mirrored = -a
    assert -mirrored == a
    assert math.isclose((-a).width, a.width)


@pytest.mark.parametrize("bad", [(1, 0, 2), (0, 3, 2), (math.nan, 0, 1), (0, math.nan, 1)])
def test_broken_intervals_cannot_exist(bad: tuple[float, float, float]) -> None:
    """NaN and broken order are refused."""
    with pytest.raises(ValueError, match="interval"):
        Interval(low=bad[0], value=bad[1], high=bad[2])


def test_division_by_an_interval_around_zero_is_refused() -> None:
    """There is no honest quotient when the divisor may be 0."""
    with pytest.raises(ZeroDivisionError):
        1 / Interval(low=-1, value=0.5, high=1)


def test_infinite_bounds_survive_scaling_by_zero() -> None:
    """0 times an unbounded interval is 0, not NaN."""
    unbounded = Interval(low=0, value=1, high=math.inf)
    assert unbounded * 0 == Interval.exact(0)
    assert (unbounded * 2).high == math.inf


def test_around_is_symmetric_and_refuses_negative_widths() -> None:
    """``around`` takes a relative half-width >= 0."""
    assert Interval.around(-10, 0.1) == Interval(low=-11, value=-10, high=-9)
    with pytest.raises(ValueError, match="negative"):
        Interval.around(1, -0.1)
    assert Interval.exact(2).is_exact
    assert (1 / Interval.exact(2)).value == 0.5
