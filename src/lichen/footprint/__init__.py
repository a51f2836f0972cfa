"""Price a measurement: carbon, water and money from joules and seconds, with sourced factors.

``factor_set`` chooses factors for a place, a year and a facility; ``price`` applies them to a
``Measurement`` by small equations (``equations``); ``uncertainty`` splits the doubt between what
was measured and what was looked up; ``break_even`` says when a preparation repays itself;
``estimate_training``, ``estimate_inference`` and ``estimate_query`` model what was not run here.
The methodology page derives and sources everything. Nothing here measures.
"""

from __future__ import annotations

from lichen.footprint.equivalents import Equivalent, equivalents
from lichen.footprint.estimates import Estimate, estimate_query, estimate_training
from lichen.footprint.inference import estimate_inference
from lichen.footprint.payback import BreakEven, break_even
from lichen.footprint.pricing import DEVICES, price, relevant
from lichen.footprint.regions import region_code, region_codes, region_name
from lichen.footprint.selection import facility_profiles, factor_set, fallbacks, override
from lichen.footprint.spread import Spread, uncertainty
from lichen.footprint.table import load_factors

__all__ = [
    "DEVICES",
    "BreakEven",
    "Equivalent",
    "Estimate",
    "Spread",
    "break_even",
    "equivalents",
    "estimate_inference",
    "estimate_query",
    "estimate_training",
    "facility_profiles",
    "factor_set",
    "fallbacks",
    "load_factors",
    "override",
    "price",
    "region_code",
    "region_codes",
    "region_name",
    "relevant",
    "uncertainty",
]
