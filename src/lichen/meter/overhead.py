"""What metering itself costs here: shown by ``lichen doctor``, tracked by a benchmark."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from lichen.meter.process_tree import MAX_AGE_S
from lichen.meter.windows import ProbeMeter


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """``sampler_core_share`` is a fraction of one core; the others are medians, in s."""

    sampler_core_share: float
    open_s: float
    close_s: float
    windows: int


def measure_overhead(
    meter: ProbeMeter,
    seconds: float,
    *,
    windows: int = 50,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Overhead:
    """Hold a window open for ``seconds`` (> 0), then time ``windows`` (> 0) short ones."""
    used, began = meter.sampler_cpu_s, clock()
    with meter.window("meter overhead"):
        sleep(seconds)
    share = (meter.sampler_cpu_s - used) / max(clock() - began, seconds)
    opens: list[float] = []
    closes: list[float] = []
    for _ in range(windows):
        a = clock()
        window = meter.window("overhead")
        opens.append(clock() - a)
        sleep(2 * MAX_AGE_S)  # later, so that a look at the process tree is not shared
        b = clock()
        window.close()
        closes.append(clock() - b)
        sleep(2 * MAX_AGE_S)
    return Overhead(
        sampler_core_share=share,
        open_s=statistics.median(opens),
        close_s=statistics.median(closes),
        windows=windows,
    )
