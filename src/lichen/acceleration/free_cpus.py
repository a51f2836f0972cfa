"""How many CPUs are free now: the most threads that may spin without stealing from each other.

llama.cpp's threads wait for each other at every layer by spinning. A thread that shares its core
with another process keeps all the others spinning for it: with one busy process beside two
threads on two cores, decoding used 2.7 times the CPU of one thread (measured here).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from lichen.core.measurement import Missing
from lichen.core.ports import Meter

TOLERANCE: Final = 0.25
"""A core that others keep busy for less than this share of the time counts as free."""


def free_cpus(
    meter: Meter,
    usable_cpus: int,
    *,
    seconds: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Look at the machine for ``seconds`` and return the free CPUs, 1 to ``usable_cpus``.

    Where the load of others cannot be read, all usable CPUs count as free.

    Args:
        meter: its windows give ``foreign_cpu_s`` and ``steal_s``.
        usable_cpus: CPUs that this process may use, >= 1.
        seconds: how long to look, > 0; the counters tick 100 times a second.
        sleep: waits.
    """
    if usable_cpus < 1 or seconds <= 0:
        msg = f"needs at least one CPU and a duration > 0 s, got {usable_cpus} and {seconds:g}"
        raise ValueError(msg)
    with meter.window("load of others") as window:
        sleep(seconds)
    seen = window.close()
    if isinstance(seen.wall_s, Missing) or seen.wall_s.value.value <= 0:
        return usable_cpus
    taken = [
        q.value.value for q in (seen.foreign_cpu_s, seen.steal_s) if not isinstance(q, Missing)
    ]
    busy = sum(taken) / seen.wall_s.value.value
    return max(1, min(usable_cpus, math.floor(usable_cpus - busy + TOLERANCE)))
