"""Read a server's answer into a transcript, trusting none of it.

A server need not count tokens (and cannot, when a stop rule closes the stream early). Core's
``Usage`` has no "unknown", and 0 would be a lie, so tokens are then estimated, and the completion's
ledger says so in a step ``usage_estimated``: reports can tell counted from estimated answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from lichen.core.generation import Completion, Finish, Request, Step
from lichen.core.measurement import Usage
from lichen.engines.logprobs import read_logprobs
from lichen.engines.openai_http.sse import StreamError
from lichen.engines.transcript import Transcript

BYTES_PER_TOKEN: Final = 4
"""About four characters of English are a token (OpenAI help article 4936856); code has fewer."""

DONE: Final = "[DONE]"


class Answer:
    """One request's answer, in one piece or in many."""

    def __init__(self, request: Request, transcript: Transcript, *, streamed: bool) -> None:
        self._request = request
        self._streamed = streamed
        self._transcript = transcript
        self._usage: Usage | None = None
        self._prefill_s: float | None = None
        self._decode_s: float | None = None
        self._finish: Finish | None = None
        self._pieces = 0
        self._error = ""

    @property
    def begun(self) -> bool:
        """Whether anything of the answer has arrived, so that repeating it would pay twice."""
        return self._pieces > 0 or self._finish is not None

    def fail(self, sentence: str) -> None:
        """Note that the request failed; the first reason stays."""
        self._error = self._error or sentence

    def read_event(self, data: str) -> bool:
        """Take in the data of one event; returns True when nothing more is wanted.

        Raises:
            StreamError: it is no JSON object.
        """
        if data == DONE:
            return True
        return self.read_object(decode(data))

    def read_object(self, body: Mapping[str, Any]) -> bool:
        """Take in a chunk, or a whole answer; returns True when nothing more is wanted."""
        if body.get("error"):
            self.fail(f"the server refused the request: {error_text(body)}")
            return True
        self._read_counts(body)
        choices = body.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, Mapping) and self._read_choice(choice):
                return True
        return False

    def _read_choice(self, choice: Mapping[str, Any]) -> bool:
        holder = choice.get("delta") or choice.get("message") or {}
        text = holder.get("content") if isinstance(holder, Mapping) else None
        if text is None:
            text = choice.get("text")
        text = text if isinstance(text, str) else ""
        self._pieces += bool(text)
        logprobs = read_logprobs(choice.get("logprobs"), self._request.logprobs)
        finished = self._transcript.add(text, logprobs, whole=not self._streamed)
        reason = choice.get("finish_reason")
        if reason == "content_filter":
            self.fail("the server's content filter ended the answer")
        elif reason is not None:
            self._finish = Finish.LENGTH if reason == "length" else Finish.STOP
        return finished

    def _read_counts(self, body: Mapping[str, Any]) -> None:
        usage = body.get("usage")
        if isinstance(usage, Mapping):
            details = usage.get("prompt_tokens_details")
            cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
            prompt, new = usage.get("prompt_tokens"), usage.get("completion_tokens")
            self._usage = _usage(prompt, cached or 0, new) or self._usage
        timings = body.get("timings")  # llama.cpp's own addition
        if isinstance(timings, Mapping):
            self._prefill_s = _seconds(timings.get("prompt_ms"))
            self._decode_s = _seconds(timings.get("predicted_ms"))
            if self._decode_s is not None and not self._streamed:
                self._transcript.mark_first_token(self._decode_s)
            cached, rest = timings.get("cache_n", 0), timings.get("prompt_n")
            if isinstance(cached, int) and isinstance(rest, int):
                new = timings.get("predicted_n")
                self._usage = _usage(cached + rest, cached, new) or self._usage

    def completion(self, ledger: tuple[Step, ...]) -> Completion:
        """Close the answer."""
        if not self._error and self._finish is None and not self._transcript.finished:
            self._error = "the server's answer ended before it was complete"
        usage = self._usage
        if usage is None and (self.begun or not self._error):
            usage = self._estimate()
            ledger = (*ledger, _ESTIMATED)
        return self._transcript.completion(
            usage or Usage(),
            self._finish or Finish.ERROR,
            prefill_s=self._prefill_s,
            decode_s=self._decode_s,
            ledger=ledger,
            error=self._error,
        )

    def _estimate(self) -> Usage:
        r = self._request
        texts = [m.content for m in r.messages or ()]
        texts += [t for t in (r.prompt, r.prefix, r.suffix, r.answer_prefix) if t]
        new = self._pieces if self._streamed else _tokens_in(self._transcript.text)
        return Usage(prompt=max(sum(map(_tokens_in, texts)), 1), completion=new)


_ESTIMATED: Final = Step(
    actor="openai_http",
    action="usage_estimated",
    detail=(
        f"the server counted no tokens: prompt at {BYTES_PER_TOKEN} bytes a token, answer one "
        "token a streamed piece (whole answers as the prompt)"
    ),
)


def decode(text: str | bytes) -> Mapping[str, Any]:
    """Parse a JSON object; raises StreamError for anything else."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise StreamError(f"the server sent what is no JSON: {text[:80]!r}") from exc
    if not isinstance(body, Mapping):
        raise StreamError(f"the server sent JSON that is no object: {text[:80]!r}")
    return body


def error_text(body: Mapping[str, Any]) -> str:
    """Return the message of an error object, short and on one line."""
    error = body.get("error", body)
    message = error.get("message", error) if isinstance(error, Mapping) else error
    return " ".join(str(message).split())[:300]


def _tokens_in(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def _usage(prompt: object, cached: object, new: object) -> Usage | None:
    """Build a usage from what a server claims; None if it makes no sense."""
    counts = [c for c in (prompt, cached, new) if isinstance(c, int) and not isinstance(c, bool)]
    if len(counts) != 3:  # noqa: PLR2004 (prompt, cached, new)
        return None
    try:
        return Usage(prompt=counts[0], cached=counts[1], completion=counts[2])
    except ValueError:
        return None


def _seconds(milliseconds: object) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    return milliseconds / 1000 if milliseconds >= 0 else None
