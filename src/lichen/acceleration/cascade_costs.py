"""What each answer of one phase of a cascade cost, where only the whole phase could be measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lichen.acceleration.cascade_cases import Try

DECODE_WEIGHT: Final = 3.0
"""CPU of a decoded token over that of a prefilled one, to share a batch's CPU-seconds among its
requests: 2.7 and 3.7 in our measurements of a 1.5B and a 0.5B on two cores. Sums are exact."""


def in_cpu(done: Sequence[Try], spent: float | None) -> list[float | None]:
    """Share out CPU-seconds by tokens, and return what each try cost with its check.

    Args:
        done: the tries; what the engine took is written into them.
        spent: CPU-seconds of the engine, None where it computes outside this process.
    """
    weights = [t.usage.prefilled + DECODE_WEIGHT * t.usage.completion for t in done]
    whole = sum(weights)
    if spent is None or not whole:
        return [None] * len(done)
    costs: list[float | None] = []
    for t, weight in zip(done, weights, strict=True):
        t.engine_cpu_s = spent * weight / whole
        costs.append(t.engine_cpu_s + t.assessment.cpu_s)
    return costs


def in_time(done: Sequence[Try]) -> list[float | None]:
    """Return the seconds that each try took: the engine's own if it says them."""
    costs: list[float | None] = []
    for t in done:
        own = t.completion.timings
        costs.append((own.prefill_s or 0.0) + (own.decode_s or 0.0) or own.total_s)
    return costs
