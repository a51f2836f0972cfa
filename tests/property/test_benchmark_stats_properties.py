"""Identities that the estimators keep for any input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.benchmark.allocate import shares
from lichen.benchmark.bootstrap import bca, percentile, resampled_sums, stretched
from lichen.benchmark.paired import (
    holm,
    mcnemar,
    mean_difference,
    p_dominates,
    p_value,
    pareto_front,
)
from lichen.benchmark.passk import mean_in_unit_range, pass_at_k, wilson

finite = st.floats(-50, 50)
unit = st.floats(0, 1)


@st.composite
def counts(draw, largest=200):
    """(attempts, passed, k) with 0 <= passed <= attempts and 1 <= k <= attempts."""
    n = draw(st.integers(1, largest))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(counts())
def test_pass_at_one_is_the_pass_rate(nck):
    """pass@1 is the share of attempts that passed."""
    n, c, _ = nck
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)


@given(counts(largest=8))
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(nck):
    """pass@k equals the enumeration of all k-subsets of the attempts."""
    n, c, k = nck
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@given(counts())
def test_pass_at_k_grows_with_k_and_stays_in_range(nck):
    """One more attempt never lowers pass@k."""
    n, c, k = nck
    value = pass_at_k(n, c, k)
    assert 0.0 <= value <= 1.0
    if k < n:
        assert pass_at_k(n, c, k + 1) >= value - 1e-12


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_does_not_care_which_solution_is_first(only_a, only_b):
    """The p-value is symmetric, in (0, 1], and 1 where both disagree equally often."""
    p = mcnemar(only_a, only_b)
    assert p == mcnemar(only_b, only_a)
    assert 0.0 <= p <= 1.0
    if only_a == only_b:
        assert p == pytest.approx(1.0)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50))
def test_shares_are_parts_of_one(weights):
    """Shares are not negative and sum to exactly 1, whatever the weights."""
    parts = shares(weights)
    assert math.fsum(parts) == 1.0
    assert min(parts) >= 0.0


@given(st.lists(unit, min_size=1, max_size=40), st.integers(0, 5))
def test_bootstrap_intervals_contain_the_estimate(values, seed):
    """Percentile and BCa intervals contain what they are about."""
    column = np.array(values)[:, None]
    rng = np.random.default_rng(seed)
    draws = resampled_sums(column, draws=200, rng=rng)[:, 0] / len(values)
    estimate = float(np.mean(column))
    left_out = (column.sum() - column[:, 0]) / max(len(values) - 1, 1)
    for interval in (
        percentile(draws, estimate, confidence=0.95),
        bca(draws, estimate, left_out, confidence=0.95),
    ):
        assert interval.low <= interval.value == estimate <= interval.high


@given(st.lists(finite, min_size=2, max_size=30), st.floats(1, 20))
def test_stretching_widens_about_the_estimate(values, factor):
    """Stretched draws lie further out on the same side; infinite ones stay infinite."""
    draws = np.array([*values, math.inf])
    wide = stretched(draws, 0.0, factor)
    assert wide[-1] == math.inf
    assert np.all(np.abs(wide[:-1]) >= np.abs(draws[:-1]) - 1e-12)
    assert np.all(np.sign(wide[:-1]) == np.sign(draws[:-1]))


@given(st.lists(unit, min_size=1, max_size=60))
def test_a_mean_of_scores_has_an_interval_inside_the_unit_range(values):
    """The interval stays in [0, 1], contains the mean and never has zero width."""
    interval = mean_in_unit_range(np.array(values), confidence=0.95)
    assert 0.0 <= interval.low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= interval.high <= 1.0
    assert interval.width > 0


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_mirrors_successes_and_failures(passed, failed):
    """The interval of a rate is the mirror image of that of its complement."""
    n = passed + failed
    one, other = wilson(passed, n, z=1.96), wilson(failed, n, z=1.96)
    assert one.low == pytest.approx(1 - other.high)
    assert one.high == pytest.approx(1 - other.low)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_a_difference_is_antisymmetric_and_never_certain(values):
    """B - A is the mirror of A - B, within [-1, 1]."""
    one = mean_difference(np.array(values), confidence=0.95)
    other = mean_difference(-np.array(values), confidence=0.95)
    assert one.low == pytest.approx(-other.high)
    assert -1 <= one.low <= one.value <= one.high <= 1
    assert one.width > 0


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=50))
def test_dominance_is_antisymmetric(draws):
    """In no draw does each solution dominate the other, and none dominates itself."""
    quality, cost = (np.array(column) for column in zip(*draws, strict=True))
    forward, backward = p_dominates(quality, cost), p_dominates(-quality, -cost)
    assert 0 <= forward + backward <= 1 + 1e-12
    assert p_dominates(quality * 0, cost * 0) == 0


@given(st.dictionaries(st.text(max_size=3), st.tuples(unit, unit), max_size=12))
def test_the_pareto_front_holds_exactly_the_undominated(points):
    """No member is dominated, every other point is, and the front is empty only without points."""
    front = pareto_front(points)

    def dominated(name):
        q, c = points[name]
        return any((q2 >= q and c2 <= c) and (q2, c2) != (q, c) for q2, c2 in points.values())

    assert set(front) == {name for name in points if not dominated(name)}
    assert bool(front) == bool(points)


@given(st.lists(unit, min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values):
    """Adjusted p-values are at least the raw ones, at most 1, in the same order."""
    adjusted = holm(p_values)
    for (p, a), (q, b) in itertools.product(zip(p_values, adjusted, strict=True), repeat=2):
        assert p <= a <= 1
        assert p > q or a <= b


@given(st.lists(finite, min_size=1, max_size=100))
def test_a_p_value_does_not_care_about_the_direction(values):
    """Swapping the solutions leaves the p-value, which is never 0."""
    draws = np.array(values)
    assert p_value(draws) == p_value(-draws)
    assert 0 < p_value(draws) <= 1


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(1, 300), st.integers(0, 3))
def test_resampled_sums_are_whole_samples(units, draws, seed):
    """Every resample has as many units as the original, and the same seed gives the same draws."""
    features = np.ones((units, 2))
    first = resampled_sums(features, draws=draws, rng=np.random.default_rng(seed))
    again = resampled_sums(features, draws=draws, rng=np.random.default_rng(seed))
    assert first.shape == (draws, 2)
    assert np.all(first == units)
    assert np.array_equal(first, again)
