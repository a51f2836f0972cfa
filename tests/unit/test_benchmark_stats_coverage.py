"""Intervals hold what they promise, by simulation; ``benchmarks/coverage.py`` is the long version.

Seeds are fixed, so these either pass or fail. With 300 repetitions at a true rate of 5 % the count
of misses has a standard deviation of 1.3 points: the bounds allow three of them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from lichen.benchmark.bootstrap import percentile
from lichen.benchmark.paired import mean_difference
from lichen.benchmark.passk import mean_in_unit_range
from lichen.core.summary import Dimension
from lichen.testing.worlds import World, rate, repeat

CPU = Dimension.CPU_TIME
REPETITIONS = 300


def excludes_one(pair):
    """Whether a difference in cost would be claimed."""
    interval = pair.ratio(CPU, "attempts").interval(0.95)
    return not interval.contains(1.0)


@pytest.mark.parametrize("blocks", [2, 5, 16])
def test_the_same_tokens_in_noisy_windows_are_no_difference(blocks):
    """Greedy A/A, where windows are all that differs: at most 5 % false claims, within error."""
    world = World(problems=48, blocks=blocks, scatter=0.0, block_noise=0.08)
    pairs = repeat(world, times=REPETITIONS, draws=200, seed=blocks)
    assert rate(pairs, excludes_one) <= 0.088


def test_the_same_solution_sampled_twice_is_no_difference():
    """Sampled A/A with heavy-tailed costs: at most 5 % false claims, within error."""
    world = World(problems=80, samples=2, blocks=10)
    assert rate(repeat(world, times=REPETITIONS, draws=200, seed=1), excludes_one) <= 0.088


def test_resampling_problems_alone_would_find_differences_in_noise():
    """Why blocks are clusters: without them the same worlds give many false claims."""
    world = World(problems=48, blocks=5, scatter=0.0, block_noise=0.08)

    def naive(pair):
        ratio = pair.ratio(CPU, "attempts")
        cost_a, cost_b = (arm.per_problem(arm.costs[CPU]) for arm in (pair.a, pair.b))
        draws = pair.how.rng().integers(48, size=(200, 48))
        plain = [math.log(cost_b[d].sum() / cost_a[d].sum()) for d in draws]
        return not percentile(np.array(plain), ratio.estimate, confidence=0.95).contains(0.0)

    assert rate(repeat(world, times=60, draws=200, seed=3), naive) > 0.3


def test_a_true_saving_is_found_and_covered():
    """A saving of 30 % over 20 blocks is claimed nearly always, and its interval covers it."""
    world = World(problems=160, blocks=20, cost_ratio=0.7)
    truth = math.log(0.7)
    pairs = list(repeat(world, times=150, draws=200, seed=5))
    assert rate(iter(pairs), excludes_one) > 0.95

    def covered(pair):
        ratio = pair.ratio(CPU, "attempts")
        return percentile(ratio.draws, ratio.estimate, confidence=0.95).contains(truth)

    assert rate(iter(pairs), covered) >= 0.90


@pytest.mark.parametrize("quality", [0.1, 0.55, 0.95])
def test_quality_intervals_cover_the_truth(quality):
    """One rate and the paired difference, near the ends of the range too."""
    world = World(problems=40, blocks=1, quality=quality)
    pairs = list(repeat(world, times=REPETITIONS, draws=100, seed=7))

    def rate_covered(pair):
        return mean_in_unit_range(pair.a.mean_quality(), confidence=0.95).contains(quality)

    def difference_covered(pair):
        return mean_difference(pair.quality_differences(), confidence=0.95).contains(0.0)

    assert rate(iter(pairs), rate_covered) >= 0.91
    assert rate(iter(pairs), difference_covered) >= 0.91
