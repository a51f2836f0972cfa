"""What holds for the speculation switch and its interval whatever the costs are."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from lichen.acceleration.log_ratio import as_ratio, log_ratio
from lichen.acceleration.speculation_switch import Block, Mode, SpeculationSwitch, SwitchRules

costs = st.floats(min_value=1e-3, max_value=1e3)
pairs = st.lists(st.tuples(costs, costs), min_size=1, max_size=20)


@given(pairs)
def test_the_interval_holds_the_mean_and_mirrors(given_pairs: list[tuple[float, float]]) -> None:
    """Comparing B with A is comparing A with B, upside down."""
    there = log_ratio(given_pairs)
    back = log_ratio([(b, a) for a, b in given_pairs])
    assert there.low <= there.value <= there.high
    assert math.isclose(there.value, -back.value, abs_tol=1e-9)
    assert math.isclose(there.low, -back.high, abs_tol=1e-9)


@given(pairs, costs)
def test_the_unit_does_not_matter(given_pairs: list[tuple[float, float]], unit: float) -> None:
    """Costs in other units have the same ratio."""
    scaled = log_ratio([(a * unit, b * unit) for a, b in given_pairs])
    assert math.isclose(scaled.value, log_ratio(given_pairs).value, abs_tol=1e-9)
    assert as_ratio(scaled).low <= as_ratio(scaled).high


def settle(ratio: float, noise: float, seed: int, rules: SwitchRules) -> SpeculationSwitch:
    """Probe with costs of a known ratio and lognormal noise."""
    random_ = random.Random(seed)
    switch = SpeculationSwitch(rules)
    while switch.probing:
        mode = switch.mode
        factor = ratio if mode is Mode.SPECULATIVE else 1.0
        cpu_s = factor * random_.lognormvariate(0, noise)
        accepted = 80 if mode is Mode.SPECULATIVE else 0
        switch.observe(Block(mode=mode, cpu_s=cpu_s, work=100, tokens=100, accepted=accepted))
    return switch


@given(st.floats(min_value=0.3, max_value=3.0), st.floats(min_value=0.01, max_value=0.5))
def test_without_noise_it_is_on_exactly_when_it_pays(ratio: float, gain: float) -> None:
    """A known ratio is judged rightly on either side of the gain that was asked for."""
    switch = settle(ratio, 0.0, 0, SwitchRules(gain=gain))
    if abs(math.log(ratio) - math.log1p(-gain)) > 0.02:  # the clock's own resolution
        assert switch.verdict.on == (ratio < 1 - gain)


def test_a_loss_is_rarely_taken_for_a_saving() -> None:
    """With 10 % noise and a true cost of 1.0, the switch goes on in at most 5 % of worlds."""
    on = sum(settle(1.0, 0.10, seed, SwitchRules()).verdict.on for seed in range(400))
    assert on <= 20


def test_a_real_saving_is_mostly_found() -> None:
    """With 5 % noise and a true cost of 0.8, the switch goes on in at least 90 % of worlds."""
    on = sum(settle(0.8, 0.05, seed, SwitchRules()).verdict.on for seed in range(200))
    assert on >= 180


def test_the_interval_covers() -> None:
    """The 90 % interval covers the true log-ratio in about 90 % of simulated comparisons."""
    random_ = random.Random(7)
    covered = 0
    for _ in range(1000):
        sample = [(1.0, 0.9 * random_.lognormvariate(0, 0.08)) for _ in range(4)]
        covered += log_ratio(sample).contains(math.log(0.9))
    assert 860 <= covered <= 940
