"""Pricing: what is missing stays missing, devices bear their share, re-pricing changes no joule."""

from __future__ import annotations

import math

import pytest

from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.interval import Interval
from lichen.core.measurement import Component, Measurement, Method, Missing, Reading
from lichen.footprint import DEVICES, break_even, factor_set, price, relevant, uncertainty


def reading(low: float, value: float, high: float) -> Reading:
    """Return a modelled reading."""
    return Reading(
        value=Interval(low=low, value=value, high=high),
        method=Method.MODELLED,
        component=Component.CPU,
        source="test",
    )


WINDOW = Measurement(
    wall_s=reading(100, 100, 100),
    cpu_s=reading(150, 150, 150),
    energy_j=(reading(500, 1000, 2000),),
)


def test_missing_energy_is_missing_everywhere_it_matters():
    """Without energy nothing operational is known, but the hardware's share still is."""
    m = Measurement(
        cpu_s=reading(1, 1, 1), energy_j=(Missing(reason="no RAPL", component=Component.CPU),)
    )
    f = price(m, factor_set())
    for quantity in (
        f.it_energy_j,
        f.facility_energy_j,
        f.operational_carbon_g,
        f.water_l,
        f.electricity_cost,
        f.carbon_g,
    ):
        assert isinstance(quantity, Missing)
        assert quantity.reason == "no RAPL"
    assert isinstance(f.embodied_carbon_g, Interval)


def test_missing_time_leaves_embodied_carbon_missing():
    """Without a time the hardware's share is unknown, and total carbon with it."""
    m = Measurement(cpu_s=Missing(reason="no /proc"), energy_j=WINDOW.energy_j)
    f = price(m, factor_set())
    assert f.embodied_carbon_g == Missing(reason="cpu_s: no /proc")
    assert isinstance(f.carbon_g, Missing)
    assert isinstance(f.operational_carbon_g, Interval)
    assert isinstance(uncertainty(m, factor_set()), Missing)


def test_repricing_never_changes_energy():
    """Another grid, year or facility changes the price and never the joules the machine drew."""
    footprints = [
        price(WINDOW, factor_set(region, pue=pue))
        for region in ("DNK", "FRA", "USA", "IND")
        for pue in ("device", 1.3)
    ]
    assert {f.it_energy_j for f in footprints} == {WINDOW.energy_j[0].value}
    assert len({f.operational_carbon_g for f in footprints}) == len(footprints)


def test_a_share_of_a_machine_is_cpu_time_over_its_cpus():
    """Charge wall x cpu/(wall x cpus): a busy neighbour stretches wall time but not the charge."""
    factors = factor_set()
    slow = Measurement(wall_s=reading(400, 400, 400), cpu_s=WINDOW.cpu_s, energy_j=WINDOW.energy_j)
    shares = [price(m, factors, device="laptop", logical_cpus=8) for m in (WINDOW, slow)]
    assert shares[0].embodied_carbon_g == shares[1].embodied_carbon_g
    whole = price(WINDOW, factors, device="laptop").embodied_carbon_g
    assert shares[0].embodied_carbon_g.value == pytest.approx(whole.value * 150 / (100 * 8))


def test_joined_devices_add_up():
    """A card and its place in a host bear the sum of both."""
    factors = factor_set()
    parts = [price(WINDOW, factors, device=d).embodied_carbon_g for d in ("h100", "gpu host")]
    both = price(WINDOW, factors, device="h100+gpu host").embodied_carbon_g
    assert both.value == pytest.approx(parts[0].value + parts[1].value)


@pytest.mark.parametrize("device", sorted(DEVICES))
def test_every_device_class_prices_and_lists_its_factors(device):
    """Each device class has embodied and lifetime factors, and ``relevant`` names them."""
    factors = factor_set("DNK")
    footprint = price(WINDOW, factors, device=device)
    assert footprint.embodied_carbon_g.low > 0
    names = [f.name for f in relevant(factors, device=device).factors]
    assert DEVICES[device].embodied in names
    assert names[0] == "grid.carbon_intensity"
    assert len(names) == 7


def test_unknown_devices_and_impossible_counts_are_refused():
    """A typo in a device class suggests the right one; counts and CPUs must make sense."""
    with pytest.raises(UnknownNameError, match="laptop"):
        price(WINDOW, factor_set(), device="labtop")
    with pytest.raises(ConfigError):
        price(WINDOW, factor_set(), count=-1)
    with pytest.raises(ConfigError):
        price(WINDOW, factor_set(), device="laptop", logical_cpus=0)


def test_uncertainty_names_the_top_contributor_and_splits_the_variance():
    """With wide energy and narrow factors the measurement dominates, and the other way round."""
    overrides = {
        "grid.carbon_intensity": 100.0,
        "embodied.server_share": 1.0,
        "lifetime.server": 4.0,
    }
    measured = {
        s.quantity: s for s in uncertainty(WINDOW, factor_set(pue=1.0, overrides=overrides))
    }
    assert measured["carbon_g"].top == "energy_j"
    assert measured["carbon_g"].measurement_share == pytest.approx(1.0)
    exact = Measurement(cpu_s=WINDOW.cpu_s, energy_j=(reading(1000, 1000, 1000),))
    looked_up = {s.quantity: s for s in uncertainty(exact, factor_set("DNK", pue=1.0))}
    assert looked_up["carbon_g"].measurement_share == 0
    assert looked_up["carbon_g"].factor_share == pytest.approx(1.0)
    assert looked_up["electricity_cost"].top == "tariff.electricity"
    assert looked_up["facility_energy_j"].top == ""


def test_uncertainty_is_reproducible_and_independent_per_input():
    """One seed gives one answer; another seed another one."""
    factors = factor_set("DNK")
    assert uncertainty(WINDOW, factors, seed=1) == uncertainty(WINDOW, factors, seed=1)
    assert uncertainty(WINDOW, factors, seed=1) != uncertainty(WINDOW, factors, seed=2)


def test_a_triangular_input_has_its_known_percentiles():
    """With one triangular input the 5-95 % interval is the closed form's."""
    overrides = {"grid.carbon_intensity": 3600.0, "embodied.server_share": 0.0}
    m = Measurement(cpu_s=WINDOW.cpu_s, energy_j=(reading(0, 1000, 2000),))
    spreads = uncertainty(m, factor_set(pue=1.0, overrides=overrides), draws=200_000)
    interval = {s.quantity: s.interval for s in spreads}["facility_energy_j"]
    edge = math.sqrt(0.05 * 2000 * 1000)
    assert interval.low == pytest.approx(edge, rel=0.02)
    assert interval.value == pytest.approx(1000, rel=0.02)
    assert interval.high == pytest.approx(2000 - edge, rel=0.02)


def test_an_unbounded_reading_cannot_be_drawn():
    """An infinite bound is refused with a reason, not turned into NaN."""
    m = Measurement(cpu_s=WINDOW.cpu_s, energy_j=(reading(1, 2, math.inf),))
    with pytest.raises(ConfigError, match="infinite"):
        uncertainty(m, factor_set())
    with pytest.raises(ConfigError, match="draws"):
        uncertainty(WINDOW, factor_set(), draws=10)


def interval(low: float, value: float, high: float) -> Interval:
    """Return an interval."""
    return Interval(low=low, value=value, high=high)


def test_break_even_counts_tasks():
    """Preparing for 1,000 J and saving 2 J per task pays after 500 tasks."""
    result = break_even(Interval.exact(1000), Interval.exact(5), Interval.exact(3))
    assert result.tasks == Interval.exact(500)
    assert result.verdict(1000).startswith("do:")
    assert result.verdict(100).startswith("don't:")


def test_break_even_says_never_when_nothing_is_saved():
    """An optimisation that costs as much per task never repays itself."""
    result = break_even(Interval.exact(1000), Interval.exact(3), Interval.exact(3))
    assert result.never
    assert result.tasks.low == math.inf
    assert result.verdict(1e12).startswith("never")


def test_break_even_that_may_not_save_is_open_ended():
    """Where the saving's interval reaches 0 the high end is infinite and the verdict is unsure."""
    result = break_even(Interval.exact(100), interval(4, 5, 6), interval(3, 4, 5))
    assert result.tasks.high == math.inf
    assert not result.never
    assert "perhaps never" in result.verdict()
    assert result.verdict(1000).startswith("unsure")


def test_break_even_of_missing_is_missing():
    """A break-even of something unmeasured is missing, with the reason."""
    gone = Missing(reason="no RAPL")
    assert break_even(Interval.exact(1), gone, Interval.exact(1)) == gone
