"""Run the checks in order, cheapest first, and stop where going on would tell nothing more.

A file that is damaged is never given to an engine. At the levels that decide, a child that already
failed a cheap check is not given to the expensive ones either, since they take minutes and cannot
change the verdict; ``report`` runs all that can be run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lichen.compression.gate.levels import THRESHOLDS, Level, Thresholds
from lichen.compression.gate.ports import GatePorts
from lichen.compression.gate.report import Check, GateReport
from lichen.compression.gate.subject import Subject, not_run
from lichen.core.errors import LichenError
from lichen.core.registry import Registry

CheckFunction = Callable[[Subject], Check]

CHECKS: Registry[CheckFunction] = Registry(
    "check of the gate",
    "lichen.gate_checks",
    {
        "structure": "lichen.compression.gate.structure:check",
        "weights": "lichen.compression.gate.weights:check",
        "tokenizer": "lichen.compression.gate.tokenizer:check",
        "chat_template": "lichen.compression.gate.chat_template:check",
        "agreement": "lichen.compression.gate.agreement:check",
        "cost": "lichen.compression.gate.cost:check",
        "quality": "lichen.compression.gate.quality:check",
        "answers": "lichen.compression.gate.answers:check",
        "metamorphic": "lichen.compression.gate.metamorphic:check",
    },
)
"""Check name -> function of the subject."""

FIRST = ("structure",)
"""A file that fails here is damaged: nothing else is run."""

CHEAP = ("weights", "tokenizer", "chat_template", "agreement")
"""Seconds to a minute, without generating."""

EXPENSIVE = ("cost", "quality", "answers", "metamorphic")
"""Minutes: the models generate."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides whether a child may stand in for its parent.

    Args:
        level: see ``levels``.
        thresholds: other than the level's own, where a user has reasons.
        only: names of the checks to run, all of them by default; plug-ins come last.
    """

    level: Level = Level.NORMAL
    thresholds: Thresholds | None = None
    only: tuple[str, ...] = ()

    def run(self, parent: Path, child: Path, ports: GatePorts) -> GateReport:
        """Hold ``child`` against ``parent``. Neither file is changed.

        Raises:
            UnknownNameError: ``only`` names a check that does not exist.
        """
        subject = Subject(
            parent=parent,
            child=child,
            thresholds=self.thresholds or THRESHOLDS[self.level],
            ports=ports,
        )
        checks: list[Check] = []
        for name in self._names():
            why = self._pointless(name, checks)
            checks.append(not_run(name, why) if why else _made(name, subject))
        return GateReport(level=self.level, checks=tuple(checks))

    def _names(self) -> tuple[str, ...]:
        for name in self.only:
            CHECKS.get(name)
        known = (*FIRST, *CHEAP, *EXPENSIVE)
        names = (*known, *(n for n in CHECKS if n not in known))
        return tuple(n for n in names if not self.only or n in self.only)

    def _pointless(self, name: str, done: list[Check]) -> str:
        failed = [c.name for c in done if c.passed is False]
        if any(n in FIRST for n in failed):
            return "the file is damaged"
        if self.level is not Level.REPORT and name not in (*FIRST, *CHEAP) and failed:
            cheap = [n for n in failed if n in CHEAP]
            return f"{' and '.join(cheap)} failed already" if cheap else ""
        return ""


def _made(name: str, subject: Subject) -> Check:
    try:
        return CHECKS.get(name)(subject)
    except LichenError as exc:
        # What keeps a check from finishing (an engine that cannot load the child) is its finding.
        return Check(name=name, passed=False, what=f"the check could not be finished: {exc}")
