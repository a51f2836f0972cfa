"""What the gate found: one entry per check, with the numbers it was judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from lichen.compression.gate.levels import Level

_NONE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The outcome of one check.

    Args:
        name: of the check in the registry.
        passed: whether the level's thresholds are met; None when the check was not run.
        what: one sentence for people: what was found, and if it failed, by how much.
        numbers: what was measured, by name with its unit; whole and fractional numbers alike.
    """

    name: str
    passed: bool | None
    what: str
    numbers: Mapping[str, float] = field(default_factory=lambda: _NONE)

    @property
    def verdict(self) -> str:
        """``passed``, ``FAILED`` or ``not run``."""
        if self.passed is None:
            return "not run"
        return "passed" if self.passed else "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """All checks of one child against its parent, in the order they were run."""

    level: Level
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the level lets the child through.

        Strict: every check was run and passed. Normal: none failed, and the structure was checked.
        Report: always, for this level only tells.
        """
        if self.level is Level.REPORT:
            return True
        if self.level is Level.STRICT:
            return bool(self.checks) and all(c.passed for c in self.checks)
        return not self.failed and any(c.passed for c in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks whose thresholds were missed."""
        return tuple(c for c in self.checks if c.passed is False)

    @property
    def not_run(self) -> tuple[Check, ...]:
        """The checks that could not be made, each with the reason in ``what``."""
        return tuple(c for c in self.checks if c.passed is None)

    def check(self, name: str) -> Check:
        """Return the check of that name; raises KeyError if the gate has none."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """Return (check, verdict, sentence) rows for a table."""
        return tuple((c.name, c.verdict, c.what) for c in self.checks)

    @property
    def sentence(self) -> str:
        """One sentence: whether it passed and, if not, what failed and by how much."""
        if self.failed:
            reasons = "; ".join(f"{c.name}: {c.what}" for c in self.failed)
            return f"the gate ({self.level}) found {reasons}"
        if self.passed:
            return f"the gate ({self.level}) found nothing wrong"
        names = ", ".join(c.name for c in self.not_run) or "all of them"
        return f"the gate ({self.level}) needs every check, and these were not run: {names}"
