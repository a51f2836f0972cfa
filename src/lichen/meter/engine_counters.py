"""Hardware-independent counters: FLOP and bytes, from a model's shape and token counts.

They need no privilege and no hardware, do not depend on load, and so let two solutions be compared
across machines. They are what the algorithm needs, not what a hardware counter saw.
"""

from __future__ import annotations

from collections.abc import Iterable

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Method, Missing, Quantity, Reading, Usage
from lichen.core.model import ModelShape

FLOP_FORMULA = (
    "2 x active weights x new tokens + 4 x layers x heads x head_dim x attended positions "
    "(Kaplan et al. 2020)"
)
BYTES_FORMULA = (
    "weights x (decoded tokens / mean batch, and one prefill) + keys and values of all earlier "
    "positions per decoded token"
)


def engine_counters(
    shape: ModelShape, usages: Iterable[Usage], *, mean_batch: float = 1.0
) -> tuple[Quantity, Quantity]:
    """Return (flop, bytes moved) of requests, modelled; missing if there are no usages.

    Args:
        shape: the model.
        usages: tokens of each request; attention grows with the square of a request's length, so
            requests are given one by one, not added up.
        mean_batch: sequences decoded together, on average (>= 1); they share one reading of the
            weights.
    """
    each = tuple(usages)
    if not each:
        unknown = Missing(reason="no request reported its tokens")
        return unknown, unknown
    flop = sum(shape.flop(u) for u in each)
    moved = sum(shape.bytes_moved(u, mean_batch=mean_batch) for u in each)
    return _modelled(flop, FLOP_FORMULA), _modelled(moved, BYTES_FORMULA)


def _modelled(value: float, source: str) -> Reading:
    return Reading(
        value=Interval.exact(value),
        method=Method.MODELLED,
        component=Component.PROCESS,
        source=source,
    )
