"""Which tokens of a vocabulary are worth their rows.

Tokens are put in one order, most wanted first; trimming keeps a prefix of it, and every prefix is
closed (see ``vocabulary``). In front stand the *required* tokens, without which texts could not be
written or the model was not trained to be spoken to. The others follow by

    weight = count / all counts + prior * p(rank),   p(rank) ~ 1 / (rank + 1000), ASCII tokens only

where the counts come from a corpus and the rank is the place of the token's merge: merges were
learnt in the order of their frequency in the data that the tokenizer was made from, which saw more
than any corpus at hand (Zipf 1949; the offset as in Mandelbrot 1953). A token weighs at least as
much as each token that is made of it.

A first trial that dropped all tokens above a rank lost quality, because it dropped what code needs:
counts decide here, and the rank only fills in for what the corpus has not seen.

Counts tell what texts are *read* in, not what a model *says*. A token that is gone is not always
said in pieces: a model that wants to go on with ``_far`` after ``max_so`` takes the next best
token, which was `` far``. So all ASCII tokens are required unless the caller wants fewer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.compression.token_counts import Counts
from lichen.compression.vocabulary import NORMAL, UNUSED, Vocabulary

PRIOR: Final = 0.05
"""Weight of the ranks against the counts. On held-out Python, 0.05 and 0.1 gave the least inflation
of 0, 0.05, 0.1, 0.3 and 1 at 50,000 to 90,000 tokens (docs/explanation/compression)."""
ASCII_RANKS: Final = 1_000_000
"""Merges whose ASCII tokens are required, whatever the corpus says: those of any vocabulary."""
_OFFSET: Final = 1000
_ASCII: Final = frozenset({*range(0x20, 0x7F), *b"\t\n\r"})
_DIGITS: Final = frozenset(b"0123456789")
_SIGNS: Final = frozenset(byte for byte in _ASCII if not chr(byte).isalnum()) | {*b"\v\f"}
"""White space and punctuation."""


@dataclass(frozen=True)
class TokenOrder:
    """All tokens that may be kept, most wanted first; the first ``required`` of them always are."""

    vocabulary: Vocabulary
    order: npt.NDArray[np.int64]
    required: int

    def kept(self, count: int) -> tuple[int, ...]:
        """Return the ids of the ``count`` most wanted tokens, ascending; always closed."""
        return tuple(sorted(self.order[: max(count, self.required)].tolist()))

    def expected_inflation(self, count: int, counts: Counts) -> float:
        """Return the tokens more that texts with these ``counts`` need if ``count`` are kept.

        A share: 0.01 is one percent. Every lost token counts with the kept ones it falls into; the
        tokenizer can sometimes do better, joining these with their neighbours.
        """
        pieces = np.ones(self.vocabulary.size, dtype=np.int64)
        lost = np.ones(self.vocabulary.size, dtype=bool)
        lost[self.order[: max(count, self.required)]] = False
        for number in self._by_length:
            parts = self.vocabulary.parts[number]
            if lost[number] and parts is not None:
                pieces[number] = pieces[parts[0]] + pieces[parts[1]]
        total = int(counts.sum())
        return float(((pieces - 1) * counts).sum() / total) if total else 0.0

    def enough(self, target: float, counts: Counts) -> int:
        """Return the least number of tokens with an expected inflation of at most ``target``."""
        low, high = self.required, len(self.order)
        while low < high:
            middle = (low + high) // 2
            if self.expected_inflation(middle, counts) <= target:
                high = middle
            else:
                low = middle + 1
        return low

    @cached_property
    def _by_length(self) -> list[int]:
        return by_length(self.vocabulary)


def by_length(vocabulary: Vocabulary) -> list[int]:
    """Return all ids, shorter tokens first: parts come before what is made of them."""
    return sorted(range(vocabulary.size), key=lambda number: len(vocabulary.tokens[number]))


def required_tokens(
    vocabulary: Vocabulary, also: Iterable[int], *, ascii_ranks: int = ASCII_RANKS
) -> frozenset[int]:
    """Return the tokens that are always kept, with all their parts.

    These are: bytes; control, added and unknown tokens; tokens of white space and ASCII punctuation
    alone, which carry the structure of code; numbers; ASCII tokens of the first ``ascii_ranks``
    merges; pieces of characters, from which all other scripts are built; and ``also``, e.g. those
    that the metadata names.
    """
    found = set(also) | vocabulary.byte_ids
    for number, (kind, rank) in enumerate(
        zip(vocabulary.kinds, vocabulary.ranks_by_id, strict=True)
    ):
        if kind not in (NORMAL, UNUSED):
            found.add(number)
        elif rank is not None:
            raw = vocabulary.text_bytes(number)
            if _is_structure(raw) or (rank < ascii_ranks and _ASCII.issuperset(raw)):
                found.add(number)
    return vocabulary.closure(found)


def _is_structure(raw: bytes) -> bool:
    """Whether these are white space, punctuation, a number, or no whole characters."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return _SIGNS.issuperset(raw) or _DIGITS.issuperset(raw)


def order_tokens(
    vocabulary: Vocabulary, counts: Counts, required: frozenset[int], *, prior: float = PRIOR
) -> TokenOrder:
    """Put the tokens in order.

    Args:
        vocabulary: the whole one.
        counts: of each token in the corpus, (vocabulary.size,).
        required: closed; see ``required_tokens``.
        prior: weight of the ranks, >= 0; 0 asks the corpus alone.
    """
    weights = _weights(vocabulary, counts, prior)
    weights[list(required)] = np.inf
    lengths = np.array([len(token) for token in vocabulary.tokens])
    # Of equal weights the shorter first, so that parts precede what is made of them.
    order = np.lexsort((lengths, -weights))
    candidate = np.zeros(vocabulary.size, dtype=bool)
    candidate[list(required)] = True
    candidate[[number for number, parts in enumerate(vocabulary.parts) if parts is not None]] = True
    return TokenOrder(vocabulary, order[candidate[order]], len(required))


def _weights(vocabulary: Vocabulary, counts: Counts, prior: float) -> npt.NDArray[np.float64]:
    ranked = [
        (number, rank)
        for number, rank in enumerate(vocabulary.ranks_by_id)
        if rank is not None and _ASCII.issuperset(vocabulary.text_bytes(number))
    ]
    weights = counts / max(int(counts.sum()), 1)
    if ranked:
        numbers, ranks = np.array(ranked).T
        shares = 1.0 / (ranks + _OFFSET)
        weights[numbers] += prior * shares / shares.sum()
    for number in reversed(by_length(vocabulary)):
        for part in vocabulary.parts[number] or ():
            weights[part] = max(weights[part], weights[number])
    return weights
