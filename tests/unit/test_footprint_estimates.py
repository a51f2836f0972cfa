"""Estimates: every number is modelled, says its boundary, and moves the right way."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from lichen.cli.estimate import command
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.measurement import Method, Usage
from lichen.footprint import (
    estimate_inference,
    estimate_query,
    estimate_training,
    factor_set,
    region_code,
)
from lichen.footprint.inference import ServedModel, curve_cards

FACTORS = factor_set()
SMALL = ServedModel(parameters=7e9)


def energy(usage: Usage, model: ServedModel = SMALL, device: str = "h100") -> float:
    """Return the best estimate of a request's energy in J."""
    return (
        estimate_inference(FACTORS, usage, model, device=device).measurement.energy_j[0].value.value
    )


@pytest.mark.parametrize("device", ["h100", "h200", "a100", "l4", "rtx4090", "laptop"])
def test_input_cached_and_output_tokens_all_cost(device):
    """More output costs most, then computed input, then cached input; none is free."""
    model = ServedModel(parameters=7e9, batch=1 if device == "laptop" else 8)
    base = energy(Usage(prompt=1000, cached=500, completion=100), model, device)
    more_out = energy(Usage(prompt=1000, cached=500, completion=200), model, device)
    more_in = energy(Usage(prompt=1100, cached=500, completion=100), model, device)
    more_cached = energy(Usage(prompt=1100, cached=600, completion=100), model, device)
    assert more_out > more_in > more_cached > base


def test_a_long_prompt_dominates():
    """At 10,000 tokens in and 300 out the prompt is the larger part, as in code work."""
    prompt = energy(Usage(prompt=10_000)) / energy(Usage(prompt=10_000, completion=300))
    assert prompt > 0.5


def test_every_reading_of_an_estimate_is_modelled():
    """No estimate can be mistaken for a measurement."""
    estimates = [
        estimate_inference(FACTORS, Usage(prompt=10, completion=10), SMALL),
        estimate_training(FACTORS, device="a100", gpu_hours=10),
        estimate_query(FACTORS, servers=1, server_watts=1, hours=1, queries=1),
    ]
    for e in estimates:
        assert e.measurement.wall_s.method is Method.MODELLED
        assert e.measurement.energy_j[0].method is Method.MODELLED
        assert "no " in e.boundary
        assert e.equation


@pytest.mark.parametrize(("billions", "cards"), [(7, 1), (32, 1), (34, 2), (70, 4), (400, 16)])
def test_cards_hold_the_model(billions, cards):
    """bf16 weights plus 20 % over 80 GB cards, rounded up to a power of two."""
    assert curve_cards(ServedModel(parameters=billions * 1e9)) == cards


def test_batch_one_on_a_card_is_bound_by_bandwidth():
    """At batch 1 a token takes the time to read the weights; at batch 64 much less."""
    one = energy(Usage(completion=1), ServedModel(parameters=7e9, batch=1), "a100")
    assert one == pytest.approx(400 * 14e9 / 2.039e12)
    assert energy(Usage(completion=1), ServedModel(parameters=7e9, batch=64), "a100") < one / 10


def test_fewer_bits_cost_less_where_reading_weights_is_the_limit():
    """Four-bit weights quarter the energy of a token at batch 1."""
    full, small = (
        energy(Usage(completion=1), ServedModel(parameters=7e9, bits=b, batch=1), "laptop")
        for b in (16, 4)
    )
    assert small == pytest.approx(full / 4)


@pytest.mark.parametrize("batch", [1, 4096])
def test_the_curve_is_refused_outside_its_fit(batch):
    """The fitted curve is not extrapolated; the message says what to use."""
    with pytest.raises(ConfigError, match="roofline"):
        energy(Usage(completion=1), ServedModel(parameters=7e9, batch=batch))


def test_development_multiplies_the_run():
    """The published multiplier, one's own, or none."""
    runs = [
        estimate_training(FACTORS, device="a100", gpu_hours=100, development=d)
        for d in (None, 2.0, "published")
    ]
    base, twice, published = (r.measurement.energy_j[0].value.value for r in runs)
    assert twice == pytest.approx(2 * base)
    assert published == pytest.approx(3.39 * base)
    assert "final run only" in runs[0].boundary


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"gpu_hours": 1.0, "parameters": 1e9, "tokens": 1e9},
        {"parameters": 1e9},
        {"gpu_hours": 0.0},
        {"gpu_hours": 1.0, "development": 0.5},
        {"gpu_hours": float("inf")},
        {"parameters": -1.0, "tokens": 1.0},
    ],
)
def test_training_needs_one_sensible_way(arguments):
    """Neither way, both ways, half a way and impossible numbers are refused."""
    with pytest.raises(ConfigError):
        estimate_training(FACTORS, device="a100", **arguments)


def test_other_impossible_estimates_are_refused():
    """No tokens, no queries, more active than all parameters, an unknown card."""
    with pytest.raises(ConfigError):
        estimate_inference(FACTORS, Usage(), SMALL)
    with pytest.raises(ConfigError):
        estimate_query(FACTORS, servers=1, server_watts=1, hours=1, queries=0)
    with pytest.raises(ConfigError):
        ServedModel(parameters=1e9, active=2e9)
    with pytest.raises(UnknownNameError):
        estimate_training(FACTORS, device="abacus", gpu_hours=1)


def run(*arguments: str, code: int = 0) -> str:
    """Run the command and return its standard output."""
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout


QUERY = ("query", "--servers", "3617", "--kilowatts", "6.5", "--queries", "195e6")


def test_json_has_one_entry_per_region_with_sources():
    """--json gives one document with boundary, one entry per region, and sourced factors."""
    document = json.loads(run(*QUERY, "--pue", "1", "--region", "DNK", "--region", "in", "--json"))
    assert document["method"] == "modelled"
    assert document["boundary"]
    assert [r["region"] for r in document["regions"]] == ["DNK", "IND"]
    for region in document["regions"]:
        assert region["footprint"]["it_energy_j"]["value"] / 3600 == pytest.approx(2.89, abs=0.005)
        assert all(f["source"] and f["licence"] for f in region["factors"])
        assert {s["quantity"] for s in region["uncertainty_5_95"]} == {
            "facility_energy_j", "carbon_g", "water_l", "electricity_cost",
        }  # fmt: skip


def test_an_inference_estimate_runs_at_home_and_elsewhere():
    """A laptop has no facility around it; a data centre has."""
    size = ("--params", "5e8", "--tokens-in", "200", "--tokens-out", "200", "--json")
    laptop = json.loads(run("inference", "--device", "laptop", *size))
    card = json.loads(run("inference", *size))
    energies = [d["regions"][0]["footprint"] for d in (laptop, card)]
    assert energies[0]["facility_energy_j"] == energies[0]["it_energy_j"]
    assert energies[1]["facility_energy_j"]["value"] > energies[1]["it_energy_j"]["value"]


def test_a_rate_adds_the_cost_of_hardware():
    """GPU-hours x rate, beside the power bill."""
    document = json.loads(run("training", "--gpu-hours", "100", "--rate", "2", "--json"))
    assert document["regions"][0]["hardware_cost"]["value"] == pytest.approx(200)


def test_people_see_boundary_equivalents_and_factors(capsys):
    """The printed answer has what a reader needs to judge the number."""
    command.main([*QUERY, "--pue", "1", "--region", region_code("Denmark")], standalone_mode=False)
    text = " ".join(capsys.readouterr().out.split())
    for part in ("modelled", "counted:", "equation:", "as much as", "web searches", "factors",
                 "Ember", "published per query", "2.894 Wh"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("argument", ["grid.carbon_intensity", "grid.carbon_intensity=green", "=1"])
def test_a_malformed_factor_option_is_one_sentence(argument):
    """--factor without a name or a number is a ConfigError."""
    with pytest.raises(ConfigError):
        command.main([*QUERY, "--factor", argument], standalone_mode=False)
