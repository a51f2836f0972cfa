"""Put two tokenisations of one text side by side: where have both read the same characters?

A model with a trimmed vocabulary cuts some words into more tokens than its parent. Next-token
distributions are comparable wherever both have read exactly the same bytes, which is at almost
every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.compression.gate.ports import Tokenises
from lichen.core.errors import ConfigError

Indices = npt.NDArray[np.intp]
_LEAST: Final = 2
"""Positions both models must share for a text to say anything."""


@dataclass(frozen=True)
class Aligned:
    """One text for both models, and the positions after which both have read the same bytes.

    Args:
        parent, child: token ids.
        after_parent, after_child: positions i and j, pairwise: the bytes of ``parent[: i + 1]`` are
            those of ``child[: j + 1]``. Ascending; the last are the ends of both.
    """

    parent: list[int]
    child: list[int]
    after_parent: Indices
    after_child: Indices


def aligned(
    text: str, parent: Tokenises, child: Tokenises, *, context: int, same: bool
) -> Aligned | None:
    """Return the longest beginning of ``text`` that fits ``context`` tokens in both models.

    ``same`` says that both have one vocabulary, so that nothing needs to be compared. None if the
    text is too short to compare anything.
    """
    ours = parent.encode(text)
    if same:
        ours = ours[:context]
        every = np.arange(len(ours))
        return Aligned(ours, ours, every, every) if len(ours) >= _LEAST else None
    theirs = child.encode(text)
    _, i, j = np.intersect1d(_ends(ours, parent), _ends(theirs, child), return_indices=True)
    fits = (i < context) & (j < context)
    i, j = i[fits], j[fits]
    if len(i) < _LEAST:
        return None
    return Aligned(ours[: int(i[-1]) + 1], theirs[: int(j[-1]) + 1], i, j)


def _ends(ids: Sequence[int], tokenizer: Tokenises) -> npt.NDArray[np.int64]:
    """Return how many bytes have been read after each token."""
    return np.cumsum([len(tokenizer.decode([t])) for t in ids], dtype=np.int64)


def shared_tokens(parent: Sequence[str], child: Sequence[str]) -> tuple[Indices, Indices]:
    """Return the ids, in the parent's and in the child's vocabulary, of the tokens both have.

    Raises:
        ConfigError: they share less than half of the smaller one, so they are no relatives.
    """
    ids = {token: i for i, token in reversed(tuple(enumerate(parent)))}
    pairs = [(ids[token], j) for j, token in enumerate(child) if token in ids]
    if 2 * len(pairs) < min(len(parent), len(child)):
        raise ConfigError(
            f"the two models share {len(pairs):,} of {len(child):,} tokens: they are no "
            "relatives, so their next tokens cannot be compared"
        )
    found = np.array(pairs, np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]
