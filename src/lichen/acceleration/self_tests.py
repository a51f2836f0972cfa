"""Tests that a model writes for itself: asked for, and read without trusting a word of them.

The idea of deciding a cascade by self-generated tests is of Chen et al., 2024 (arXiv 2405.15842).
Small models write many wrong tests, so a failed one only makes an answer doubtful. The check runs
where trusted code runs, therefore nothing of the model's text gets there but calls of the wanted
function and literals: what ``lichen.acceleration.examples`` lets through.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lichen.acceleration.examples import Example, examples_of
from lichen.core.generation import Message, Request, Role

_TOKENS_PER_TEST: Final = 48
"""An assert on lists of a few numbers takes 20 to 40 tokens."""


def tests_request(request: Request, *, count: int) -> Request | None:
    """Return the request that asks for ``count`` asserts, None where that makes no sense.

    It makes sense for a chat about a named Python function whose code the question gives.
    """
    hints = request.hints
    if request.kind != "chat" or hints is None or not hints.entry_point or not hints.given.strip():
        return None
    words = (
        f"Write {count} short Python assert statements that test the function "
        f"{hints.entry_point} described below. Each has the form "
        f"assert {hints.entry_point}(...) == ... with literal values, one per line. "
        f"Write nothing else.\n\n```python\n{hints.given.rstrip()}\n```"
    )
    return replace(
        request,
        id=f"{request.id}/tests",
        messages=(Message(role=Role.USER, content=words),),
        answer_prefix="",
        max_tokens=count * _TOKENS_PER_TEST,
        stop=None,
        stop_strings=(),
        logprobs=0,
        stream=False,
        hints=None,
    )


def read_tests(text: str, entry_point: str, *, count: int) -> tuple[Example, ...]:
    """Return up to ``count`` tests in what the model wrote; lines that are no asserts are left."""
    asserts = [s for line in text.splitlines() if (s := line.strip()).startswith("assert ")]
    return examples_of("\n".join(asserts[: 2 * count]), entry_point)[:count]
