"""Idle baseline, energy net of idle, and remarks about disturbed windows.

``net = gross - idle power x wall time``, for components read by machine-wide counters. A modelled
component charges only our own work, so it has no idle part and stays as it is. Net energy answers
"what did the work add"; gross energy "what did the machine draw meanwhile": report both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lichen.core.errors import ConfigError
from lichen.core.interval import Interval
from lichen.core.measurement import Measurement, Method, Missing, Quantity, Reading
from lichen.core.ports import Meter

DRIFT_LIMIT: Final = 0.05
"""Idle power that moved more than this between two baselines makes the net energy doubtful."""

FOREIGN_LIMIT: Final = 0.10
"""Share of the CPUs that others may take before a window is called disturbed."""

_MACHINE_WIDE = frozenset({Method.WALL_METER, Method.COUNTER, Method.SAMPLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetOfIdle:
    """Energy above idle, per component; ``drift`` is the largest relative change of idle power.

    ``drift`` is None without a second baseline, or where nothing machine-wide was read.
    """

    energy_j: tuple[Quantity, ...]
    drift: float | None

    @property
    def drifted(self) -> bool:
        """Whether the baseline moved too much for the net figures to be trusted."""
        return self.drift is not None and self.drift > DRIFT_LIMIT


def idle_baseline(
    meter: Meter, seconds: float, *, sleep: Callable[[float], None] = time.sleep
) -> Measurement:
    """Measure the machine while this process sleeps for ``seconds`` (> 0; 10 or more is useful)."""
    if seconds <= 0:
        msg = f"an idle baseline needs a duration > 0 s, got {seconds:g}"
        raise ConfigError(msg)
    with meter.window("idle baseline") as window:
        sleep(seconds)
    return window.close()


def net_of_idle(
    gross: Measurement, before: Measurement, after: Measurement | None = None
) -> NetOfIdle:
    """Subtract the idle power of the baselines (their mean, if there are two) from a window."""
    powers_before = _idle_watts(before)
    powers_after = _idle_watts(after) if after is not None else {}
    net: list[Quantity] = []
    drifts: list[float] = []
    for energy in gross.energy_j:
        if isinstance(energy, Missing) or energy.method not in _MACHINE_WIDE:
            net.append(energy)
            continue
        watts = [
            p[energy.component] for p in (powers_before, powers_after) if energy.component in p
        ]
        net.append(_subtracted(energy, gross.wall_s, watts))
        if len(watts) == 2 and watts[0].value > 0:  # noqa: PLR2004 (before and after)
            drifts.append(abs(watts[1].value / watts[0].value - 1.0))
    return NetOfIdle(energy_j=tuple(net), drift=max(drifts, default=None))


def disturbances(m: Measurement, usable_cpus: int) -> tuple[str, ...]:
    """Return one sentence per reason to distrust a window: foreign load, stolen time."""
    if isinstance(m.wall_s, Missing) or m.wall_s.value.value <= 0 or usable_cpus < 1:
        return ()
    capacity = m.wall_s.value.value * usable_cpus
    found: list[str] = []
    for quantity, who in (
        (m.foreign_cpu_s, "other processes used"),
        (m.steal_s, "the hypervisor took"),
    ):
        if isinstance(quantity, Reading) and quantity.value.value > FOREIGN_LIMIT * capacity:
            share = quantity.value.value / capacity
            found.append(
                f"{who} {100 * share:.0f} % of the CPUs during this window: "
                "wall time and machine-wide energy are not ours alone"
            )
    return tuple(found)


def _idle_watts(idle: Measurement) -> dict[object, Interval]:
    if isinstance(idle.wall_s, Missing) or idle.wall_s.value.value <= 0:
        return {}
    seconds = idle.wall_s.value.value
    return {
        e.component: e.value * (1.0 / seconds)
        for e in idle.energy_j
        if isinstance(e, Reading) and e.method in _MACHINE_WIDE
    }


def _subtracted(energy: Reading, wall_s: Quantity, watts: list[Interval]) -> Quantity:
    component = energy.component
    if not watts or isinstance(wall_s, Missing):
        return Missing(reason=f"no idle baseline of {component}", component=component)
    mean = sum(w.value for w in watts) / len(watts)
    idle = Interval(low=min(w.low for w in watts), value=mean, high=max(w.high for w in watts))
    rest = energy.value - idle * wall_s.value.value
    if rest.value <= 0:
        return Missing(reason=f"{component}: not distinguishable from idle", component=component)
    return Reading(
        value=Interval(low=max(0.0, rest.low), value=rest.value, high=rest.high),
        method=energy.method,
        component=component,
        source=f"{energy.source}, net of idle",
    )
