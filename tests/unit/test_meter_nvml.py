from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from lichen.core.measurement import Component, Method, Missing, Quantity, Reading
from lichen.meter.probes.nvml import NvmlProbe
from lichen.meter.setting import Setting
from lichen.testing.clock import FakeClock
from lichen.testing.nvml import FakeGpu, FakeNvml


def probe(*gpus: FakeGpu, clock: FakeClock, visible: str | None = None) -> NvmlProbe:
    return NvmlProbe(Setting(nvml=FakeNvml(list(gpus)), clock=clock, visible_devices=visible))


def used(p: NvmlProbe, start: object, end: object) -> Quantity:
    ((field, quantity),) = p.between(start, end)
    assert (field, quantity.component) == ("energy_j", Component.GPU)
    return quantity


def test_energy_of_all_gpus_is_added() -> None:
    """Two boards' counters, in mJ, give the sum in J."""
    clock, a, b = FakeClock(), FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b", energy_mj=5000)
    p = probe(a, b, clock=clock)
    start = p.read()
    a.energy_mj, b.energy_mj = 30_000, 25_000
    clock.advance(10)
    got = used(p, start, p.read())
    assert isinstance(got, Reading)
    assert got.value.value == pytest.approx(50.0)
    assert got.value.low < 50.0 < got.value.high
    assert got.method is Method.COUNTER


def test_without_a_counter_power_is_sampled_and_says_so() -> None:
    """An older board's power is integrated over the samples, and the reading says SAMPLED."""
    clock, gpu = FakeClock(), FakeGpu(energy_mj=None, power_mw=100_000)
    p = probe(gpu, clock=clock)
    start = p.read()
    for milliwatts in (100_000, 200_000):  # 100 J, then a ramp: 150 J
        gpu.power_mw = milliwatts
        clock.advance(1)
        p.sample()
    got = used(p, start, p.read())
    assert isinstance(got, Reading)
    assert got.value.value == pytest.approx(250.0)
    assert got.method is Method.SAMPLED
    assert p.status().method is Method.SAMPLED


def test_one_sampled_gpu_makes_the_sum_sampled() -> None:
    """A sum is as good as its weakest part."""
    clock = FakeClock()
    counted, sampled = FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b", energy_mj=None, power_mw=1000)
    p = probe(counted, sampled, clock=clock)
    start = p.read()
    counted.energy_mj = 4000
    clock.advance(2)
    got = used(p, start, p.read())
    assert isinstance(got, Reading)
    assert (got.value.value, got.method) == (pytest.approx(6.0), Method.SAMPLED)


def test_a_lost_gpu_makes_the_sum_missing() -> None:
    """One board that stops answering makes the whole missing, with its name."""
    clock, a, b = FakeClock(), FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b", name="Board B")
    p = probe(a, b, clock=clock)
    start = p.read()
    a.energy_mj, b.lost = 9000, True
    clock.advance(1)
    got = used(p, start, p.read())
    assert isinstance(got, Missing)
    assert "Board B" in got.reason
    assert not p.status().available


@pytest.mark.parametrize(("seconds", "grown"), [(0.01, 500), (0.5, 0), (0.0, 0)])
def test_windows_shorter_than_the_counter_are_missing(seconds: float, grown: int) -> None:
    """A counter that cannot have moved, or did not, is a reason and not 0 J."""
    clock, gpu = FakeClock(), FakeGpu(energy_mj=1000)
    p = probe(gpu, clock=clock)
    start = p.read()
    gpu.energy_mj = 1000 + grown
    clock.advance(seconds)
    got = used(p, start, p.read())
    assert isinstance(got, Missing)
    assert "too short" in got.reason


def test_a_reloaded_driver_is_missing_not_negative() -> None:
    """A counter that starts again gives a reason."""
    clock, gpu = FakeClock(), FakeGpu(energy_mj=9000)
    p = probe(gpu, clock=clock)
    start = p.read()
    gpu.energy_mj = 10
    clock.advance(1)
    got = used(p, start, p.read())
    assert isinstance(got, Missing)
    assert "reset" in got.reason


@pytest.mark.parametrize(
    ("visible", "joules"),
    [("0", 1.0), ("1,0", 3.0), ("GPU-b", 2.0), ("MIG-GPU-b,MIG-GPU-b", 2.0), ("1,-1,0", 2.0)],
)
def test_only_visible_gpus_count(visible: str, joules: float) -> None:
    """CUDA_VISIBLE_DEVICES chooses by index, UUID or MIG instance, each board once."""
    clock = FakeClock()
    a, b = FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b", mig=1)
    p = probe(a, b, clock=clock, visible=visible)
    start = p.read()
    a.energy_mj, b.energy_mj = 1000, 2000
    clock.advance(1)
    got = used(p, start, p.read())
    assert isinstance(got, Reading)
    assert got.value.value == pytest.approx(joules)
    assert ("MIG" in got.source) == ("b" in visible or "1" in visible)


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_gpus_are_a_reason(visible: str) -> None:
    """A process that may see no GPU says so."""
    p = probe(FakeGpu(), clock=FakeClock(), visible=visible)
    assert "hides" in p.status().reason
    assert isinstance(used(p, p.read(), p.read()), Missing)


def test_no_driver_is_a_reason(tmp_path: Path) -> None:
    """A machine without an NVIDIA driver is missing, and needs no remedy."""
    p = NvmlProbe(Setting(dev=tmp_path))
    assert (p.status().available, p.status().remedy) == (False, "")
    assert isinstance(used(p, p.read(), p.read()), Missing)


def test_a_driver_that_does_not_answer_is_a_reason() -> None:
    """NVML's own error is passed on in words."""
    p = NvmlProbe(Setting(nvml=FakeNvml([FakeGpu()], driver=False)))
    assert "Driver Not Loaded" in p.status().reason


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without nvidia-ml-py says what to install."""
    (tmp_path / "nvidiactl").touch()

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    status = NvmlProbe(Setting(dev=tmp_path)).status()
    assert 'pip install "lichen[nvidia]"' in status.remedy
