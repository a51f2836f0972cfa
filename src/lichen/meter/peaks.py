"""The largest value since any earlier moment, in little memory.

Windows overlap, so a single running maximum is not enough. Only values that no later value exceeds
can be an answer: a decreasing list, one entry for most loads.
"""

from __future__ import annotations

MAX_ENTRIES = 512
"""A list this long is merged at its old end: old windows then read high, never low."""

Peaks = tuple[tuple[int, float], ...]
"""(sequence number, value), oldest first, values decreasing."""


class PeakHistory:
    """Collects values and hands out immutable views for ``peak_since``; not locked."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._entries: list[tuple[int, float]] = []
        self._max_entries = max_entries
        self._sequence = 0

    def push(self, value: float) -> int:
        """Add a value; returns its sequence number."""
        self._sequence += 1
        while self._entries and self._entries[-1][1] <= value:
            self._entries.pop()
        self._entries.append((self._sequence, value))
        if len(self._entries) > self._max_entries:
            # The oldest (largest) value takes the place of its successor.
            self._entries[:2] = [(self._entries[1][0], self._entries[0][1])]
        return self._sequence

    @property
    def view(self) -> Peaks:
        """The list as it is now."""
        return tuple(self._entries)


def peak_since(view: Peaks, sequence: int) -> float | None:
    """Return the largest value pushed after ``sequence`` and before the view, None if none was."""
    return next((value for number, value in view if number > sequence), None)
