"""When do two requests have the same answer? The keys of an answer cache.

A key holds everything that can change the answer: whose request it is, which model with which
adapter behind which strategies, what is asked, how the answer begins, where it must stop, what is
known of it, and the sampling settings where there is sampling. It leaves out what cannot: the id,
streaming, the seed of a greedy request, the order of stop strings. ``max_tokens`` is no part of it;
``fits`` compares it with the length of a stored answer.

Normal form: in chats, line ends become newlines and white space at the end of a message goes. Any
other character counts, as do all of them in raw prompts and fill-in-the-middle.

A key is ``SHA-256(header | what comes before the answer)``, with the growing part last, so that the
keys of a text's shorter forms cost one pass (``shorter``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lichen.core.generation import Finish, Request

VERSION: Final = 1
"""Raise it whenever the same request could get another key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKey:
    """The identity of a request's answer.

    Args:
        partition: of the user; nothing is ever looked up in another one.
        header: canonical text of everything but ``grown``.
        grown: what the answer continues: the raw prompt, or the prefix; "" for chats, whose
            messages are in the header.
    """

    partition: str
    header: str
    grown: str

    @property
    def digest(self) -> bytes:
        """The key itself, 32 bytes."""
        state = hashlib.sha256(_encoded(self.header) + b"\0")
        state.update(_encoded(self.grown))
        return state.digest()

    def shorter(self, most: int) -> Iterator[tuple[bytes, str]]:
        """Yield (digest, what was added since) for this key with 1 to ``most`` characters less."""
        start = max(len(self.grown) - most, 0)
        state = hashlib.sha256(_encoded(self.header) + b"\0")
        state.update(_encoded(self.grown[:start]))
        for end in range(start, len(self.grown)):
            yield state.digest(), self.grown[end:]
            state.update(_encoded(self.grown[end]))


def refused(request: Request, *, sampled: bool) -> str:
    """Return why a request cannot be answered from a cache, "" if it can."""
    if request.stop is not None and rule_identity(request) is None:
        return "its stop rule does not say which rule it is"
    if request.logprobs:
        return "it asks for log-probabilities, which are not kept"
    if request.temperature > 0 and not sampled:
        return "it is sampled"
    return ""


def rule_identity(request: Request) -> str | None:
    """Return what a stop rule says of itself (attribute ``identity``), None if it does not."""
    identity = getattr(request.stop, "identity", None)
    return identity if isinstance(identity, str) else None


def partition_of(user: str) -> str:
    """Return the partition of a user, who is not named in it; nobody is a user too."""
    return hashlib.sha256(b"user\0" + _encoded(user)).hexdigest()


def key_of(request: Request, *, scope: str) -> AnswerKey:
    """Return the key of a request that is not ``refused``.

    Args:
        request: any kind.
        scope: identity of the model, its adapter and the strategies that answer.
    """
    sampling = None
    if request.temperature > 0:
        sampling = [request.temperature, request.top_p, request.seed]
    hints = request.hints
    header = [
        VERSION,
        scope,
        request.kind,
        [[m.role.value, normal(m.content)] for m in request.messages or ()],
        request.suffix,
        request.answer_prefix,
        sorted(set(request.stop_strings)),
        rule_identity(request),
        sampling,
        None if hints is None else [hints.language, hints.entry_point, hints.given],
    ]
    grown = request.prompt if request.prompt is not None else request.prefix or ""
    return AnswerKey(
        partition=partition_of(request.user),
        header=json.dumps(header, ensure_ascii=True),
        grown=grown,
    )


def normal(content: str) -> str:
    """Return the normal form of a chat message."""
    return content.replace("\r\n", "\n").rstrip()


def fits(finish: Finish, tokens: int, asked_for: int, max_tokens: int) -> bool:
    """Whether a stored answer is what a request with another token limit would get.

    Args:
        finish: how the stored answer ended.
        tokens: generated for it; 0 where the engine does not say.
        asked_for: its own limit.
        max_tokens: the limit now.
    """
    if finish is Finish.LENGTH or tokens == 0:
        return max_tokens == asked_for
    # An engine that reaches the limit may not see that the model would have ended there.
    return tokens < max_tokens or max_tokens == asked_for


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
