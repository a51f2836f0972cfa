"""One answer out of several that were asked for: what all of them took together."""

from __future__ import annotations

from collections.abc import Sequence

from lichen.core.generation import Timings


def timings_of(parts: Sequence[Timings], chosen: Timings, *, total_s: float) -> Timings:
    """Return the timings of an answer that the caller hears only at the end.

    Args:
        parts: of all answers; the engine's own times are summed if all of them have some.
        chosen: of the one that is given; what came after its first token is not waited for again.
        total_s: from the request to the end.
    """
    after_first = None if chosen.ttft_s is None else chosen.total_s - chosen.ttft_s
    prefill = [p.prefill_s for p in parts if p.prefill_s is not None]
    decode = [p.decode_s for p in parts if p.decode_s is not None]
    return Timings(
        total_s=total_s,
        ttft_s=None if after_first is None else max(total_s - after_first, 0.0),
        prefill_s=sum(prefill) if len(prefill) == len(parts) else None,
        decode_s=sum(decode) if len(decode) == len(parts) else None,
    )
