"""How ``lichen estimate`` shows its answer: a table for people, a document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lichen.cli import console
from lichen.core.footprint import Factor, FactorSet, Footprint, Priced
from lichen.core.measurement import Missing
from lichen.footprint import (
    Estimate,
    Spread,
    equivalents,
    fallbacks,
    region_name,
    relevant,
)
from lichen.footprint.equivalents import telling


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One region's answer. ``hardware_cost`` is there when a rate was given."""

    factors: FactorSet
    footprint: Footprint
    hardware_cost: Priced | None
    spreads: tuple[Spread, ...]


def document(estimate: Estimate, rows: Sequence[Row]) -> dict[str, object]:
    """Return everything as one JSON-ready document."""
    return {
        "kind": "estimate",
        "method": "modelled",
        "what": estimate.what,
        "boundary": estimate.boundary,
        "equation": estimate.equation,
        "inputs": dict(estimate.inputs),
        "device": estimate.device,
        "device_count": estimate.count,
        "estimate_factors": estimate.factors,
        "regions": [_region_document(estimate, row) for row in rows],
    }


def _region_document(estimate: Estimate, row: Row) -> dict[str, object]:
    return {
        "region": row.factors.region,
        "footprint": row.footprint,
        "carbon_g": row.footprint.carbon_g,
        "water_l": row.footprint.water_l,
        "hardware_cost": row.hardware_cost,
        "uncertainty_5_95": [
            {
                "quantity": s.quantity,
                "interval": s.interval,
                "measurement_share": s.measurement_share,
                "factor_share": s.factor_share,
                "contributors": s.contributors,
            }
            for s in row.spreads
        ],
        "equivalents": telling(equivalents(row.footprint, row.factors)),
        "world_stands_in_for": fallbacks(row.factors),
        "factors": relevant(row.factors, device=estimate.device).factors,
    }


def show(estimate: Estimate, rows: Sequence[Row], *, published: bool) -> None:
    """Print a table of regions, then boundary, doubt, equivalents and factors."""
    title = f"{estimate.what}: {', '.join(f'{n} {v}' for n, v in estimate.inputs)}"
    console.show(f"[bold]{console.plain(title)}[/bold]")
    columns = ["region", ">energy", ">CO2e, power", ">CO2e, hardware", ">water", ">power bill"]
    if rows[0].hardware_cost is not None:
        columns.append(">machine cost")
    console.table(
        "", columns, [_cells(r) for r in rows], caption="modelled; low to high in brackets"
    )
    console.show(f"[bold]counted:[/bold] {console.plain(estimate.boundary)}")
    console.show(f"[bold]equation:[/bold] {console.plain(estimate.equation)}, x PUE")
    _show_doubt(rows)
    _show_equivalents(rows[0])
    _show_factors(estimate, rows)
    if published:
        _show_published(rows[0].factors)


def _cells(row: Row) -> list[str]:
    f = row.footprint
    cells = [
        console.plain(region_name(row.factors.region)),
        _amount(f.facility_energy_j, _ENERGY),
        _amount(f.operational_carbon_g, _MASS),
        _amount(f.embodied_carbon_g, _MASS),
        _amount(f.water_l, _VOLUME),
        _amount(f.electricity_cost, _MONEY),
    ]
    return cells if row.hardware_cost is None else [*cells, _amount(row.hardware_cost, _MONEY)]


def _show_doubt(rows: Sequence[Row]) -> None:
    for spread in rows[0].spreads:
        if spread.quantity == "carbon_g" and spread.top:
            share = dict(spread.contributors)[spread.top]
            top = {"energy_j": "the modelled energy", "wall_s": "the time"}.get(
                spread.top, spread.top
            )
            inside = _amount(spread.interval, _MASS, "  ")
            console.show(
                f"[bold]CO2e, median and 5 to 95 %:[/bold] {inside}; "
                f"most of the doubt: {console.plain(top)} ({share:.0%} of the variance)"
            )
    for row in rows:
        for name in fallbacks(row.factors):
            console.note(f"{row.factors.region}: no {name} of its own; the world's stands in")


def _show_equivalents(row: Row) -> None:
    found = telling(equivalents(row.footprint, row.factors))
    said = "; ".join(f"{_number(e.amount.value)} {e.what}" for e in found)
    if said:
        where = console.plain(region_name(row.factors.region))
        console.show(f"[bold]as much as[/bold] ({where}): {console.plain(said)}")


def _show_published(factors: FactorSet) -> None:
    console.show("[bold]published per query[/bold] (each with its own boundary):")
    for f in factors.factors:
        if f.name.startswith("query."):
            text = f"{f.value.value:g} Wh  {f.source}: {f.note}"
            console.show(f"  {console.plain(text)}")


def _show_factors(estimate: Estimate, rows: Sequence[Row]) -> None:
    used: dict[tuple[str, str], Factor] = {(f.name, f.region): f for f in estimate.factors}
    for row in rows:
        for f in relevant(row.factors, device=estimate.device).factors:
            used.setdefault((f.name, f.region), f)
    console.show("[bold]factors[/bold]")
    for f in used.values():
        spread = "" if f.value.is_exact else f" [{f.value.low:g} to {f.value.high:g}]"
        unit = "" if f.unit == "1" else f" {f.unit}"
        year = f", {f.year}" if f.year else ""
        name = f"{f.name} {f.region}".strip()
        text = f"{name} = {f.value.value:g}{spread}{unit}{year}: {f.source}"
        console.show(f"  {console.plain(text)}")


_ENERGY: Final = ((3.6e12, "GWh"), (3.6e9, "MWh"), (3.6e6, "kWh"), (3.6e3, "Wh"), (3.6, "mWh"))
_MASS: Final = ((1e6, "t"), (1e3, "kg"), (1.0, "g"), (1e-3, "mg"))
_VOLUME: Final = ((1e6, "ML"), (1e3, "m3"), (1.0, "L"), (1e-3, "mL"))
_MONEY: Final = ((1e6, "M USD"), (1e3, "k USD"), (1.0, "USD"), (1e-3, "mUSD"), (1e-6, "µUSD"))


def _amount(value: Priced, units: Sequence[tuple[float, str]], between: str = "\n") -> str:
    """Format an interval as markup, in the largest unit that its best estimate reaches."""
    if isinstance(value, Missing):
        return f"not known: {console.plain(value.reason)}"
    size, unit = next((u for u in units if value.value >= u[0]), units[-1])
    text = f"{_number(value.value / size, 4)} {unit}"
    if not value.is_exact:
        text += f"{between}[{_number(value.low / size)} to {_number(value.high / size)}]"
    return console.plain(text)


def _number(x: float, digits: int = 3) -> str:
    """Significant digits below 1,000, whole numbers above."""
    return f"{x:,.0f}" if abs(x) >= 999.5 else f"{x:#.{digits}g}".rstrip(".")  # noqa: PLR2004 (see above)
