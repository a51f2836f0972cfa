"""Published figures, reproduced: if one of these breaks, an equation or a unit broke."""

from __future__ import annotations

import pytest

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Measurement, Method, Reading, Usage
from lichen.core.units import G_PER_T, J_PER_KWH, J_PER_WH
from lichen.footprint import (
    equivalents,
    estimate_inference,
    estimate_query,
    estimate_training,
    factor_set,
    price,
)
from lichen.footprint.equations import (
    embodied_carbon_g,
    machine_cost,
    offsite_water_l,
    onsite_water_l,
    operational_carbon_g,
)
from lichen.footprint.inference import ServedModel, curve_energy_j

LLAMA = {"grid.carbon_intensity": 385.0, "power.a100": 400.0}
MWH = 1000 * J_PER_KWH


def window(energy_j: float, wall_s: float = 0.0) -> Measurement:
    """Return a window that used this energy."""

    def reading(value: float) -> Reading:
        return Reading(
            value=Interval.exact(value),
            method=Method.COUNTER,
            component=Component.SYSTEM,
            source="published",
        )

    return Measurement(wall_s=reading(wall_s), cpu_s=reading(wall_s), energy_j=(reading(energy_j),))


@pytest.mark.parametrize(
    ("gpu_hours", "mwh", "tonnes", "within"),
    [
        (82_432, 36, 14, 0.5),
        (135_168, 59, 23, 0.5),
        (530_432, 233, 90, 0.5),
        (1_022_362, 449.84, 173.19, 0.005),
        (809_472, 356, 137, 0.5),
        (1_082_880, 476.5, 183, 0.5),
    ],
)
def test_llama_table_15(gpu_hours, mwh, tonnes, within):
    """LLaMA (arXiv 2302.13971) table 15: GPU-hours x 400 W x 1.1, at 0.385 kg/kWh."""
    factors = factor_set("USA", pue=1.1, overrides=LLAMA)
    estimate = estimate_training(factors, device="a100", gpu_hours=gpu_hours)
    footprint = price(estimate.measurement, factors, device=estimate.device)
    energy, carbon = footprint.facility_energy_j, footprint.operational_carbon_g
    assert energy.value / MWH == pytest.approx(mwh, abs=within)
    assert carbon.value / G_PER_T == pytest.approx(tonnes, abs=within)


def test_llama_development_is_3_39_times_the_final_runs():
    """2,638 MWh of development over 779 MWh of final runs; 2,638 MWh are 1,015 t."""
    multiplier = factor_set("USA")["training.development"].value.value
    assert multiplier == pytest.approx(2638 / 779, abs=0.005)
    assert operational_carbon_g(2638 * MWH, 385.0) / G_PER_T == pytest.approx(1015, abs=1)


def test_danes_per_llama():
    """2,638,000 kWh are the yearly electricity of 1,648 Danes; 1,015 t the emissions of 92."""
    factors = factor_set("USA", pue=1.0, overrides={"grid.carbon_intensity": 1015 / 2638 * 1000})
    found = {
        e.factor.name: e.amount.value
        for e in equivalents(price(window(2638 * MWH), factors), factors)
    }
    assert found["equivalent.dane_electricity"] == pytest.approx(1648, abs=0.5)
    assert found["equivalent.dane_carbon"] == pytest.approx(92, abs=0.1)


def test_a_chatgpt_query_of_2023_and_a_search():
    """3,617 servers x 6.5 kW x 24 h / 195 M queries = 2.9 Wh, about ten searches at 0.3 Wh."""
    factors = factor_set(pue=1.0)
    estimate = estimate_query(factors, servers=3617, server_watts=6500, hours=24, queries=13e6 * 15)
    footprint = price(estimate.measurement, factors, device=estimate.device, count=estimate.count)
    assert footprint.it_energy_j.value / J_PER_WH == pytest.approx(2.9, abs=0.01)
    assert factors["query.chatgpt_2023"].value.value == pytest.approx(2.89, abs=0.005)
    found = {e.factor.name: e.amount.value for e in equivalents(footprint, factors)}
    assert found["query.google_search_2009"] == pytest.approx(9.65, abs=0.05)


def test_gpt3_training_water():
    """Li et al.: 1,287 MWh, WUE 0.550, PUE 1.170, EWIF 3.142 give 0.708 + 4.731 ML."""
    factors = factor_set("USA", pue="li2023", overrides={"water.offsite": 3.142})
    footprint = price(window(1287 * MWH), factors)
    assert footprint.onsite_water_l.value / 1e6 == pytest.approx(0.708, abs=0.0005)
    assert footprint.offsite_water_l.value / 1e6 == pytest.approx(4.731, abs=0.0005)
    assert footprint.water_l.value / 1e6 == pytest.approx(5.439, abs=0.0005)


def test_water_on_site_is_not_multiplied_by_pue():
    """WUE is per IT kWh: PUE 1.5 and WUE 1.8 give 1.8 L per IT kWh, not 2.7."""
    assert onsite_water_l(J_PER_KWH, 1.8) == pytest.approx(1.8)
    factors = factor_set(pue=1.5, overrides={"water.onsite": 1.8})
    assert price(window(J_PER_KWH), factors).onsite_water_l.value == pytest.approx(1.8)


def test_li_et_al_request_water():
    """4 Wh per request are 2.2 mL on site and 14.7 mL off site."""
    energy = 4 * J_PER_WH
    assert onsite_water_l(energy, 0.55) * 1000 == pytest.approx(2.2)
    assert offsite_water_l(energy * 1.17, 3.142) * 1000 == pytest.approx(14.7, abs=0.01)


def test_sci_embodied_share():
    """SCI: a device of 1,000 kg over 4 years, used for one hour, bears 28.5 g."""
    assert embodied_carbon_g(1000.0, 3600.0, 4.0) == pytest.approx(28.5, abs=0.05)
    factors = factor_set(overrides={"embodied.server": 1000.0, "lifetime.server": 4.0})
    footprint = price(window(0.0, wall_s=3600.0), factors, device="server")
    assert footprint.embodied_carbon_g.value == pytest.approx(28.54, abs=0.005)


@pytest.mark.parametrize(
    ("name", "kg", "grams"), [("h100 low", 164, 4.7), ("h100", 273, 7.8), ("h200 high", 1067, 30.5)]
)
def test_embodied_carbon_of_a_card_hour(name, kg, grams):
    """A card's embodied carbon per hour over four years, as published for several answers."""
    assert embodied_carbon_g(float(kg), 3600.0, 4.0) == pytest.approx(grams, abs=0.06), name


@pytest.mark.parametrize(("billions", "joules"), [(7, 0.16), (32, 0.21), (70, 1.16)])
def test_the_output_curve_gives_the_published_joules_per_token(billions, joules):
    """The re-derived curve gives EcoLogits' 0.16, 0.21 and 1.16 J per token before host and PUE."""
    assert curve_energy_j(ServedModel(parameters=billions * 1e9)) == pytest.approx(
        joules, abs=0.005
    )


def test_llama_65b_from_its_size_holds_the_published_energy():
    """6 N D over A100 peak and MFU encloses the GPU-hours that LLaMA-65B really took."""
    factors = factor_set("USA", pue=1.1, overrides={"power.a100": 400.0})
    estimate = estimate_training(factors, device="a100", parameters=65.2e9, tokens=1.4e12)
    energy = price(estimate.measurement, factors, device=estimate.device).facility_energy_j
    assert energy.low < 449.84 * MWH < energy.high
    assert energy.value == pytest.approx(449.84 * MWH, rel=0.25)


@pytest.mark.parametrize(
    ("name", "watt_hours"),
    [
        ("query.gemini_median_2025", 0.24),
        ("query.chatgpt_altman_2025", 0.34),
        ("query.gpt4o_epoch_2025", 0.3),
        ("query.google_search_2009", 0.3),
    ],
)
def test_published_queries_are_kept_with_their_boundary(name, watt_hours):
    """Per-query figures that are quoted everywhere carry source and boundary beside the number."""
    f = factor_set()[name]
    assert f.value.value == watt_hours
    assert f.note
    assert f.source


def test_a_gpt4o_sized_request_lands_among_the_published_figures():
    """A 200 B model with 44 B active, 500 tokens out, lies between 0.03 and 3 Wh, like all figures."""
    factors = factor_set()
    estimate = estimate_inference(
        factors,
        Usage(prompt=100, completion=500),
        ServedModel(parameters=200e9, active=44e9),
    )
    energy = price(estimate.measurement, factors, device=estimate.device, count=estimate.count)
    assert 0.03 < energy.facility_energy_j.value / J_PER_WH < 3


def test_machine_cost_is_hours_times_rate():
    """Two cards for half an hour at 3 USD cost 3 USD."""
    assert machine_cost(1800.0, 3.0, share=2) == pytest.approx(3.0)
