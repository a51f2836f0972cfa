"""Amounts that people know: a web search, a charged telephone, a glass of water, a Dane's year."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lichen.core.footprint import Factor, FactorSet, Footprint, Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.units import G_PER_T, J_PER_KWH, J_PER_WH


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalent:
    """``amount`` times ``what``; ``factor`` says by which number and whose."""

    amount: Interval
    what: str
    factor: Factor


_ENERGY: Final = (
    ("query.google_search_2009", J_PER_WH, "web searches (Google's figure of 2009)"),
    ("query.chatgpt_2023", J_PER_WH, "ChatGPT queries (an estimate for 2023)"),
    ("equivalent.phone_charge", J_PER_WH, "charges of a telephone"),
    ("equivalent.led_hour", J_PER_WH, "hours of a LED lamp"),
    ("equivalent.dane_electricity", J_PER_KWH, "years of a Dane's electricity"),
)
_CARBON: Final = (
    ("equivalent.car_km", 1.0, "km by car"),
    ("equivalent.dane_carbon", G_PER_T, "years of a Dane's emissions"),
)
_WATER: Final = (("equivalent.glass_water", 1.0, "glasses of water"),)


def equivalents(footprint: Footprint, factors: FactorSet) -> tuple[Equivalent, ...]:
    """Return every equivalence of the facility energy, the carbon and the water that are known.

    Nothing comes of a missing quantity. Which to show is the caller's choice; ``telling`` picks.
    """
    groups: tuple[tuple[Priced, tuple[tuple[str, float, str], ...]], ...] = (
        (footprint.facility_energy_j, _ENERGY),
        (footprint.carbon_g, _CARBON),
        (footprint.water_l, _WATER),
    )
    found = []
    for amount, table in groups:
        if isinstance(amount, Missing):
            continue
        for name, unit, what in table:
            factor = factors[name]
            found.append(
                Equivalent(amount=amount / (factor.value * unit), what=what, factor=factor)
            )
    return tuple(found)


def telling(found: tuple[Equivalent, ...]) -> tuple[Equivalent, ...]:
    """Keep the equivalences with a number that one can picture, 0.1 to 100,000."""
    return tuple(e for e in found if 0.1 <= e.amount.value <= 1e5)  # noqa: PLR2004 (see above)
