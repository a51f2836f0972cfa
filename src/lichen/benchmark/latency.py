"""How long a person waits: percentiles of the attempts' own times.

TTFT is submission to first token, TPOT ``(total - TTFT) / (n - 1)`` for n output tokens, latency
submission to end, all wall time with queueing included; failed generations are left out. On a
shared machine these say what was felt, not what a solution is: compare CPU time instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lichen.core.generation import Finish
from lichen.core.record import SampleRecord
from lichen.core.summary import Percentiles


def percentiles(values: Iterable[float | None]) -> Percentiles | None:
    """Return the distribution of the known values (linear interpolation), or None without any."""
    known = np.array([v for v in values if v is not None], dtype=np.float64)
    if known.size == 0:
        return None
    p50, p90, p95, p99 = (float(q) for q in np.quantile(known, [0.5, 0.9, 0.95, 0.99]))
    return Percentiles(
        n=int(known.size), mean=float(np.mean(known)), p50=p50, p90=p90, p95=p95, p99=p99
    )


def finished(samples: Sequence[SampleRecord]) -> list[SampleRecord]:
    """Return the attempts whose generation did not fail."""
    return [s for s in samples if s.finish is not Finish.ERROR]


def decode_tokens_per_s(samples: Sequence[SampleRecord]) -> float | None:
    """Return the rate one sequence is decoded at, tokens over decoding time; None if unknown."""
    tokens, seconds = 0, 0.0
    for s in finished(samples):
        if s.timings.decode_s is not None:
            tokens += s.usage.completion
            seconds += s.timings.decode_s
    return tokens / seconds if seconds > 0 else None
