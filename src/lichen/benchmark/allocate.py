"""Split a block's measured windows over its attempts.

A window is measured; a single attempt inside it is not, because attempts run together. Its share
is modelled work: ``w = prefilled_tokens * r + completion_tokens``, where r is what a prefilled
token costs relative to a decoded one. So sums over a block are measurements and single attempts
are allocations. What the judge used is split by the CPU time that each verdict reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from lichen.core.generation import Completion, Timings
from lichen.core.measurement import Measurement, Missing, Quantity, Usage
from lichen.core.task import Score

PREFILL_RATIO: Final = 0.3
"""r where the engine gives no split: between the 0.1-0.3 that published per-token models assume
for accelerators and what batched decoding on CPUs shows; ``docs/explanation/statistics.md``."""

_RATIO_RANGE: Final = (0.02, 2.0)
"""Estimates outside say more about queues than about work."""


def prefill_ratio(attempts: Iterable[tuple[Usage, Timings]], wall_s: Quantity) -> float:
    """Estimate r from an engine's own prefill and decode times.

    A prefill has the machine mostly to itself, while decoding is shared: with B sequences decoded
    together a token takes a step of wall time but only 1/B of its work. With P, p seconds and
    tokens of prefill and D, d of decoding, ``r = (P / p) / (D / d / B)`` and
    ``B = max(1, D / wall_s)``. ``PREFILL_RATIO`` stands in where any of it is unknown.

    Returns:
        r, within 0.02 to 2.
    """
    prefill_s = decode_s = 0.0
    prefilled = decoded = 0
    for usage, timings in attempts:
        if timings.prefill_s is not None and timings.decode_s is not None:
            prefill_s += timings.prefill_s
            decode_s += timings.decode_s
            prefilled += usage.prefilled
            decoded += usage.completion
    if min(prefill_s, decode_s, prefilled, decoded) <= 0 or isinstance(wall_s, Missing):
        return PREFILL_RATIO
    batch = max(1.0, decode_s / wall_s.value.value) if wall_s.value.value > 0 else 1.0
    low, high = _RATIO_RANGE
    return min(max(prefill_s / prefilled / (decode_s / decoded / batch), low), high)


def work(usage: Usage, ratio: float) -> float:
    """Return the modelled work of one attempt, in decoded tokens."""
    return usage.prefilled * ratio + usage.completion


def split_generation(
    window: Measurement, completions: Sequence[Completion]
) -> tuple[Measurement, ...]:
    """Return each completion's share of its block's generation window, in order.

    Token counts are the attempt's own; the peak of memory stays whole.
    """
    ratio = prefill_ratio(((c.usage, c.timings) for c in completions), window.wall_s)
    parts = shares([work(c.usage, ratio) for c in completions])
    return tuple(
        replace(window.scaled(part), usage=c.usage)
        for part, c in zip(parts, completions, strict=True)
    )


def split_judging(window: Measurement, scores: Sequence[Score]) -> tuple[Measurement, ...]:
    """Return each score's share of its block's judging window, in order.

    By the verdicts' CPU time; a verdict that does not know it counts as the mean of those that do,
    and shares are equal where none does.
    """
    spent = [s.verdict.cpu_s if s.verdict is not None else None for s in scores]
    known = [cpu_s for cpu_s in spent if cpu_s is not None]
    typical = math.fsum(known) / len(known) if known else 1.0
    weights = [typical if cpu_s is None else cpu_s for cpu_s in spent]
    return tuple(window.scaled(part) for part in shares(weights))


def shares(weights: Sequence[float]) -> list[float]:
    """Return the weights as parts of 1 (``math.fsum`` of them is exactly 1); equal if all are 0."""
    if not weights:
        return []
    whole = math.fsum(weights)
    parts = [w / whole for w in weights] if whole > 0 else [1.0 / len(weights)] * len(weights)
    heaviest = parts.index(max(parts))
    parts[heaviest] = math.fsum([1.0, *(-p for i, p in enumerate(parts) if i != heaviest)])
    return parts
