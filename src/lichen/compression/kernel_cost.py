"""What a storage type costs to compute with on a CPU: prior figures, to rank by before measuring.

CPU-nanoseconds per weight and token, for decoding one sequence and for reading a prompt. They come
from first trials with a 0.5B model on two AVX2 cores (docs/explanation/compression/
mixed_precision.md has the arithmetic); types that were not tried are set by their family, and say
so. They choose which candidates are worth a measurement, and never stand for one.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from lichen.compression.types import fast_types


@dataclass(frozen=True, slots=True)
class KernelCost:
    """CPU-nanoseconds per weight and token; ``tried`` tells whether this very type was measured."""

    decode_ns: float
    prefill_ns: float
    tried: bool


@dataclass(frozen=True, slots=True)
class Workload:
    """Tokens of a typical request: what the mix of reading and writing is weighted by.

    The defaults are what HumanEval questions and answers of a 0.5B model came to.
    """

    prompt: int = 160
    completion: int = 220


# Fitted from whole-model times of files that differ in the layers only: 60.2 CPU-ms a token with
# 410 M weights in Q5_0; 36.7 (Q4_0) and 34.0 (IQ4_NL) with 358 M of them changed; 70.5 with a
# further 136 M in Q8_0. Prefill computes the layers alone: 17.6, 12.7 and 12.4 CPU-ms a token.
_PLAIN: Final = KernelCost(0.147, 0.049, tried=False)
_FAST: Final = KernelCost(0.081, 0.035, tried=False)
_SLOW: Final = KernelCost(0.30, 0.10, tried=False)
"""Codebook types: assumed at twice the plain ones, since every weight is looked up."""

_TRIED: Final = {
    "Q5_0": KernelCost(0.147, 0.049, tried=True),
    "Q8_0": KernelCost(0.131, 0.049, tried=True),
    "Q4_0": KernelCost(0.081, 0.035, tried=True),
    "IQ4_NL": KernelCost(0.074, 0.035, tried=True),
}
FAST_WITH_AVX2: Final = frozenset(fast_types({"avx2"}))
"""What the figures are for. Types that this CPU has no fast kernel for count as plain ones."""
_SLOW_PREFIXES: Final = ("IQ1", "IQ2", "IQ3", "TQ", "F32", "F64")


def kernel_cost(kind: str, fast: AbstractSet[str] = FAST_WITH_AVX2) -> KernelCost:
    """Return the prior cost of a storage type, by its name.

    ``fast`` are the types with repacked kernels on the CPU in question; see ``types.fast_types``.
    """
    if kind in fast:
        return _TRIED.get(kind, _FAST)
    if kind in _TRIED and kind not in FAST_WITH_AVX2:
        return _TRIED[kind]
    return _SLOW if kind.startswith(_SLOW_PREFIXES) else _PLAIN


def tensor_cpu_s(cost: KernelCost, weights: int, name: str, *, tied: bool, load: Workload) -> float:
    """Return the CPU-seconds of one request that a tensor is expected to cost.

    Args:
        cost: of its storage type.
        weights: how many it has.
        name: the input embedding is a lookup (free) unless ``tied``; the output matrix is computed
            for the last prompt token only.
        tied: whether the input embedding is also the output matrix.
        load: tokens of the request.
    """
    if name == "token_embd.weight" and not tied:
        return 0.0
    prompt = 1 if name in {"token_embd.weight", "output.weight"} else load.prompt
    return 1e-9 * weights * (prompt * cost.prefill_ns + load.completion * cost.decode_ns)
