"""The knapsack: exact where it says so, never over the limit, quick for a real model's size."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.compression.knapsack import Assignment, Frontier, Option, sweep, undominated
from lichen.core.errors import ConfigError

ITEM = st.lists(
    st.builds(
        Option,
        price=st.integers(0, 30).map(float),
        error=st.floats(0, 10, allow_nan=False, width=16),
    ),
    min_size=1,
    max_size=4,
)
ITEMS = st.lists(ITEM, min_size=1, max_size=5)


def brute(items: list[list[Option]], limit: float) -> float | None:
    """The least error within a price, by trying everything."""
    sums = (
        (math.fsum(o.price for o in chosen), math.fsum(o.error for o in chosen))
        for chosen in itertools.product(*items)
    )
    return min((e for p, e in sums if p <= limit), default=None)


@given(items=ITEMS, limit=st.integers(0, 160))
def test_whole_prices_are_solved_exactly(items: list[list[Option]], limit: int) -> None:
    """With prices on a common grid, no assignment within the limit has less error."""
    frontier = Frontier(items)
    assert frontier.exact
    expected = brute(items, limit)
    if expected is None:
        with pytest.raises(ConfigError, match="nothing fits"):
            frontier.within(limit)
        return
    found = frontier.within(limit)
    assert found.price <= limit
    assert found.error == pytest.approx(expected)


@given(items=ITEMS, steps=st.integers(2, 12), slack=st.floats(0, 1))
def test_a_coarse_grid_never_exceeds_the_limit(
    items: list[list[Option]], steps: int, slack: float
) -> None:
    """However coarse the grid, the answer fits and is as good as one grid step per item less."""
    frontier = Frontier(items, grid_steps=steps)
    span = math.fsum(max(o.price for o in i) for i in items) - frontier.cheapest
    limit = frontier.cheapest + slack * span
    found = frontier.within(limit)
    assert found.price <= limit + 1e-9
    reachable = brute(items, limit - len(items) * span / steps)
    assert reachable is None or found.error <= reachable + 1e-9


@given(items=ITEMS)
def test_corners_of_the_sweep_are_optimal_for_their_price(items: list[list[Option]]) -> None:
    """Every corner of the hull is the best assignment of its price, and prices rise."""
    corners = sweep(items)
    for corner in corners:
        assert corner.error == pytest.approx(brute(items, corner.price))
    assert [c.price for c in corners] == sorted(c.price for c in corners)
    assert corners[-1].error == pytest.approx(math.fsum(min(o.error for o in i) for i in items))


@given(items=ITEMS, count=st.integers(1, 9))
def test_points_are_undominated_and_span_the_frontier(
    items: list[list[Option]], count: int
) -> None:
    """Points rise in price, fall in error, and begin with the cheapest."""
    points = Frontier(items).points(count)
    assert points == undominated(points)
    assert points[0].price == pytest.approx(math.fsum(min(o.price for o in item) for item in items))
    if count > 1:
        assert points[-1].error == pytest.approx(brute(items, math.inf))


def test_a_model_of_two_hundred_tensors_fits_the_grid() -> None:
    """Seven shapes in 28 layers with six types give a whole frontier that meets the hull."""
    shapes = [802816, 114688, 114688, 802816, 4358144, 4358144, 4358144]
    types = [(18, 0.006), (20, 0.005), (22, 0.0015), (24, 0.0013), (34, 0.00003)]
    items = [
        [Option(n // 32 * b, e * (1 + (k * 7 + j) % 5)) for b, e in types]
        for k in range(28)
        for j, n in enumerate(shapes)
    ]
    frontier = Frontier(items)
    for corner in sweep(items)[::28]:
        found = frontier.within(corner.price * 1.0001)
        assert found.error <= corner.error * 1.01
        assert found.price <= corner.price * 1.0001


def test_costs_need_no_common_grid() -> None:
    """Fractional prices are rounded up to a grid, which is said."""
    items = [[Option(0.1, 3), Option(math.pi / 10, 1)], [Option(0.2, 2), Option(0.37, 0)]]
    frontier = Frontier(items)
    assert not frontier.exact
    assert frontier.within(0.52) == Assignment((0, 1), pytest.approx(0.47), 3)


@pytest.mark.parametrize(
    "items", [[[]], [[Option(-1, 0)]], [[Option(0, math.inf)]], [[Option(math.nan, 0)]]]
)
def test_unusable_options_are_refused(items: list[list[Option]]) -> None:
    """No options, negative or unknown numbers are an error, not a wrong answer."""
    with pytest.raises(ConfigError):
        Frontier(items)
    with pytest.raises(ConfigError):
        sweep(items)
