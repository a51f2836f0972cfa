"""An engine without a model: it says what a script tells it to.

For tests of everything that holds an engine. It runs in the caller's thread and is deterministic:
``slots`` requests are in flight and take turns, one piece of text each, so that interleaving is
seen but never depends on threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lichen.core.errors import CapabilityError, EngineError
from lichen.core.generation import (
    Capability,
    Completion,
    Delta,
    Finish,
    Request,
    TokenLogprob,
    distinct,
)
from lichen.core.measurement import Usage
from lichen.engines.transcript import Transcript

ALL = frozenset(Capability) - {Capability.RANK}


def words(text: str) -> list[str]:
    """Split text into pieces that join to it again: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


def said(request: Request) -> str:
    """Return what a request asks: its prompt, prefix or last message."""
    if request.messages is not None:
        return request.messages[-1].content if request.messages else ""
    return request.prompt if request.prompt is not None else request.prefix or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What to answer.

    Args:
        text: the whole answer (the engine applies ``max_tokens``, stop strings and stop rule).
        error: a sentence; the request fails with it after ``text`` has been said.
        logprob: of every token, natural log.
        others: further tokens that were considered, with their log-probabilities, by the number of
            the token in ``text``.
    """

    text: str = ""
    error: str = ""
    logprob: float = -0.5
    others: Mapping[int, tuple[tuple[str, float], ...]] = field(default_factory=dict)


Script = Mapping[str, str | Line] | Callable[[Request], str | Line]
"""Answers by request id, or by what is asked (``said``); or a function of the request."""


@dataclass(slots=True, kw_only=True)
class _Sequence:
    request: Request
    transcript: Transcript
    line: Line
    pieces: Iterator[str]
    deltas: list[Delta] = field(default_factory=list)
    used: int = 0


class ScriptedEngine:
    """A public fake of ``lichen.core.ports.Engine`` (and ``Embedder``, ``Tokenizer``).

    Args:
        script: what to answer; a request that a mapping lacks fails with a sentence.
        split: cuts text into tokens that join to it.
        slots: requests in flight.
        token_s: seconds that ``sleep`` is asked for before every token.
        clock, sleep: time; the defaults stand still.
        capabilities: what it claims to have; requests that need others fail.
    """

    name = "scripted"

    def __init__(
        self,
        script: Script,
        *,
        split: Callable[[str], Sequence[str]] = words,
        slots: int = 1,
        token_s: float = 0.0,
        clock: Callable[[], float] = lambda: 0.0,
        sleep: Callable[[float], None] = lambda _: None,
        capabilities: frozenset[Capability] = ALL,
    ) -> None:
        self.capabilities = capabilities
        self.requests: list[Request] = []
        """Every request taken so far, in order."""
        self.cancelled: list[str] = []
        """Ids of the sequences that ended early: by a rule, a closed iterator, or ``close``."""
        self.closed = False
        self._script = script
        self._split = split
        self._slots = slots
        self._token_s = token_s
        self._clock = clock
        self._sleep = sleep
        self._ids: dict[str, int] = {}

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests; see ``lichen.core.ports.Engine``."""
        source = distinct(requests)
        active: list[_Sequence] = []
        try:
            while True:
                self._check_open()
                while len(active) < self._slots and (request := next(source, None)) is not None:
                    active.append(self._begin(request))
                if not active:
                    return
                for sequence in list(active):
                    completion = self._step(sequence)
                    if completion is not None:
                        active.remove(sequence)
                    yield from sequence.deltas
                    sequence.deltas.clear()
                    if completion is not None:
                        yield completion
                    self._check_open()
        finally:
            self.cancelled += [s.request.id for s in active]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector of 26 letter counts per text."""
        self._check_open()
        if Capability.EMBED not in self.capabilities:
            raise CapabilityError("this scripted engine is not said to embed")
        letters = "abcdefghijklmnopqrstuvwxyz"
        return [[float(t.lower().count(c)) for c in letters] for t in texts]

    def tokenize(self, text: str) -> list[int]:
        """Number the pieces of ``text`` in the order in which they were first seen."""
        return [self._ids.setdefault(p, len(self._ids)) for p in self._split(text)]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Join the pieces again; unknown ids are U+FFFD."""
        known = {i: p for p, i in self._ids.items()}
        return "".join(known.get(t, "\N{REPLACEMENT CHARACTER}") for t in tokens)

    def close(self) -> None:
        """Refuse further work."""
        self.closed = True

    def _check_open(self) -> None:
        if self.closed:
            raise EngineError(f"the engine {self.name!r} has been closed; open it again to use it")

    def _begin(self, request: Request) -> _Sequence:
        self.requests.append(request)
        line = self._line(request)
        deltas: list[Delta] = []
        transcript = Transcript(request, self._clock(), self._clock, deltas.append)
        pieces = iter(self._split(line.text))
        return _Sequence(
            request=request, transcript=transcript, line=line, pieces=pieces, deltas=deltas
        )

    def _line(self, request: Request) -> Line:
        needs = {Capability(request.kind)}
        needs |= {Capability.ANSWER_PREFIX} if request.answer_prefix else set()
        needs |= {Capability.LOGPROBS} if request.logprobs else set()
        lacking = sorted(str(c) for c in needs - self.capabilities)
        if lacking:
            return Line(error=f"the request needs {', '.join(lacking)}, which is not scripted")
        if callable(self._script):
            line: str | Line | None = self._script(request)
        else:
            line = self._script.get(request.id, self._script.get(said(request)))
        if line is None:
            return Line(error=f"the script has no answer for request {request.id!r}")
        return Line(text=line) if isinstance(line, str) else line

    def _step(self, s: _Sequence) -> Completion | None:
        """Say one more piece; return the completion when that was the last."""
        piece = next(s.pieces, None) if s.used < s.request.max_tokens else None
        if piece is None:
            more = next(s.pieces, None) is not None
            finish = Finish.LENGTH if s.used == s.request.max_tokens and more else Finish.STOP
            return s.transcript.completion(self._usage(s), finish, error=s.line.error)
        if self._token_s:
            self._sleep(self._token_s)
        s.used += 1
        kept, stopped = _until_stop(s.transcript.text + piece, s.request.stop_strings)
        piece = kept[len(s.transcript.text) :]
        n = s.request.logprobs
        top = ((piece, s.line.logprob), *s.line.others.get(s.used - 1, ()))[:n]
        token = TokenLogprob(text=piece, logprob=s.line.logprob, top=top)
        if s.transcript.add(piece, (token,) if n else ()):
            self.cancelled.append(s.request.id)
            return s.transcript.completion(self._usage(s), Finish.STOP)
        return s.transcript.completion(self._usage(s), Finish.STOP) if stopped else None

    def _usage(self, s: _Sequence) -> Usage:
        r = s.request
        asked = [m.content for m in r.messages or ()]
        asked += [t for t in (r.prompt, r.prefix, r.suffix, r.answer_prefix) if t]
        prompt = 0 if s.line.error and not s.used else sum(len(self._split(t)) for t in asked)
        return Usage(prompt=prompt, completion=s.used)


def _until_stop(text: str, stop_strings: tuple[str, ...]) -> tuple[str, bool]:
    """Cut ``text`` before the first stop string; say whether there was one.

    Like a server that streams tokens whole, it does not hold text back that may become a stop
    string: choose ``split`` so that a stop string is not cut in two.
    """
    at = [i for s in stop_strings if (i := text.find(s)) >= 0]
    return (text[: min(at)], True) if at else (text, False)
