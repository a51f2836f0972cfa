"""Laws of pricing, for any window and any factor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.core.footprint import FactorSet
from lichen.core.interval import Interval
from lichen.core.measurement import Component, Measurement, Method, Missing, Reading
from lichen.footprint import (
    break_even,
    factor_set,
    override,
    price,
    region_codes,
    relevant,
    uncertainty,
)

BASE = factor_set("USA")
QUANTITIES = ("facility_energy_j", "carbon_g", "water_l", "electricity_cost")
USED = [f.name for f in relevant(BASE).factors]
positive = st.floats(min_value=1e-3, max_value=1e9)


@st.composite
def intervals(draw, low: float = 1e-3, high: float = 1e9) -> Interval:
    """Any interval of positive numbers."""
    a, b, c = sorted(draw(st.lists(st.floats(low, high), min_size=3, max_size=3)))
    return Interval(low=a, value=b, high=c)


def reading(value: Interval) -> Reading:
    """Wrap an interval."""
    return Reading(value=value, method=Method.COUNTER, component=Component.CPU, source="any")


@st.composite
def windows(draw) -> Measurement:
    """Any measured window."""
    return Measurement(
        wall_s=reading(draw(intervals())),
        cpu_s=reading(draw(intervals())),
        energy_j=(reading(draw(intervals())),),
    )


@given(windows(), st.floats(min_value=1e-3, max_value=1))
def test_pricing_is_linear_in_the_window(m, share):
    """The footprint of a share of a window is that share of the window's footprint."""
    whole, part = price(m, BASE), price(m.scaled(share), BASE)
    for name in QUANTITIES:
        for end in ("low", "value", "high"):
            expected = getattr(getattr(whole, name), end) * share
            assert getattr(getattr(part, name), end) == pytest.approx(expected, rel=1e-9)


@given(windows(), windows())
def test_pricing_is_additive(a, b):
    """Two windows cost together what they cost apart."""
    apart = [price(m, BASE) for m in (a, b)]
    together = price(a + b, BASE)
    for name in QUANTITIES:
        total = getattr(apart[0], name) + getattr(apart[1], name)
        assert getattr(together, name).value == pytest.approx(total.value, rel=1e-9)


@given(windows(), st.sampled_from(USED), st.floats(1, 1e4), st.floats(1, 100))
def test_more_of_a_factor_never_costs_less(m, name, value, times):
    """Every quantity rises or stays as a factor rises; only a longer lifetime lowers carbon."""
    low, high = (price(m, override(BASE, name, v)) for v in (value, value * times))
    for quantity in QUANTITIES:
        before, after = getattr(low, quantity).value, getattr(high, quantity).value
        if name.startswith("lifetime."):
            assert after <= before * (1 + 1e-12)
        else:
            assert after >= before * (1 - 1e-12)


@given(windows())
@settings(max_examples=25)
def test_monte_carlo_stays_inside_interval_arithmetic(m):
    """The 5-95 % interval never leaves the bounds that interval arithmetic proves."""
    footprint = price(m, BASE)
    for spread in uncertainty(m, BASE, draws=500):
        bounds = getattr(footprint, spread.quantity)
        slack = 1e-9 * bounds.high
        assert bounds.low - slack <= spread.interval.low
        assert spread.interval.high <= bounds.high + slack
        shares = [share for _, share in spread.contributors]
        assert sum(shares) == pytest.approx(1) or not shares
        assert shares == sorted(shares, reverse=True)


@given(st.text(min_size=1, max_size=40), windows())
def test_missing_in_is_missing_out_with_its_reason(reason, m):
    """Whatever the reason that energy is missing, it arrives unchanged."""
    gone = Missing(reason=reason, component=Component.CPU)
    f = price(Measurement(wall_s=m.wall_s, cpu_s=m.cpu_s, energy_j=(gone,)), BASE)
    for name in ("it_energy_j", *QUANTITIES):
        assert isinstance(getattr(f, name), Missing)
        assert getattr(f, name).reason == reason


@given(windows(), st.sampled_from(region_codes()), st.floats(1, 3))
def test_repricing_never_changes_the_energy(m, region, pue):
    """For any region and facility the IT energy is the measurement's, to the bit."""
    assert price(m, factor_set(region, pue=pue)).it_energy_j == m.energy_j[0].value


@given(windows())
def test_a_ratio_on_one_machine_does_not_depend_on_the_grid(m):
    """Operational carbon of two windows has the same ratio under any factors: they cancel."""
    half = m.scaled(0.5)

    def ratio(factors: FactorSet) -> float:
        return (
            price(half, factors).operational_carbon_g.value
            / price(m, factors).operational_carbon_g.value
        )

    assert ratio(BASE) == pytest.approx(ratio(factor_set("SWE", pue="google")), rel=1e-9)


@given(intervals(), intervals(), intervals())
def test_break_even_is_ordered_and_never_negative(prepare, base, new):
    """N* is an ordered interval of non-negative numbers; infinite exactly when nothing is saved."""
    result = break_even(prepare, base, new)
    assert 0 <= result.tasks.low <= result.tasks.value <= result.tasks.high
    assert result.never == (base.value <= new.value)
