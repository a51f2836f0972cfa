"""Where the doubt comes from: Monte Carlo over a pricing, split into measurement and factors.

Every input with a range is drawn from a triangular distribution over (low, value, high), inputs
independent of each other: the least one can assume of a best estimate with bounds. The interval
is the 5th to 95th percentile and lies inside the one from interval arithmetic. A contributor's
share is the variance when it alone is drawn and all others stay at their best estimate, over the
sum of these (first order; shares add up to 1).

For the ratio of two solutions on one machine factors cancel; this module is not for that.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lichen.core.errors import ConfigError
from lichen.core.footprint import FactorSet
from lichen.core.interval import Interval
from lichen.core.measurement import Measurement, Missing
from lichen.footprint.pricing import (
    ENERGY,
    Hardware,
    embodied_factors,
    embodied_parts,
    operational,
    times,
)
from lichen.footprint.selection import ONSITE, PUE
from lichen.footprint.table import GRID, OFFSITE, TARIFF

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Draws = NDArray[np.float64]
    Model = Callable[[Mapping[str, Draws]], dict[str, Draws]]

MEASURED: Final = frozenset({ENERGY, "wall_s", "cpu_s"})
MOST_DRAWS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The distribution of one priced quantity.

    ``interval`` is (5 %, median, 95 %). ``contributors`` are (input, share of the first-order
    variance), largest first, empty where nothing varies.
    """

    quantity: str
    interval: Interval
    contributors: tuple[tuple[str, float], ...]

    @property
    def measurement_share(self) -> float:
        """The part of the variance that comes from what was measured, 0..1."""
        return sum(share for name, share in self.contributors if name in MEASURED)

    @property
    def factor_share(self) -> float:
        """The part of the variance that comes from factors, 0..1."""
        return sum(share for name, share in self.contributors if name not in MEASURED)

    @property
    def top(self) -> str:
        """The largest contributor, or "" where nothing varies."""
        return self.contributors[0][0] if self.contributors else ""


def uncertainty(
    m: Measurement,
    factors: FactorSet,
    *,
    device: str = "server share",
    count: float = 1.0,
    logical_cpus: int | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[Spread, ...] | Missing:
    """Draw a pricing many times.

    Args:
        m: the window, as for ``price``; the next four are also as there.
        factors: from ``factor_set``.
        device: class or classes that bear embodied carbon.
        count: how many of each.
        logical_cpus: of the machine.
        draws: number of draws, 100 to a million.
        seed: of the generator; each input has its own stream, so adding one moves no other.

    Returns:
        A spread for facility_energy_j, carbon_g, water_l and electricity_cost, or Missing with
        the reason where the energy or a time is missing.

    Raises:
        ConfigError: a bound is infinite, or ``draws`` out of range.
        UnknownNameError: no such device class.
    """
    if not 100 <= draws <= MOST_DRAWS:  # noqa: PLR2004 (percentiles of fewer mean nothing)
        raise ConfigError(f"draws must be between 100 and {MOST_DRAWS:,}, got {draws}")
    hardware = Hardware(device=device, count=count, logical_cpus=logical_cpus)
    energy, clocks = m.it_energy_j, times(m, hardware)
    if isinstance(energy, Missing):
        return energy
    if isinstance(clocks, Missing):
        return clocks
    inputs = {name: factors[name].value for name in (PUE, GRID, ONSITE, OFFSITE, TARIFF)}
    inputs |= {ENERGY: energy.value, **clocks, **embodied_factors(factors, hardware)}

    def model(x: Mapping[str, Draws]) -> dict[str, Draws]:
        r = operational(x)
        embodied = embodied_parts(x, hardware)
        carbon = r["operational_carbon_g"]
        for part in embodied:
            carbon = carbon + part
        return {
            "facility_energy_j": r["facility_energy_j"],
            "carbon_g": carbon,
            "water_l": r["onsite_water_l"] + r["offsite_water_l"],
            "electricity_cost": r["electricity_cost"],
        }

    return _spreads(inputs, model, draws=draws, seed=seed)


def _spreads(
    inputs: Mapping[str, Interval], model: Model, *, draws: int, seed: int
) -> tuple[Spread, ...]:
    import numpy as np

    drawn = {name: _draw(name, interval, draws, seed) for name, interval in inputs.items()}
    best = {name: np.full(draws, interval.value) for name, interval in inputs.items()}
    together = model(drawn)
    alone = {
        name: model({**best, name: drawn[name]})
        for name, interval in inputs.items()
        if not interval.is_exact
    }
    spreads = []
    for quantity, values in together.items():
        low, middle, high = (float(v) for v in np.percentile(values, (5, 50, 95)))
        parts = {name: float(np.var(result[quantity])) for name, result in alone.items()}
        # An input the quantity does not depend on still has variance of the order of rounding.
        noise = 1e-24 * max(middle * middle, 1e-300)
        real = {name: variance for name, variance in parts.items() if variance > noise}
        total = sum(real.values())
        shares = sorted(((n, v / total) for n, v in real.items()), key=lambda s: (-s[1], s[0]))
        interval = Interval(low=low, value=middle, high=high)
        spreads.append(Spread(quantity=quantity, interval=interval, contributors=tuple(shares)))
    return tuple(spreads)


def _draw(name: str, interval: Interval, draws: int, seed: int) -> Draws:
    import numpy as np

    if interval.is_exact:
        return np.full(draws, interval.value)
    if not np.isfinite(interval.high):
        raise ConfigError(f"{name} has an infinite bound, so it cannot be drawn")
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.triangular(interval.low, interval.value, interval.high, size=draws)
