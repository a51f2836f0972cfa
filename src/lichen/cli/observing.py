"""Show how a benchmark run goes on a progress bar."""

from __future__ import annotations

from collections.abc import Callable


class Advancing:
    """Implements ``benchmark.run.Observer`` over ``console.progress``'s ``advance``."""

    def __init__(self, advance: Callable[[float, str], None]) -> None:
        self._advance = advance

    def stage(self, text: str) -> None:
        """Show what begins."""
        self._advance(0, text)

    def advanced(self, attempts: int, text: str) -> None:
        """Move the bar."""
        self._advance(attempts, text)
