"""Successive halving by non-dominated rank."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.compression.halving import (
    dominates,
    fronts,
    hypervolume,
    ranked,
    schedule,
)

POINTS = st.lists(st.tuples(*[st.integers(0, 6).map(float)] * 3), min_size=1, max_size=12)


@given(points=POINTS)
def test_fronts_hold_everyone_once_and_in_order(points: list[tuple[float, ...]]) -> None:
    """Each point is in one front, nobody dominates within it, each later one is dominated."""
    found = fronts(points)
    assert sorted(i for f in found for i in f) == list(range(len(points)))
    for earlier, later in pairwise(found):
        for i in later:
            assert any(dominates(points[j], points[i]) for j in earlier)
    for front in found:
        assert not any(dominates(points[i], points[j]) for i in front for j in front)


@given(points=POINTS, eta=st.integers(2, 4))
def test_survivors_are_never_beaten_by_those_who_go(
    points: list[tuple[float, ...]], eta: int
) -> None:
    """Whoever goes does not dominate anyone who stays."""
    kept = ranked(points)[: math.ceil(len(points) / eta)]
    assert len(kept) == math.ceil(len(points) / eta)
    gone = set(range(len(points))) - set(kept)
    assert not any(dominates(points[g], points[k]) for g in gone for k in kept)


def test_the_ends_of_a_front_go_first() -> None:
    """Within a front, the extremes come first and then the loneliest."""
    points = [(0.0, 10.0), (1.0, 9.0), (5.0, 5.0), (9.5, 0.5), (10.0, 0.0)]
    assert set(ranked(points)[:2]) == {0, 4}
    assert ranked(points)[2] == 2


def test_infinite_objectives_are_last() -> None:
    """A candidate that could not be measured is beaten by one that could."""
    assert ranked([(math.inf, math.inf), (1.0, 1.0)]) == [1, 0]


def test_rounds_shrink_to_the_finalists() -> None:
    """One in three goes on until the finalists are left."""
    assert schedule(12, finalists=3) == [12, 4, 3]
    assert schedule(2, finalists=3) == [2]


def test_hypervolume_of_known_shapes() -> None:
    """One corner, an overlap counted once, points outside counted not at all."""
    assert hypervolume([(0.5, 0.5)], (1.0, 1.0)) == pytest.approx(0.25)
    assert hypervolume([(0.0, 0.5), (0.5, 0.0)], (1.0, 1.0)) == pytest.approx(0.75)
    assert hypervolume([(2.0, 0.0)], (1.0, 1.0)) == 0.0
    assert hypervolume([(0.0, 0.0, 0.5), (0.5, 0.5, 0.0)], (1.0,) * 3) == pytest.approx(0.625)


@given(points=POINTS, more=POINTS)
def test_hypervolume_never_shrinks(
    points: list[tuple[float, ...]], more: list[tuple[float, ...]]
) -> None:
    """Further points never take volume away."""
    reference = (7.0, 7.0, 7.0)
    assert hypervolume(points + more, reference) >= hypervolume(points, reference)
