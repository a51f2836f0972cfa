from __future__ import annotations

from pathlib import Path

import pytest

from lichen.core.errors import ConfigError
from lichen.core.interval import Interval
from lichen.core.measurement import (
    Component,
    Measurement,
    Method,
    Missing,
    Quantity,
    Reading,
    Usage,
    exact,
)
from lichen.core.model import ModelShape
from lichen.core.ports import ProbeStatus
from lichen.meter import (
    PowerModel,
    ProbeMeter,
    disturbances,
    engine_counters,
    idle_baseline,
    net_of_idle,
)
from lichen.meter.energy_rung import energy_rung
from lichen.meter.peaks import PeakHistory, peak_since
from lichen.meter.probes.memory import MemoryProbe
from lichen.meter.probes.power_model import PowerModelProbe
from lichen.meter.probes.system import SystemProbe
from lichen.meter.process_tree import CLOCK_TICK_S, ProcessTimes, ProcessTree
from lichen.meter.setting import Setting
from lichen.testing.clock import FakeClock
from lichen.testing.probe import ReplayProbe

SHAPE = ModelShape(
    architecture="qwen2",
    parameters=110,
    active_parameters=100,
    layers=2,
    embedding=8,
    heads=2,
    kv_heads=1,
    head_dim=4,
    feed_forward=16,
    vocabulary=32,
    context=64,
    weight_bytes=200,
)


class ScriptedTree:
    """A process tree whose CPU time and memory the test sets."""

    rounding_s = 0.0

    def __init__(self) -> None:
        self.own_s = 0.0
        self.rss_bytes = 0
        self.child_rss_bytes = 0

    def read(self, known: object) -> dict[int, ProcessTimes]:
        import os

        me = os.getpid()
        found = {me: ProcessTimes(me, 1.0, 1, 1, self.own_s, 0.0, self.rss_bytes)}
        if self.child_rss_bytes:
            found[-5] = ProcessTimes(-5, 1.0, me, 1, 0.0, 0.0, self.child_rss_bytes)
        return found


def scripted(tree: ScriptedTree, clock: FakeClock, **more: object) -> Setting:
    process_tree = ProcessTree(tree, clock=clock, max_age_s=0)
    return Setting(tree=process_tree, clock=clock, **more)  # type: ignore[arg-type]


def interval(q: Quantity) -> tuple[float, float, float]:
    assert isinstance(q, Reading), q
    return (q.value.low, q.value.value, q.value.high)


def test_the_power_model_is_a_range_over_cpu_seconds_and_memory() -> None:
    """Ten busy seconds and 2 GB for ten seconds give 20-80 J and 6-8 J, labelled as a model."""
    clock, tree = FakeClock(), ScriptedTree()
    tree.rss_bytes = 2_000_000_000
    probe = PowerModelProbe(scripted(tree, clock))
    start = probe.read()
    tree.own_s = 10.0
    clock.advance(10)
    cpu, dram = (q for _, q in probe.between(start, probe.read()))
    assert interval(cpu) == pytest.approx((20.0, 40.0, 80.0))
    assert interval(dram) == pytest.approx((6.0, 7.5, 8.0))
    assert isinstance(cpu, Reading)
    assert cpu.method is Method.MODELLED


def test_memory_that_grows_is_integrated_between_samples() -> None:
    """The memory term follows the samples, not only the window's ends."""
    clock, tree = FakeClock(), ScriptedTree()
    probe = PowerModelProbe(scripted(tree, clock))
    start = probe.read()
    tree.rss_bytes = 4_000_000_000
    clock.advance(1)
    probe.sample()  # a ramp to 4 GB: 2 GB s
    clock.advance(1)
    probe.sample()  # 4 GB s
    tree.rss_bytes = 0
    clock.advance(1)  # a ramp down: 2 GB s
    _, dram = (q for _, q in probe.between(start, probe.read()))
    assert interval(dram)[1] == pytest.approx(8 * 0.375)


def test_a_tdp_gives_watts_per_cpu_within_a_factor_of_two() -> None:
    """The user's TDP replaces the default range and is named as the source."""
    model = PowerModel.from_tdp(128, 64)
    assert model.watt_per_core == Interval(low=1.0, value=2.0, high=4.0)
    assert "TDP 128 W" in model.source


def test_a_calibrated_model_stands_a_rung_higher() -> None:
    """Watts fitted against a meter say so."""
    model = PowerModel.calibrated(Interval(low=4, value=5, high=6), against="wall meter")
    assert model.method is Method.CALIBRATED
    assert interval_of(model, 2.0) == (8.0, 10.0, 12.0)


def interval_of(model: PowerModel, cpu_s: float) -> tuple[float, float, float]:
    energy = model.cpu_j(Interval.exact(cpu_s))
    return (energy.low, energy.value, energy.high)


@pytest.mark.parametrize(("tdp", "cpus"), [(0, 4), (-5, 4), (65, 0)])
def test_impossible_watts_are_refused(tdp: float, cpus: int) -> None:
    """A TDP that cannot be is a ConfigError."""
    with pytest.raises(ConfigError):
        PowerModel.from_tdp(tdp, cpus)


def test_negative_watts_are_refused() -> None:
    """A power model cannot give energy back."""
    with pytest.raises(ConfigError):
        PowerModel(watt_per_core=Interval(low=-1, value=1, high=2))


def test_peaks_belong_to_the_windows_they_fall_in() -> None:
    """A peak before a window opened is not the window's, one inside is, for all that hold it."""
    history = PeakHistory()
    first = history.push(5.0)
    second = history.push(9.0)
    third = history.push(3.0)
    history.push(4.0)
    view = history.view
    assert peak_since(view, first) == 9.0
    assert peak_since(view, second) == 4.0
    assert peak_since(view, third) == 4.0
    assert peak_since(view, 99) is None


def test_a_full_history_reads_high_not_low() -> None:
    """Merging old entries never hides a peak."""
    history = PeakHistory(max_entries=3)
    sequences = [history.push(float(v)) for v in (9, 8, 7, 6, 5)]
    view = history.view
    assert len(view) <= 3
    for sequence, true_peak in zip(sequences[:-1], (8, 7, 6, 5), strict=True):
        found = peak_since(view, sequence)
        assert found is not None
        assert found >= true_peak


def test_the_peak_of_a_window_that_allocated_and_freed_is_seen() -> None:
    """Memory that came and went between two looks is in the peak of this process."""
    probe = MemoryProbe(Setting())
    start = probe.read()
    block = bytearray(64 * 1024 * 1024)
    del block
    middle = probe.read()
    end = probe.read()
    ((_, with_block),) = probe.between(start, middle)
    ((_, without),) = probe.between(middle, end)
    ((_, both),) = probe.between(start, end)
    if not probe._own.resettable:
        pytest.skip("/proc/self/clear_refs cannot be written here")
    assert interval(with_block)[1] - interval(without)[1] > 48 * 1024 * 1024
    assert interval(both)[1] == interval(with_block)[1]


def test_children_make_the_peak_a_sampled_range() -> None:
    """With child processes the peak says SAMPLED and encloses the sampled sum."""
    clock, tree = FakeClock(), ScriptedTree()
    tree.rss_bytes, tree.child_rss_bytes = 1_000, 10_000_000_000
    probe = MemoryProbe(scripted(tree, clock))
    ((_, peak),) = probe.between(probe.read(), probe.read())
    assert isinstance(peak, Reading)
    assert peak.method is Method.SAMPLED
    assert peak.value.high >= 10_000_001_000


def test_without_a_resettable_mark_an_old_peak_is_only_a_bound(tmp_path: Path) -> None:
    """Where the mark cannot be set back, a mark that stood still is the upper bound alone."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("VmHWM:\t  900000 kB\n")
    clock, tree = FakeClock(), ScriptedTree()
    tree.rss_bytes = 1_000_000
    probe = MemoryProbe(scripted(tree, clock, proc=tmp_path))
    ((_, peak),) = probe.between(probe.read(), probe.read())
    assert interval(peak) == (1_000_000, 1_000_000, 900_000 * 1024)
    assert probe.status().method is Method.SAMPLED


def test_foreign_load_is_what_is_busy_and_not_ours(tmp_path: Path) -> None:
    """Busy seconds of the machine minus ours are others'; iowait is idle; steal stands alone."""
    ticks = 1 / CLOCK_TICK_S

    def stat(user: float, steal: float) -> None:
        cpu = f"cpu  {int(user * ticks)} 0 0 5 999 0 0 {int(steal * ticks)} 0 0"
        (tmp_path / "stat").write_text(f"{cpu}\ncpu0 1 2\n")

    (clock, tree) = FakeClock(), ScriptedTree()
    stat(100, 1)
    probe = SystemProbe(scripted(tree, clock, proc=tmp_path))
    start = probe.read()
    tree.own_s = 4.0
    stat(110, 3)
    foreign, steal = (q for _, q in probe.between(start, probe.read()))
    assert interval(foreign)[1] == pytest.approx(6.0)
    assert interval(steal)[1] == pytest.approx(2.0)


@pytest.mark.parametrize("text", ["", "cpu  a b c", "cpu 1 2", None])
def test_an_unreadable_proc_stat_is_a_reason(tmp_path: Path, text: str | None) -> None:
    """Garbage or no /proc/stat makes foreign load missing, not 0."""
    if text is not None:
        (tmp_path / "stat").write_text(text)
    probe = SystemProbe(scripted(ScriptedTree(), FakeClock(), proc=tmp_path))
    foreign, steal = (q for _, q in probe.between(probe.read(), probe.read()))
    assert isinstance(foreign, Missing)
    assert isinstance(steal, Missing)
    assert not probe.status().available


def test_an_old_kernel_without_steal_says_so(tmp_path: Path) -> None:
    """Seven columns give foreign load but no steal."""
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7\n")
    probe = SystemProbe(scripted(ScriptedTree(), FakeClock(), proc=tmp_path))
    foreign, steal = (q for _, q in probe.between(probe.read(), probe.read()))
    assert isinstance(foreign, Reading)
    assert isinstance(steal, Missing)


def window(
    wall_s: float, joules: float, method: Method = Method.COUNTER, **more: Quantity
) -> Measurement:
    energy = Reading(
        value=Interval.around(joules, 0.05), method=method, component=Component.CPU, source="c"
    )
    return Measurement(wall_s=exact(wall_s, source="clock"), energy_j=(energy,), **more)  # type: ignore[arg-type]


def test_net_energy_is_above_idle() -> None:
    """Idle power times the window's length is subtracted, bounds crosswise."""
    net = net_of_idle(window(10, 500), window(5, 100))
    low, value, high = interval(net.energy_j[0])
    assert value == pytest.approx(300.0)
    assert low < 300.0 < high
    assert net.drift is None
    assert not net.drifted


def test_a_drifting_baseline_is_flagged() -> None:
    """Idle power that moved by a tenth between the baselines makes the net doubtful."""
    net = net_of_idle(window(10, 500), window(5, 100), window(5, 110))
    assert net.drift == pytest.approx(0.10)
    assert net.drifted
    assert interval(net.energy_j[0])[1] == pytest.approx(500 - 21 * 10)


def test_a_modelled_component_has_no_idle_part() -> None:
    """The model charges our own work only: nothing is subtracted."""
    gross = window(10, 40, Method.MODELLED)
    assert net_of_idle(gross, window(10, 30, Method.MODELLED)).energy_j == gross.energy_j


def test_work_below_idle_is_missing_not_negative() -> None:
    """A window that used no more than idle is not distinguishable from it."""
    net = net_of_idle(window(10, 100), window(10, 120))
    assert isinstance(net.energy_j[0], Missing)


def test_no_baseline_for_a_component_is_missing() -> None:
    """A component that the baseline did not read cannot be netted."""
    net = net_of_idle(window(10, 100), Measurement(wall_s=exact(5, source="clock")))
    assert isinstance(net.energy_j[0], Missing)


def test_an_idle_baseline_is_a_window_of_sleep() -> None:
    """The baseline lasts as long as asked and holds what the probes saw."""
    clock = FakeClock()
    with ProbeMeter([ReplayProbe([0.0, 0.0, 55.0])], clock=clock) as meter:
        idle = idle_baseline(meter, 10, sleep=clock.sleep)
    assert interval(idle.wall_s)[1] == 10.0
    assert interval(idle.energy_j[0])[1] == 55.0


def test_an_idle_baseline_needs_time() -> None:
    """No baseline of zero seconds."""
    with ProbeMeter([]) as meter, pytest.raises(ConfigError):
        idle_baseline(meter, 0)


def test_disturbed_windows_are_named() -> None:
    """Foreign load and steal above a tenth of the CPUs are remarked on, less is not."""
    loud = window(10, 1, foreign_cpu_s=exact(8, source="s"), steal_s=exact(0.1, source="s"))
    (remark,) = disturbances(loud, 4)
    assert "20 %" in remark
    assert disturbances(loud, 40) == ()
    assert disturbances(Measurement(), 4) == ()


def test_engine_counters_are_sums_of_the_core_formulas() -> None:
    """FLOP and bytes of requests are the shape's, request by request, labelled as modelled."""
    usages = [Usage(prompt=10, completion=5), Usage(prompt=20, cached=4, completion=1)]
    flop, moved = engine_counters(SHAPE, usages, mean_batch=2.0)
    assert interval(flop)[1] == pytest.approx(sum(SHAPE.flop(u) for u in usages))
    expected = sum(SHAPE.bytes_moved(u, mean_batch=2.0) for u in usages)
    assert interval(moved)[1] == pytest.approx(expected)
    assert isinstance(flop, Reading)
    assert flop.method is Method.MODELLED
    assert "Kaplan" in flop.source


def test_no_requests_have_no_counters() -> None:
    """Nothing reported is missing, not 0 FLOP."""
    assert all(isinstance(q, Missing) for q in engine_counters(SHAPE, []))


def status(quantity: str, method: Method, *, available: bool = True) -> ProbeStatus:
    return ProbeStatus(name="p", quantity=quantity, method=method, available=available, reason="r")


def test_the_energy_sentence_names_the_weakest_rung() -> None:
    """One sentence says per component what stands behind the joules, and how to use them."""
    rung = energy_rung(
        [
            status("energy_j[cpu], energy_j[dram]", Method.MODELLED),
            status("energy_j[cpu]", Method.COUNTER),
            status("energy_j[gpu]", Method.COUNTER, available=False),
            status("cpu_s", Method.COUNTER),
        ]
    )
    assert dict(rung.components) == {
        Component.CPU: Method.COUNTER,
        Component.DRAM: Method.MODELLED,
        Component.GPU: None,
    }
    assert "never quote them without the range" in rung.sentence


def test_no_energy_at_all_is_said() -> None:
    """A machine with nothing says so."""
    assert "No energy" in energy_rung([status("cpu_s", Method.COUNTER)]).sentence


def test_a_fake_clock_does_not_go_back() -> None:
    """The fake keeps the promise of a monotonic clock."""
    with pytest.raises(ValueError, match="monotonic"):
        FakeClock().advance(-1)
