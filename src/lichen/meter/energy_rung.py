"""The energy ladder in words: which rung each component stands on here, and how far to trust it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lichen.core.measurement import Component, Method
from lichen.core.ports import ProbeStatus
from lichen.meter.ladder import targets

_TRUST: Mapping[Method, str] = {
    Method.WALL_METER: "Joules are measured at the wall: quote them.",
    Method.COUNTER: (
        "Joules come from hardware counters of the whole machine: keep it quiet, and quote them "
        "with their interval."
    ),
    Method.SAMPLED: "Joules come from sampled power: use windows of many seconds.",
    Method.CALIBRATED: "Joules come from a model calibrated on this machine: quote the range.",
    Method.MODELLED: (
        "Joules are a model's range, not a measurement: compare solutions on this machine by them "
        "(the watts cancel in a ratio), and never quote them without the range."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyRung:
    """The rung per component (None where nothing can be had) and the sentence that sums it up."""

    components: tuple[tuple[Component, Method | None], ...]
    sentence: str


def energy_rung(statuses: Iterable[ProbeStatus]) -> EnergyRung:
    """Return the best available rung of every energy component, and what it means."""
    best: dict[Component, Method | None] = {}
    for status in statuses:
        for target in targets(status.quantity):
            if target.field == "energy_j":
                known = best.get(target.component)
                mine = status.method if status.available else None
                if mine is None or (known is not None and known.rung <= mine.rung):
                    mine = known
                best[target.component] = mine
    components = tuple((c, best[c]) for c in Component if c in best)
    had = [m for _, m in components if m is not None]
    if not had:
        sentence = "No energy can be measured or modelled here."
    else:
        parts = ", ".join(f"{c} {m or 'not available'}" for c, m in components)
        sentence = f"Energy here: {parts}. {_TRUST[max(had, key=lambda m: m.rung)]}"
    return EnergyRung(components=components, sentence=sentence)
