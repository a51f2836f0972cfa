"""Measurements add up, and what is missing stays missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.core.interval import Interval
from lichen.core.measurement import (
    Component,
    Measurement,
    Method,
    Missing,
    Reading,
    Usage,
    exact,
    largest,
    missing_fields,
    total,
)


def joules(value: float, component: Component, method: Method = Method.MODELLED) -> Reading:
    return Reading(
        value=Interval.around(value, 0.5), method=method, component=component, source=f"{component}"
    )


def window(seconds: float, memory: float = 1.0) -> Measurement:
    return Measurement(
        wall_s=exact(seconds, source="clock"),
        cpu_s=exact(2 * seconds, source="getrusage"),
        peak_memory_bytes=exact(memory, source="rss"),
        energy_j=(
            joules(10 * seconds, Component.CPU),
            Missing(reason="no GPU", component=Component.GPU),
        ),
        usage=Usage(prompt=10, cached=2, completion=5),
    )


@given(st.lists(st.floats(min_value=0, max_value=1e5), min_size=2, max_size=8))
def test_windows_add_up(seconds: list[float]) -> None:
    """Times, energies and tokens add; the sum of parts is the sum in any grouping."""
    parts = [window(s) for s in seconds]
    left = total(parts)
    right = parts[0] + total(parts[1:])
    assert isinstance(left.wall_s, Reading)
    assert isinstance(right.wall_s, Reading)
    assert left.wall_s.value.value == pytest.approx(sum(seconds))
    assert right.wall_s.value.value == pytest.approx(left.wall_s.value.value)
    assert left.usage.completion == 5 * len(seconds)


def test_peaks_take_the_maximum() -> None:
    """Peak memory of two windows is the larger peak."""
    both = window(1, memory=7) + window(1, memory=3)
    assert isinstance(both.peak_memory_bytes, Reading)
    assert both.peak_memory_bytes.value.value == 7


def test_missing_wins_every_sum() -> None:
    """A sum with an unmeasured part is unmeasured, with the reasons kept once each."""
    a, b = Missing(reason="no counter"), Missing(reason="no rights")
    assert (exact(1, source="x") + a).reason == "no counter"  # type: ignore[union-attr]
    assert (a + a).reason == "no counter"
    assert (a + b).reason == "no counter + no rights"
    assert largest(exact(1, source="x"), a) == a
    assert isinstance(largest(a, exact(1, source="x")), Missing)


def test_the_weaker_method_labels_a_sum() -> None:
    """Counter plus model is modelled; components of different kinds make a system total."""
    both = joules(1, Component.CPU, Method.COUNTER) + joules(2, Component.DRAM)
    assert isinstance(both, Reading)
    assert both.method is Method.MODELLED
    assert both.component is Component.SYSTEM
    assert both.source == "cpu + dram"


def test_it_energy_names_its_scope_and_needs_a_reading() -> None:
    """IT energy sums what was read; with nothing read it is missing, not 0."""
    energy = window(2).it_energy_j
    assert isinstance(energy, Reading)
    assert energy.value.value == 20
    nothing = Measurement(energy_j=(Missing(reason="no GPU", component=Component.GPU),))
    assert nothing.it_energy_j == Missing(reason="no GPU")
    assert isinstance(Measurement().it_energy_j, Missing)
    several = Measurement(
        energy_j=(joules(1, Component.DRAM), joules(2, Component.CPU))
    ).it_energy_j
    assert isinstance(several, Reading)
    assert several.value.value == 3


def test_energy_lines_up_by_component() -> None:
    """Entries are ordered, unique, and a component absent from one window is missing in the sum."""
    a = Measurement(energy_j=(joules(1, Component.GPU), joules(2, Component.CPU)))
    assert [e.component for e in a.energy_j] == [Component.CPU, Component.GPU]
    both = a + Measurement(energy_j=(joules(1, Component.CPU),))
    assert isinstance(both.energy_j[0], Reading)
    assert isinstance(both.energy_j[1], Missing)
    with pytest.raises(ValueError, match="one energy entry"):
        Measurement(energy_j=(joules(1, Component.CPU), joules(1, Component.CPU)))


def test_a_share_scales_costs_but_not_peaks_or_tokens() -> None:
    """``scaled`` shares additive quantities only; missing stays missing."""
    half = window(4, memory=9).scaled(0.5)
    assert isinstance(half.wall_s, Reading)
    assert half.wall_s.value.value == 2
    assert isinstance(half.peak_memory_bytes, Reading)
    assert half.peak_memory_bytes.value.value == 9
    assert half.usage.completion == 5
    assert isinstance(half.flop, Missing)


def test_missing_fields_are_listed_with_their_reasons() -> None:
    """Everything not measured is named, energy components included."""
    names = dict(missing_fields(window(1)))
    assert names["energy_j[gpu]"] == "no GPU"
    assert "flop" in names
    assert "wall_s" not in names


def test_token_counts_are_checked() -> None:
    """Negative counts and more cached than prompt tokens are refused."""
    assert Usage(prompt=5, cached=2).prefilled == 3
    with pytest.raises(ValueError, match="cached"):
        Usage(prompt=1, cached=2)
    with pytest.raises(ValueError, match="counts"):
        Usage(completion=-1)


def test_the_sum_of_nothing_is_refused() -> None:
    """No windows have no sum: 0 would claim a method."""
    with pytest.raises(ValueError, match="unknown"):
        total([])
