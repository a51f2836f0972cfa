"""When is a near request near enough? A threshold per cached answer, learned from looks.

The idea is vCache's (Schroeder et al., 2025, arXiv 2502.03771): each cached answer has its own
relation between similarity ``s`` and the probability that the answer is right for the other
request, ``P(right | s) = 1 / (1 + exp(-g (s - t)))``, learned online from (similarity, right) pairs
that are observed whenever the model answers after all; an answer is reused only where the user's
bound on the error holds.

This is an own, stricter form: over a grid of (t, g) with a uniform prior, the upper 95 % bound of
the posterior error at ``s`` must not exceed the bound. The paper instead answers at random with
just so high a probability that the bound holds on average; it reuses earlier, and more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

_THRESHOLDS: Final = tuple(i / 20 for i in range(21))
_SLOPES: Final = (5.0, 10.0, 20.0, 40.0)
_GRID: Final = tuple((t, g) for t in _THRESHOLDS for g in _SLOPES)
_CREDIBLE: Final = 0.95
MIN_LOOKS: Final = 4
"""Looks at an answer before it may be reused, so that the prior alone never decides."""

Look = tuple[float, bool]
"""A similarity in [0, 1], and whether the cached answer was right there."""


def error_bound(looks: Sequence[Look], similarity: float) -> float:
    """Return the upper 95 % bound of the probability that reusing the answer is wrong.

    Args:
        looks: observed for this cached answer.
        similarity: of the request at hand, in [0, 1].
    """
    if len(looks) < MIN_LOOKS:
        return 1.0
    # Similarities are told apart to a hundredth, so that many looks cost little more than few.
    counted = Counter((round(s, 2), right) for s, right in looks)
    weights = [_log_likelihood(t, g, counted) for t, g in _GRID]
    top = max(weights)
    cells = sorted(
        (_sigmoid(-g * (similarity - t)), math.exp(w - top))
        for (t, g), w in zip(_GRID, weights, strict=True)
    )
    whole = math.fsum(weight for _, weight in cells)
    seen = 0.0
    for error, weight in cells:
        seen += weight
        if seen >= _CREDIBLE * whole:
            return error
    return 1.0


def may_reuse(looks: Sequence[Look], similarity: float, bound: float) -> bool:
    """Whether the error of reusing an answer stays within ``bound`` (0 to 1)."""
    return error_bound(looks, similarity) <= bound


def _log_likelihood(t: float, g: float, looks: Counter[Look]) -> float:
    return math.fsum(
        -n * _softplus(-g * (s - t) if right else g * (s - t)) for (s, right), n in looks.items()
    )


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _sigmoid(x: float) -> float:
    return math.exp(-_softplus(-x))
