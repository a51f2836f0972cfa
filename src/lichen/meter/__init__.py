"""Windows over counters: what work cost, by which method, and what could not be measured.

::

    with open_meter() as meter, meter.window("decode") as window:
        ...
    measurement = window.close()

Does not price energy (``lichen.footprint``) and does not choose what to run. See
``docs/explanation/metering.md``.
"""

from __future__ import annotations

from lichen.meter.baseline import NetOfIdle, disturbances, idle_baseline, net_of_idle
from lichen.meter.engine_counters import engine_counters
from lichen.meter.environment import capture
from lichen.meter.opening import open_meter
from lichen.meter.power import PowerModel
from lichen.meter.probes import PROBES
from lichen.meter.windows import ProbeMeter, ProbeWindow

__all__ = [
    "PROBES",
    "NetOfIdle",
    "PowerModel",
    "ProbeMeter",
    "ProbeWindow",
    "capture",
    "disturbances",
    "engine_counters",
    "idle_baseline",
    "net_of_idle",
    "open_meter",
]
