"""What others did meanwhile: CPU-seconds of foreign processes, and time the hypervisor took.

``foreign = busy CPU-seconds of the machine (/proc/stat) - CPU-seconds of our process tree``.
Both say how far wall time, and counters of the whole machine, can be trusted. ``/proc/stat`` counts
in clock ticks, so the reading of a short window is a wide range. Linux only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Method, Missing, Quantity, Reading
from lichen.core.ports import ProbeStatus
from lichen.meter.process_tree import CLOCK_TICK_S, TreeReading
from lichen.meter.setting import Setting

_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq; guest is part of user: proc_stat(5)
_STEAL = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemSnapshot:
    """Busy and stolen CPU-seconds since boot, and our tree; a text where a figure cannot be had."""

    busy_s: float | str
    steal_s: float | str
    tree: TreeReading


class SystemProbe:
    """Feeds ``foreign_cpu_s`` and ``steal_s``."""

    name = "system"

    def __init__(self, setting: Setting) -> None:
        self._path = setting.proc / "stat"
        self._tree = setting.tree

    def status(self) -> ProbeStatus:
        """Available where ``/proc/stat`` is."""
        busy, _ = self._counters()
        return ProbeStatus(
            name=self.name,
            quantity="foreign_cpu_s, steal_s",
            method=Method.COUNTER,
            available=isinstance(busy, float),
            reason=busy if isinstance(busy, str) else "/proc/stat: busy time minus ours, and steal",
        )

    def read(self) -> SystemSnapshot:
        """Read the machine's and our counters."""
        busy, steal = self._counters()
        return SystemSnapshot(busy_s=busy, steal_s=steal, tree=self._tree.read())

    def between(self, start: object, end: object) -> Sequence[tuple[str, Quantity]]:
        """Return foreign and stolen CPU-seconds between two looks."""
        a, b = cast("SystemSnapshot", start), cast("SystemSnapshot", end)
        rounding = (len(_BUSY) + 1) * CLOCK_TICK_S
        ours = max(0.0, b.tree.cpu_s - a.tree.cpu_s)
        error = rounding + max(a.tree.error_s, b.tree.error_s)
        return (
            ("foreign_cpu_s", _grown(a.busy_s, b.busy_s, less=ours, error=error)),
            ("steal_s", _grown(a.steal_s, b.steal_s, less=0.0, error=CLOCK_TICK_S)),
        )

    def _counters(self) -> tuple[float | str, float | str]:
        try:
            text = self._path.read_text(encoding="ascii", errors="replace")
        except OSError:
            unknown = f"{self._path} cannot be read on this system"
            return unknown, unknown
        first = text.partition("\n")[0].split()
        try:
            ticks = [int(x) for x in first[1:]]
            busy = sum(ticks[i] for i in _BUSY) * CLOCK_TICK_S
        except (IndexError, ValueError):
            unknown = f"{self._path} does not look like Linux's"
            return unknown, unknown
        steal = ticks[_STEAL] * CLOCK_TICK_S if len(ticks) > _STEAL else "this kernel has no steal"
        return busy, steal


def _grown(start: float | str, end: float | str, *, less: float, error: float) -> Quantity:
    for side in (start, end):
        if isinstance(side, str):
            return Missing(reason=side, component=Component.SYSTEM)
    grown = cast("float", end) - cast("float", start) - less
    value = max(0.0, grown)
    return Reading(
        value=Interval(low=max(0.0, grown - error), value=value, high=max(value, grown + error)),
        method=Method.COUNTER,
        component=Component.SYSTEM,
        source="/proc/stat",
    )
