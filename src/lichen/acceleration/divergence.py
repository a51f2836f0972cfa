"""Where two greedy answers part, and whether the model was undecided there.

Speculation, batching and cached prefixes compute the same sums in another order, so that two tokens
of nearly the same probability may change places in the last bits. Such a difference is explained by
a small margin between the two most likely tokens at the place where the answers part; with a large
margin it would be a bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lichen.core.generation import Completion

NEAR_TIE: Final = 0.25
"""Margin in nats up to which a difference counts as rounding: a judgement, not a measurement. Sums
of quantised products depend on the batch shape; a runner-up 0.25 nats (22 %) behind is close."""

_PAIR: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Two answers differ.

    Args:
        at: characters they share at their start.
        margin: natural-log difference of the two most likely tokens there; None if the reference
            has no alternatives at that place.
    """

    at: int
    margin: float | None

    @property
    def explained(self) -> bool:
        """Whether rounding explains it."""
        return self.margin is not None and self.margin <= NEAR_TIE


def divergence(reference: Completion, text: str) -> Divergence | None:
    """Compare a text with a greedy answer; None if they are the same.

    Args:
        reference: generated with ``logprobs >= 2`` for the margin to be known.
        text: the other answer.
    """
    if reference.text == text:
        return None
    shorter = min(len(reference.text), len(text))
    at = next((i for i in range(shorter) if reference.text[i] != text[i]), shorter)
    position = 0
    for token in reference.logprobs:
        position += len(token.text)
        # The token that holds the first differing character; an answer that went on where the
        # other ended parts at the token after the end, which is not among these.
        if position > at:
            best = sorted((lp for _, lp in token.top), reverse=True)[:_PAIR]
            return Divergence(at=at, margin=best[0] - best[1] if len(best) == _PAIR else None)
    return Divergence(at=at, margin=None)
