"""Watch an engine: change nothing, and write into the ledger what a strategy did.

For strategies that work by the options a model is loaded with. They cost nothing per request
outside the engine, so their steps carry no CPU time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from lichen.acceleration.per_request import Follower, following, with_step
from lichen.core.generation import Completion, Delta, Request, Step
from lichen.core.ports import Engine

Note = Callable[[Completion], Step]
"""Says what a strategy did for a request that has ended, failed ones included."""


class _Watcher(Follower):
    def __init__(self, request: Request, note: Note) -> None:
        super().__init__(request)
        self._note: Final = note

    def ended(self, completion: Completion) -> Iterable[Delta | Completion]:
        return (with_step(completion, self._note(completion)),)


def watched(engine: Engine, title: str, note: Note) -> Engine:
    """Return ``engine`` with the step that ``note`` gives on every completion."""
    return following(engine, title, lambda request: _Watcher(request, note))
