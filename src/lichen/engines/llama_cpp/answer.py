"""Turn llama.cpp's chunks and answers into a transcript. All its JSON shapes are read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lichen.core.generation import Completion, Finish, Request
from lichen.core.measurement import Usage
from lichen.engines.logprobs import read_logprobs
from lichen.engines.transcript import Transcript


class Answer:
    """One request's answer while llama.cpp sends it, in one piece or in many."""

    def __init__(self, request: Request, transcript: Transcript) -> None:
        self._request = request
        self._transcript = transcript
        self._timings: Mapping[str, Any] = {}
        self._finish = Finish.STOP
        self._error = ""
        self._ended = False
        self._ahead = (0, 0.0)

    def computed_ahead(self, tokens: int, seconds: float) -> None:
        """Note what was computed of this request's prompt before llama.cpp was given all of it."""
        self._ahead = (tokens, seconds)

    def read_chunk(self, chunk: Mapping[str, Any]) -> bool:
        """Take in a streamed chunk; returns True when the sequence should be cancelled."""
        if "error" in chunk:
            self._error = _sentence(chunk["error"])
            return True
        timings = chunk.get("timings")
        if timings:
            self._timings = timings
            if timings["predicted_n"] > 0:
                # A token may come before text: held back for a stop string or half a character.
                self._transcript.mark_first_token()
        return any(self._read_choice(choice) for choice in chunk.get("choices", ()))

    def fail(self, sentence: str) -> None:
        """Note that the request failed."""
        self._error = sentence

    def read_whole(self, body: Mapping[str, Any]) -> None:
        """Take in the answer to a request that was not streamed."""
        if "error" in body:
            self._error = _sentence(body["error"])
            return
        self._timings = body["timings"]
        self._transcript.mark_first_token(self._timings["predicted_ms"] / 1000)
        for choice in body["choices"]:
            self._read_choice(choice)

    def _read_choice(self, choice: Mapping[str, Any]) -> bool:
        if choice.get("finish_reason") is not None:
            self._ended = True
            self._finish = Finish.LENGTH if choice["finish_reason"] == "length" else Finish.STOP
        logprobs = read_logprobs(choice.get("logprobs"), self._request.logprobs)
        return self._transcript.add(choice.get("text") or "", logprobs)

    def completion(self, *, cancelled: bool = False) -> Completion:
        """Close the answer. Tokens are llama.cpp's own counts of what it computed."""
        t = self._timings
        if not (self._error or self._ended or self._transcript.finished):
            self._error = "the request was cancelled" if cancelled else "llama.cpp gave no answer"
        tokens, seconds = self._ahead
        cached = t.get("cache_n", 0)
        usage = Usage(
            prompt=cached + t.get("prompt_n", 0),
            cached=max(cached - tokens, 0),
            completion=t.get("predicted_n", 0),
        )
        if not self._error and usage.prompt == 0:
            self._error = "the prompt has no tokens, so there is nothing to continue"
        return self._transcript.completion(
            usage,
            self._finish,
            prefill_s=t["prompt_ms"] / 1000 + seconds if "prompt_ms" in t else None,
            decode_s=t["predicted_ms"] / 1000 if "predicted_ms" in t else None,
            draft=(t.get("draft_n", 0), t.get("draft_n_accepted", 0)),
            error=self._error,
        )


def _sentence(error: Any) -> str:
    if isinstance(error, Mapping) and error.get("type") == "exceed_context_size_error":
        return (
            f"the prompt has {error.get('n_prompt_tokens')} tokens but a slot holds "
            f"{error.get('n_ctx')}: shorten it or raise the engine's option 'context'"
        )
    message = error.get("message") if isinstance(error, Mapping) else error
    return f"llama.cpp refused the request: {message}"
