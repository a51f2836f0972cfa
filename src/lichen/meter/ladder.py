"""From probes' answers to one measurement: per quantity the best available rung wins.

The ladder is the order of ``Method``; at equal rungs the earlier probe wins. An energy reading of
the whole system (a wall meter) contains the components, so it replaces them instead of being added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from lichen.core.measurement import Component, Measurement, Missing, Quantity, Reading

Answer = tuple[str, Quantity]
_TARGET = re.compile(r"(\w+)(?:\[(\w+)\])?")
_FIELDS = frozenset(f.name for f in fields(Measurement)) - {"usage", "energy_j"}


@dataclass(frozen=True, slots=True)
class Target:
    """A measurement field that a probe feeds, and the component if the field is ``energy_j``."""

    field: str
    component: Component


def targets(quantity: str) -> tuple[Target, ...]:
    """Read ``ProbeStatus.quantity``: ``"energy_j[cpu], energy_j[dram]"`` or ``"cpu_s"``."""
    return tuple(
        Target(field, Component(component) if component else Component.PROCESS)
        for field, component in _TARGET.findall(quantity)
    )


def assemble(answers: Iterable[Answer]) -> Measurement:
    """Build the measurement; fields that no probe feeds keep "not asked for in this window"."""
    best: dict[tuple[str, Component | None], Quantity] = {}
    for field, quantity in answers:
        if field != "energy_j" and field not in _FIELDS:
            continue  # a plug-in's own quantity, which the vocabulary does not have
        key = (field, quantity.component if field == "energy_j" else None)
        known = best.get(key)
        best[key] = quantity if known is None else better(known, quantity)
    energies = tuple(q for (field, _), q in best.items() if field == "energy_j")
    plain: dict[str, Any] = {field: q for (field, _), q in best.items() if field != "energy_j"}
    return replace(Measurement(**plain), energy_j=_without_parts(energies))


def better(a: Quantity, b: Quantity) -> Quantity:
    """Return the one on the higher rung; a reading beats a reason, the first wins a tie."""
    if isinstance(b, Missing):
        return a
    if isinstance(a, Missing):
        return b
    return a if a.method.rung <= b.method.rung else b


def _without_parts(energies: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
    whole = tuple(e for e in energies if e.component is Component.SYSTEM and isinstance(e, Reading))
    return whole or energies
