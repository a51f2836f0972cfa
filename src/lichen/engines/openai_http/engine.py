"""The engine that asks an OpenAI-compatible server over HTTP."""

from __future__ import annotations

import email.utils
import queue
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from lichen.core.errors import CapabilityError, EngineError
from lichen.core.generation import Capability, Completion, Delta, Finish, Request, Step
from lichen.core.measurement import Usage
from lichen.engines.fanout import Fanout, Job
from lichen.engines.openai_http import body as wire
from lichen.engines.openai_http.answer import Answer, decode, error_text
from lichen.engines.openai_http.line import Line
from lichen.engines.openai_http.options import OPTIONAL, OpenAIHttpOptions
from lichen.engines.openai_http.sse import MAX_LINE_BYTES, StreamError, events
from lichen.engines.transcript import Transcript, unencodable

MAX_BODY_BYTES: Final = 64 << 20
"""Longest answer read, streamed or whole; a hostile server must not fill the memory."""

_OK: Final = 200
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_CANCELLED: Final = "the request was cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Retry:
    """Why an attempt failed in a way that may pass, and how long the server says to wait."""

    reason: str
    after_s: float | None = None


class OpenAIHttpEngine:
    """An ``Engine`` and, where the server embeds, an ``Embedder``.

    Args:
        options: which server, and what it can do.
        api_key: sent as a bearer token, never logged; "" for none.
        clock: monotonic seconds.
        pause: waits for a job and a number of seconds; returns whether the job was cancelled.
        jitter: a number in [0, 1) that spreads the retries of many clients.
        wall: seconds since the epoch, for a ``Retry-After`` given as a date.
    """

    name = "openai_http"

    def __init__(
        self,
        options: OpenAIHttpOptions,
        api_key: str = "",
        *,
        clock: Callable[[], float] = time.perf_counter,
        pause: Callable[[Job, float], bool] = Job.sleep,
        jitter: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self._key = api_key
        self._clock = clock
        self._pause = pause
        self._jitter = jitter
        self._wall = wall
        self._closed = False
        self._fanout = Fanout(options.concurrency, self.name, clock)
        self._lines = [Line(options, api_key) for _ in range(options.concurrency + 1)]
        self._spare: queue.SimpleQueue[Line] = queue.SimpleQueue()
        for line in self._lines[1:]:  # the first is for embeddings
            self._spare.put(line)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the options say that the server can do, and what the protocol always gives."""
        found = {OPTIONAL[c] for c in self.options.capabilities}
        if self.options.answer_prefix:
            found.add(Capability.ANSWER_PREFIX)
        return frozenset({*found, Capability.STREAM, Capability.CANCEL})

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests, ``concurrency`` at a time; see ``lichen.core.ports.Engine``."""
        return self._fanout.run(requests, self._answer)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text, in order.

        Raises:
            CapabilityError: the options do not say that the server embeds.
            EngineError: it does not answer with one vector per text.
        """
        if self._closed:
            raise EngineError(f"the engine {self.name!r} has been closed; open it again to use it")
        if Capability.EMBED not in self.capabilities:
            msg = "this server is not said to embed: if it does, add embed to its capabilities"
            raise CapabilityError(msg)
        if not texts:
            return []
        body = {"model": self.options.model, "input": list(texts)}
        try:
            response = self._lines[0].post("/embeddings", body)
            return _vectors(decode(response.content), len(texts))
        except (httpx.HTTPError, StreamError) as exc:
            msg = f"the server cannot embed these texts: {self._hidden(str(exc))}"
            raise EngineError(msg) from exc

    def close(self) -> None:
        """Break off what runs and close the connections (idempotent)."""
        self._closed = True
        self._fanout.close()
        for line in self._lines:
            line.close()

    # -- one request ---------------------------------------------------------------------------

    def _answer(self, job: Job) -> Completion:
        request = job.request
        transcript = Transcript(request, job.submitted_s, self._clock, job.emit)
        error = unencodable(request) or wire.refusal(request, self.capabilities)
        if error:
            return transcript.completion(Usage(), Finish.ERROR, error=error)
        streamed = request.stream or request.stop is not None
        body = wire.build(request, self.options, streaming=streamed)
        answer = Answer(request, transcript, streamed=streamed)
        line = self._spare.get()
        try:
            ledger = self._attempts(line, body, answer, job)
        finally:
            self._spare.put(line)
        return answer.completion(ledger)

    def _attempts(
        self, line: Line, body: dict[str, Any], answer: Answer, job: Job
    ) -> tuple[Step, ...]:
        ledger: list[Step] = []
        while True:
            if job.cancelled:
                answer.fail(_CANCELLED)
                return tuple(ledger)
            retry = self._attempt(line, body, answer, job)
            if retry is None:
                return tuple(ledger)
            if len(ledger) == self.options.retries:
                answer.fail(f"{retry.reason} (attempts: {len(ledger) + 1})")
                return tuple(ledger)
            pause_s = self._pause_s(len(ledger), retry.after_s)
            detail = f"{retry.reason}; waited {pause_s:.1f} s"
            ledger.append(Step(actor=self.name, action="retry", detail=detail))
            self._pause(job, pause_s)

    def _attempt(self, line: Line, body: dict[str, Any], answer: Answer, job: Job) -> _Retry | None:
        """Try once. None: the answer is complete or has failed for good."""
        try:
            with line.ask(wire.PATHS[job.request.kind], body, job) as response:
                if response.status_code != _OK:
                    return self._refused(response, answer)
                if body["stream"]:
                    for data in events(_bounded(response), MAX_LINE_BYTES):
                        if job.cancelled or answer.read_event(data):
                            break
                else:
                    answer.read_object(decode(b"".join(_bounded(response))))
        except StreamError as exc:
            answer.fail(str(exc))
        except httpx.HTTPError as exc:
            return self._broken(exc, answer, job)
        if job.cancelled:
            answer.fail(_CANCELLED)
        return None

    def _refused(self, response: httpx.Response, answer: Answer) -> _Retry | None:
        status = response.status_code
        reason = f"the server answered HTTP {status}: {self._hidden(_reason(response))}"
        if status == _TOO_MANY or status >= _SERVER_ERROR:
            after_s = _retry_after_s(response.headers.get("retry-after", ""), self._wall())
            return _Retry(reason=reason, after_s=after_s)
        answer.fail(reason)
        return None

    def _broken(self, exc: httpx.HTTPError, answer: Answer, job: Job) -> _Retry | None:
        if job.cancelled:
            answer.fail(_CANCELLED)
            return None
        where = self.options.base_url
        if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
            return _Retry(reason=f"no connection to {where}: {exc}")
        if isinstance(exc, httpx.TimeoutException):
            answer.fail(f"{where} was silent for {self.options.read_timeout_s:g} s")
        elif isinstance(exc, httpx.TransportError) and not answer.begun:
            return _Retry(reason=f"{where} closed the connection: {exc}")
        else:
            answer.fail(f"{where} broke off the answer: {exc}")
        return None

    def _pause_s(self, attempt: int, after_s: float | None) -> float:
        most = self.options.backoff_max_s
        if after_s is not None:
            return min(after_s, most)
        doubled = min(self.options.backoff_s * 2.0**attempt, most)
        return doubled * (0.5 + self._jitter() / 2)

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _reason(response: httpx.Response) -> str:
    try:
        return error_text(decode(b"".join(_bounded(response))))
    except StreamError:
        return response.reason_phrase or "no reason given"


def _bounded(response: httpx.Response) -> Iterator[bytes]:
    received = 0
    for chunk in response.iter_bytes():
        received += len(chunk)
        if received > MAX_BODY_BYTES:
            raise StreamError(f"the server's answer is longer than {MAX_BODY_BYTES} bytes")
        yield chunk


def _retry_after_s(value: str, now_s: float) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds or a date; None if it is neither."""
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - now_s, 0.0)
    except (ValueError, OverflowError):
        return None


def _vectors(answer: Any, expected: int) -> list[list[float]]:
    try:
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        vectors = [[float(x) for x in row["embedding"]] for row in rows]
    except (KeyError, TypeError, ValueError) as exc:
        raise StreamError(f"no vectors but {error_text(answer)}") from exc
    if len(vectors) != expected or len({len(v) for v in vectors}) != 1:
        raise StreamError(f"expected {expected} vectors of one length, got {len(vectors)}")
    return vectors
