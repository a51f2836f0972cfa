"""Choose which slot serves a request, so that a kept prompt is reused by its own user only."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

_WORTH_REUSING: Final = 64
"""Characters: a shorter common start saves less than overwriting a longer prompt may cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A slot that is taken: its index in llama.cpp, and whether what it holds may be reused."""

    index: int
    reuse: bool


class SlotTable:
    """Which slots are free, and whose prompt each one still holds.

    At most ``slots`` requests may be seated at once; the engine's pool of threads sees to that.
    """

    def __init__(self, slots: int) -> None:
        self._lock = threading.Lock()
        self._free = list(range(slots))
        self._held: dict[int, tuple[str, str]] = {}

    def take(self, user: str, prompt: str) -> Seat:
        """Seat a request: on its user's slot with the longest common prefix, else on another.

        Where little is common, one that holds nothing is preferred, then the user's own with the
        least to lose, then the one of others that was longest unused.
        """
        with self._lock:
            mine = [i for i in self._free if i in self._held and self._held[i][0] == user]
            shared = {i: _common_prefix(self._held[i][1], prompt) for i in mine}
            best = max(shared, key=lambda i: shared[i], default=None)
            if best is None or shared[best] < min(_WORTH_REUSING, len(prompt) // 2):
                empty = (i for i in self._free if i not in self._held)
                least = min(mine, key=lambda i: len(self._held[i][1]), default=self._free[0])
                best = next(empty, least)
            self._free.remove(best)
            reuse = best in self._held and self._held[best][0] == user
            self._held[best] = (user, prompt)
            return Seat(index=best, reuse=reuse)

    def give_back(self, seat: Seat) -> None:
        """Free the slot; it still holds the prompt it was taken for."""
        with self._lock:
            self._free.append(seat.index)


def _common_prefix(a: str, b: str) -> int:
    """Return how many characters two texts share at their start."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
