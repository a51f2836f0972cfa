"""What a cascade says of itself: what each level did, what it costs, and whether it pays."""

from __future__ import annotations

from dataclasses import dataclass

from lichen.acceleration.break_even import LevelBalance


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelReport:
    """What one level did so far; ``failed`` counts errors, ``balance`` has costs and rates."""

    name: str
    attempts: int
    accepted: int
    escalated: int
    failed: int
    balance: LevelBalance
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeReport:
    """How a cascade does.

    Args:
        levels: from cheap to dear.
        state: ``on``; ``off`` when all but the last level are skipped; ``partly`` in between.
        unit: of the costs, ``CPU-s`` or ``s``.
    """

    levels: tuple[LevelReport, ...]
    state: str
    unit: str
