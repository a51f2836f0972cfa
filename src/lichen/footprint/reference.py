"""Write the factor table of the documentation from the factor files, so that it cannot go stale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lichen.core.footprint import Factor
from lichen.footprint.regions import region_name
from lichen.footprint.table import load_factors

_HEAD: Final = """\
# Factors

Every number that turns joules and seconds into carbon, water and money. This page is generated
from `src/lichen/footprint/data/*.csv` by `lichen.footprint.reference.render`; a test fails
when it is not current. How factors are used, and how to bring your own, is in
[methodology](../explanation/methodology.md).

Licence: `CC-BY-4.0` data of Ember, Our World in Data and the World Resources Institute are
redistributed with attribution; `fact, cited` marks a single published number that is quoted;
`CC0-1.0` marks definitions and assumptions of our own. Range: low to high.
"""

_TITLES: Final = {
    "grid": "Grid carbon intensity",
    "water": "Water per kWh of electricity (off site)",
    "tariff": "Electricity tariffs",
    "site": "Facilities: PUE and on-site water",
    "embodied": "Embodied carbon",
    "lifetime": "Lifetimes",
    "power": "Device power",
    "peak_flops": "Device peak",
    "bandwidth": "Device memory bandwidth",
    "training": "Training estimates",
    "inference": "Inference estimates",
    "query": "Published energy per query",
    "equivalent": "Equivalents",
}


def render(rows: Sequence[Factor] | None = None) -> str:
    """Return the Markdown page of these factors (default: the built-in ones), by family."""
    rows = load_factors() if rows is None else rows
    parts = [_HEAD]
    for family, title in _TITLES.items():
        members = [f for f in rows if f.name.split(".")[0] == family]
        if members:
            parts.append(f"## {title}\n\n{_table(members)}\n")
    return "\n".join(parts)


def _table(members: Sequence[Factor]) -> str:
    lines = [
        "| factor | region | value | range | unit | year | source | licence | note |",
        "|---|---|--:|---|---|--:|---|---|---|",
    ]
    lines += [
        f"| `{f.name}` | {_region(f)} | {f.value.value:g} | {f.value.low:g} to {f.value.high:g} "
        f"| {f.unit} | {f.year or '-'} | {_cell(f.source)} | {f.licence} | {_cell(f.note)} |"
        for f in members
    ]
    return "\n".join(lines)


def _region(f: Factor) -> str:
    return f"{f.region} ({region_name(f.region)})" if f.region else "-"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
