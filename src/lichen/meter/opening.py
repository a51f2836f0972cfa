"""Opening a meter with the probes of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from lichen.meter.power import PowerModel
from lichen.meter.probes import PROBES
from lichen.meter.setting import Setting
from lichen.meter.windows import ProbeMeter


def open_meter(
    *,
    interval_s: float = 1.0,
    probes: Sequence[str] | None = None,
    power_model: PowerModel | None = None,
    clock: Callable[[], float] = time.monotonic,
    setting: Setting | None = None,
) -> ProbeMeter:
    """Return a meter over the named probes, or over all registered ones.

    Args:
        interval_s: seconds between two looks of the sampler, 0.02 to 60.
        probes: registry names; their order breaks ties on the ladder.
        power_model: watts for components without a counter (default: 2-8 W per busy core).
        clock: monotonic seconds.
        setting: replaces ``power_model`` and ``clock`` as a whole, for tests.

    Raises:
        ConfigError: the interval is out of range, or a probe's name is unknown.
    """
    where = setting or Setting.here(clock=clock, power_model=power_model)
    names = PROBES.names() if probes is None else tuple(probes)
    return ProbeMeter(
        [PROBES.get(name)(where) for name in names], interval_s=interval_s, clock=where.clock
    )
