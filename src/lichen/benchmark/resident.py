"""Whose memory is it, when solutions take turns in one process and all stay loaded?

The peak of a window is the whole process's. What the resident set gains while a solution loads or
answers is that solution's own; what was there before the first engine would be there for any of
them. The rest of what is resident when a solution begins is the others', and is taken off its
peak, so that a solution's memory is what it would need alone. Modelled energy of the memory goes
down with it. A counter's reading is left as it is: the machine's memory drew that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Measurement, Method, Quantity, Reading
from lichen.core.ports import Meter

LESS_OTHERS: Final = "less what other solutions held"


@dataclass(slots=True)
class Residents:
    """Account of who made the process larger; made before the first engine is loaded.

    Args:
        meter: a window without length gives the resident set of the process tree as its peak.
    """

    meter: Meter
    _before: float | None = field(init=False)
    _own: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look at what is resident before anything is loaded."""
        self._before = self._resident()

    @contextmanager
    def acting(self, solution: str) -> Iterator[float]:
        """Yield the bytes that others hold now; what is gained meanwhile is ``solution``'s own.

        Yields 0 where memory cannot be measured.
        """
        start, own = self._resident(), self._own.get(solution, 0.0)
        others = 0.0 if start is None or self._before is None else start - self._before - own
        try:
            yield max(others, 0.0)
        finally:
            end = self._resident()
            if start is not None and end is not None:
                self._own[solution] = max(own + end - start, 0.0)

    def _resident(self) -> float | None:
        with self.meter.window("resident") as window:
            peak = window.close().peak_memory_bytes
        return peak.value.value if isinstance(peak, Reading) else None


def without(window: Measurement, held: float) -> Measurement:
    """Return a window's cost without ``held`` bytes that others had resident all along.

    The memory's modelled energy shrinks in proportion to the peak, which takes off a little less
    than the bytes' share, since a window's mean is below its peak.
    """
    peak = window.peak_memory_bytes
    if held <= 0 or not isinstance(peak, Reading) or peak.value.value <= held:
        return window
    v = peak.value
    own = Interval(low=max(v.low - held, 0.0), value=v.value - held, high=v.high - held)
    share = own.value / v.value
    return replace(
        window,
        peak_memory_bytes=replace(peak, value=own, source=f"{peak.source}, {LESS_OTHERS}"),
        energy_j=tuple(_own_energy(e, share) for e in window.energy_j),
    )


def _own_energy(energy: Quantity, share: float) -> Quantity:
    counted = isinstance(energy, Reading) and energy.method is Method.COUNTER
    if energy.component is not Component.DRAM or counted:
        return energy
    return energy.scaled(share)
