"""A local server that speaks the OpenAI API and misbehaves on command, for tests of clients.

It runs in a thread of this process, on a free port of 127.0.0.1, with the standard library only.
It holds no model: a ``Behaviour`` says what it sends, byte by byte if need be.
"""

from __future__ import annotations

import json
import re
import select
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How to treat one request.

    Args:
        text: the answer.
        finish: ``finish_reason``; None sends none (the answer breaks off).
        usage: whether tokens are counted in the answer.
        status: HTTP status; other than 200 sends an error object with ``message``.
        message: of the error.
        headers: further response headers.
        raw: if given, these byte chunks are the whole body instead.
        disconnect: close the connection without a word.
        hold: wait for this before the body (after the headers), or until the server closes.
        gate: wait for this before the status line.
        logprob: of every token.
    """

    text: str = "ok"
    finish: str | None = "stop"
    usage: bool = True
    status: int = 200
    message: str = "no reason"
    headers: Sequence[tuple[str, str]] = ()
    raw: Sequence[bytes] | None = None
    disconnect: bool = False
    hold: threading.Event | None = None
    gate: threading.Event | None = None
    logprob: float = -0.25


@dataclass(slots=True, kw_only=True)
class Seen:
    """A request that the server got."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    broken_off: threading.Event = field(default_factory=threading.Event)
    """Set when the client went away before the answer ended."""


Respond = Callable[[dict[str, Any]], Behaviour]


class FakeOpenAIServer:
    """A context manager that serves ``respond``; ``seen`` lists the requests.

    The answer's tokens are words with the space before them. ``max_tokens`` and ``stop`` are
    obeyed, so that it can stand in for a real server.
    """

    def __init__(self, respond: Respond | Behaviour = Behaviour()) -> None:
        self.respond = respond if callable(respond) else (lambda _: respond)
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def base_url(self) -> str:
        """Address to give to clients."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        """Start serving."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, fake: FakeOpenAIServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fake = fake

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that breaks a connection off is what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its own name)
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer as the behaviour says."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = Seen(path=self.path, headers=dict(self.headers.items()), body=body)
        self.server.fake.seen.append(seen)
        try:
            self._serve(self.server.fake.respond(body), seen)
        except OSError:  # the client went away
            self.close_connection = True
            seen.broken_off.set()

    def _serve(self, b: Behaviour, seen: Seen) -> None:
        if b.gate is not None:
            self._wait(b.gate)
        if b.disconnect:
            self.close_connection = True
            return
        chunks = _chunks(b, seen)
        self.send_response(b.status)
        for name, value in b.headers:
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i, chunk in enumerate(chunks):
            if i == len(chunks) // 2 and b.hold is not None:
                self._wait(b.hold)
            if chunk:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def _wait(self, event: threading.Event) -> None:
        """Wait for the event or the server's end; raises ConnectionError if the client leaves."""
        while not (event.is_set() or self.server.fake.closing.is_set()):
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable and self.connection.recv(1, socket.MSG_PEEK) == b"":
                raise ConnectionError


def _chunks(b: Behaviour, seen: Seen) -> list[bytes]:
    if b.raw is not None:
        return list(b.raw)
    if b.status != 200:  # noqa: PLR2004 (HTTP OK)
        return [json.dumps({"error": {"message": b.message}}).encode()]
    if seen.path.endswith("/embeddings"):
        return [json.dumps(_embeddings(seen.body)).encode()]
    return _stream(b, seen) if seen.body.get("stream") else [json.dumps(_whole(b, seen)).encode()]


def _tokens(b: Behaviour, body: dict[str, Any]) -> tuple[list[str], str | None]:
    """Return the answer's tokens within ``max_tokens`` and before stop strings, and the finish."""
    text = b.text
    for stop in body.get("stop") or ():
        text = text.partition(stop)[0]
    tokens = re.findall(r"\s*\S+|\s+$", text)
    most = body["max_tokens"]
    return (tokens[:most], "length") if len(tokens) > most else (tokens, b.finish)


def _usage(body: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    prompt = len(json.dumps(body.get("messages", body.get("prompt"))).split())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": len(tokens),
        "total_tokens": prompt + len(tokens),
    }


def _logprobs(b: Behaviour, seen: Seen, tokens: list[str]) -> dict[str, Any] | None:
    if not seen.body.get("logprobs"):
        return None
    if seen.path.endswith("/chat/completions"):
        top = seen.body.get("top_logprobs", 0)
        entry = {"logprob": b.logprob}
        tops = [{"token": f"alt{i}", "logprob": b.logprob - i} for i in range(top)]
        return {"content": [{"token": t, **entry, "top_logprobs": tops} for t in tokens]}
    tops = [{f"alt{i}": b.logprob - i for i in range(seen.body["logprobs"])} for _ in tokens]
    return {"tokens": tokens, "token_logprobs": [b.logprob] * len(tokens), "top_logprobs": tops}


def _choice(seen: Seen, holder: str, text: str, finish: str | None) -> dict[str, Any]:
    chat = seen.path.endswith("/chat/completions")
    said: dict[str, Any] = {holder: {"content": text}} if chat else {"text": text}
    return {"index": 0, **said, "finish_reason": finish}


def _whole(b: Behaviour, seen: Seen) -> dict[str, Any]:
    tokens, finish = _tokens(b, seen.body)
    choice = _choice(seen, "message", "".join(tokens), finish)
    answer = {"choices": [{**choice, "logprobs": _logprobs(b, seen, tokens)}]}
    return {**answer, "usage": _usage(seen.body, tokens)} if b.usage else answer


def _stream(b: Behaviour, seen: Seen) -> list[bytes]:
    tokens, finish = _tokens(b, seen.body)
    parts: list[dict[str, Any]] = [
        {"choices": [{**_choice(seen, "delta", t, None), "logprobs": _logprobs(b, seen, [t])}]}
        for t in tokens
    ]
    if finish is not None:
        parts.append({"choices": [_choice(seen, "delta", "", finish)]})
    wanted = (seen.body.get("stream_options") or {}).get("include_usage")
    if b.usage and wanted:
        parts.append({"choices": [], "usage": _usage(seen.body, tokens)})
    return [f"data: {json.dumps(p)}\n\n".encode() for p in parts] + [b"data: [DONE]\n\n"]


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    rows = [{"index": i, "embedding": [float(len(t)), 1.0]} for i, t in enumerate(body["input"])]
    return {"data": rows[::-1]}
