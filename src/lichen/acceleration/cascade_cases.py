"""Requests on their way up the levels of a cascade: what was tried, and in which order they come.

Nothing here decides anything; see ``lichen.acceleration.cascading``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from lichen.acceleration.self_check import Assessment
from lichen.core.generation import Completion, Finish, Request, Step, Timings, distinct
from lichen.core.measurement import Usage


@dataclass(slots=True)
class Try:
    """One level's answer to one request, and what its check said; ``extra`` paid for tests."""

    level: int
    completion: Completion
    assessment: Assessment
    extra: Usage
    engine_cpu_s: float | None = None

    @property
    def usage(self) -> Usage:
        """All tokens of this attempt."""
        return self.completion.usage + self.extra


@dataclass(slots=True)
class Case:
    """One request on its way up.

    Args:
        request: as the caller put it.
        taken_s: when it was taken, monotonic seconds.
        start: the level where it begins.
        recheck: whether levels that are switched off are tried too.
        live: whether what its level says goes to the caller as it comes.
        apart: whether it does not begin with the others, and waits for its level's turn.
        tries: answers so far.
        before, after: ledger steps that come first and last.
        lost: tokens of attempts that failed.
    """

    request: Request
    taken_s: float
    start: int
    recheck: bool
    live: bool
    apart: bool = False
    tries: list[Try] = field(default_factory=list)
    before: list[Step] = field(default_factory=list)
    after: list[Step] = field(default_factory=list)
    lost: Usage = Usage()


class Feed:
    """The caller's requests, taken one at a time, grouped by the level where they begin."""

    def __init__(self, requests: Iterable[Request], case: Callable[[Request], Case]) -> None:
        self._source = distinct(requests)
        self._case = case
        self._next: Case | None = None

    def peek(self) -> Case | None:
        """Take the next request if none is held; None at the end."""
        if self._next is None:
            request = next(self._source, None)
            if request is None:
                return None
            self._next = self._case(request)
        return self._next

    def first(self, full: Callable[[], bool], wait: Callable[[Case], None]) -> Case | None:
        """Return the next request that is not apart; those that are wait. None at the end."""
        while not full() and (case := self.peek()) is not None:
            if not case.apart:
                return case
            self._next = None
            wait(case)
        return None

    def group(
        self, start: int, full: Callable[[], bool], wait: Callable[[Case], None]
    ) -> Iterator[Case]:
        """Yield requests that begin at ``start``, until another begins elsewhere or it is full."""
        while (case := self.first(full, wait)) is not None and case.start == start:
            self._next = None
            yield case


def nothing(case: Case, now_s: float) -> Completion:
    """Return the failure of a request whose only level failed."""
    return Completion(
        id=case.request.id,
        text="",
        usage=case.lost,
        finish=Finish.ERROR,
        timings=Timings(total_s=max(now_s - case.taken_s, 0.0)),
        ledger=(*case.before, *case.after),
        error=case.after[-1].detail,
    )
