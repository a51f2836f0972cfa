"""Do two models expect the same next token? Measured on held-out code, position by position.

For the parent's distribution p and the child's q, ``KL(p || q) = sum_t p_t log(p_t / q_t)`` in
nats; a *flip* is a position whose most likely token differs (Dutta et al. 2024, arXiv 2407.09141);
perplexity is ``exp(-log-likelihood / tokens)`` of the text, per token of the parent for both, so
that it does not depend on how the child cuts words. Intervals are 95 % by bootstrap over documents,
since positions of one text are not independent (Efron 1979).

A child with fewer tokens is compared where both have read the same bytes, on the tokens both have,
with both distributions renormalised to them; what that leaves out is said.

Logits stream in blocks; a few blocks of (128, vocabulary) floats are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from lichen.compression.alignment import Aligned, Indices, aligned, shared_tokens
from lichen.compression.calibration import CHUNK, code_of, passage
from lichen.compression.corpus import Document
from lichen.compression.gate.ports import AgreementValue
from lichen.compression.model_file import open_model
from lichen.compression.vocabulary import MERGES_KEY, TOKENS_KEY
from lichen.core.errors import ConfigError, EngineError
from lichen.core.interval import Interval
from lichen.engines.llama_cpp.native.logits import NativeLogits
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer

Floats = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]

TOKENS: Final = 16_384
"""Compared by default: 32 documents of 512."""
_RESAMPLES: Final = 2000
_GROUP: Final = 32
"""Positions compared at a time: four copies of their logits are made."""


class Logits(Protocol):
    """A model that gives logits."""

    def blocks(self, tokens: Sequence[int]) -> Iterator[Floats]:
        """Yield (n, vocabulary) logits of consecutive positions of one text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing:
    """How to compare.

    Args:
        tokens: the parent's tokens to read, >= 2.
        threads: to compute with; None for one per available CPU.
        progress: hears (tokens read, tokens asked for).
    """

    tokens: int = TOKENS
    threads: int | None = None
    progress: Callable[[int, int], None] = field(default=lambda _done, _all: None)


@dataclass(frozen=True, slots=True)
class Shared:
    """The tokens both have, as ids of each; None for all, in one order."""

    ids: tuple[Indices, Indices] | None

    @classmethod
    def of(cls, parent: Path, child: Path) -> Shared:
        """Compare the vocabularies of two files."""
        ours, theirs = (open_model(path) for path in (parent, child))
        keys = (TOKENS_KEY, MERGES_KEY)
        if all(ours.value(k) == theirs.value(k) for k in keys):
            return cls(None)
        tokens = [v if isinstance(v := m.value(TOKENS_KEY), list) else [] for m in (ours, theirs)]
        return cls(shared_tokens(tokens[0], tokens[1]))


def measure_agreement(
    parent: Path, child: Path, documents: Sequence[Document], how: Comparing | None = None
) -> AgreementValue:
    """Compare two model files on code that neither step has seen.

    Raises:
        ConfigError: no such file, no text to compare on, or models that are no relatives.
        EngineError: the engine cannot run one of them.
    """
    how = how or Comparing()
    shared = Shared.of(parent, child)
    texts = list(_texts(parent, child, documents, how.tokens, same=shared.ids is None))
    if not texts:
        raise ConfigError("there is no held-out text to compare models on: give a larger corpus")
    found: list[Compared] = []
    with (
        NativeLogits(parent, context=CHUNK, threads=how.threads) as ours,
        NativeLogits(child, context=CHUNK, threads=how.threads) as theirs,
    ):
        read = 0
        for text in texts:
            found.append(compare(text, ours, theirs, shared))
            read += len(text.parent)
            how.progress(read, how.tokens)
    return summarise(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Sums over the positions of one text.

    Args:
        positions: compared.
        kl: sum of KL divergences, nats.
        flips: positions whose most likely token differs.
        kept: sum of the parent's probability of the tokens that both have.
        targets: the parent's tokens that were predicted.
        parent_nll, child_nll: negative log-likelihood of the same bytes, nats.
    """

    positions: int
    kl: float
    flips: int
    kept: float
    targets: int
    parent_nll: float
    child_nll: float


def compare(text: Aligned, parent: Logits, child: Logits, shared: Shared) -> Compared:
    """Compare two models on one text; EngineError if logits are no numbers."""
    ours = _Rows(parent.blocks(text.parent), text.parent, int(text.after_parent[0]))
    theirs = _Rows(child.blocks(text.child), text.child, int(text.after_child[0]))
    kl, kept, flips = 0.0, 0.0, 0
    for at in range(0, len(text.after_parent), _GROUP):
        p = ours.take(text.after_parent[at : at + _GROUP])
        q = theirs.take(text.after_child[at : at + _GROUP])
        if shared.ids is not None:
            every = _log_sum(p)
            p, q = p[:, shared.ids[0]], q[:, shared.ids[1]]
            kept += float(np.exp(_log_sum(p) - every).sum())
        kl += float(_divergence(p, q).sum())
        flips += int((p.argmax(axis=1) != q.argmax(axis=1)).sum())
    ours.finish()
    theirs.finish()
    if not np.isfinite([kl, ours.nll, theirs.nll]).all():
        raise EngineError("a model gives logits that are no numbers: its weights are damaged")
    positions = len(text.after_parent)
    return Compared(
        positions=positions,
        kl=kl,
        flips=flips,
        kept=kept if shared.ids is not None else float(positions),
        targets=len(text.parent) - 1 - int(text.after_parent[0]),
        parent_nll=ours.nll,
        child_nll=theirs.nll,
    )


def summarise(texts: Sequence[Compared]) -> AgreementValue:
    """Put texts together; at least one."""
    positions = np.array([t.positions for t in texts], np.float64)
    targets = sum(t.targets for t in texts)
    share = sum(t.kept for t in texts) / positions.sum()
    notes = []
    if share < 1.0 - 1e-9:
        notes.append(
            "compared on the tokens both have, renormalised: they hold "
            f"{share:.2%} of the parent's probability"
        )
    if len(texts) == 1:
        notes.append("from one document, so the intervals say nothing")
    return AgreementValue(
        kl_nats=_interval(np.array([t.kl for t in texts]), positions),
        flips=_interval(np.array([t.flips for t in texts], np.float64), positions),
        parent_perplexity=float(np.exp(sum(t.parent_nll for t in texts) / targets)),
        child_perplexity=float(np.exp(sum(t.child_nll for t in texts) / targets)),
        tokens=int(positions.sum()),
        note="; ".join(notes),
    )


def _texts(
    parent: Path, child: Path, documents: Sequence[Document], tokens: int, *, same: bool
) -> Iterator[Aligned]:
    """Yield aligned passages, one per document, until there are enough."""
    ours = NativeTokenizer(parent)
    theirs = ours if same else NativeTokenizer(child)
    done = 0
    for document in code_of(documents):
        if tokens - done < 2:  # noqa: PLR2004 (a position and what follows it)
            return
        text = passage(document.text)
        found = aligned(text, ours, theirs, context=min(CHUNK, tokens - done), same=same)
        if found is not None:
            done += len(found.parent)
            yield found


class _Rows:
    """Gives chosen rows of a stream of logits, ascending; adds up the text's likelihood on the way.

    ``first`` is the position whose next token is the first that counts.
    """

    def __init__(self, blocks: Iterator[Floats], tokens: Sequence[int], first: int) -> None:
        self._blocks = blocks
        self._tokens = np.asarray(tokens)
        self._first = first
        self._start = 0
        self._block = np.empty((0, 0), np.float32)
        self.nll = 0.0

    def take(self, rows: Indices) -> Floats:
        """Return rows (len(rows), vocabulary), none before those of the last call."""
        parts: list[Floats] = []
        while len(rows):
            here = rows[rows < self._start + len(self._block)]
            if len(here):
                parts.append(self._block[here - self._start])
            rows = rows[len(here) :]
            if len(rows):
                self._advance(next(self._blocks))
        return np.concatenate(parts)

    def finish(self) -> None:
        """Read the rest of the stream."""
        for block in self._blocks:
            self._advance(block)

    def _advance(self, block: Floats) -> None:
        self._start += len(self._block)
        self._block = block
        rows = np.arange(max(self._first, self._start), self._start + len(block))
        rows = rows[rows < len(self._tokens) - 1] - self._start
        if len(rows):
            targets = block[rows, self._tokens[rows + self._start + 1]]
            self.nll += float((_log_sum(block[rows]) - targets).sum(dtype=np.float64))


def _log_sum(logits: Floats) -> Floats:
    """Return log(sum(exp(row))) of every row."""
    top = logits.max(axis=1, keepdims=True)
    total: Floats = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return total


def _divergence(p: Floats, q: Floats) -> Floats:
    """Return KL(p || q) of every pair of rows of logits, nats; exactly 0 for equal rows."""
    difference = p - p.max(axis=1, keepdims=True)
    weights = np.exp(difference)
    total = weights.sum(axis=1)
    difference -= q - q.max(axis=1, keepdims=True)
    log_q = np.log(np.exp(q - q.max(axis=1, keepdims=True)).sum(axis=1))
    found: Floats = np.einsum("ij,ij->i", weights, difference) / total - np.log(total) + log_q
    return np.maximum(found, 0.0)


def _interval(sums: Sums, positions: Sums) -> Interval:
    """Return the ratio of two sums with its 95 % interval over documents."""
    value = float(sums.sum() / positions.sum())
    # A fixed seed: the same measurement gives the same interval.
    drawn = np.random.default_rng(0).integers(0, len(sums), (_RESAMPLES, len(sums)))
    ratios = sums[drawn].sum(axis=1) / positions[drawn].sum(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Interval(low=min(float(low), value), value=value, high=max(float(high), value))
