"""How often a model's tokens occur in texts, and how many more of them another vocabulary needs.

*Inflation* is what trimming a vocabulary costs: ``tokens with the trimmed one / tokens with the
whole one - 1`` over the same texts. Every token more is computation in the prefill and in decoding,
and a way of writing that the model has hardly seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lichen.compression.corpus import Document
from lichen.compression.method import TextTokenizer
from lichen.core.errors import ConfigError

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Inflation:
    """Tokens of the same texts with the whole vocabulary and with the trimmed one."""

    texts: str
    before: int
    after: int

    @property
    def share(self) -> float:
        """Tokens more, as a share of those before: 0.01 is one percent."""
        return self.after / self.before - 1.0 if self.before else 0.0


def count_tokens(documents: Sequence[Document], tokenizer: TextTokenizer, size: int) -> Counts:
    """Return how often each of ``size`` tokens occurs in ``documents``: (size,).

    Documents are spread over the CPUs: the engine's tokenizer lets other threads run.

    Raises:
        ConfigError: the tokenizer gives ids that a vocabulary of this size does not have.
    """
    total = np.zeros(size, dtype=np.int64)

    def counted(document: Document) -> Counts:
        ids = np.asarray(tokenizer.encode(document.text), dtype=np.int64)
        return np.bincount(ids, minlength=size)

    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lichen-tokens") as pool:
        for counts in pool.map(counted, documents):
            if len(counts) != size:
                raise ConfigError(
                    f"the tokenizer gives ids up to {len(counts) - 1:,} but the model has {size:,} "
                    "tokens: it belongs to another vocabulary; trim before steps that change it"
                )
            total += counts
    return total


def token_total(documents: Iterable[Document], tokenizer: TextTokenizer) -> int:
    """Return how many tokens ``documents`` have."""
    return sum(len(tokenizer.encode(document.text)) for document in documents)


def measure_inflation(
    texts: str, documents: Sequence[Document], before: TextTokenizer, after: TextTokenizer
) -> Inflation:
    """Encode ``documents`` with both tokenizers. ``texts`` says what they are, for reports."""
    return Inflation(texts, token_total(documents, before), token_total(documents, after))
