"""Energy by the power model: the rung for machines whose counters cannot be read.

The ladder uses it only for components that no better rung gave. Equation and ranges:
``lichen.meter.power``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Quantity, Reading
from lichen.core.ports import ProbeStatus
from lichen.meter.process_tree import TreeReading
from lichen.meter.setting import Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSnapshot:
    """The tree, and its memory integrated over time so far (bytes x s)."""

    tree: TreeReading
    byte_seconds: float


class PowerModelProbe:
    """Feeds ``energy_j`` of cpu and dram."""

    name = "power_model"

    def __init__(self, setting: Setting) -> None:
        self._tree = setting.tree
        self._model = setting.power_model
        self._lock = threading.Lock()
        self._last: ModelSnapshot | None = None

    def status(self) -> ProbeStatus:
        """Always available, always a range."""
        return ProbeStatus(
            name=self.name,
            quantity="energy_j[cpu], energy_j[dram]",
            method=self._model.method,
            available=True,
            reason=f"{self._model.source}; {self._model.dram_source}",
            remedy="calibrate it against a wall meter, or give the processor's TDP, to narrow it",
        )

    def read(self) -> ModelSnapshot:
        """Look at the tree and integrate its memory since the last look (trapezoid)."""
        with self._lock:
            tree = self._tree.read()
            held = 0.0
            if self._last is not None:
                before = self._last.tree
                mean = (before.rss_bytes + tree.rss_bytes) / 2
                held = self._last.byte_seconds + mean * max(0.0, tree.time_s - before.time_s)
            self._last = ModelSnapshot(tree=tree, byte_seconds=held)
            return self._last

    def sample(self) -> None:
        """Integrate."""
        self.read()

    def between(self, start: object, end: object) -> Sequence[tuple[str, Quantity]]:
        """Return the modelled energy between two looks."""
        a, b = cast("ModelSnapshot", start), cast("ModelSnapshot", end)
        used = max(0.0, b.tree.cpu_s - a.tree.cpu_s)
        error = max(a.tree.error_s, b.tree.error_s)
        cpu_s = Interval(low=max(0.0, used - error), value=used, high=used + error)
        model = self._model
        cpu = self._reading(model.cpu_j(cpu_s), Component.CPU, model.source)
        held = max(0.0, b.byte_seconds - a.byte_seconds)
        dram = self._reading(model.dram_j(held), Component.DRAM, model.dram_source)
        return (("energy_j", cpu), ("energy_j", dram))

    def _reading(self, value: Interval, component: Component, source: str) -> Reading:
        return Reading(value=value, method=self._model.method, component=component, source=source)
