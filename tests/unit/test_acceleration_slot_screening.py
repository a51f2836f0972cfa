"""Slots screened on the engine alone: memory bounds them, costs choose what is raced."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lichen.acceleration.slot_screening import (
    LADDER,
    SlotLook,
    SlotScreening,
    ladder,
    screen_slots,
    worth_racing,
)
from lichen.core.errors import EngineError
from lichen.core.measurement import Missing
from lichen.core.model import ModelArtifact, ModelShape
from lichen.testing.clock import FakeClock
from lichen.testing.costed_engine import ClockMeter, CostedEngine, Costs

SHAPE = ModelShape(
    architecture="qwen2",
    parameters=1_000_000,
    active_parameters=1_000_000,
    layers=10,
    embedding=64,
    heads=8,
    kv_heads=5,
    head_dim=10,
    feed_forward=64,
    vocabulary=100,
    context=4096,
    weight_bytes=1_000_000,
)
MODEL = ModelArtifact(
    name="m", path="/m", format="gguf", sha256="0", size_bytes=1_000_000, shape=SHAPE
)
SEQUENCE = 2 * 10 * 5 * 10 * 2 * 1000  # bytes of 1000 tokens: keys and values in 16 bits


def screening(costs: Mapping[int, float], threads: int = 0) -> SlotScreening:
    """A screening that saw these costs; a negative one could not be measured."""
    looks = tuple(
        SlotLook(slots=n, cpu_s_per_token=c if c >= 0 else Missing(reason="it does not fit"))
        for n, c in costs.items()
    )
    return SlotScreening(threads=threads, looks=looks, cpu_s=1.0, seconds=1.0)


def slots_of(found: SlotScreening, *, own: int = 1, all_that_pay: bool = False) -> list[int]:
    """The slots that are worth a race, the cheapest first."""
    choices = worth_racing(found, own=own, all_that_pay=all_that_pay)
    return [int(dict(c.options)["slots"]) for c in choices]


def test_the_ladder_ends_where_memory_does() -> None:
    """Only as many slots as hold their keys and values beside the weights; unknown bounds none."""
    room = 1.5e6 + 4.5 * SEQUENCE
    assert ladder(own=1, model=MODEL, context=1000, free=room) == (1, 2, 4)
    assert ladder(own=3, model=MODEL, context=1000, free=0.0) == (3,)
    assert ladder(own=1, model=MODEL, context=1000, free=None) == LADDER
    assert ladder(own=1, model=None, context=1000, free=room) == LADDER


def test_each_number_of_slots_is_looked_at_once() -> None:
    """Costs come from the engine, loading is charged, and what cannot be had says why."""
    cpu = FakeClock(0.0)
    opened: list[dict[str, object]] = []

    def opening(options: Mapping[str, object]) -> CostedEngine:
        opened.append(dict(options))
        if options["slots"] == 8:
            raise EngineError("it does not fit")
        cpu.advance(2.0)
        cost = Costs(decode_s=0.1 / int(str(options["slots"])), prefill_s=0.0)
        return CostedEngine(lambda _: cost, options, cpu=cpu)

    found = screen_slots(opening, (1, 2, 8), ClockMeter(cpu), threads=3)
    assert [o["slots"] for o in opened] == [1, 2, 8]
    assert {o["threads"] for o in opened} == {3}
    first, second, third = (k.cpu_s_per_token for k in found.looks)
    assert first == pytest.approx(0.1)
    assert second == pytest.approx(0.05)
    assert isinstance(third, Missing)
    assert "does not fit" in third.reason
    assert found.cpu_s == found.seconds == pytest.approx(cpu())
    assert found.cpu_s > 4.0


def test_screening_ends_with_its_time() -> None:
    """What there is no time for is not begun, and says so."""
    cpu = FakeClock()

    def opening(options: Mapping[str, object]) -> CostedEngine:
        cpu.advance(5.0)
        return CostedEngine(lambda _: Costs(), options, cpu=cpu)

    found = screen_slots(opening, (1, 2, 4), ClockMeter(cpu), seconds=4.0)
    reasons = [k.cpu_s_per_token for k in found.looks if isinstance(k.cpu_s_per_token, Missing)]
    assert [r.reason for r in reasons] == ["no time was left"] * 2


def test_the_cheapest_settings_race() -> None:
    """Two settings race, the solution's own never; under a latency bound all that pay do."""
    found = screening({1: 0.10, 2: 0.08, 4: 0.05, 8: 0.04, 16: -1.0})
    assert slots_of(found) == [8, 4]
    assert slots_of(found, all_that_pay=True) == [8, 4, 2]
    assert slots_of(found, own=8) == [4, 2]


def test_dearer_than_fewer_slots_is_left_out() -> None:
    """More slots that cost more are slower and dearer; noise of a few percent is forgiven."""
    assert slots_of(screening({1: 0.10, 2: 0.05, 4: 0.051, 8: 0.09})) == [2, 4]
    assert slots_of(screening({1: 0.10, 2: 0.12})) == []


def test_busy_machines_make_fewer_threads_a_candidate() -> None:
    """Where CPUs are taken, threads are part of the setting, with the solution's own slots too."""
    found = worth_racing(screening({1: 0.1, 2: 0.2}, threads=1), own=1, all_that_pay=False)
    assert [c.options for c in found] == [(("slots", 1), ("threads", 1))]
