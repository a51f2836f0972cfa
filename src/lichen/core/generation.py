"""What engines are asked and what they answer. No engine knows tasks; no task knows engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

from lichen.core.measurement import Usage
from lichen.core.value import Value


@runtime_checkable
class StopRule(Protocol):
    """Decides, from the text so far alone, whether a generation is finished.

    The engine asks at every delta and cancels the sequence when a length comes back. The answer
    must depend on the text only, so that it can be replayed; since an engine only ever extends
    the text, an *instance* may remember what it has parsed. One instance serves one request.
    """

    def cut(self, text: str) -> int | None:
        """Return how many characters of ``text`` to keep, or None to go on."""


class Role(StrEnum):
    """Who speaks in a chat message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat turn."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What the asker knows about the wanted answer, beyond the words; strategies may use it.

    Everything here can be read off the question itself (an editor or a task fills it in); nothing
    of the hidden tests or the reference is ever in it.

    Args:
        language: of the wanted code, e.g. ``"python"``.
        entry_point: name of the definition that is asked for, "" if any code will do.
        given: code that the answer must begin with, verbatim from the question (imports, helpers,
            signature, docstring), "" if the question gives none.
    """

    language: str = ""
    entry_point: str = ""
    given: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One generation to run. Exactly one of ``messages``, ``prompt``, ``prefix`` is given.

    Args:
        id: unique within one ``generate`` call; comes back on deltas and completion.
        messages: a chat; the engine applies the model's own template.
        prompt: raw text, no template.
        prefix, suffix: fill-in-the-middle; the engine uses the model's own control tokens.
        answer_prefix: text the assistant's answer must begin with. It is prefilled, not decoded,
            and is *not* part of the completion's text. Chat only.
        max_tokens: most new tokens, >= 1.
        temperature: 0 means greedy.
        seed: of the sampler, >= 0.
        stop: rule asked at each delta; None lets the model finish.
        logprobs: how many alternatives per token to report; 0 for none.
        stream: whether the caller wants ``Delta`` items.
        user: whose request it is; caches never cross users.
        hints: what is known of the wanted answer; engines ignore it, strategies may use it.
    """

    id: str
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    answer_prefix: str = ""
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: StopRule | None = None
    stop_strings: tuple[str, ...] = ()
    logprobs: int = 0
    stream: bool = False
    user: str = ""
    hints: Hints | None = None

    def __post_init__(self) -> None:
        """Check that the request says one thing."""
        given = [f for f in ("messages", "prompt", "prefix") if getattr(self, f) is not None]
        if len(given) != 1:
            msg = f"request {self.id!r} needs exactly one of messages, prompt, prefix; got {given}"
            raise ValueError(msg)
        if (self.prefix is None) != (self.suffix is None):
            msg = f"request {self.id!r}: prefix and suffix go together"
            raise ValueError(msg)
        if self.answer_prefix and self.messages is None:
            msg = f"request {self.id!r}: answer_prefix needs messages"
            raise ValueError(msg)
        if self.max_tokens < 1 or self.temperature < 0 or self.logprobs < 0 or self.seed < 0:
            msg = f"request {self.id!r}: max_tokens >= 1; temperature, logprobs, seed >= 0"
            raise ValueError(msg)

    @property
    def kind(self) -> Literal["chat", "raw", "infill"]:
        """Which of the three shapes this request has."""
        if self.messages is not None:
            return "chat"
        return "raw" if self.prompt is not None else "infill"


def distinct(requests: Iterable[Request]) -> Iterator[Request]:
    """Yield the requests of one generate call as they are taken.

    Raises:
        ValueError: two of them have one id.
    """
    seen: set[str] = set()
    for request in requests:
        if request.id in seen:
            msg = f"two requests of one generate call have the id {request.id!r}"
            raise ValueError(msg)
        seen.add(request.id)
        yield request


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob(Value):
    """A token with its natural-log probability and the alternatives that were considered."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of text as it is generated."""

    id: str
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model ended it, or a stop string was met."""
    LENGTH = "length"
    RULE = "rule"
    """The request's ``StopRule`` cut it."""
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings(Value):
    """Wall-clock times of one request in seconds; None where the engine cannot tell.

    ``ttft_s`` is from submission to the first token (queueing included); ``prefill_s`` and
    ``decode_s`` are the engine's own split; ``total_s`` is submission to end.
    """

    total_s: float
    ttft_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None

    def tpot_s(self, completion_tokens: int) -> float | None:
        """Time per output token after the first: ``(total - ttft) / (n - 1)``, None if n < 2."""
        if self.ttft_s is None or completion_tokens < 2:  # noqa: PLR2004 (needs two tokens)
            return None
        return (self.total_s - self.ttft_s) / (completion_tokens - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence(Value):
    """Token log-probability statistics of a completion (natural log); needs ``logprobs > 0``."""

    mean_logprob: float
    min_logprob: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Value):
    """One entry of a decision ledger: what a strategy did for this request and what it cost.

    Args:
        actor: the strategy.
        action: what it did, in words that are the same wherever it did the same.
        usage: tokens that were spent and did not end up in the answer.
        cpu_s: CPU-seconds that it took outside the engine; None where there were none to see.
        detail: what is particular to this request.
        engine_cpu_s: CPU-seconds that the engine took for this step; None if not told apart.
        score: how sure the strategy was of an answer, 0 to 1; None if it did not ask.
        answer: an answer that was set aside, kept so that it can be judged; "" if none was.
        solved: whether that answer was right. No strategy knows; the benchmark fills it in.
    """

    actor: str
    action: str
    usage: Usage = Usage()
    cpu_s: float | None = None
    detail: str = ""
    engine_cpu_s: float | None = None
    score: float | None = None
    answer: str = ""
    solved: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The end of one request. ``error`` is a sentence when ``finish`` is ERROR, else empty.

    ``draft_tokens`` / ``draft_accepted`` are speculative decoding's counters (0 when unused).
    """

    id: str
    text: str
    usage: Usage
    finish: Finish
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] = ()
    confidence: Confidence | None = None
    draft_tokens: int = 0
    draft_accepted: int = 0
    ledger: tuple[Step, ...] = ()
    error: str = ""


class Capability(StrEnum):
    """What an engine may be able to do; tasks and strategies state what they need."""

    CHAT = "chat"
    RAW = "raw"
    INFILL = "infill"
    ANSWER_PREFIX = "answer_prefix"
    STREAM = "stream"
    CANCEL = "cancel"
    LOGPROBS = "logprobs"
    SEED = "seed"
    EMBED = "embed"
    RANK = "rank"
    TOKENIZE = "tokenize"
    IN_PROCESS = "in_process"
    """The engine's CPU time is this process tree's, so the meter sees it."""
    EARLY_EXIT = "early_exit"
    """The engine can leave out a model's later layers (its option of that name)."""
