"""Memory of solutions that take turns in one process: each is charged with its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lichen.benchmark.resident import LESS_OTHERS, Residents, without
from lichen.core.interval import Interval
from lichen.core.measurement import Component, Measurement, Method, Missing, Reading
from lichen.testing.meter import ScriptedMeter


def reading(
    value: float, *, method: Method = Method.MODELLED, component: Component = Component.PROCESS
) -> Reading:
    return Reading(
        value=Interval(low=value, value=value, high=value),
        method=method,
        component=component,
        source="made up",
    )


class Process:
    """A process whose resident set a test sets; None where it cannot be measured."""

    def __init__(self, rss: float | None) -> None:
        self.rss = rss
        self.residents = Residents(ScriptedMeter(self.seen))

    def seen(self) -> Measurement:
        peak = Missing(reason="no memory probe") if self.rss is None else reading(self.rss)
        return Measurement(peak_memory_bytes=peak)


def test_what_is_gained_while_acting_is_ones_own() -> None:
    """Others' engines, and what the harness gained between, are taken off; the process is not."""
    process = Process(rss=100)
    residents = process.residents
    with residents.acting("a") as held:
        assert held == 0
        process.rss = 1100
    with residents.acting("b") as held:
        assert held == 1000
        process.rss = 1400
    process.rss = 1420  # nobody acts
    with residents.acting("a") as held:
        assert held == 320
        process.rss = 1520
    with residents.acting("b") as held:
        assert held == 1520 - 100 - 300


def test_memory_given_back_is_not_counted_twice() -> None:
    """Who shrinks owns less; nobody owns less than nothing, and nobody holds it."""
    process = Process(rss=100)
    residents = process.residents
    with residents.acting("a"):
        process.rss = 600
    with residents.acting("a"):
        process.rss = 50
    with residents.acting("b") as held:
        assert held == 0


def test_an_act_that_fails_is_accounted_too() -> None:
    """A load that ends in an error leaves what it took with its solution."""
    process = Process(rss=100)
    residents = process.residents

    def fail() -> None:
        with residents.acting("a"):
            process.rss = 400
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with residents.acting("b") as held:
        assert held == 300


def test_unknown_memory_takes_nothing_off() -> None:
    """Not measured is not 0, and is not guessed at."""
    residents = Process(rss=None).residents
    with residents.acting("a") as held:
        assert held == 0
    gone = Measurement(peak_memory_bytes=Missing(reason="no memory probe"))
    assert without(gone, 5) == gone


def test_peak_and_modelled_energy_shrink_counted_energy_stays() -> None:
    """Only what was modelled from the resident set is charged by one's own share of it."""
    window = Measurement(
        peak_memory_bytes=reading(1000),
        energy_j=(
            reading(40, component=Component.CPU),
            reading(8, component=Component.DRAM),
            Missing(reason="none", component=Component.GPU),
        ),
        cpu_s=reading(3),
    )
    own = without(window, 250)
    assert isinstance(own.peak_memory_bytes, Reading)
    assert own.peak_memory_bytes.value.value == 750
    assert own.peak_memory_bytes.source == f"made up, {LESS_OTHERS}"
    cpu, dram, gpu = own.energy_j
    assert (cpu, gpu) == (window.energy_j[0], window.energy_j[2])
    assert isinstance(dram, Reading)
    assert dram.value.value == pytest.approx(6)
    assert replace(own, peak_memory_bytes=window.peak_memory_bytes, energy_j=()) == replace(
        window, energy_j=()
    )
    counted = replace(
        window,
        energy_j=(reading(8, method=Method.COUNTER, component=Component.DRAM),),
    )
    assert without(counted, 250).energy_j == counted.energy_j
    assert without(window, 0) == window
