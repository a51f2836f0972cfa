"""An engine that is two instances of one model, plain and speculating, and runs the cheaper one.

Segments of requests run on one instance at a time. While the switch probes, a segment is a block
whose CPU time is compared; otherwise it goes on for as long as the verdict holds. The last requests
of a block have fewer beside them than they could, which is part of what a comparison costs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from lichen.acceleration.per_request import shut, with_step
from lichen.acceleration.speculation_switch import Block, Mode, SpeculationSwitch
from lichen.acceleration.strategy import EngineAround, StrategyContext
from lichen.core.errors import EngineError, LichenError
from lichen.core.generation import Completion, Delta, Finish, Request, Step, distinct
from lichen.core.measurement import Usage
from lichen.core.ports import Engine

NAME: Final = "speculation"

PREFILL_WORK: Final = 0.3
"""Work of a prefilled token in decoded ones: 0.26 (0.5B) and 0.36 (1.5B) of the CPU time, measured
with llama.cpp on AVX2 side by side. Only evens out prompts of different length between blocks."""


@runtime_checkable
class Reopens(Protocol):
    """An engine that can load its model once more with other options."""

    def reopened(self, changes: Mapping[str, object]) -> Engine:
        """Return a second engine; this one stays open."""


@dataclass(slots=True, kw_only=True)
class SwitchingEngine(EngineAround):
    """Runs requests on a plain engine or on a speculating second instance of it.

    Args:
        inner: the plain engine.
        reopen: opens the speculating one.
        context: for CPU time and clock.
        switch: the decision rule; guarded by this engine's lock.
        block: requests per compared block.
    """

    reopen: Callable[[], Engine]
    context: StrategyContext
    switch: SpeculationSwitch
    block: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _drafting: Engine | None = None
    _users: int = 0
    _starts: int = 0
    _running: int = 0
    _load_cpu_s: float = 0.0
    _told: int = 0
    _closed: bool = False

    def __post_init__(self) -> None:
        """Open the second instance now, so that a draft that does not fit is refused at once."""
        self._take_drafting()
        self._users -= 1

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests; see ``lichen.core.ports.Engine``."""
        source = _Source(requests)
        while (first := source.peek()) is not None:
            yield from _Segment(self, source, first).run()

    def close(self) -> None:
        """Close both instances."""
        with self._lock:
            self._closed = True
            drafting, self._drafting = self._drafting, None
        if drafting is not None:
            drafting.close()
        self.inner.close()

    # -- for segments ------------------------------------------------------------------------

    def begin(self, first: Request) -> _Turn:
        """Choose how the segment that begins with ``first`` is run."""
        with self._lock:
            self._starts += 1
            self._running += 1
            probing, alone = self.switch.probing, self._running == 1
            mode = self.switch.mode if alone or not probing else self.switch.verdict_mode
            if first.logprobs:
                mode = Mode.PLAIN
            number = self._starts
        engine = self.inner
        if mode is Mode.SPECULATIVE:
            try:
                engine = self._take_drafting()
            except LichenError as exc:
                mode = Mode.PLAIN
                with self._lock:
                    self.switch.give_up(f"the speculating instance cannot be opened: {exc}")
                    probing = False
        return _Turn(
            mode=mode,
            engine=engine,
            number=number,
            most=self.block if probing else None,
            compared=probing and alone and not first.logprobs,
            logprobs=bool(first.logprobs),
        )

    def end(self, turn: _Turn, block: Block | None) -> None:
        """Take in what a segment cost (None: not to be compared) and let its engine go."""
        with self._lock:
            undisturbed = self._starts == turn.number
            self._running -= 1
            if block is not None and undisturbed:
                self.switch.observe(block)
            if turn.mode is Mode.SPECULATIVE:
                self._users -= 1
        self._tidy()

    def settled(self, completion: Completion, load: float) -> None:
        """Let the switch see a request that was not part of a comparison."""
        with self._lock:
            self.switch.saw(
                tokens=completion.usage.completion, accepted=completion.draft_accepted, load=load
            )

    def agrees(self, mode: Mode) -> bool:
        """Whether a settled segment may go on: no probe is due and the verdict is the same."""
        with self._lock:
            return not self.switch.probing and self.switch.mode is mode

    def note(self, completion: Completion, turn: _Turn) -> Step:
        """Return the step of one request; the first after a comparison tells its result."""
        with self._lock:
            load_s, self._load_cpu_s = self._load_cpu_s, 0.0
            verdict, news = self.switch.verdict, self.switch.probes > self._told
            self._told = self.switch.probes
        action = "speculated" if turn.mode is Mode.SPECULATIVE else "plain"
        extra = []
        if load_s:
            extra.append("a second instance was loaded")
        if turn.compared:
            action = f"compared, {action}"
        elif turn.logprobs:
            extra.append("log-probabilities were asked for")
        else:
            extra.append(f"{'on' if verdict.on else 'off'}: {verdict.reason}")
        if news and verdict.excess_s is not None:
            extra.append(
                f"comparing {verdict.pairs} pairs of blocks cost {verdict.excess_s:+.2f} CPU-s "
                "against plain"
            )
        return step_of(completion, action, cpu_s=load_s or None, extra=extra)

    def _take_drafting(self) -> Engine:
        with self._lock:
            if self._closed:
                raise EngineError(f"the engine {self.name!r} has been closed; open it again")
            if self._drafting is None:
                began = self.context.cpu_s()
                self._drafting = self.reopen()
                self._load_cpu_s += self.context.cpu_s() - began
            self._users += 1
            return self._drafting

    def _tidy(self) -> None:
        """Free the second instance if nobody uses it and speculation does not pay."""
        with self._lock:
            unused = self._users == 0 and not self.switch.probing and not self.switch.verdict.on
            drafting = self._drafting if unused else None
            if unused:
                self._drafting = None
        if drafting is not None:
            drafting.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """How one segment is run.

    ``most`` bounds its requests (None: as long as the verdict holds); ``compared`` says whether its
    cost counts, ``logprobs`` whether its requests want log-probabilities.
    """

    mode: Mode
    engine: Engine
    number: int
    most: int | None
    compared: bool
    logprobs: bool


class _Segment:
    """Requests that follow each other on one of the two engines."""

    def __init__(self, owner: SwitchingEngine, source: _Source, first: Request) -> None:
        self._owner = owner
        self._source = source
        self._turn = owner.begin(first)
        self._done: list[Completion] = []

    def run(self) -> Iterator[Delta | Completion]:
        """Run them; what a compared segment cost is observed only if it ends undisturbed."""
        context = self._owner.context
        cpu_s, began_s = context.cpu_s(), context.clock()
        block: Block | None = None
        answers = self._turn.engine.generate(self._taken())
        try:
            for item in answers:
                if isinstance(item, Completion):
                    yield self._ended(item, context.clock() - began_s)
                else:
                    yield item
            if self._turn.compared:
                block = self._block(context.cpu_s() - cpu_s, context.clock() - began_s)
        finally:
            shut(answers)
            self._owner.end(self._turn, block)

    def _taken(self) -> Iterator[Request]:
        """Give out requests as the engine asks for them, up to the end of this segment."""
        taken = 0
        while (request := self._source.peek()) is not None:
            if taken and not self._fits(request, taken):
                return
            taken += 1
            yield self._source.take()

    def _fits(self, request: Request, taken: int) -> bool:
        if bool(request.logprobs) != self._turn.logprobs:
            return False
        if self._turn.most is not None:
            return taken < self._turn.most
        return self._turn.logprobs or self._owner.agrees(self._turn.mode)

    def _ended(self, completion: Completion, elapsed_s: float) -> Completion:
        self._done.append(completion)
        if self._turn.most is None and not self._turn.logprobs:
            busy_s = sum(c.timings.total_s for c in self._done)
            load = busy_s / elapsed_s if elapsed_s > 0 and busy_s > 0 else 1.0
            self._owner.settled(completion, load)
        step = self._owner.note(completion, self._turn)
        return with_step(completion, step)

    def _block(self, cpu_s: float, wall_s: float) -> Block | None:
        if any(c.finish is Finish.ERROR for c in self._done):
            return None  # a request that fails half-way has a cost but no comparable work
        tokens = sum(c.usage.completion for c in self._done)
        prefilled = sum(c.usage.prefilled for c in self._done)
        busy_s = sum(c.timings.total_s for c in self._done)
        return Block(
            mode=self._turn.mode,
            cpu_s=cpu_s,
            work=tokens + PREFILL_WORK * prefilled,
            tokens=tokens,
            accepted=sum(c.draft_accepted for c in self._done),
            load=busy_s / wall_s if busy_s > 0 and wall_s > 0 else 1.0,
        )


class _Source:
    """The caller's requests, one ahead; a repeated id is refused across segments too."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = distinct(requests)
        self._next: Request | None = None

    def peek(self) -> Request | None:
        """Return the next request without using it up; None at the end."""
        if self._next is None:
            self._next = next(self._requests, None)
        return self._next

    def take(self) -> Request:
        """Return the request that was peeked at."""
        taken, self._next = self._next, None
        assert taken is not None  # noqa: S101 (callers peek first; narrows the type)
        return taken


def step_of(
    completion: Completion, action: str, *, cpu_s: float | None = None, extra: Iterable[str] = ()
) -> Step:
    """Return the step of one request: rejected drafts are its wasted tokens."""
    drafted, accepted = completion.draft_tokens, completion.draft_accepted
    counts = [f"{accepted} of {drafted} drafted tokens accepted"] if drafted else []
    return Step(
        actor=NAME,
        action=action,
        usage=Usage(completion=max(0, drafted - accepted)),
        cpu_s=cpu_s,
        detail="; ".join([*counts, *extra]),
    )
