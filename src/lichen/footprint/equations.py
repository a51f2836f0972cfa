"""The equations of a footprint. Each takes plain numbers, intervals or arrays of draws alike.

::

    E_facility = PUE x E_it
    C_op       = E_facility x I
    M          = TE x (busy time / lifetime) x share          (SCI, ISO/IEC 21031:2024)
    W          = E_it x (WUE_on + PUE x EWIF)                 (Li et al., arXiv 2304.03271)
    cost       = E_facility x tariff

WUE is defined per kWh of *IT* energy, so it is not multiplied by PUE; water at the power plant is
spent for everything the facility draws, so EWIF is. Energies are joules, times seconds; factors
keep the units of the factor file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lichen.core.interval import Interval
from lichen.core.units import G_PER_KG, HOURS_PER_YEAR, J_PER_KWH, S_PER_HOUR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

N = TypeVar("N", float, Interval, "NDArray[np.float64]")


def facility_energy_j(it_energy_j: N, pue: N) -> N:
    """Energy that the building draws: IT energy (J) times PUE (>= 1)."""
    return it_energy_j * pue


def operational_carbon_g(facility_energy: N, grid_g_per_kwh: N) -> N:
    """Carbon of the electricity in g CO2e, location-based: J / J_PER_KWH x g/kWh."""
    return facility_energy / J_PER_KWH * grid_g_per_kwh


def embodied_carbon_g(total_kg: N, time_s: N, lifetime_years: N, share: float = 1.0) -> N:
    """The part of a device's manufacture that this use bears, in g CO2e (SCI).

    ``time_s`` is how long the device was used, ``share`` (>= 0) the part of it, or the number of
    such devices. A year has 8,760 hours.
    """
    lifetime_s = lifetime_years * (HOURS_PER_YEAR * S_PER_HOUR)
    return total_kg * (G_PER_KG * share) * time_s / lifetime_s


def onsite_water_l(it_energy_j: N, wue_l_per_kwh: N) -> N:
    """Water evaporated to cool the IT, in litres: per IT kWh, by the definition of WUE."""
    return it_energy_j / J_PER_KWH * wue_l_per_kwh


def offsite_water_l(facility_energy: N, ewif_l_per_kwh: N) -> N:
    """Water consumed in making the electricity that the facility draws, in litres."""
    return facility_energy / J_PER_KWH * ewif_l_per_kwh


def electricity_cost(facility_energy: N, tariff_per_kwh: N) -> N:
    """Price of the electricity, in the tariff's currency."""
    return facility_energy / J_PER_KWH * tariff_per_kwh


def machine_cost(time_s: N, rate_per_hour: N, share: float = 1.0) -> N:
    """Price of rented or written-off hardware, in the rate's currency: hours x rate x share."""
    return time_s / S_PER_HOUR * rate_per_hour * share
