"""Requests, models, scores, footprints, registry and errors keep their word."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from lichen.core.errors import (
    CapabilityError,
    ConfigError,
    LichenError,
    MissingDependencyError,
    UnknownNameError,
)
from lichen.core.footprint import Factor, FactorSet, Footprint
from lichen.core.generation import Capability, Message, Request, Role, Timings, distinct
from lichen.core.interval import Interval
from lichen.core.measurement import Missing, Usage
from lichen.core.model import ModelShape
from lichen.core.ports import require
from lichen.core.registry import Registry
from lichen.core.summary import Dimension
from lichen.core.task import Score, Status, Verdict
from lichen.testing.engine import ScriptedEngine

CHAT = (Message(role=Role.USER, content="hi"),)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"messages": CHAT, "prompt": "x"},
        {"prefix": "x"},
        {"prompt": "x", "suffix": "y"},
        {"prompt": "x", "answer_prefix": "y"},
        {"prompt": "x", "max_tokens": 0},
        {"prompt": "x", "temperature": -1.0},
        {"prompt": "x", "seed": -1},
    ],
)
def test_a_request_says_one_thing(broken: dict[str, object]) -> None:
    """A request without exactly one shape, or with impossible settings, is refused."""
    with pytest.raises(ValueError, match="request 'r'"):
        Request(id="r", **broken)  # type: ignore[arg-type]


def test_a_request_knows_its_kind() -> None:
    """Chat, raw and infill are told apart."""
    assert Request(id="a", messages=CHAT).kind == "chat"
    assert Request(id="b", prompt="x").kind == "raw"
    assert Request(id="c", prefix="x", suffix="").kind == "infill"


def test_time_per_output_token_needs_two_tokens() -> None:
    """TPOT is (total - ttft) / (n - 1), and unknown below two tokens or without ttft."""
    t = Timings(total_s=11.0, ttft_s=1.0)
    assert t.tpot_s(11) == 1.0
    assert t.tpot_s(1) is None
    assert Timings(total_s=1.0).tpot_s(5) is None


SHAPE = ModelShape(
    architecture="toy",
    parameters=1100,
    active_parameters=1000,
    layers=2,
    embedding=8,
    heads=2,
    kv_heads=1,
    head_dim=4,
    feed_forward=16,
    vocabulary=10,
    context=64,
    weight_bytes=500,
)


def test_flop_counts_computed_tokens_and_the_causal_triangle() -> None:
    """2 per weight and token plus 4*layers*heads*head_dim per attended position."""
    usage = Usage(prompt=2, completion=1)
    assert SHAPE.flop(usage) == 2 * 1000 * 3 + 4 * 2 * 2 * 4 * (1 + 2 + 3)
    cached = Usage(prompt=2, cached=2, completion=1)
    assert SHAPE.flop(cached) == 2 * 1000 * 1 + 4 * 2 * 2 * 4 * 3


def test_bytes_moved_share_weights_over_a_batch() -> None:
    """Weights are read once per decoded token and prefill, shared by a batch; KV is not."""
    usage = Usage(prompt=10, completion=4)
    kv = SHAPE.kv_bytes_per_token()
    assert kv == 2 * 2 * 1 * 4 * 2
    assert SHAPE.bytes_moved(usage) == 500 * 5 + 4 * 12 * kv
    assert SHAPE.bytes_moved(usage, mean_batch=4) == 500 * 2 + 4 * 12 * kv


def test_scores_stay_in_range() -> None:
    """A score outside [0, 1] or NaN is refused; solved follows the verdict where there is one."""
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="score"):
            Score(metric="m", value=bad)
    assert Score(metric="m", value=1.0).solved
    assert not Score(metric="m", value=1.0, verdict=Verdict(status=Status.FAILED)).solved


def factor(name: str, value: float) -> Factor:
    return Factor(
        name=name, value=Interval.exact(value), unit="1", year=2024, source="s", licence="CC0"
    )


def test_factor_sets_find_and_replace_by_name() -> None:
    """A factor is found by name, replaced in a copy, and an unknown one is an error."""
    one = FactorSet(region="DNK", factors=(factor("pue", 1.2),))
    two = one.replaced(factor("pue", 1.4))
    assert (one["pue"].value.value, two["pue"].value.value) == (1.2, 1.4)
    with pytest.raises(UnknownNameError, match="grid"):
        one["grid"]


def test_footprint_totals_are_missing_if_a_part_is() -> None:
    """Carbon and water totals need both of their parts."""
    one, none = Interval.exact(1), Missing(reason="unknown")
    whole = Footprint(
        it_energy_j=one,
        facility_energy_j=one,
        operational_carbon_g=one,
        embodied_carbon_g=one,
        onsite_water_l=one,
        offsite_water_l=one,
        electricity_cost=one,
        currency="USD",
    )
    assert whole.carbon_g == whole.water_l == Interval.exact(2)
    part = dataclasses.replace(whole, embodied_carbon_g=none, onsite_water_l=none)
    assert part.carbon_g == none
    assert part.water_l == none
    assert dataclasses.replace(whole, offsite_water_l=none).water_l == none


def test_a_registry_suggests_resolves_and_refuses_collisions() -> None:
    """Unknown names suggest near ones, targets import lazily, collisions are errors."""
    registry: Registry[object] = Registry("thing", "lichen.none", {"alpha": "json:loads"})
    assert registry.get("alpha") is registry.get("alpha")
    assert "alpha" in registry
    assert list(registry) == ["alpha"]
    with pytest.raises(UnknownNameError, match="did you mean 'alpha'"):
        registry.get("alpa")
    with pytest.raises(UnknownNameError, match="known: alpha"):
        registry.get("zzz")
    with pytest.raises(ConfigError, match="two things"):
        registry.add("alpha", "json:dumps")
    registry.add("broken", "json:no_such")
    with pytest.raises(ConfigError, match="does not exist"):
        registry.get("broken")


def test_missing_capabilities_are_named() -> None:
    """``require`` names who needs what from which engine."""
    engine = ScriptedEngine(lambda _: "", capabilities={Capability.CHAT})
    require(engine, [Capability.CHAT], who="x")
    with pytest.raises(CapabilityError, match=r"infill.* needs infill, which the engine"):
        require(engine, [Capability.INFILL], who="the task 'infill'")


def test_errors_carry_exit_codes_and_tell_what_to_install() -> None:
    """Every error is a LichenError with an exit code; a missing extra names its install line."""
    error = MissingDependencyError.for_extra("altair", "report", "the page")
    assert isinstance(error, LichenError)
    assert error.exit_code == 3
    assert 'pip install "lichen[report]"' in str(error)


def test_dimensions_have_units_in_their_fixed_order() -> None:
    """Computation, memory and time come before energy, water and carbon; each has a unit."""
    order = [d.value for d in Dimension]
    assert order.index("computation") < order.index("memory") < order.index("time")
    assert order.index("time") < order.index("energy") < order.index("water")
    assert all(d.unit for d in Dimension)


def test_a_request_is_taken_when_it_is_wanted_and_a_repeated_one_is_refused() -> None:
    """Nothing is read ahead; what came before a repeated id has been given."""
    taken: list[str] = []

    def asked() -> Iterator[Request]:
        for name in ("a", "b", "a"):
            taken.append(name)
            yield Request(id=name, prompt="x")

    requests = distinct(asked())
    assert (next(requests).id, taken) == ("a", ["a"])
    assert next(requests).id == "b"
    with pytest.raises(ValueError, match="have the id 'a'"):
        next(requests)
