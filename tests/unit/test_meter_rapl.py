from __future__ import annotations

from pathlib import Path

import pytest

from lichen.core.measurement import Component, Method, Missing, Quantity, Reading
from lichen.meter.probes.rapl import RaplProbe
from lichen.meter.setting import Setting
from lichen.testing.clock import FakeClock
from lichen.testing.powercap import FakePowercap

J = 1_000_000


@pytest.fixture
def powercap(tmp_path: Path) -> FakePowercap:
    return FakePowercap(tmp_path / "powercap")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def probe(powercap: FakePowercap, clock: FakeClock) -> RaplProbe:
    return RaplProbe(Setting(powercap=powercap.root, clock=clock))


def energies(p: RaplProbe, start: object, end: object) -> dict[Component, Quantity]:
    return {q.component: q for _, q in p.between(start, end)}


def joules(q: Quantity) -> float:
    assert isinstance(q, Reading), q
    return q.value.value


def test_packages_add_up_and_their_parts_do_not(powercap: FakePowercap, clock: FakeClock) -> None:
    """Two sockets are summed; core, uncore, psys and the mmio mirror are not added on top."""
    names = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "uncore",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    for i, (entry, name) in enumerate(names.items()):
        powercap.zone(entry, name, (i + 1) * 1000 * J)
    p = probe(powercap, clock)
    start = p.read()
    for i, entry in enumerate(names):
        powercap.turn(entry, (i + 1) * 1000 * J + 10 * J)
    clock.advance(10)
    assert joules(energies(p, start, p.read())[Component.CPU]) == pytest.approx(20.0)


def test_memory_is_a_component_of_its_own(powercap: FakePowercap, clock: FakeClock) -> None:
    """DRAM zones feed dram, named by their package, and are no part of cpu."""
    powercap.zone("intel-rapl:0", "package-0", 5 * J)
    powercap.zone("intel-rapl:0:0", "dram", 7 * J)
    p = probe(powercap, clock)
    start = p.read()
    powercap.turn("intel-rapl:0", 8 * J)
    powercap.turn("intel-rapl:0:0", 8 * J)
    clock.advance(2)
    got = energies(p, start, p.read())
    assert joules(got[Component.CPU]) == pytest.approx(3.0)
    dram = got[Component.DRAM]
    assert isinstance(dram, Reading)
    assert (dram.value.value, dram.method) == (pytest.approx(1.0), Method.COUNTER)
    assert dram.source == "RAPL package-0/dram"


def test_a_machine_without_dram_zone_says_so(powercap: FakePowercap, clock: FakeClock) -> None:
    """No DRAM zone is a reason, not 0 J."""
    powercap.zone("intel-rapl:0", "package-0", 5 * J)
    p = probe(powercap, clock)
    start = p.read()
    powercap.turn("intel-rapl:0", 6 * J)
    clock.advance(1)
    assert isinstance(energies(p, start, p.read())[Component.DRAM], Missing)


def test_a_wrapped_counter_goes_on(powercap: FakePowercap, clock: FakeClock) -> None:
    """A counter that passed its range counts on, at each wrap the sampler sees."""
    powercap.zone("intel-rapl:0", "package-0", 95 * J, range_uj=100 * J - 1)
    p = probe(powercap, clock)
    start = p.read()
    for value in (45, 95, 5):  # +50, +50, and a wrap: +10
        powercap.turn("intel-rapl:0", value * J)
        clock.advance(1)
        p.sample()
    assert joules(energies(p, start, p.read())[Component.CPU]) == pytest.approx(110.0)


@pytest.mark.parametrize("range_uj", [None, 262_143_328_850])
def test_a_reset_counter_is_not_taken_for_a_wrap(
    powercap: FakePowercap, clock: FakeClock, range_uj: int | None
) -> None:
    """A fall that would mean kilowatts, or that has no known range, makes the window missing."""
    powercap.zone("intel-rapl:0", "package-0", 90_000 * J, range_uj=range_uj)
    p = probe(powercap, clock)
    start = p.read()
    powercap.turn("intel-rapl:0", 3 * J)
    clock.advance(1)
    end = p.read()
    got = energies(p, start, end)[Component.CPU]
    assert isinstance(got, Missing)
    assert "reset" in got.reason
    powercap.turn("intel-rapl:0", 5 * J)
    clock.advance(1)
    assert joules(energies(p, end, p.read())[Component.CPU]) == pytest.approx(2.0)


@pytest.mark.parametrize("seconds", [0.0, 0.0004, 0.5])
def test_a_window_in_which_the_counter_stood_still_is_missing(
    powercap: FakePowercap, clock: FakeClock, seconds: float
) -> None:
    """Too short for the counter is said with the reason; it is never 0 J."""
    powercap.zone("intel-rapl:0", "package-0", 5 * J)
    p = probe(powercap, clock)
    start = p.read()
    clock.advance(seconds)
    got = energies(p, start, p.read())[Component.CPU]
    assert isinstance(got, Missing)
    assert "too short" in got.reason


def test_a_short_window_is_less_certain(powercap: FakePowercap, clock: FakeClock) -> None:
    """The interval widens as the window nears the counter's period."""
    powercap.zone("intel-rapl:0", "package-0", 0)
    p = probe(powercap, clock)
    widths = []
    for i, seconds in enumerate((0.004, 4.0)):
        start = p.read()
        powercap.turn("intel-rapl:0", (i + 1) * J)
        clock.advance(seconds)
        got = energies(p, start, p.read())[Component.CPU]
        assert isinstance(got, Reading)
        widths.append(got.value.width / got.value.value)
    assert widths[0] > 2 * widths[1]


def test_dies_that_mirror_one_counter_count_once(powercap: FakePowercap, clock: FakeClock) -> None:
    """Zones that show one and the same counter are one; zones with their own are two."""
    powercap.zone("intel-rapl:0", "package-0-die-0", 500 * J)
    powercap.zone("intel-rapl:1", "package-0-die-1", 500 * J)
    powercap.zone("intel-rapl:2", "package-1-die-0", 700 * J)
    p = probe(powercap, clock)
    start = p.read()
    for entry, value in (("intel-rapl:0", 510), ("intel-rapl:1", 510), ("intel-rapl:2", 703)):
        powercap.turn(entry, value * J)
    clock.advance(1)
    assert joules(energies(p, start, p.read())[Component.CPU]) == pytest.approx(13.0)


def test_no_permission_names_the_remedy(
    powercap: FakePowercap, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters that only root may read give missing, the reason and a command to run."""
    powercap.zone("intel-rapl:0", "package-0", 5 * J)
    real = Path.read_text

    def refuse(self: Path, *args: object, **kwargs: object) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refuse)
    p = probe(powercap, clock)
    status = p.status()
    assert not status.available
    assert "permission" in status.reason
    assert "chmod" in status.remedy
    got = energies(p, p.read(), p.read())[Component.CPU]
    assert isinstance(got, Missing)
    assert "permission" in got.reason


def test_no_powercap_at_all_is_missing_everywhere(tmp_path: Path) -> None:
    """A virtual machine without RAPL gives reasons for cpu and dram."""
    p = RaplProbe(Setting(powercap=tmp_path / "absent"))
    assert not p.status().available
    got = energies(p, p.read(), p.read())
    assert all(isinstance(q, Missing) for q in got.values())
    assert set(got) == {Component.CPU, Component.DRAM}


def test_garbage_in_a_counter_spoils_the_sum_not_the_run(
    powercap: FakePowercap, clock: FakeClock
) -> None:
    """One unreadable package makes cpu missing, since half a sum would understate."""
    powercap.zone("intel-rapl:0", "package-0", 5 * J)
    powercap.zone("intel-rapl:1", "package-1", 900 * J)
    p = probe(powercap, clock)
    start = p.read()
    powercap.turn("intel-rapl:0", 6 * J)
    powercap.turn("intel-rapl:1", "not a number")
    clock.advance(1)
    assert isinstance(energies(p, start, p.read())[Component.CPU], Missing)


def test_files_that_vanish_are_missing(powercap: FakePowercap, clock: FakeClock) -> None:
    """A zone whose files go away (module unloaded) is a reason, and comes back when they do."""
    folder = powercap.zone("intel-rapl:0", "package-0", 5 * J)
    p = probe(powercap, clock)
    start = p.read()
    (folder / "energy_uj").rename(folder / "gone")
    clock.advance(1)
    assert isinstance(energies(p, start, p.read())[Component.CPU], Missing)
    (folder / "gone").rename(folder / "energy_uj")
    powercap.turn("intel-rapl:0", 8 * J)
    assert joules(energies(p, start, p.read())[Component.CPU]) == pytest.approx(3.0)


def test_zones_without_a_name_are_ignored(powercap: FakePowercap, clock: FakeClock) -> None:
    """A powercap tree with nothing to add up says so."""
    (powercap.root / "intel-rapl:0").mkdir(parents=True)
    p = probe(powercap, clock)
    assert not p.status().available
    assert "no RAPL package" in p.status().reason
