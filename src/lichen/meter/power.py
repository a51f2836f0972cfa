"""The power model: joules from busy CPU-seconds and used memory, where no counter can be read.

::

    E_cpu  = CPU-seconds of our processes x watt per busy core
    E_dram = integral of resident GB over time x watt per GB

It charges what *our* work adds, not the machine's idle power, and is a range by nature: compare
solutions on one machine with it (the watts cancel in a ratio), do not quote it without the range.
"""

from __future__ import annotations

from dataclasses import dataclass

from lichen.core.errors import ConfigError
from lichen.core.interval import Interval
from lichen.core.measurement import Method

WATT_PER_BUSY_CORE = Interval(low=2.0, value=4.0, high=8.0)
# Vendors' TDP: EPYC 9654 360 W / 96 cores = 3.8, EPYC 7763 280 / 64 = 4.4, Xeon 8480+ 350 / 56 =
# 6.3 W a core. Half of that where both threads of a core are busy, more for one busy core at turbo.
# The value is the geometric mean of the bounds.

WATT_PER_GB = Interval(low=0.3, value=0.375, high=0.4)
# 3 W per 8 GB (the rule CodeCarbon and eco2AI used) = 0.375; Cloud Carbon Footprint methodology,
# memory: 0.000392 kWh per GB-hour = 0.392 W.

TDP_SPREAD = 2.0
"""A TDP share is right within a factor of two: Fischer 2025 (arXiv 2509.22092) finds up to 40 %
error for TDP models on known hardware; shared cores and turbo add to it."""

BYTES_PER_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """Watts per busy core and per GB in use, each a range; ``method`` says how they were got.

    Raises:
        ConfigError: a watt figure is negative.
    """

    watt_per_core: Interval = WATT_PER_BUSY_CORE
    watt_per_gb: Interval = WATT_PER_GB
    method: Method = Method.MODELLED
    source: str = "power model, 2-8 W per busy core"
    dram_source: str = "power model, 0.3-0.4 W per GB in use"

    def __post_init__(self) -> None:
        """Refuse negative watts."""
        if min(self.watt_per_core.low, self.watt_per_gb.low) < 0:
            msg = f"watts cannot be negative: {self.watt_per_core}, {self.watt_per_gb}"
            raise ConfigError(msg)

    @classmethod
    def from_tdp(cls, tdp_w: float, logical_cpus: int) -> PowerModel:
        """Spread a processor's TDP (W, > 0) over its hardware threads, within a factor of two."""
        if tdp_w <= 0 or logical_cpus < 1:
            msg = f"a TDP needs watts > 0 and CPUs >= 1, got {tdp_w} W over {logical_cpus}"
            raise ConfigError(msg)
        w = tdp_w / logical_cpus
        return cls(
            watt_per_core=Interval(low=w / TDP_SPREAD, value=w, high=w * TDP_SPREAD),
            source=f"TDP {tdp_w:g} W over {logical_cpus} CPUs, within a factor of 2",
        )

    @classmethod
    def calibrated(cls, watt_per_core: Interval, *, against: str) -> PowerModel:
        """Use watts fitted against a meter; ``against`` names it, e.g. "wall meter, 2 h"."""
        return cls(
            watt_per_core=watt_per_core,
            method=Method.CALIBRATED,
            source=f"calibrated against {against}",
        )

    def cpu_j(self, cpu_s: Interval) -> Interval:
        """Energy of busy CPU-seconds, in J."""
        return cpu_s * self.watt_per_core

    def dram_j(self, byte_seconds: float) -> Interval:
        """Energy of memory held over time (bytes x s), in J."""
        return self.watt_per_gb * (byte_seconds / BYTES_PER_GB)
