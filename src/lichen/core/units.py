"""Unit constants: the only place in lichen where they exist.

Domain values are SI with the unit in the name (``energy_j``, ``time_s``, ``carbon_g``,
``memory_bytes``, ``water_l``); kWh and kg appear at the edges (factor files, reports) and are
converted with these constants.
"""

from __future__ import annotations

from typing import Final

J_PER_WH: Final = 3600.0
"""Joules in one watt-hour (exact, by definition of the hour)."""

J_PER_KWH: Final = 3_600_000.0
"""Joules in one kilowatt-hour."""

G_PER_KG: Final = 1000.0
G_PER_T: Final = 1_000_000.0
S_PER_HOUR: Final = 3600.0
HOURS_PER_YEAR: Final = 8760.0
"""Hours in a common year (365 days), the convention of the SCI specification's examples."""

BYTES_PER_KIB: Final = 1024
BYTES_PER_MIB: Final = 1024**2
BYTES_PER_GIB: Final = 1024**3
UJ_PER_J: Final = 1_000_000
"""RAPL's powercap files count microjoules."""

MJ_PER_J: Final = 1000
"""NVML counts millijoules."""
