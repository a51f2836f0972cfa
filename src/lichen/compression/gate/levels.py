"""How much a child may differ from its parent before the gate says no.

Three levels. ``strict`` asks for proof: every check must be run, and the *bound* of an interval
must be within the threshold. ``normal`` asks that nothing speaks against the child: the *estimate*
must be within the threshold, and no test may show a loss; checks that could not be run do not
count. ``report`` judges like normal and stops nobody. The bounds are those of 95 % intervals.

Normal's limits for next-token agreement only stop what is hopeless, so that minutes of generating
are not spent on it: whether a child lost ability is for the paired run on the task to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from lichen.core.interval import Interval


class Level(StrEnum):
    """How strict the gate is; see the module."""

    STRICT = "strict"
    NORMAL = "normal"
    REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where a check begins to fail. Ratios are child over parent; shares are in [0, 1].

    Args:
        bounds_decide: judge an interval by its bound rather than by its estimate.
        tensor_cosine: least mean cosine over the rows of one matrix. Two bits per weight still give
            about 0.9; two unrelated matrices give about 0.
        vector_cosine: the same for norms and biases, which are stored as they are. Those of
            neighbouring layers reach 0.995.
        row_distance: most ``1 - cosine`` between a token's row and the parent's row for that token,
            or ``row_factor`` times the tensor's median distance where that is more. Rounding turns
            rows alike (largest over median: 2), and rows of different tokens are 0.3 apart or more.
        row_factor: see ``row_distance``.
        inflation: share of additional tokens on held-out code.
        kl_nats: mean Kullback-Leibler divergence of the next token's distribution, in nats.
        flips: share of positions whose most likely token changed.
        perplexity_ratio: of the perplexity on held-out code.
        margin: points of pass@1 (as a share) that may be lost.
        flip_excess: share of rewritten problems whose verdict changes for the child beyond the
            share for the parent.
        answer_length_ratio: of tokens per answer.
        truncated_excess: share of answers cut by the token limit, beyond the parent's.
        cpu_ratio: of CPU-seconds per token, for prefill and for decode each.
        load_ratio: of CPU-seconds to load.
        memory_ratio: of resident memory.
        alpha: below this p-value a paired test shows a loss.
    """

    bounds_decide: bool
    tensor_cosine: float = 0.8
    vector_cosine: float = 0.9999
    row_distance: float = 0.02
    row_factor: float = 4.0
    inflation: float
    kl_nats: float
    flips: float
    perplexity_ratio: float
    margin: float = 0.03
    flip_excess: float
    answer_length_ratio: float
    truncated_excess: float
    cpu_ratio: float
    load_ratio: float
    memory_ratio: float
    alpha: float = 0.05

    def above(self, found: Interval, limit: float) -> bool:
        """Whether ``found`` misses an upper limit."""
        return (found.high if self.bounds_decide else found.value) > limit

    def below(self, found: Interval, limit: float) -> bool:
        """Whether ``found`` misses a lower limit."""
        return (found.low if self.bounds_decide else found.value) < limit


_NORMAL: Final = Thresholds(
    bounds_decide=False,
    inflation=0.03,
    kl_nats=0.25,
    flips=0.22,
    perplexity_ratio=1.25,
    flip_excess=0.05,
    answer_length_ratio=1.15,
    truncated_excess=0.05,
    cpu_ratio=1.10,
    load_ratio=1.5,
    memory_ratio=1.05,
)

THRESHOLDS: Final[Mapping[Level, Thresholds]] = MappingProxyType(
    {
        Level.STRICT: Thresholds(
            bounds_decide=True,
            inflation=0.01,
            kl_nats=0.10,
            flips=0.15,
            perplexity_ratio=1.10,
            flip_excess=0.05,
            answer_length_ratio=1.10,
            truncated_excess=0.05,
            cpu_ratio=1.0,
            load_ratio=1.2,
            memory_ratio=1.0,
        ),
        Level.NORMAL: _NORMAL,
        Level.REPORT: _NORMAL,
    }
)
"""The thresholds of each level; ``docs/explanation/compression/gate.md`` says what they rest on."""
