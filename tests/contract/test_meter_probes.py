from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Measurement, Method, Missing, Reading
from lichen.core.ports import Probe
from lichen.meter.ladder import assemble, targets
from lichen.meter.probes import PROBES
from lichen.meter.setting import SampledProbe, Setting

SYSTEM_CALLS = frozenset({"open", "read", "pread", "write", "pwrite", "listdir", "clock_gettime"})


@pytest.fixture(params=list(PROBES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def probe(name: str) -> Probe:
    return PROBES.get(name)(Setting.here())


@pytest.fixture
def blind(name: str, tmp_path: Path) -> Probe:
    """The probe on a machine that shows it nothing."""
    nowhere = tmp_path / "nowhere"
    return PROBES.get(name)(Setting(proc=nowhere, powercap=nowhere, dev=nowhere))


def test_a_probe_is_the_port_and_goes_by_its_name(name: str, probe: Probe) -> None:
    """What the registry builds satisfies the port under the name it is registered by."""
    assert isinstance(probe, Probe)
    assert probe.name == probe.status().name == name


def test_status_names_real_targets_and_gives_a_reason(probe: Probe) -> None:
    """The quantity is in the vocabulary, and available or not there is a reason."""
    status = probe.status()
    fields = {t.field for t in targets(status.quantity)}
    assert fields
    assert all(f in Measurement.__dataclass_fields__ for f in fields)
    assert status.reason


def test_answers_are_readings_or_reasons_for_the_stated_targets(probe: Probe) -> None:
    """Two looks give, for exactly the stated targets, a reading that is not negative or Missing."""
    start = probe.read()
    sum(range(50_000))
    answers = probe.between(start, probe.read())
    stated = set(targets(probe.status().quantity))
    assert {f for f, _ in answers} == {t.field for t in stated}
    energy_parts = {t.component for t in stated if t.field == "energy_j"}
    assert {q.component for f, q in answers if f == "energy_j"} == energy_parts
    for _, quantity in answers:
        if isinstance(quantity, Reading):
            assert quantity.value.low >= 0
            assert quantity.source
        else:
            assert isinstance(quantity, Missing)
            assert quantity.reason


def test_an_unavailable_probe_answers_missing(probe: Probe) -> None:
    """A status of "cannot" and a reading never go together."""
    answers = probe.between(probe.read(), probe.read())
    if not probe.status().available:
        assert all(isinstance(q, Missing) for _, q in answers)


def test_an_empty_window_is_not_zero_energy(probe: Probe) -> None:
    """Two looks at the same snapshot give no counted energy: 0 J is for no counter an answer."""
    look = probe.read()
    for field, quantity in probe.between(look, look):
        if field == "energy_j" and isinstance(quantity, Reading):
            assert quantity.method not in {Method.COUNTER, Method.SAMPLED}


def test_a_blind_probe_says_why(blind: Probe) -> None:
    """On a machine without its files a probe neither raises nor invents: Missing, or no claim."""
    for field, quantity in blind.between(blind.read(), blind.read()):
        if isinstance(quantity, Reading) and field == "energy_j":
            assert quantity.method is Method.MODELLED
        if isinstance(quantity, Missing):
            assert quantity.reason


def test_answers_fit_a_measurement(probe: Probe) -> None:
    """A measurement can be built from what the probe answers."""
    m = assemble(probe.between(probe.read(), probe.read()))
    assert isinstance(m, Measurement)


def test_between_is_pure(probe: Probe) -> None:
    """Asking twice about the same two looks gives the same answer, whatever happened since."""
    start, end = probe.read(), probe.read()
    first = probe.between(start, end)
    probe.read()
    if isinstance(probe, SampledProbe):
        probe.sample()
    assert probe.between(start, end) == first


def test_a_look_is_cheap(name: str, tmp_path: Path) -> None:
    """A look makes a few dozen calls into the system at most, however many processes there are."""
    probe = PROBES.get(name)(Setting.here())
    probe.read()
    calls: list[str] = []

    def count(frame: FrameType, event: str, arg: object) -> None:
        called = getattr(arg, "__name__", "")
        if event == "c_call" and called in SYSTEM_CALLS:
            calls.append(called)

    best = 10_000
    for _ in range(3):  # others' new processes are looked at once: take the quietest look
        calls.clear()
        sys.setprofile(count)
        try:
            probe.read()
        finally:
            sys.setprofile(None)
        best = min(best, len(calls))
    assert best <= 40


def test_readings_are_intervals(probe: Probe) -> None:
    """A modelled reading has width: a model without uncertainty would pass for a measurement."""
    start = probe.read()
    sum(range(500_000))
    for _, quantity in probe.between(start, probe.read()):
        if isinstance(quantity, Reading) and quantity.method is Method.MODELLED:
            assert isinstance(quantity.value, Interval)
            assert not quantity.value.is_exact
            assert quantity.component in {Component.CPU, Component.DRAM, Component.GPU}
