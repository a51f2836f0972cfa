"""CPU-seconds of this process and all its descendants, ended ones included.

This process is read exactly; times of children's children are cut to clock ticks by the kernel,
which shows as the interval. How nothing is lost or doubled: ``lichen.meter.process_tree``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Method, Quantity, Reading
from lichen.core.ports import ProbeStatus
from lichen.meter.process_tree import TreeReading
from lichen.meter.setting import Setting

SOURCE = "CPU time of the process tree"


class ProcessProbe:
    """Feeds ``cpu_s``."""

    name = "process"

    def __init__(self, setting: Setting) -> None:
        self._tree = setting.tree

    def status(self) -> ProbeStatus:
        """Always available."""
        return ProbeStatus(
            name=self.name,
            quantity="cpu_s",
            method=Method.COUNTER,
            available=True,
            reason="the kernel's CPU time of this process and every process it started",
        )

    def read(self) -> TreeReading:
        """Look at the tree."""
        return self._tree.read()

    def sample(self) -> None:
        """Look at the tree, so that a process that detaches and ends is seen in between."""
        self._tree.read()

    def between(self, start: object, end: object) -> Sequence[tuple[str, Quantity]]:
        """Return the CPU-seconds used between two looks."""
        a, b = cast("TreeReading", start), cast("TreeReading", end)
        used = max(0.0, b.cpu_s - a.cpu_s)
        error = max(a.error_s, b.error_s)
        reading = Reading(
            value=Interval(low=max(0.0, used - error), value=used, high=used + error),
            method=Method.COUNTER,
            component=Component.PROCESS,
            source=SOURCE,
        )
        return (("cpu_s", reading),)
