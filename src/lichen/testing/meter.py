"""A ``Meter`` whose windows say what a test wants them to have seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from lichen.core.measurement import Measurement


@dataclass(frozen=True, slots=True)
class ScriptedMeter:
    """Asks ``seen`` each time that a window is closed."""

    seen: Callable[[], Measurement]

    def window(self, label: str = "") -> ScriptedWindow:  # noqa: ARG002 (the port's shape)
        """Open a window."""
        return ScriptedWindow(self.seen)

    def close(self) -> None:
        """Nothing to stop."""


@dataclass(frozen=True, slots=True)
class ScriptedWindow:
    """A window that is asked what it saw, however long it was open."""

    seen: Callable[[], Measurement]

    def close(self) -> Measurement:
        """Return what there is to see now."""
        return self.seen()

    def __enter__(self) -> Self:
        """Return the window."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""
