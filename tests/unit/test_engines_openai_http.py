"""The OpenAI-compatible engine against a local server that misbehaves on command."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import pytest

from lichen.core.errors import EngineError
from lichen.core.generation import (
    Capability,
    Completion,
    Delta,
    Finish,
    Message,
    Request,
    Role,
)
from lichen.core.measurement import Usage
from lichen.engines.fanout import Job
from lichen.engines.openai_http import open_engine
from lichen.engines.openai_http.engine import OpenAIHttpEngine
from lichen.engines.openai_http.options import OpenAIHttpOptions
from lichen.testing.openai_server import Behaviour, FakeOpenAIServer

KEY = "sk-very-secret"


class Rule:
    """Cuts after the first word."""

    def cut(self, text: str) -> int | None:
        return text.find(" ") if " " in text else None


def ask(**kwargs: object) -> Request:
    """A chat request."""
    messages = (Message(role=Role.USER, content="hello there"),)
    return Request(id="r", messages=messages, **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that the engine made between attempts."""
    return []


@pytest.fixture
def serve(pauses: list[float]) -> Iterator[object]:
    """Start a server that behaves in the given ways, one after the other; return it and an engine."""
    opened: list[object] = []

    def start(
        *behaviours: Behaviour, **options: object
    ) -> tuple[FakeOpenAIServer, OpenAIHttpEngine]:
        left = list(behaviours)
        server = FakeOpenAIServer(lambda _: left.pop(0) if len(left) > 1 else left[0])
        server.__enter__()
        settings = OpenAIHttpOptions(base_url=server.base_url, model="m", **options)  # type: ignore[arg-type]

        def pause(job: Job, seconds: float) -> bool:
            pauses.append(seconds)
            return job.cancelled

        engine = OpenAIHttpEngine(settings, KEY, pause=pause, jitter=lambda: 1.0, wall=lambda: 0.0)
        opened.append(engine)
        opened.append(server)
        return server, engine

    yield start
    for thing in opened:
        if isinstance(thing, OpenAIHttpEngine):
            thing.close()
        else:
            thing.__exit__(None, None, None)  # type: ignore[attr-defined]


def run(engine: OpenAIHttpEngine, request: Request) -> tuple[list[Delta], Completion]:
    """The deltas and the completion of one request."""
    *deltas, done = list(engine.generate([request]))
    assert isinstance(done, Completion)
    return [d for d in deltas if isinstance(d, Delta)], done


def stream(*events: object, end: bytes = b"data: [DONE]\n\n") -> list[bytes]:
    """The body of a stream of JSON events."""
    return [f"data: {json.dumps(e)}\n\n".encode() for e in events] + [end]


def piece(text: str, finish: str | None = None) -> dict[str, object]:
    """A chat chunk."""
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


def test_what_is_sent(serve) -> None:
    """The request arrives as the API defines it, with the key, and without what was not asked."""
    server, engine = serve(Behaviour(), capabilities=("chat", "seed", "logprobs"))
    run(
        engine,
        ask(max_tokens=9, temperature=0.5, top_p=0.9, seed=4, stop_strings=("x",), logprobs=2),
    )
    seen = server.seen[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert seen.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello there"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 4,
        "stop": ["x"],
        "logprobs": True,
        "top_logprobs": 2,
        "stream": False,
    }


@pytest.mark.parametrize(
    ("style", "message", "fields"),
    [
        ("continue", {}, {}),
        ("prefix", {"prefix": True}, {}),
        ("vllm", {}, {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_answer_prefix_styles(serve, style, message, fields) -> None:
    """Each family of servers is told in its own way to go on with the last message."""
    server, engine = serve(Behaviour(), answer_prefix=style)
    run(engine, ask(answer_prefix="def"))
    body = server.seen[0].body
    assert body["messages"][-1] == {"role": "assistant", "content": "def", **message}
    assert {k: body[k] for k in fields} == fields


def test_raw_and_infill_go_to_completions(serve) -> None:
    """Prompt and prefix with suffix use the completion endpoint."""
    server, engine = serve(Behaviour(text="body"), capabilities=("raw", "infill"))
    _, done = run(engine, Request(id="r", prefix="a", suffix="z"))
    assert done.text == "body"
    run(engine, Request(id="r", prompt="p"))
    assert [s.path for s in server.seen] == ["/v1/completions"] * 2
    assert (server.seen[0].body["prompt"], server.seen[0].body["suffix"]) == ("a", "z")
    assert "suffix" not in server.seen[1].body


def test_extra_body_reaches_the_server_and_overrides_nothing_of_ours(serve) -> None:
    """Servers' own switches pass through; stream options only where there is a stream."""
    extra = {"top_k": 5, "model": "other", "stream_options": {"continuous_usage_stats": True}}
    server, engine = serve(Behaviour(), extra_body=extra)
    run(engine, ask())
    run(engine, ask(stream=True))
    whole, streamed = (s.body for s in server.seen)
    assert whole["top_k"] == 5
    assert whole["model"] == "m"
    assert "stream_options" not in whole
    assert streamed["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_what_the_server_is_not_said_to_have_is_refused_unsent(serve) -> None:
    """The sentence names the capability and the option; nothing reaches the server."""
    server, engine = serve(Behaviour())
    _, done = run(engine, Request(id="r", prefix="a", suffix="b"))
    assert done.finish is Finish.ERROR
    assert "infill" in done.error
    assert "capabilities" in done.error
    assert server.seen == []


def test_streams_in_any_dialect(serve) -> None:
    """Comments, CRLF, no space after the colon, multi-line data and split characters are read."""
    accent = "data: " + json.dumps(piece("né", None), ensure_ascii=False) + "\r\n\r\n"
    raw = accent.encode()
    body = [
        b": a comment\r\n\r\n",
        b"event: x\nid: 1\ndata:" + json.dumps(piece("a ")).encode() + b"\r\n\r\n",
        raw[: raw.index("é".encode()) + 1],
        raw[raw.index("é".encode()) + 1 :],
        b'data: {"choices":\ndata: [{"delta": {"content": "!"}, "finish_reason": "stop"}]}\n\n',
        b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}\n\n',
        b"data: [DONE]\n\n",
    ]
    _, engine = serve(Behaviour(raw=body))
    deltas, done = run(engine, ask(stream=True))
    assert done.error == ""
    assert done.text == "a né!"
    assert [d.text for d in deltas] == ["a ", "né", "!"]
    assert done.usage == Usage(prompt=3, completion=3)
    assert done.ledger == ()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ([b"data: {not json}\n\n"], "no JSON"),
        ([b"data: [1, 2]\n\n"], "no object"),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], "no JSON"),
        (stream(piece("half")), "ended before it was complete"),
        (stream(piece("half"), end=b""), "ended before it was complete"),
        ([], "ended before it was complete"),
        (stream({"error": {"message": "out of\nmemory"}}), "out of memory"),
        (stream(piece("x", "content_filter")), "content filter"),
    ],
)
def test_a_broken_stream_is_an_error_completion(serve, body, part) -> None:
    """Whatever the server sends, the request ends in a sentence, with the text that came."""
    _, engine = serve(Behaviour(raw=body))
    _, done = run(engine, ask(stream=True))
    assert done.finish is Finish.ERROR
    assert part in done.error
    assert done.text in ("", "half", "x")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>busy</html>",
        b'{"choices": 3, "usage": []}',
        b'{"choices": [7, {"message": {"content": {"x": 1}}, "finish_reason": null}]}',
        b"",
        b"\xff\xfe",
    ],
)
def test_a_broken_answer_is_an_error_completion(serve, body) -> None:
    """The same for answers in one piece."""
    _, engine = serve(Behaviour(raw=[body]))
    _, done = run(engine, ask())
    assert done.finish is Finish.ERROR
    assert done.error


def test_a_huge_line_does_not_fill_the_memory(serve, monkeypatch) -> None:
    """A line beyond the limit ends the request."""
    monkeypatch.setattr("lichen.engines.openai_http.engine.MAX_LINE_BYTES", 1000)
    monkeypatch.setattr("lichen.engines.openai_http.engine.MAX_BODY_BYTES", 2500)
    _, engine = serve(Behaviour(raw=[b"data: " + b"x" * 900] * 2))
    assert "more than 1000 bytes" in run(engine, ask(stream=True))[1].error
    _, engine = serve(Behaviour(raw=[b": ping\n\n" * 100] * 5))
    assert "longer than 2500 bytes" in run(engine, ask(stream=True))[1].error
    assert "longer than 2500 bytes" in run(engine, ask())[1].error


def test_retries_then_succeeds(serve, pauses) -> None:
    """429 and 5xx are tried again after growing pauses; the ledger tells."""
    behaviours = [Behaviour(status=429), Behaviour(status=503, message="loading"), Behaviour()]
    server, engine = serve(*behaviours, backoff_s=1.0)
    _, done = run(engine, ask())
    assert done.error == ""
    assert len(server.seen) == 3
    assert pauses == [1.0, 2.0]
    assert [s.action for s in done.ledger] == ["retry", "retry"]
    assert "503: loading" in done.ledger[1].detail


def test_retry_after_is_obeyed_within_reason(serve, pauses) -> None:
    """Seconds and dates are read, nonsense is ignored, and the longest pause holds."""
    values = ["7", "Thu, 01 Jan 1970 00:00:09 GMT", "soon", "999999"]
    behaviours = [Behaviour(status=429, headers=(("Retry-After", v),)) for v in values]
    _, engine = serve(*behaviours, Behaviour(), backoff_s=1.0, backoff_max_s=30.0)
    assert run(engine, ask())[1].error == ""
    assert pauses == [7.0, 9.0, 4.0, 30.0]


def test_retries_end(serve, pauses) -> None:
    """After the last attempt the request fails with what the server said."""
    server, engine = serve(Behaviour(status=500, message="boom"), retries=2)
    _, done = run(engine, ask())
    assert done.finish is Finish.ERROR
    assert "boom" in done.error
    assert "attempts: 3" in done.error
    assert len(server.seen) == 3
    assert done.usage == Usage()


def test_a_refusal_is_not_repeated(serve, pauses) -> None:
    """4xx other than 429 will not get better."""
    server, engine = serve(Behaviour(status=400, message="bad temperature"))
    _, done = run(engine, ask())
    assert "HTTP 400: bad temperature" in done.error
    assert len(server.seen) == 1


def test_a_dropped_connection_is_tried_again_unless_the_answer_had_begun(serve, pauses) -> None:
    """An answer is never paid for twice."""
    server, engine = serve(Behaviour(disconnect=True), Behaviour())
    assert run(engine, ask())[1].error == ""
    assert len(server.seen) == 2


def test_no_server_is_an_error_completion(serve, pauses) -> None:
    """A refused connection is tried again, then told in a sentence."""
    server, engine = serve(Behaviour(), retries=1)
    server._http.server_close()
    _, done = run(engine, ask())
    assert "no connection to http://127.0.0.1" in done.error
    assert len(pauses) == 1


def test_silence_is_not_repeated(serve) -> None:
    """A server that says nothing may be working: asking again would pay twice."""
    server, engine = serve(Behaviour(gate=threading.Event()), read_timeout_s=0.2)
    _, done = run(engine, ask())
    assert "was silent for 0.2 s" in done.error
    assert len(server.seen) == 1


def test_redirects_do_not_carry_the_key_away(serve) -> None:
    """A redirect is an error, not followed."""
    server, engine = serve(Behaviour(status=307, headers=(("Location", "/v1/elsewhere"),)))
    _, done = run(engine, ask())
    assert "HTTP 307" in done.error
    assert len(server.seen) == 1


def test_the_key_is_never_shown(serve, caplog) -> None:
    """Not in errors that echo it, not in logs."""
    caplog.set_level(logging.DEBUG)
    _, engine = serve(Behaviour(status=401, message=f"wrong key {KEY}"))
    _, done = run(engine, ask())
    assert "wrong key ***" in done.error
    assert KEY not in caplog.text


def test_a_rule_closes_the_stream(serve) -> None:
    """The server sees the client leave, so that it can stop generating; usage is then estimated."""
    server, engine = serve(Behaviour(text="one two three", hold=threading.Event()))
    _, done = run(engine, ask(stop=Rule()))
    assert done.text == "one"
    assert done.finish is Finish.RULE
    assert server.seen[0].broken_off.wait(5)
    assert done.usage.completion == 2
    assert done.usage.prompt > 0
    assert [s.action for s in done.ledger] == ["usage_estimated"]


def test_usage_in_every_chunk_is_exact_after_a_cut(serve) -> None:
    """Continuous usage (vLLM) and llama.cpp's timings are read as they come."""
    usage = {"prompt_tokens": 11, "completion_tokens": 2}
    timings = {"cache_n": 4, "prompt_n": 7, "predicted_n": 2, "prompt_ms": 50, "predicted_ms": 9}
    for counts in ({"usage": usage}, {"timings": timings}):
        chunks = stream(piece("one"), {**piece(" two"), **counts}, piece(" three"))
        _, engine = serve(Behaviour(raw=chunks))
        _, done = run(engine, ask(stop=Rule()))
        assert (done.usage.prompt, done.usage.completion) == (11, 2)
        assert done.ledger == ()
    assert done.usage.cached == 4
    assert (done.timings.prefill_s, done.timings.decode_s) == (0.05, 0.009)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": True},
        {"prompt_tokens": "9"},
    ],
)
def test_counts_that_make_no_sense_are_estimated_and_flagged(serve, usage) -> None:
    """Zero tokens are never claimed for an answer that came."""
    body = {
        "choices": [{"message": {"content": "12345678"}, "finish_reason": "stop"}],
        "usage": usage,
    }
    _, engine = serve(Behaviour(raw=[json.dumps(body).encode()]))
    _, done = run(engine, ask())
    assert done.usage == Usage(prompt=3, completion=2)
    assert [s.action for s in done.ledger] == ["usage_estimated"]


def test_a_whole_answer_has_no_first_token_time(serve) -> None:
    """Arrival in one piece tells nothing about the first token."""
    _, engine = serve(Behaviour())
    assert run(engine, ask())[1].timings.ttft_s is None


@pytest.mark.parametrize("behaviour", [{"gate": threading.Event()}, {"hold": threading.Event()}])
@pytest.mark.parametrize("streamed", [True, False])
def test_closing_early_breaks_connections_off(serve, behaviour, streamed) -> None:
    """Neither a server that has not answered nor one in mid-answer keeps the caller waiting."""
    server, engine = serve(Behaviour(text="a b c d", **behaviour), concurrency=2)
    items = engine.generate(
        Request(id=str(i), messages=ask().messages, stream=streamed) for i in range(5)
    )
    waiting = threading.Thread(target=lambda: list(_swallow(items)))
    waiting.start()
    for _ in range(500):
        if len(server.seen) == 2:
            break
        threading.Event().wait(0.01)
    engine.close()
    waiting.join(10)
    assert not waiting.is_alive()
    assert all(seen.broken_off.wait(5) for seen in server.seen)


def _swallow(items: Iterator[object]) -> Iterator[object]:
    try:
        yield from items
    except EngineError:
        return


def test_embeddings_come_in_order(serve) -> None:
    """The server may answer in any order; the vectors come in the texts'."""
    _, engine = serve(Behaviour(), capabilities=("chat", "embed"))
    assert engine.embed(["a", "bbb"]) == [[1.0, 1.0], [3.0, 1.0]]


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(status=500, message=f"no {KEY}"),
        Behaviour(raw=[b'{"data": [{"index": 0, "embedding": ["x"]}]}']),
        Behaviour(raw=[b'{"data": []}']),
        Behaviour(disconnect=True),
    ],
)
def test_embeddings_that_fail_are_an_engine_error(serve, behaviour) -> None:
    """There is no completion to carry it, so it is raised, without the key."""
    _, engine = serve(behaviour, capabilities=("embed",))
    with pytest.raises(EngineError, match="cannot embed") as caught:
        engine.embed(["a"])
    assert KEY not in str(caught.value)


def test_a_remote_engine_does_not_claim_this_machines_counters() -> None:
    """CPU time and energy of a server are not in this process."""
    engine = open_engine(None, {"base_url": "http://127.0.0.1:9/v1", "model": "m"})
    assert Capability.IN_PROCESS not in engine.capabilities
    engine.close()
