"""The estimators against values known from elsewhere."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from lichen.benchmark import bootstrap, paired
from lichen.benchmark.bootstrap import (
    bca,
    percentile,
    resampled_sums,
    stretch_for,
    student_t_quantile,
)
from lichen.benchmark.latency import percentiles
from lichen.benchmark.paired import (
    clustered_spread,
    holm,
    mcnemar,
    mean_difference,
    pareto_front,
    stretch_over,
)
from lichen.benchmark.passk import mean_in_unit_range, pass_at_k, wilson


@pytest.mark.parametrize(
    ("df", "expected"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (10, 2.2281), (163, 1.9746), (9999, 1.9600)],
)
def test_student_t_agrees_with_the_tables(df, expected):
    """The 97.5 % quantile is the printed one."""
    assert student_t_quantile(0.975, df) == pytest.approx(expected, abs=2e-4)


def test_pass_at_k_agrees_with_the_binomials():
    """The product equals ``1 - C(n - c, k) / C(n, k)`` where the binomials overflow a float."""
    n, c, k = 2000, 7, 300
    exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-12)
    assert pass_at_k(10, 0, 5) == 0.0
    assert pass_at_k(10, 6, 5) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(0, 0, 1), (5, 6, 1), (5, -1, 1), (5, 2, 6), (5, 2, 0)])
def test_pass_at_k_refuses_impossible_counts(n, c, k):
    """Counts that cannot be are an error, not a number."""
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(n, c, k)


def test_wilson_agrees_with_a_worked_example():
    """9 of 10 at 95 %: 0.596 to 0.982."""
    interval = wilson(9, 10, z=1.959964)
    assert (interval.low, interval.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    with pytest.raises(ValueError, match="a rate needs"):
        wilson(3, 0, z=1.96)


def test_mcnemar_agrees_with_the_binomial(monkeypatch):
    """1 against 8 discordant pairs: 2 * 10 / 512; the way by logarithms gives the same."""
    assert mcnemar(1, 8) == pytest.approx(20 / 512)
    assert mcnemar(0, 0) == 1.0
    exact = [mcnemar(1, 8), mcnemar(400, 500), mcnemar(450, 450)]
    monkeypatch.setattr(paired, "_EXACT_BELOW", 0)
    assert [mcnemar(1, 8), mcnemar(400, 500), mcnemar(450, 450)] == pytest.approx(exact)


def test_agresti_min_agrees_with_its_formula():
    """Of 20 pairs 6 gained and 2 lost: centre 4/22, spread from one more discordant pair."""
    differences = np.array([1.0] * 6 + [-1.0] * 2 + [0.0] * 12)
    interval = mean_difference(differences, confidence=0.95)
    half = student_t_quantile(0.975, 19) * np.sqrt((9 / 22 - (4 / 22) ** 2) / 22)
    assert interval.value == pytest.approx(0.2)
    assert (interval.low, interval.high) == pytest.approx((4 / 22 - half, 4 / 22 + half))


def test_agreement_on_few_problems_proves_little():
    """Never disagreeing on 20 problems leaves several points open, on 2,000 hardly any."""
    few = mean_difference(np.zeros(20), confidence=0.95)
    many = mean_difference(np.zeros(2000), confidence=0.95)
    assert few.low < -0.05
    assert many.low > -0.002


def test_holm_agrees_with_a_worked_example():
    """The p-values 0.01, 0.04, 0.03 become 0.03, 0.06, 0.06."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))


def test_quality_of_a_perfect_score_is_not_certain():
    """20 of 20 leaves room below 1, as 0 of 20 does above 0."""
    assert mean_in_unit_range(np.ones(20), confidence=0.95).low < 0.9
    assert mean_in_unit_range(np.zeros(20), confidence=0.95).high > 0.1


def test_quality_counts_problems_not_attempts():
    """Repeating each verdict ten times within its problem does not narrow the interval."""
    verdicts = np.array([1.0, 0.0] * 10)
    repeated = np.repeat(verdicts[:, None], 10, axis=1).mean(axis=1)
    assert mean_in_unit_range(repeated, confidence=0.95) == mean_in_unit_range(
        verdicts, confidence=0.95
    )


def test_infinite_draws_make_an_infinite_end():
    """A resample that solved nothing gives an infinite bound, not NaN."""
    draws = np.array([1.0] * 90 + [np.inf] * 10)
    interval = percentile(draws, 1.0, confidence=0.95)
    assert interval.low == 1.0
    assert interval.high == np.inf


def test_bca_moves_towards_the_long_tail():
    """For the mean of a skewed sample both ends lie above the percentile interval's."""
    rng = np.random.default_rng(3)
    values = rng.lognormal(0, 1, 40)
    draws = resampled_sums(values[:, None], draws=4000, rng=rng)[:, 0] / 40
    left_out = (values.sum() - values) / 39
    corrected = bca(draws, float(values.mean()), left_out, confidence=0.95)
    plain = percentile(draws, float(values.mean()), confidence=0.95)
    assert corrected.low > plain.low
    assert corrected.high > plain.high


def test_resampling_in_parts_changes_nothing(monkeypatch):
    """The memory bound cuts the draws into parts, which give the same numbers."""
    features = np.random.default_rng(0).random((7, 3))
    whole = resampled_sums(features, draws=50, rng=np.random.default_rng(1))
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 20)
    parts = resampled_sums(features, draws=50, rng=np.random.default_rng(1))
    assert np.allclose(whole, parts)


def test_few_units_are_widened():
    """20 units need 10 % more, 164 one percent, a single one cannot say."""
    assert stretch_for(20, 0.95) == pytest.approx(1.096, abs=1e-3)
    assert stretch_for(164, 0.95) == pytest.approx(1.011, abs=1e-3)
    assert stretch_for(1, 0.95) == 1.0


def test_noise_of_a_window_counts_once_per_window():
    """The same 40 terms spread less when their signs belong to problems than to blocks."""
    weights = np.full(40, 1 / 40)
    problems = np.arange(40)
    blocks = problems // 10
    by_block = np.where(blocks % 2 == 0, 0.01, -0.01)
    by_problem = np.where(problems % 2 == 0, 0.01, -0.01)
    together = clustered_spread(by_block, weights, problems, blocks)
    apart = clustered_spread(by_problem, weights, problems, blocks)
    assert together.blocks == pytest.approx(4)
    assert together.variance > 5 * apart.variance


def test_one_giant_block_does_not_count_as_many():
    """Three blocks of which one holds nearly all the cost are about one."""
    weights = np.array([0.98, 0.01, 0.01])
    spread = clustered_spread(np.zeros(3), weights, np.arange(3), np.arange(3))
    assert spread.blocks < 1.1


def test_two_blocks_widen_to_student_t_with_one_degree_of_freedom():
    """With two blocks the half-width is 12.7 standard errors."""
    draws = np.random.default_rng(0).normal(0, 0.01, 4000)
    spread = clustered_spread(
        np.array([0.05, -0.05]), np.array([0.5, 0.5]), np.arange(2), np.arange(2)
    )
    factor = stretch_over(draws, spread, problems=164, confidence=0.95)
    assert factor * 1.96 * 0.01 == pytest.approx(12.706 * spread.variance**0.5, rel=0.05)


def test_equal_points_are_both_on_the_front():
    """Ties do not dominate each other."""
    points = {"a": (0.5, 1.0), "b": (0.5, 1.0), "c": (0.4, 1.0), "d": (0.9, 2.0)}
    assert pareto_front(points) == ("a", "b", "d")


def test_percentiles_leave_out_what_is_not_known():
    """None is no observation, and no observation is no distribution."""
    found = percentiles([1.0, None, 3.0, 2.0])
    assert found is not None
    assert (found.n, found.mean, found.p50) == (3, 2.0, 2.0)
    assert percentiles([None]) is None
