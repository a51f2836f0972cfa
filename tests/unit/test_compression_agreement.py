"""Next-token agreement: the sums, the alignment of two tokenisations, the intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.compression.agreement import Compared, Shared, compare, summarise
from lichen.compression.alignment import Aligned, aligned, shared_tokens
from lichen.core.errors import ConfigError, EngineError

RNG = np.random.default_rng(3)


class Table:
    """A model whose logits are a table, given in blocks of any size."""

    def __init__(self, logits: np.ndarray, block: int = 128) -> None:
        self.logits, self.block = logits.astype(np.float32), block

    def blocks(self, tokens: Sequence[int]) -> Iterator[np.ndarray]:
        for at in range(0, len(tokens), self.block):
            yield self.logits[at : min(at + self.block, len(tokens))]


class Letters:
    """A tokenizer with words of its own; everything else is letter by letter."""

    def __init__(self, *words: str) -> None:
        self.tokens = [*words, *"abcdefghijklmnopqrstuvwxyz "]

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            best = max((t for t in self.tokens if text.startswith(t)), key=len)
            ids.append(self.tokens.index(best))
            text = text[len(best) :]
        return ids

    def decode(self, ids: Sequence[int]) -> bytes:
        return "".join(self.tokens[i] for i in ids).encode()


def text_of(tokens: list[int]) -> Aligned:
    every = np.arange(len(tokens))
    return Aligned(tokens, tokens, every, every)


def probabilities(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64))
    return e / e.sum(axis=1, keepdims=True)


def test_a_model_agrees_with_itself_exactly() -> None:
    """Equal logits give a divergence of exactly 0, no flips and one perplexity."""
    model = Table(RNG.normal(size=(300, 50)))
    found = summarise([compare(text_of([7] * 300), model, model, Shared(None))])
    assert found.kl_nats.value == found.kl_nats.high == found.flips.value == 0
    assert found.parent_perplexity == found.child_perplexity
    assert found.tokens == 300


@given(
    positions=st.integers(2, 40),
    blocks=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    seed=st.integers(0, 999),
)
def test_sums_are_those_of_the_definition_however_logits_stream(
    positions: int, blocks: tuple[int, int], seed: int
) -> None:
    """KL, flips and likelihood equal the textbook formulas for any cut into blocks."""
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(2, positions, 9)).astype(np.float32) * 3
    tokens = rng.integers(0, 9, positions).tolist()
    found = compare(text_of(tokens), Table(p, blocks[0]), Table(q, blocks[1]), Shared(None))
    true_p, true_q = probabilities(p), probabilities(q)
    assert found.kl == pytest.approx((true_p * np.log(true_p / true_q)).sum(), rel=1e-4, abs=1e-5)
    assert found.flips == (p.argmax(1) != q.argmax(1)).sum()
    said = [true_p[i, t] for i, t in enumerate(tokens[1:])]
    assert found.parent_nll == pytest.approx(-np.log(said).sum(), rel=1e-5)
    assert found.targets == positions - 1


def test_a_trimmed_vocabulary_is_compared_on_shared_tokens() -> None:
    """Distributions are renormalised to shared tokens; the note says what that leaves out."""
    p = np.log(np.array([[0.4, 0.1, 0.3, 0.2]] * 4))
    q = np.log(np.array([[0.2, 0.3, 0.5]] * 4))  # the parent's tokens 3, 2, 0, renormalised: 2:3:4
    shared = Shared(shared_tokens(["a", "b", "c", "d"], ["d", "c", "a"]))
    found = summarise([compare(text_of([0, 2, 0, 2]), Table(p), Table(q), shared)])
    expected = sum(x * np.log(x / y) for x, y in [(2 / 9, 0.2), (3 / 9, 0.3), (4 / 9, 0.5)])
    assert found.kl_nats.value == pytest.approx(expected, rel=1e-5)
    assert found.flips.value == 0
    assert "90.00% of the parent's probability" in found.note


def test_vocabularies_without_much_in_common_are_refused() -> None:
    """Models that are no relatives cannot be compared token by token."""
    with pytest.raises(ConfigError, match="1 of 3 tokens"):
        shared_tokens(["a", "b", "c"], ["a", "x", "y"])


def test_texts_are_aligned_where_both_have_read_the_same_bytes() -> None:
    """Words that only the parent has in one token are compared after their last letter."""
    parent, child = Letters("return", "the "), Letters("the ")
    found = aligned("x return the y", parent, child, context=100, same=False)
    assert found is not None
    for i, j in zip(found.after_parent, found.after_child, strict=True):
        assert parent.decode(found.parent[: i + 1]) == child.decode(found.child[: j + 1])
    assert len(found.after_parent) == len(found.parent) == 6
    assert len(found.child) == 11


@given(st.text("abret hun", min_size=2, max_size=80), st.integers(2, 30))
def test_aligned_texts_fit_the_context_of_both(text: str, context: int) -> None:
    """Both models read the same bytes, in no more tokens than they have room for."""
    parent, child = Letters("return", "the ", "be"), Letters("re", "the ")
    found = aligned(text, parent, child, context=context, same=False)
    if found is not None:
        assert len(found.parent) <= context
        assert len(found.child) <= context
        assert parent.decode(found.parent) == child.decode(found.child)
        assert text.startswith(parent.decode(found.parent).decode())


def test_perplexity_does_not_depend_on_how_the_child_cuts_words() -> None:
    """Spelling a word letter by letter at the same total likelihood keeps the perplexity."""
    parent, child = Letters("return", "the "), Letters("the ")
    text = aligned("x return the y", parent, child, context=100, same=False)
    assert text is not None
    even = Table(np.zeros((100, len(parent.tokens))))
    # "return" costs the child six tokens: each gets a sixth of the parent's log-probability.
    cheap = np.zeros((100, len(child.tokens)))
    for row, token in enumerate(text.child[1:]):
        share = 1 / 6 if 2 <= row + 1 < 8 else 1.0
        p = float(len(parent.tokens)) ** -share
        cheap[row] = np.log((1 - p) / (len(child.tokens) - 1))
        cheap[row, token] = np.log(p)
    ids = shared_tokens(parent.tokens, child.tokens)
    found = summarise([compare(text, even, Table(cheap), Shared(ids))])
    assert found.parent_perplexity == pytest.approx(len(parent.tokens), rel=1e-4)
    assert found.child_perplexity == pytest.approx(len(parent.tokens), rel=1e-4)


def test_intervals_come_from_documents_not_positions() -> None:
    """Documents that differ widen the interval however many positions they have."""

    def sums(kl: float) -> Compared:
        return Compared(
            positions=1000,
            kl=kl,
            flips=0,
            kept=1000.0,
            targets=999,
            parent_nll=1.0,
            child_nll=1.0,
        )

    alike, apart = summarise([sums(100.0)] * 10), summarise([sums(0.0), sums(200.0)] * 5)
    assert alike.kl_nats.width == 0
    assert apart.kl_nats.value == alike.kl_nats.value == pytest.approx(0.1)
    assert 0.08 < apart.kl_nats.width < 0.16  # 2 * 1.96 * 0.1 / sqrt(10) = 0.124
    assert "one document" in summarise([sums(1.0)]).note


def test_logits_that_are_no_numbers_are_an_error() -> None:
    """A damaged model is reported, not averaged away."""
    broken = RNG.normal(size=(10, 5))
    broken[4, 2] = np.nan
    with pytest.raises(EngineError, match="damaged"):
        compare(text_of([1] * 10), Table(RNG.normal(size=(10, 5))), Table(broken), Shared(None))
