"""Which type for which tensor: the multiple-choice knapsack, solved for every budget at once.

Given tensors ``t`` and, for each, options ``o`` with a price ``p_to`` (bytes, or predicted cost)
and an error ``e_to``, choose one option each so that ``sum e`` is least while ``sum p <= budget``.

Two solutions of the same problem, with no claim about models in either:

* ``sweep``: for a multiplier ``l >= 0`` every tensor alone takes the option with the least
  ``e + l p``. All ``l`` together give the corners of the lower convex hull, each one optimal for
  its own price, in O(n log n) (Everett, 1963; for the multiple-choice knapsack Sinha and Zoltners,
  1979). Between two corners it says only how good a solution could be at most.
* ``Frontier``: dynamic programming over prices on a grid, which fills those gaps. The grid is the
  greatest common divisor of the price differences where that is coarse enough (the result is then
  exact), otherwise prices are rounded up to it (always within budget, and at most the number of
  tensors times one grid step above the optimum's price).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import ConfigError

GRID_STEPS: Final = 1 << 16
"""Prices told apart at most: 65,536, so that 200 tensors take 13 MB and about a second."""

_MAX_OPTIONS: Final = 255
"""Picks are kept as bytes."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store one tensor: its price and its error, both >= 0."""

    price: float
    error: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """One option index per tensor, with what they sum up to."""

    picks: tuple[int, ...]
    price: float
    error: float


def sweep(items: Sequence[Sequence[Option]]) -> tuple[Assignment, ...]:
    """Return the corners of the lower convex hull, from the cheapest to the most exact.

    Raises:
        ConfigError: an item without options, or a price or error that is no number >= 0.
    """
    _check(items)
    hulls = [_hull(options) for options in items]
    picks = [hull[0] for hull in hulls]
    steps = [
        (-(item[b].error - item[a].error) / (item[b].price - item[a].price), n, b)
        for n, (item, hull) in enumerate(zip(items, hulls, strict=True))
        for a, b in pairwise(hull)
    ]
    # Within one tensor slopes fall strictly, so sorting keeps each tensor's steps in order.
    found = [_assignment(items, picks)]
    for _, n, pick in sorted(steps, key=lambda s: (-s[0], s[1], items[s[1]][s[2]].price)):
        picks[n] = pick
        found.append(_assignment(items, picks))
    return tuple(found)


class Frontier:
    """The least error for every price, and the assignment that reaches it.

    Args:
        items: options per tensor; the same as for ``sweep``.
        grid_steps: prices told apart at most, >= 1; exact results need as many as there are
            different sums.

    Raises:
        ConfigError: as ``sweep``, or more than 255 options for one tensor.
    """

    def __init__(self, items: Sequence[Sequence[Option]], *, grid_steps: int = GRID_STEPS) -> None:
        _check(items)
        self._items = items
        self._floor = math.fsum(min(o.price for o in item) for item in items)
        ceiling = math.fsum(max(o.price for o in item) for item in items)
        self._step, self.exact = _grid(items, ceiling - self._floor, grid_steps)
        self._units = [_units(item, self._step) for item in items]
        width = sum(max(units) for units in self._units) + 1
        self._best = np.zeros(width)
        self._picks = np.zeros((len(items), width), dtype=np.uint8)
        for n, (item, units) in enumerate(zip(items, self._units, strict=True)):
            self._best = self._joined(item, units, self._picks[n])

    @property
    def cheapest(self) -> float:
        """The least price that any assignment has."""
        return self._floor

    def within(self, price: float) -> Assignment:
        """Return the assignment with the least error whose price is at most ``price``.

        Raises:
            ConfigError: not even the cheapest options fit.
        """
        if price < self._floor * (1 - 1e-12):
            raise ConfigError(
                f"nothing fits: the cheapest types need {self._floor:,.0f}, allowed are "
                f"{price:,.0f}; allow smaller types or a larger size"
            )
        unit = min(math.floor((price - self._floor) / self._step + 1e-9), len(self._best) - 1)
        return self._traced(max(unit, 0))

    def points(self, count: int) -> tuple[Assignment, ...]:
        """Return at most ``count`` assignments spread evenly over the prices, cheapest first."""
        last = int(np.argmax(self._best <= self._best[-1]))
        wanted = {round(last * k / max(count - 1, 1)) for k in range(count)}
        found = {(a.price, a.error): a for a in map(self._traced, wanted)}
        return undominated(found.values())

    def _joined(
        self, item: Sequence[Option], units: Sequence[int], picks: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float64]:
        joined = np.full(len(self._best), np.inf)
        for index, (option, unit) in enumerate(zip(item, units, strict=True)):
            candidate = np.full(len(self._best), np.inf)
            candidate[unit:] = self._best[: len(self._best) - unit] + option.error
            better = candidate < joined
            joined[better] = candidate[better]
            picks[better] = index
        return joined

    def _traced(self, unit: int) -> Assignment:
        """Follow the picks back from a number of grid steps."""
        # A cheaper sum with the same error is the better answer.
        unit = int(np.argmax(self._best <= self._best[unit]))
        picks = [0] * len(self._items)
        for n in reversed(range(len(self._items))):
            picks[n] = int(self._picks[n, unit])
            unit -= self._units[n][picks[n]]
        return _assignment(self._items, picks)


def undominated(assignments: Iterable[Assignment]) -> tuple[Assignment, ...]:
    """Return those that no other beats in price and error at once, cheapest first."""
    kept: list[Assignment] = []
    for a in sorted(assignments, key=lambda a: (a.price, a.error)):
        if not kept or a.error < kept[-1].error:
            kept.append(a)
    return tuple(kept)


def _check(items: Sequence[Sequence[Option]]) -> None:
    for options in items:
        if not 0 < len(options) <= _MAX_OPTIONS:
            raise ConfigError(f"a tensor needs 1 to {_MAX_OPTIONS} options, not {len(options)}")
        for option in options:
            if not (0 <= option.price < math.inf and 0 <= option.error < math.inf):
                raise ConfigError(f"prices and errors are numbers >= 0, not {option}")


def _assignment(items: Sequence[Sequence[Option]], picks: Sequence[int]) -> Assignment:
    chosen = [item[pick] for item, pick in zip(items, picks, strict=True)]
    return Assignment(
        picks=tuple(picks),
        price=math.fsum(o.price for o in chosen),
        error=math.fsum(o.error for o in chosen),
    )


def _hull(options: Sequence[Option]) -> list[int]:
    """Return the indices of the lower convex hull, by rising price."""
    hull: list[int] = []
    for index in sorted(range(len(options)), key=lambda i: (options[i].price, options[i].error)):
        new = options[index]
        if hull and new.error >= options[hull[-1]].error:
            continue
        while len(hull) > 1 and _above(options[hull[-2]], options[hull[-1]], new):
            hull.pop()
        hull.append(index)
    return hull


def _above(a: Option, b: Option, c: Option) -> bool:
    """Whether ``b`` lies on or above the line from ``a`` to ``c``."""
    return (b.error - a.error) * (c.price - a.price) >= (c.error - a.error) * (b.price - a.price)


def _grid(items: Sequence[Sequence[Option]], span: float, steps: int) -> tuple[float, bool]:
    """Return the price of one grid step, and whether no price has to be rounded to it."""
    differences = {o.price - min(p.price for p in item) for item in items for o in item}
    if all(float(d).is_integer() for d in differences):
        divisor = reduce(math.gcd, (int(d) for d in differences), 0)
        if divisor and span / divisor <= steps:
            return float(divisor), True
        if not divisor:
            return 1.0, True
    return max(span / steps, math.ulp(1.0)), False


def _units(item: Sequence[Option], step: float) -> list[int]:
    cheapest = min(o.price for o in item)
    return [math.ceil((o.price - cheapest) / step - 1e-9) for o in item]
