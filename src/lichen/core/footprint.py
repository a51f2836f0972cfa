"""Priced measurements: factors that know their source, and the footprint they give.

The equations live in ``lichen.footprint``; here are only the values, so that records and reports
can carry them.
"""

from __future__ import annotations

from dataclasses import dataclass

from lichen.core.errors import UnknownNameError
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.value import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor(Value):
    """One number that turns a measurement into a footprint, with everything needed to audit it.

    ``name`` is dotted and unique in a set, e.g. ``grid.carbon_intensity``; ``region`` is an
    ISO 3166-1 alpha-3 code, ``WORLD`` or "" where it does not matter. ``year`` is the year that
    the value describes (0 when it is a definition).
    """

    name: str
    value: Interval
    unit: str
    year: int
    source: str
    licence: str
    region: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorSet(Value):
    """The factors chosen for one pricing, by name. ``region`` is the grid they stand for."""

    region: str
    factors: tuple[Factor, ...]

    def __getitem__(self, name: str) -> Factor:
        """Return the factor of that name; raises UnknownNameError."""
        for f in self.factors:
            if f.name == name:
                return f
        msg = f"no factor {name!r} in the set for {self.region}"
        raise UnknownNameError(msg)

    def replaced(self, factor: Factor) -> FactorSet:
        """Return the set with ``factor`` in place of the one of its name (or added)."""
        kept = tuple(f for f in self.factors if f.name != factor.name)
        return FactorSet(region=self.region, factors=(*kept, factor))


Priced = Interval | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """A measurement priced by a factor set.

    ``it_energy_j`` is what the machine drew, ``facility_energy_j`` that times PUE. Carbon is split
    into operational and embodied (g CO2e), water into on site and off site (L). ``cost`` is
    electricity plus, if a hardware rate is given, machine time, in ``currency``.
    """

    it_energy_j: Priced
    facility_energy_j: Priced
    operational_carbon_g: Priced
    embodied_carbon_g: Priced
    onsite_water_l: Priced
    offsite_water_l: Priced
    electricity_cost: Priced
    currency: str

    @property
    def carbon_g(self) -> Priced:
        """Operational plus embodied carbon in g CO2e; missing if either is."""
        return _sum(self.operational_carbon_g, self.embodied_carbon_g)

    @property
    def water_l(self) -> Priced:
        """On-site plus off-site water consumption in litres; missing if either is."""
        return _sum(self.onsite_water_l, self.offsite_water_l)


def _sum(a: Priced, b: Priced) -> Priced:
    if isinstance(a, Missing):
        return a
    if isinstance(b, Missing):
        return b
    return a + b
