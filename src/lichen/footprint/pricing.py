"""Price a measurement: the only place where energy and time meet factors.

What is missing in the measurement is missing in the footprint, with the same reason. Bounds flow
through by interval arithmetic. Pricing never changes the energy, so a stored measurement can be
priced again for any grid, year or facility without running anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.footprint import FactorSet, Footprint, Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Measurement, Missing
from lichen.core.registry import unknown
from lichen.footprint import equations
from lichen.footprint.equations import N
from lichen.footprint.selection import ONSITE, PUE
from lichen.footprint.table import GRID, OFFSITE, TARIFF

CURRENCY: Final = "USD"
ENERGY: Final = "energy_j"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """How a device class bears its manufacture.

    ``per_cpu``: the embodied factor is of one logical CPU, charged for CPU time. Otherwise it is
    of the whole device, charged for the window's wall time, or for the part of it that the
    window's CPU time is of all its logical CPUs, where their number is known (``divisible``).
    """

    embodied: str
    lifetime: str
    per_cpu: bool = False
    divisible: bool = False


DEVICES: Final[dict[str, Device]] = {
    "server share": Device(
        embodied="embodied.server_share", lifetime="lifetime.server", per_cpu=True
    ),
    "server": Device(embodied="embodied.server", lifetime="lifetime.server", divisible=True),
    "desktop": Device(embodied="embodied.desktop", lifetime="lifetime.desktop", divisible=True),
    "laptop": Device(embodied="embodied.laptop", lifetime="lifetime.laptop", divisible=True),
    "gpu host": Device(embodied="embodied.gpu_host", lifetime="lifetime.server"),
    "gpu": Device(embodied="embodied.gpu", lifetime="lifetime.gpu"),
    "h200": Device(embodied="embodied.h200", lifetime="lifetime.gpu"),
    "h100": Device(embodied="embodied.h100", lifetime="lifetime.gpu"),
    "a100": Device(embodied="embodied.a100", lifetime="lifetime.gpu"),
    "l4": Device(embodied="embodied.l4", lifetime="lifetime.gpu"),
    "rtx4090": Device(embodied="embodied.rtx4090", lifetime="lifetime.gpu"),
}
"""Device classes by name; ``a+b`` means both (a card and its place in a host)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What the work ran on: device classes joined with ``+``, how many, of how many logical CPUs.

    ``count`` may be a fraction (a card shared by a batch). ``logical_cpus`` divides a laptop,
    desktop or server by the CPU time that was used; None charges the whole machine.
    """

    device: str = "server share"
    count: float = 1.0
    logical_cpus: int | None = None

    def __post_init__(self) -> None:
        """Refuse unknown classes and impossible numbers."""
        for name in self.names:
            if name not in DEVICES:
                raise UnknownNameError(unknown("device class", name, list(DEVICES)))
        if self.count < 0 or (self.logical_cpus is not None and self.logical_cpus < 1):
            raise ConfigError("a device count is >= 0 and a number of logical CPUs >= 1")

    @property
    def names(self) -> tuple[str, ...]:
        """The device classes."""
        return tuple(part.strip() for part in self.device.split("+"))

    def clock(self, device: Device) -> tuple[Literal["cpu_s", "wall_s"], float]:
        """Say which time a device is charged for, and the share of the device.

        With ``share = cpu_s / (wall_s x cpus)`` of a machine, ``wall_s x share`` is
        ``cpu_s / cpus``: wall time cancels, so a busy neighbour does not change the charge.
        """
        if device.per_cpu:
            return "cpu_s", self.count
        if device.divisible and self.logical_cpus is not None:
            return "cpu_s", self.count / self.logical_cpus
        return "wall_s", self.count


def price(
    m: Measurement,
    factors: FactorSet,
    *,
    device: str = "server share",
    count: float = 1.0,
    logical_cpus: int | None = None,
) -> Footprint:
    """Price one window.

    Args:
        m: the window; ``it_energy_j``, ``wall_s`` and ``cpu_s`` are used.
        factors: from ``factor_set``.
        device: class or classes (``h100+gpu host``) that bear embodied carbon; see ``DEVICES``.
        count: how many of each, >= 0; may be a fraction.
        logical_cpus: of the machine, so that a laptop, desktop or server bears only the share
            ``cpu_s / (wall_s x logical_cpus)``; None charges all of it for ``wall_s``.

    Raises:
        UnknownNameError: no such device class, or the set lacks a factor.
        ConfigError: a negative count or no CPUs.
    """
    hardware = Hardware(device=device, count=count, logical_cpus=logical_cpus)
    embodied = _embodied(m, factors, hardware)
    energy = m.it_energy_j
    if isinstance(energy, Missing):
        gone = Missing(reason=energy.reason)
        return Footprint(
            it_energy_j=gone,
            facility_energy_j=gone,
            operational_carbon_g=gone,
            embodied_carbon_g=embodied,
            onsite_water_l=gone,
            offsite_water_l=gone,
            electricity_cost=gone,
            currency=CURRENCY,
        )
    given = {name: factors[name].value for name in (PUE, GRID, ONSITE, OFFSITE, TARIFF)}
    result = operational({ENERGY: energy.value, **given})
    return Footprint(
        it_energy_j=energy.value,
        facility_energy_j=result["facility_energy_j"],
        operational_carbon_g=result["operational_carbon_g"],
        embodied_carbon_g=embodied,
        onsite_water_l=result["onsite_water_l"],
        offsite_water_l=result["offsite_water_l"],
        electricity_cost=result["electricity_cost"],
        currency=CURRENCY,
    )


def operational(x: Mapping[str, N]) -> dict[str, N]:
    """Wire the equations that need energy; keys of ``x`` are factor names and ``energy_j``."""
    facility = equations.facility_energy_j(x[ENERGY], x[PUE])
    return {
        "facility_energy_j": facility,
        "operational_carbon_g": equations.operational_carbon_g(facility, x[GRID]),
        "onsite_water_l": equations.onsite_water_l(x[ENERGY], x[ONSITE]),
        "offsite_water_l": equations.offsite_water_l(facility, x[OFFSITE]),
        "electricity_cost": equations.electricity_cost(facility, x[TARIFF]),
    }


def embodied_parts(x: Mapping[str, N], hardware: Hardware) -> list[N]:
    """Wire the embodied equation per device; keys are factor names, ``wall_s`` and ``cpu_s``."""
    parts = []
    for name in hardware.names:
        d = DEVICES[name]
        clock, share = hardware.clock(d)
        parts.append(equations.embodied_carbon_g(x[d.embodied], x[clock], x[d.lifetime], share))
    return parts


def times(m: Measurement, hardware: Hardware) -> dict[str, Interval] | Missing:
    """The times that embodied carbon needs, or why one of them is missing."""
    found: dict[str, Interval] = {}
    for name in hardware.names:
        clock, _ = hardware.clock(DEVICES[name])
        quantity = getattr(m, clock)
        if isinstance(quantity, Missing):
            return Missing(reason=f"{clock}: {quantity.reason}")
        found[clock] = quantity.value
    return found


def embodied_factors(factors: FactorSet, hardware: Hardware) -> dict[str, Interval]:
    """The embodied and lifetime factors of the hardware, by name."""
    names = [n for d in hardware.names for n in (DEVICES[d].embodied, DEVICES[d].lifetime)]
    return {name: factors[name].value for name in names}


def relevant(factors: FactorSet, *, device: str = "server share") -> FactorSet:
    """Return only the factors that ``price`` uses for this device, in the order of the page."""
    devices = [DEVICES[name] for name in Hardware(device=device).names]
    names = [GRID, PUE, ONSITE, OFFSITE, TARIFF]
    names += [n for d in devices for n in (d.embodied, d.lifetime)]
    return FactorSet(region=factors.region, factors=tuple(factors[n] for n in dict.fromkeys(names)))


def _embodied(m: Measurement, factors: FactorSet, hardware: Hardware) -> Priced:
    clocks = times(m, hardware)
    if isinstance(clocks, Missing):
        return clocks
    parts = embodied_parts({**embodied_factors(factors, hardware), **clocks}, hardware)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
