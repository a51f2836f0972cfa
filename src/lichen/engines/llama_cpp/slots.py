"""Choose which slot serves a request, so that a kept prompt is reused by its own user only."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from lichen.engines.local import common_prefix

_WORTH_REUSING: Final = 64
"""Characters: a shorter common start saves less than overwriting a longer prompt may cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A slot that is taken.

    Args:
        index: its number in llama.cpp.
        reuse: whether what it holds may be reused.
        kept: characters at the start of the prompt that it may reuse.
        elsewhere: the same of the other slots of the same user, busy ones too: the most.
    """

    index: int
    reuse: bool
    kept: int = 0
    elsewhere: int = 0


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
            shared = {
                i: common_prefix(text, prompt)
                for i, (owner, text) in self._held.items()
                if owner == user
            }
            mine = [i for i in self._free if i in shared]
            best = max(mine, key=lambda i: shared[i], default=None)
            if best is None or shared[best] < min(_WORTH_REUSING, len(prompt) // 2):
                empty = (i for i in self._free if i not in self._held)
                least = min(mine, key=lambda i: len(self._held[i][1]), default=self._free[0])
                best = next(empty, least)
            self._free.remove(best)
            self._held[best] = (user, prompt)
            reuse, kept = best in shared, shared.pop(best, 0)
            elsewhere = max(shared.values(), default=0)
            return Seat(index=best, reuse=reuse, kept=kept, elsewhere=elsewhere)

    def give_back(self, seat: Seat) -> None:
        """Free the slot; it still holds the prompt it was taken for."""
        with self._lock:
            self._free.append(seat.index)
