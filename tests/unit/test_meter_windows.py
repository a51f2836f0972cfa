from __future__ import annotations

import threading
import time

import pytest

from lichen.core.errors import ConfigError, MeterError, UnknownNameError
from lichen.core.measurement import Component, Measurement, Method, Missing, Reading
from lichen.core.ports import Meter, Window
from lichen.meter import PowerModel, open_meter
from lichen.meter.ladder import Target, assemble, targets
from lichen.meter.setting import Setting
from lichen.meter.windows import ProbeMeter
from lichen.testing.clock import FakeClock
from lichen.testing.nvml import FakeGpu, FakeNvml
from lichen.testing.powercap import FakePowercap
from lichen.testing.probe import ReplayProbe


def joules(m: Measurement, component: Component = Component.CPU) -> float:
    entry = next(e for e in m.energy_j if e.component is component)
    assert isinstance(entry, Reading), entry
    return entry.value.value


def seconds(m: Measurement) -> float:
    assert isinstance(m.wall_s, Reading)
    return m.wall_s.value.value


def test_windows_nest_and_overlap() -> None:
    """Each window sees its own time, however windows lie over each other."""
    clock = FakeClock()
    values = [0.0, 1.0, 3.0, 6.0, 10.0]  # first look, open a, open b, close a, close b
    meter = ProbeMeter([ReplayProbe(values)], clock=clock)
    a = meter.window("a")
    clock.advance(2)
    b = meter.window("b")
    clock.advance(3)
    first = a.close()
    clock.advance(4)
    second = b.close()
    meter.close()
    assert (seconds(first), joules(first)) == (5.0, 5.0)
    assert (seconds(second), joules(second)) == (7.0, 7.0)


def test_closing_twice_gives_the_same_measurement() -> None:
    """A window ends once; later calls return what it saw then."""
    clock = FakeClock()
    with ProbeMeter([ReplayProbe([0.0, 0.0, 5.0, 99.0])], clock=clock) as meter:
        with meter.window() as window:
            clock.advance(1)
        clock.advance(1)
        assert window.close() is window.close()
        assert joules(window.close()) == 5.0


def test_meter_and_window_are_the_ports() -> None:
    """The meter satisfies the ports that the pillars are written against."""
    with ProbeMeter([]) as meter:
        assert isinstance(meter, Meter)
        assert isinstance(meter.window(), Window)


def test_work_that_raises_is_measured_too() -> None:
    """An exception ends the window and passes through unchanged."""
    with ProbeMeter([ReplayProbe([0.0, 0.0, 7.0])]) as meter:
        window = meter.window()
        with pytest.raises(KeyError), window:
            raise KeyError("work")
        assert joules(window.close()) == 7.0


@pytest.mark.parametrize(
    "values", [[0.0, RuntimeError("broken")], [0.0, 1.0, RuntimeError("broken")]]
)
def test_a_probe_that_raises_becomes_missing(values: list[float | Exception | None]) -> None:
    """A broken probe spoils its own quantities, with the reason, and nothing else."""
    healthy = ReplayProbe([0.0, 2.0], field="cpu_s", component=Component.PROCESS, name="healthy")
    with ProbeMeter([ReplayProbe(values), healthy]) as meter:
        m = meter.window().close()
    (energy,) = m.energy_j
    assert isinstance(energy, Missing)
    assert (energy.component, "broken" in energy.reason) == (Component.CPU, True)
    assert isinstance(m.cpu_s, Reading)


def test_a_counter_that_was_not_there_is_missing() -> None:
    """A look without a value gives a reason, not 0."""
    with ProbeMeter([ReplayProbe([None])]) as meter:
        assert isinstance(meter.window().close().energy_j[0], Missing)


def test_what_nobody_measures_says_so() -> None:
    """Fields that no probe feeds stay missing with a reason."""
    with ProbeMeter([]) as meter:
        m = meter.window().close()
    assert isinstance(m.cpu_s, Missing)
    assert m.energy_j == ()
    assert isinstance(m.it_energy_j, Missing)


def test_the_best_rung_wins_per_component() -> None:
    """A counter replaces the model for its component only."""
    probes = [
        ReplayProbe([0.0, 0.0, 9.0], method=Method.MODELLED, name="model"),
        ReplayProbe([0.0, 0.0, 3.0], name="counter"),
        ReplayProbe([0.0, 0.0, 1.0], method=Method.MODELLED, component=Component.DRAM, name="m"),
        ReplayProbe([None], component=Component.DRAM, name="absent counter"),
    ]
    with ProbeMeter(probes) as meter:
        m = meter.window().close()
    assert joules(m) == 3.0
    assert joules(m, Component.DRAM) == 1.0


def test_a_wall_meter_is_not_added_to_what_it_contains() -> None:
    """A reading of the whole system replaces its parts in the sum."""
    probes = [
        ReplayProbe([0.0, 0.0, 9.0], name="package"),
        ReplayProbe(
            [0.0, 0.0, 30.0], method=Method.WALL_METER, component=Component.SYSTEM, name="plug"
        ),
    ]
    with ProbeMeter(probes) as meter:
        whole = meter.window().close().it_energy_j
    assert isinstance(whole, Reading)
    assert (whole.value.value, whole.method) == (30.0, Method.WALL_METER)


def test_quantities_outside_the_vocabulary_are_left_out() -> None:
    """A plug-in's own field does not break the measurement."""
    probe = ReplayProbe([0.0, 1.0], field="temperature", component=Component.CPU)
    assert assemble(probe.between(0.0, 1.0)) == Measurement()


def test_targets_read_what_a_status_says() -> None:
    """The quantity text of a status names fields and components."""
    assert targets("energy_j[cpu], steal_s") == (
        Target("energy_j", Component.CPU),
        Target("steal_s", Component.PROCESS),
    )


def test_the_sampler_runs_while_a_window_is_open_and_ends_with_the_meter() -> None:
    """Sampling happens in the background, without a window it rests, close stops the thread."""
    probe = ReplayProbe([0.0])
    meter = ProbeMeter([probe], interval_s=0.02)
    assert not any(t.name == "lichen-meter" for t in threading.enumerate())
    with meter.window():
        deadline = time.monotonic() + 10
        while probe.samples < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert probe.samples >= 3
    assert meter.sampler_cpu_s > 0
    meter.close()
    meter.close()
    assert not any(t.name == "lichen-meter" for t in threading.enumerate())


def test_many_threads_may_open_and_close_windows() -> None:
    """Windows of concurrent threads all close with a reading, and one sampler serves them."""
    results: list[Measurement] = []
    with open_meter(interval_s=0.02) as meter:

        def work() -> None:
            for _ in range(5):
                with meter.window() as window:
                    sum(range(1000))
                results.append(window.close())

        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert len(results) == 40
    assert all(isinstance(m.cpu_s, Reading) and m.cpu_s.value.low >= 0 for m in results)


def test_a_closed_meter_opens_no_window() -> None:
    """Opening after close is an error that says so; a window open before can still end."""
    meter = ProbeMeter([ReplayProbe([0.0, 0.0, 4.0])])
    window = meter.window()
    meter.close()
    with pytest.raises(MeterError, match="closed"):
        meter.window("late")
    assert joules(window.close()) == 4.0


@pytest.mark.parametrize("interval", [0.0, 0.001, 61.0, -1.0])
def test_an_interval_that_would_miss_wraps_or_burn_cpu_is_refused(interval: float) -> None:
    """The sampling interval has bounds, and the message names them."""
    with pytest.raises(ConfigError, match=r"0\.02 to 60"):
        open_meter(interval_s=interval, probes=[])


def test_an_unknown_probe_is_named() -> None:
    """A misspelt probe gives a suggestion."""
    with pytest.raises(UnknownNameError, match="rapl"):
        open_meter(probes=["rappl"])


def test_a_machine_with_everything_uses_counters(tmp_path) -> None:
    """With RAPL and NVML, cpu, dram and gpu are counters and the model is not used."""
    clock, gpu = FakeClock(), FakeGpu()
    powercap = FakePowercap(tmp_path)
    powercap.zone("intel-rapl:0", "package-0", 0)
    powercap.zone("intel-rapl:0:0", "dram", 0)
    setting = Setting(clock=clock, powercap=tmp_path, nvml=FakeNvml([gpu]))
    with open_meter(setting=setting) as meter:
        window = meter.window()
        powercap.turn("intel-rapl:0", 30_000_000)
        powercap.turn("intel-rapl:0:0", 5_000_000)
        gpu.energy_mj = 100_000
        clock.advance(10)
        m = window.close()
    assert {e.component: e.method for e in m.energy_j if isinstance(e, Reading)} == {
        Component.CPU: Method.COUNTER,
        Component.DRAM: Method.COUNTER,
        Component.GPU: Method.COUNTER,
    }
    assert isinstance(m.it_energy_j, Reading)
    assert m.it_energy_j.value.value == pytest.approx(135.0)


def test_a_machine_with_nothing_models_and_says_so(tmp_path) -> None:
    """Without counters, cpu and dram are a model's range and the GPU is a reason."""
    setting = Setting(powercap=tmp_path / "none", dev=tmp_path, power_model=PowerModel())
    with open_meter(setting=setting) as meter, meter.window() as window:
        sum(range(200_000))
    cpu, dram, gpu = window.close().energy_j
    assert isinstance(cpu, Reading)
    assert isinstance(dram, Reading)
    assert cpu.method is dram.method is Method.MODELLED
    assert 0 < cpu.value.low < cpu.value.value < cpu.value.high
    assert isinstance(gpu, Missing)
