"""Energy of processor packages and memory from RAPL counters (Linux powercap, Intel and AMD).

``/sys/class/powercap/intel-rapl:N[:M]/{name,energy_uj,max_energy_range_uj}``; kernel documentation
``Documentation/power/powercap``. What is added up, and what is not:

- cpu = the packages. ``core`` and ``uncore`` are parts of a package, ``psys`` contains it, and the
  ``intel-rapl-mmio`` tree shows the same packages again: none of them is added.
- dram = the dram zones; a package does not include them.
- Zones of one kind that show one and the same counter (the dies of some AMD processors) count once.

A counter wraps at ``max_energy_range_uj``; it is read at least once per sampling interval while a
window is open, so at most one wrap lies between two looks. A fall that no wrap explains (reset,
resume from sleep) makes the window ``Missing``. RAPL sees the whole machine: ``foreign_cpu_s`` of
the same window says how much of that was others' work.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Method, Missing, Quantity, Reading
from lichen.core.ports import ProbeStatus
from lichen.core.units import UJ_PER_J
from lichen.meter.setting import Setting

UPDATE_PERIOD_S: Final = 0.001
"""RAPL counters move about once a millisecond: Intel SDM vol. 3B, section 16.10 (RAPL)."""

RELATIVE_ERROR: Final = 0.05
"""Our assumption: Khan et al. 2018 (ACM ToMPECS 3(2), "RAPL in Action") find readings that follow
plug power closely, and give no single figure; it cancels in ratios on one machine."""

MAX_ZONE_W: Final = 5000.0
"""No package or memory zone draws this: a larger step is a reset taken for a wrap."""

REMEDY_PERMISSION: Final = "sudo chmod a+r /sys/class/powercap/*/energy_uj  (until the next boot)"


@dataclass(slots=True)
class _Zone:
    """One counter, unwrapped: joules since the probe first saw it."""

    path: Path
    label: str
    component: Component
    range_uj: int | None
    last_uj: int | None = None
    last_s: float = 0.0
    total_uj: int = 0
    breaks: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneReading:
    """A zone at one moment; ``breaks`` counts resets, ``problem`` says why it cannot be read."""

    label: str
    component: Component
    energy_j: float
    breaks: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RaplSnapshot:
    """All zones at one moment."""

    time_s: float
    zones: tuple[ZoneReading, ...]


class RaplProbe:
    """Feeds ``energy_j`` of cpu and dram."""

    name = "rapl"

    def __init__(self, setting: Setting) -> None:
        self._clock = setting.clock
        self._lock = threading.Lock()
        self._zones, self._absent = _discover(setting.powercap)
        self._look()
        self._zones = _without_mirrors(self._zones)

    def status(self) -> ProbeStatus:
        """Say which zones can be read, or what to do about it."""
        snapshot = self.read()
        problems = [z.problem for z in snapshot.zones if z.problem]
        reason, remedy = self._absent, ""
        if problems:
            reason = problems[0]
            remedy = REMEDY_PERMISSION if "permission" in reason else ""
        elif snapshot.zones:
            reason = "counters: " + ", ".join(z.label for z in snapshot.zones)
        elif not remedy:
            remedy = "run on bare metal, or use a wall meter, for measured joules"
        return ProbeStatus(
            name=self.name,
            quantity="energy_j[cpu], energy_j[dram]",
            method=Method.COUNTER,
            available=bool(snapshot.zones) and not problems,
            reason=reason,
            remedy=remedy,
        )

    def read(self) -> RaplSnapshot:
        """Read every counter."""
        with self._lock:
            self._look()
            return RaplSnapshot(
                time_s=self._clock(),
                zones=tuple(
                    ZoneReading(
                        label=z.label,
                        component=z.component,
                        energy_j=z.total_uj / UJ_PER_J,
                        breaks=z.breaks,
                        problem=z.problem,
                    )
                    for z in self._zones
                ),
            )

    def sample(self) -> None:
        """Read the counters, so that no wrap is missed."""
        with self._lock:
            self._look()

    def between(self, start: object, end: object) -> Sequence[tuple[str, Quantity]]:
        """Return the energy between two looks, per component."""
        a, b = cast("RaplSnapshot", start), cast("RaplSnapshot", end)
        return tuple(
            ("energy_j", _component_energy(component, a, b, self._absent))
            for component in (Component.CPU, Component.DRAM)
        )

    def _look(self) -> None:
        for zone in self._zones:
            try:
                text = zone.path.read_text(encoding="ascii", errors="replace")
                value = int(text)
            except PermissionError:
                zone.problem = (
                    f"no permission to read RAPL ({zone.label}: root only since Linux 5.10)"
                )
            except OSError as exc:
                zone.problem = f"RAPL {zone.label} cannot be read ({exc.strerror})"
            except ValueError:
                zone.problem = f"RAPL {zone.label} does not hold a number"
            else:
                zone.problem = ""
                _advance(zone, value, self._clock())


def _advance(zone: _Zone, value: int, now: float) -> None:
    if zone.last_uj is not None:
        step = value - zone.last_uj
        if step < 0 and zone.range_uj is not None:
            step += zone.range_uj + 1
        elapsed = max(now - zone.last_s, UPDATE_PERIOD_S)
        if step < 0 or step / UJ_PER_J > MAX_ZONE_W * max(elapsed, 1.0):
            zone.breaks += 1
        else:
            zone.total_uj += step
    zone.last_uj, zone.last_s = value, now


def _component_energy(
    component: Component, a: RaplSnapshot, b: RaplSnapshot, absent: str
) -> Quantity:
    pairs = [(x, y) for x, y in zip(a.zones, b.zones, strict=True) if x.component is component]
    if not pairs:
        reason = absent or f"RAPL has no {component} zone on this machine"
        return Missing(reason=reason, component=component)
    for x, y in pairs:
        if x.problem or y.problem:
            return Missing(reason=x.problem or y.problem, component=component)
        if x.breaks != y.breaks:
            reason = f"the RAPL counter {x.label} was reset during the window"
            return Missing(reason=reason, component=component)
    energy = sum(y.energy_j - x.energy_j for x, y in pairs)
    elapsed = b.time_s - a.time_s
    if energy <= 0 or elapsed < UPDATE_PERIOD_S:
        return Missing(
            reason=f"the window of {1000 * max(elapsed, 0.0):.3g} ms is too short for RAPL, which "
            "counts about once a millisecond",
            component=component,
        )
    return Reading(
        value=Interval.around(energy, min(1.0, RELATIVE_ERROR + UPDATE_PERIOD_S / elapsed)),
        method=Method.COUNTER,
        component=component,
        source=" + ".join(f"RAPL {x.label}" for x, _ in pairs),
    )


def _discover(powercap: Path) -> tuple[list[_Zone], str]:
    """Return the zones to add up, and why there are none ("" if there are)."""
    try:
        entries = sorted(powercap.iterdir())
    except OSError:
        return [], "no RAPL counters on this machine (virtual machines rarely have them)"
    zones: list[_Zone] = []
    for entry in entries:
        if not entry.name.startswith("intel-rapl:"):  # also AMD's; intel-rapl-mmio mirrors packages
            continue
        label = _text(entry / "name")
        component = _component_of(label)
        if component is not None:
            parent = _text(entry.parent / entry.name.rpartition(":")[0] / "name")
            full = f"{parent}/{label}" if component is Component.DRAM and parent else label
            zones.append(_Zone(entry / "energy_uj", full, component, _number(entry)))
    return zones, "" if zones else "powercap shows no RAPL package or memory zone"


def _component_of(label: str) -> Component | None:
    if label.startswith("package"):
        return Component.CPU
    return Component.DRAM if label.startswith("dram") else None


def _without_mirrors(zones: list[_Zone]) -> list[_Zone]:
    """Drop zones whose counter is another zone's: its value lies between two looks at that one."""
    kept: list[_Zone] = []
    for zone in zones:
        if not any(z.component is zone.component and _same_counter(z, zone) for z in kept):
            kept.append(zone)
    return kept


def _same_counter(a: _Zone, b: _Zone) -> bool:
    try:
        before, middle, after = (int(z.path.read_text()) for z in (a, b, a))
    except (OSError, ValueError):
        return False
    return 0 < before <= middle <= after  # two idle counters that both stand at 0 are no evidence


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(entry: Path) -> int | None:
    text = _text(entry / "max_energy_range_uj")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None
