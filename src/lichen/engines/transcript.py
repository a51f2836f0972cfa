"""Collect one answer as it is generated: text, log-probabilities, first-token time, stop rule.

All adapters build their completions here, so that a stop rule cuts, a delta is trimmed and an
error is worded in the same way whatever runs the model.
"""

from __future__ import annotations

from collections.abc import Callable

from lichen.core.generation import (
    Completion,
    Confidence,
    Delta,
    Finish,
    Request,
    Step,
    Timings,
    TokenLogprob,
)
from lichen.core.measurement import Usage


class Transcript:
    """The answer to one request so far.

    Args:
        request: what was asked.
        submitted_s: reading of ``clock`` when it was submitted.
        clock: monotonic seconds.
        emit: takes deltas; called only when the request wants them.
    """

    def __init__(
        self,
        request: Request,
        submitted_s: float,
        clock: Callable[[], float],
        emit: Callable[[Delta], None],
    ) -> None:
        self._request = request
        self._submitted_s = submitted_s
        self._clock = clock
        self._emit = emit
        self._text = ""
        self._logprobs: list[TokenLogprob] = []
        self._ttft_s: float | None = None
        self._cut = False
        self._failure = ""

    @property
    def text(self) -> str:
        """The text so far; after a cut, what is kept."""
        return self._text

    @property
    def finished(self) -> bool:
        """Whether the stop rule has ended (or broken) this generation: cancel the sequence."""
        return self._cut or bool(self._failure)

    def mark_first_token(self, decode_s: float = 0.0) -> None:
        """Note that the first token came ``decode_s`` seconds ago; later calls change nothing.

        An answer that arrives in one piece still has a first-token time if the engine says how
        long it decoded.
        """
        if self._ttft_s is None:
            self._ttft_s = max(self._clock() - self._submitted_s - decode_s, 0.0)

    def add(
        self, text: str, logprobs: tuple[TokenLogprob, ...] = (), *, whole: bool = False
    ) -> bool:
        """Append what the model said, ask the stop rule, emit the delta.

        Returns ``finished``: when True the caller cancels the sequence. Text that comes after
        that is ignored. A ``whole`` answer arrives in one piece, so that its arrival does not
        tell when its first token came.
        """
        if self.finished or not (text or logprobs):
            return self.finished
        if not whole:
            self.mark_first_token()
        before = len(self._text)
        known = len(self._logprobs)
        self._text += text
        self._logprobs.extend(logprobs)
        keep = self._ask_rule() if text else None
        if keep is not None:
            self._cut = True
            self._text = self._text[:keep]
            self._trim_logprobs(keep)
        if self._request.stream:
            piece, rest = self._text[before:], tuple(self._logprobs[known:])
            if piece or rest:
                self._emit(Delta(id=self._request.id, text=piece, logprobs=rest))
        return self.finished

    def _ask_rule(self) -> int | None:
        rule = self._request.stop
        if rule is None:
            return None
        try:
            keep = rule.cut(self._text)
        except Exception as exc:  # noqa: BLE001 (a rule is a caller's code: its failure is this sample's)
            self._failure = f"the stop rule {type(rule).__name__} failed: {exc!r}"
            return None
        if keep is not None and keep < 0:
            self._failure = f"the stop rule {type(rule).__name__} wants to keep {keep} characters"
            return None
        return keep

    def _trim_logprobs(self, keep: int) -> None:
        """Drop the tokens that begin at or after character ``keep``."""
        position = 0
        for i, token in enumerate(self._logprobs):
            if position >= keep:
                del self._logprobs[i:]
                return
            position += len(token.text)

    def completion(
        self,
        usage: Usage,
        finish: Finish,
        *,
        prefill_s: float | None = None,
        decode_s: float | None = None,
        draft: tuple[int, int] = (0, 0),
        ledger: tuple[Step, ...] = (),
        error: str = "",
    ) -> Completion:
        """Close the transcript now and return the completion.

        ``finish`` is how the model ended; a rule that cut or failed overrides it, an ``error``
        sentence overrides both. ``draft`` is (drafted, accepted).
        """
        error = error or self._failure
        if error:
            finish = Finish.ERROR
        elif self._cut:
            finish = Finish.RULE
        total_s = self._clock() - self._submitted_s
        return Completion(
            id=self._request.id,
            text=self._text,
            usage=usage,
            finish=finish,
            timings=Timings(
                total_s=total_s, ttft_s=self._ttft_s, prefill_s=prefill_s, decode_s=decode_s
            ),
            logprobs=tuple(self._logprobs),
            confidence=confidence(self._logprobs),
            draft_tokens=draft[0],
            draft_accepted=draft[1],
            ledger=ledger,
            error=error,
        )


def confidence(logprobs: list[TokenLogprob]) -> Confidence | None:
    """Summarise token log-probabilities (natural log); None if there are none."""
    if not logprobs:
        return None
    values = [t.logprob for t in logprobs]
    return Confidence(
        mean_logprob=sum(values) / len(values), min_logprob=min(values), tokens=len(values)
    )


def unencodable(request: Request) -> str:
    """Return a sentence if the request holds text that UTF-8 cannot (lone surrogates), else ""."""
    texts = [m.content for m in request.messages or ()]
    texts += [t for t in (request.prompt, request.prefix, request.suffix) if t is not None]
    texts += [request.answer_prefix, *request.stop_strings]
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            return (
                f"the request holds a lone surrogate (character {exc.start} of a text of "
                f"{len(text)}), which is no valid Unicode; replace it before asking"
            )
    return ""


def may_become(text: str, stop_strings: tuple[str, ...]) -> int:
    """Return the length of the longest end of ``text`` that begins a stop string."""
    longest = max(map(len, stop_strings), default=0)
    for n in range(min(longest - 1, len(text)), 0, -1):
        if any(s.startswith(text[-n:]) for s in stop_strings):
            return n
    return 0
