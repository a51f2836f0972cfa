"""Find out, once a model is loaded, whether the kernels for many tokens at once can be trusted.

From 32 rows on, the library repacks weights on the fly and multiplies with other kernels. For some
types these are wrong on some processors (Q4_1 with AVX2 in ik-llama-cpp-python 0.1.5: a model of
135M parameters ends its answers before the first word), and nothing says so. The same text, read at
once and in small steps, must lead to the same predictions.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import EngineError
from lichen.engines.ik_llama_cpp.batching import Model
from lichen.engines.ik_llama_cpp.library import Item
from lichen.engines.ik_llama_cpp.speaking import log_probabilities

FEW: Final = 31
"""Most rows for which weights are used as they are stored; from 32 on they are repacked first."""

TEXT: Final = (
    "def median(values: list[float]) -> float:\n"
    '    """Return the middle of the sorted values, or the mean of the two in the middle."""\n'
    "    ordered = sorted(values)\n"
    "    half = len(ordered) // 2\n"
)
"""About 50 tokens of code, as any code model predicts it well."""

ALLOWED_NATS: Final = 0.05
"""Mean Kullback-Leibler divergence between the two ways. Rounding makes less than 0.0006 of it with
Q4_K and Q6_K, Q5_0 and IQ4_NL; the wrong kernel 1.7 to 2.6 (measured, AVX2)."""

_ASKED: Final = 8
_STEP: Final = 16


def divergence(model: Model, tokens: list[int]) -> float:
    """Return the mean KL divergence, in nats, of predictions in small steps from those at once.

    Sequence 0 of the cache is used and left empty.

    Raises:
        EngineError: the model cannot compute a step.
    """
    small, large = _read(model, tokens, _STEP), _read(model, tokens, len(tokens))
    return float(np.mean(np.sum(np.exp(small) * (small - large), axis=-1)))


def _read(model: Model, tokens: list[int], step: int) -> npt.NDArray[np.float64]:
    """Log-probabilities after the last ``_ASKED`` tokens: (asked, vocabulary)."""
    found = []
    for start in range(0, len(tokens), step):
        part = [
            Item(token=t, position=i, sequence=0, wanted=i >= len(tokens) - _ASKED)
            for i, t in enumerate(tokens[start : start + step], start)
        ]
        code = model.step(part)
        if code != 0:
            raise EngineError(f"ik_llama.cpp failed to compute its first step (code {code})")
        for row, item in enumerate(part):
            if item.wanted:
                found.append(log_probabilities(model.logits(row)))
    model.forget(0)
    return np.array(found)
