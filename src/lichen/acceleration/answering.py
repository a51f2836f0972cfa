"""An engine that looks for a stored answer before it asks the engine inside.

Requests are taken lazily: hits are said as soon as they are found, misses go to the inner engine.
Two equal requests in flight at once are both answered by it. A cache that fails is a miss.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from lichen.acceleration.answer_code import same_answer
from lichen.acceleration.answer_keys import AnswerKey, fits, key_of, refused
from lichen.acceleration.answer_store import AnswerStore, Kin, StoredAnswer
from lichen.acceleration.error_bound import may_reuse
from lichen.acceleration.per_request import shut, with_step
from lichen.acceleration.similarity import cosine, lexical, split
from lichen.acceleration.strategy import EngineAround
from lichen.core.errors import LichenError
from lichen.core.generation import (
    Capability,
    Completion,
    Delta,
    Finish,
    Message,
    Request,
    Role,
    Step,
    Timings,
    distinct,
)
from lichen.core.measurement import Usage
from lichen.core.ports import Embedder, Engine

NAME: Final = "answer_cache"
_LOG: Final = logging.getLogger(__name__)

MIN_SIMILARITY: Final = 0.5
"""Below, a question is not near at all: half of the words and neighbours differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """How the cache answers; see ``lichen.acceleration.strategies.answer_cache``.

    Args:
        scope: identity of the model and its adapter.
        now: seconds since 1970.
        cpu_s, clock: CPU-seconds of this process tree; monotonic seconds.
    """

    scope: str
    now: Callable[[], float]
    cpu_s: Callable[[], float]
    clock: Callable[[], float]
    typed: int = 64
    semantic: bool = False
    error_bound: float = 0.02
    embedding: bool = False
    sampled: bool = False
    keep_cut: bool = False


@dataclass(slots=True, kw_only=True)
class CacheReport:
    """What a cache did so far: requests by outcome, and the tokens that hits saved."""

    exact: int = 0
    prefix: int = 0
    semantic: int = 0
    miss: int = 0
    passed_on: int = 0
    saved: Usage = Usage()

    @property
    def hits(self) -> int:
        """All hits."""
        return self.exact + self.prefix + self.semantic


@dataclass(slots=True)
class _Flight:
    """A request that the engine answers, and what is to become of its answer."""

    request: Request
    key: AnswerKey | None
    reason: str = ""
    kin: Kin | None = None
    near: StoredAnswer | None = None
    similarity: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Hit:
    kind: str
    answer: StoredAnswer
    text: str
    note: str = ""


@dataclass(slots=True)
class _Call:
    """One ``generate`` call."""

    source: Iterator[Request]
    flights: dict[str, _Flight] = field(default_factory=dict)
    ready: list[Delta | Completion] = field(default_factory=list)


class AnswerCacheEngine(EngineAround):
    """See the module.

    Args:
        inner: answers misses; closed with this engine, as is the store.
        store: where answers are kept.
        settings: what counts as the same question.
    """

    __slots__ = ("_embedder", "_scope", "_set", "_store", "counts")

    def __init__(self, inner: Engine, store: AnswerStore, settings: CacheSettings) -> None:
        super().__init__(inner, NAME)
        self._store = store
        self._set = settings
        # The strategies inside change answers, and their titles are in the engine's name.
        self._scope = json.dumps([settings.scope, inner.name])
        wants = settings.semantic and settings.embedding
        self._embedder = _embedder(inner) if wants else None
        self.counts = CacheReport()
        if wants and self._embedder is None:
            _LOG.warning("%s does not embed: the cache compares words instead", inner.name)

    def report(self) -> CacheReport:
        """Return what the cache did so far."""
        return replace(self.counts)

    def close(self) -> None:
        """Close the file and the inner engine."""
        self._store.close()
        EngineAround.close(self)

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests; see ``lichen.core.ports.Engine``."""
        call = _Call(distinct(requests))
        while True:
            missed = self._next_miss(call)
            while missed is None and call.ready:
                yield call.ready.pop(0)
                if not call.ready:
                    missed = self._next_miss(call)
            if missed is None:
                return
            answers = self.inner.generate(self._missed(missed, call))
            try:
                for item in answers:
                    yield from _drained(call)
                    yield self._ended(item, call) if isinstance(item, Completion) else item
            finally:
                shut(answers)
            yield from _drained(call)

    def _next_miss(self, call: _Call) -> Request | None:
        """Take one request: return it if it is a miss; a hit becomes ready; None at the end too."""
        request = next(call.source, None)
        if request is None:
            return None
        items = self._found(request, call)
        call.ready += items
        return None if items else request

    def _missed(self, first: Request, call: _Call) -> Iterator[Request]:
        """Yield misses as the inner engine takes them; hits on the way become ready."""
        yield first
        while True:
            before = len(call.ready)
            request = self._next_miss(call)
            if request is not None:
                yield request
            elif len(call.ready) == before or not call.flights:
                return  # the end; or a hit that need not wait for anything in flight

    def _found(self, request: Request, call: _Call) -> list[Delta | Completion]:
        """Look a request up; return what to say for a hit, [] for a miss."""
        begun, cpu = self._set.clock(), self._set.cpu_s()
        reason = refused(request, sampled=self._set.sampled)
        if reason:
            call.flights[request.id] = _Flight(request, None, reason)
            return []
        flight = _Flight(request, key_of(request, scope=self._scope))
        hit = self._exact(flight) or self._typed(flight) or self._semantic(flight)
        flight.cpu_s = max(self._set.cpu_s() - cpu, 0.0)
        if hit is None:
            call.flights[request.id] = flight
            return []
        self._store.touch(hit.answer)
        took = max(self._set.clock() - begun, 0.0)
        answer = self._answered(flight, hit, took)
        deltas = [Delta(id=request.id, text=hit.text)] if request.stream and hit.text else []
        return [*deltas, answer]

    def _exact(self, flight: _Flight) -> _Hit | None:
        key = _key(flight)
        found = self._store.get(key.partition, [key.digest]).get(key.digest)
        if found is None or not self._usable(found, flight.request):
            return None
        return _Hit("exact", found, found.text)

    def _typed(self, flight: _Flight) -> _Hit | None:
        """Find a stored completion of which the user has typed the beginning."""
        request, key = flight.request, _key(flight)
        if (
            not self._set.typed
            or not key.grown
            or request.temperature > 0
            or request.stop is not None
        ):
            return None
        added = dict(key.shorter(self._set.typed))
        found = self._store.get(key.partition, list(added))
        for digest, typed in reversed(added.items()):  # the longest text first
            answer = found.get(digest)
            if answer is None or not self._usable(answer, request):
                continue
            if len(answer.text) > len(typed) and answer.text.startswith(typed):
                note = f"{len(typed)} characters were typed"
                return _Hit("prefix", answer, answer.text[len(typed) :], note)
        return None

    def _semantic(self, flight: _Flight) -> _Hit | None:
        """Find an answer to a near question whose error stays within the bound."""
        request, key = flight.request, _key(flight)
        if not self._set.semantic or not _single_turn(request) or request.stop is not None:
            return None
        flight.kin = kin = self._kin(request)
        scored = [
            (cosine(kin.vector, k.vector) if kin.vector else lexical(kin.words, k.words), k)
            for k in self._store.near(key.partition, kin.family)
        ]
        near = max(scored, key=lambda pair: pair[0], default=None)
        if near is None or near[0] < MIN_SIMILARITY or near[1].answer is None:
            return None
        similarity, known = near
        answer = near[1].answer
        if not self._usable(answer, request):
            return None
        if may_reuse(known.looks, similarity, self._set.error_bound):
            return _Hit("semantic", answer, answer.text, f"similarity {similarity:.2f}")
        flight.near, flight.similarity = answer, similarity
        return None

    def _kin(self, request: Request) -> Kin:
        said = next(m for m in request.messages or () if m.role is Role.USER).content
        wording = split(said)
        fixed = Message(role=Role.USER, content=json.dumps(wording.fixed))
        others = [m for m in request.messages or () if m.role is not Role.USER]
        alike = key_of(replace(request, messages=(*others, fixed)), scope=self._scope)
        family = hashlib.sha256(b"family\0" + alike.digest).digest()
        return Kin(family=family, words=wording.words, vector=self._vector(said))

    def _vector(self, text: str) -> tuple[float, ...]:
        if self._embedder is None:
            return ()
        try:
            return tuple(self._embedder.embed([text])[0])
        except LichenError as exc:
            _LOG.warning("a question could not be embedded; its words are compared: %s", exc)
            return ()

    def _usable(self, answer: StoredAnswer, request: Request) -> bool:
        if answer.finish is Finish.LENGTH and not self._set.keep_cut:
            return False
        return fits(answer.finish, answer.usage.completion, answer.max_tokens, request.max_tokens)

    def _answered(self, flight: _Flight, hit: _Hit, took_s: float) -> Completion:
        stored = hit.answer
        setattr(self.counts, hit.kind, getattr(self.counts, hit.kind) + 1)
        share = len(hit.text) / len(stored.text) if stored.text else 1.0
        new = round(stored.usage.completion * share)
        self.counts.saved += Usage(prompt=stored.usage.prompt, completion=new)
        age = max(self._set.now() - stored.made_s, 0.0)
        detail = f"{age:.0f} s old; saved {stored.usage.prompt} prompt and {new} new tokens"
        step = Step(
            actor=NAME,
            action=hit.kind,
            cpu_s=flight.cpu_s,
            detail=f"{detail}; {hit.note}" if hit.note else detail,
        )
        return Completion(
            id=flight.request.id,
            text=hit.text,
            usage=Usage(),
            finish=stored.finish,
            timings=Timings(total_s=took_s, ttft_s=took_s),
            ledger=(step,),
        )

    def _ended(self, answer: Completion, call: _Call) -> Completion:
        """Keep an answer that can be kept; say so."""
        flight = call.flights.pop(answer.id)
        if flight.key is None:
            self.counts.passed_on += 1
            step = Step(actor=NAME, action="passed on unchanged", detail=flight.reason)
            return with_step(answer, step)
        self.counts.miss += 1
        cpu = self._set.cpu_s()
        detail = self._keep(flight, answer)
        spent = flight.cpu_s + max(self._set.cpu_s() - cpu, 0.0)
        return with_step(answer, Step(actor=NAME, action="miss", cpu_s=spent, detail=detail))

    def _keep(self, flight: _Flight, answer: Completion) -> str:
        cut = answer.finish is Finish.LENGTH and not self._set.keep_cut
        if answer.finish is Finish.ERROR or cut or not answer.text:
            why = "cut at the token limit" if cut else answer.finish.value
            return f"not kept: {why if answer.text or cut else 'empty'}"
        kin, looked = flight.kin, ""
        if flight.near is not None:
            right = same_answer(flight.near.text, answer.text)
            self._store.look(flight.near, (flight.similarity, right))
            looked = f"; a near answer was {'right' if right else 'wrong'}"
            # A near answer that was right stands for this one too, and learns from its looks.
            kin = None if right else kin
        stored = StoredAnswer(
            text=answer.text,
            finish=answer.finish,
            usage=answer.usage,
            max_tokens=flight.request.max_tokens,
            made_s=self._set.now(),
        )
        key = _key(flight)
        kept = self._store.put(key.partition, key.digest, stored, kin)
        return ("kept" if kept else "not kept: no room") + looked


def _key(flight: _Flight) -> AnswerKey:
    if flight.key is None:
        raise AssertionError("a request that is passed on has no key")
    return flight.key


def _drained(call: _Call) -> Iterator[Delta | Completion]:
    ready, call.ready = call.ready, []
    yield from ready


def _single_turn(request: Request) -> bool:
    roles = [m.role for m in request.messages or ()]
    return roles.count(Role.USER) == 1 and Role.ASSISTANT not in roles and not request.answer_prefix


def _embedder(engine: Engine) -> Embedder | None:
    """Return the innermost engine that embeds, None if there is none."""
    while isinstance(engine, EngineAround):
        engine = engine.inner
    if Capability.EMBED in engine.capabilities and isinstance(engine, Embedder):
        return engine
    return None
