"""What a cascade writes into ledgers, and how that is read again.

One step per level that was asked. The level and what became of its answer are in the step's action,
which is the same for all requests; the numbers are in the step's own fields.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from lichen.core.generation import Step

NAME: Final = "cascade"
SWITCHED_OFF: Final = "switched off"
"""Action of the step that says which levels were not asked because they do not pay."""
NOTHING_TO_CHECK: Final = "went to the last level at once"
"""Action of the step of a request whose answers below could not have been checked."""

_ASKED: Final = "asked "


class End(StrEnum):
    """What became of a level's answer."""

    GAVE = "gave"
    SET_ASIDE = "set aside"
    FAILED = "it failed"

    @property
    def wastes(self) -> bool:
        """Whether the step's usage is all that the level took, not only what it took besides."""
        return self is not End.GAVE


def asked(level: str, end: End) -> str:
    """Return the action of a step about one level."""
    return f"{_ASKED}{level}: {end}"


def read(step: Step) -> tuple[str, End] | None:
    """Return the level that a step is about and what became of its answer; None of other steps."""
    level, colon, end = step.action.removeprefix(_ASKED).rpartition(": ")
    ours = step.actor == NAME and step.action.startswith(_ASKED) and bool(colon)
    return (level, End(end)) if ours and end in set(End) else None
