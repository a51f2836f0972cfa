"""Follow each request through an engine: what most wrapping strategies need, and nothing else.

A strategy says what to do with one request by a ``Follower``; the engine here keeps the promises of
the ``Engine`` port (lazily taken requests, one completion each, early close closes what is inside).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from lichen.acceleration.strategy import EngineAround
from lichen.core.generation import Completion, Delta, Request, Step
from lichen.core.ports import Engine


class Follower:
    """One request on its way: what the inner engine is asked, and what becomes of its answer.

    Args:
        request: what to ask the inner engine; its id must be the caller's.
    """

    def __init__(self, request: Request) -> None:
        self.request: Final = request

    def heard(self, delta: Delta) -> Iterable[Delta]:
        """Return what the caller hears for a piece of the answer."""
        return (delta,)

    def ended(self, completion: Completion) -> Iterable[Delta | Completion]:
        """Return what the caller hears at the end: any last deltas, then one completion."""
        return (completion,)


class PassedOn(Follower):
    """A request that a strategy leaves alone; the ledger says why."""

    def __init__(self, request: Request, *, actor: str, reason: str) -> None:
        super().__init__(request)
        self._step = Step(actor=actor, action="passed on unchanged", detail=reason)

    def ended(self, completion: Completion) -> tuple[Completion]:
        """Say why nothing was done."""
        return (with_step(completion, self._step),)


@dataclass(slots=True)
class FollowingEngine(EngineAround):
    """An engine that gives each request a follower.

    Args:
        inner: the engine that is asked; closed with this one.
        title: of the strategy, for the name.
        follow: makes the follower of a request, when the inner engine takes it.
    """

    follow: Callable[[Request], Follower] = Follower

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests; see ``lichen.core.ports.Engine``."""
        followers: dict[str, Follower] = {}

        def asked() -> Iterator[Request]:
            for request in requests:
                # A repeated id is the inner engine's to refuse, as it takes the request.
                follower = followers[request.id] = self.follow(request)
                yield follower.request

        answers = self.inner.generate(asked())
        try:
            for item in answers:
                if isinstance(item, Completion):
                    yield from followers.pop(item.id).ended(item)
                else:
                    yield from followers[item.id].heard(item)
        finally:
            shut(answers)


def shut(answers: Iterator[Delta | Completion]) -> None:
    """Close an answer iterator if it can be closed, so that what still runs is cancelled."""
    close = getattr(answers, "close", None)
    if close is not None:
        close()


def with_step(completion: Completion, step: Step) -> Completion:
    """Return the completion with one more entry at the end of its ledger."""
    return replace(completion, ledger=(*completion.ledger, step))


def following(engine: Engine, title: str, follow: Callable[[Request], Follower]) -> Engine:
    """Return ``engine`` with a follower for each request."""
    return FollowingEngine(engine, title, follow)
