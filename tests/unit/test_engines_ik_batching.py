"""Continuous batching over a model that is a sum: every token it is shown counts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from lichen.engines.ik_llama_cpp import engine as ik_engine
from lichen.engines.ik_llama_cpp.batching import Batching, InHand, Logits
from lichen.engines.ik_llama_cpp.checking import FEW, divergence
from lichen.engines.ik_llama_cpp.library import FULL, Item

VOCABULARY = 97


class SumModel:
    """Predicts the sum of all tokens before, plus their number; keeps a cache like the real one.

    Args:
        broken: the code that every step gives.
        wrong_from: rows in a step from which on predictions are wrong.
    """

    def __init__(self, *, broken: int = 0, wrong_from: int = 10**6) -> None:
        self.cache: dict[int, list[int]] = {}
        self.steps: list[int] = []
        self.sequences: list[set[int]] = []
        self.computed = 0
        self._broken, self._wrong_from = broken, wrong_from
        self._rows: list[int] = []

    def step(self, items: Sequence[Item]) -> int:
        if self._broken:
            return self._broken
        self._rows = []
        for item in items:
            held = self.cache.setdefault(item.sequence, [])
            assert len(held) == item.position, "a position was left out or computed twice"
            held.append(item.token)
            self._rows.append(after(held) + (len(items) >= self._wrong_from))
        self.steps.append(len(items))
        self.sequences.append({i.sequence for i in items})
        self.computed += len(items)
        return 0

    def logits(self, row: int) -> Logits:
        found = np.zeros(VOCABULARY, dtype=np.float32)
        found[self._rows[row] % VOCABULARY] = 9.0
        return found

    def forget(self, sequence: int, start: int = 0) -> None:
        self.cache[sequence] = self.cache.get(sequence, [])[:start]

    def share(self, source: int, target: int, end: int) -> None:
        self.cache[target] = self.cache[source][:end]


def after(tokens: Sequence[int]) -> int:
    """What the model says after some tokens."""
    return (sum(tokens) + len(tokens)) % VOCABULARY


def expected(prompt: Sequence[int], count: int) -> list[int]:
    """The answer that one sequence alone would get."""
    told = list(prompt)
    for _ in range(count):
        told.append(after(told))
    return told[len(prompt) :]


def asked(prompt: Sequence[int], *, most: int = 5, user: str = "u") -> InHand:
    """A greedy sequence."""
    return InHand(
        user=user,
        prompt=prompt,
        most=most,
        choose=lambda logits: (int(logits.argmax()), False),
        cancelled=lambda: False,
    )


@contextmanager
def batching(
    model: SumModel, *, slots: int = 4, batch: int = 64, keep: bool = False
) -> Iterator[Batching]:
    made = Batching(model, slots=slots, batch=batch, keep=keep)
    try:
        yield made
    finally:
        made.close()


def run_together(made: Batching, sequences: Sequence[InHand]) -> None:
    """Run some at once, each in a thread of its own as the engine does."""
    threads = [threading.Thread(target=made.run, args=(s,)) for s in sequences]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)


PROMPTS = [[3, 1, 4], list(range(40)), [9] * 17, [2, 7, 1, 8, 2, 8]]


@pytest.mark.parametrize("batch", [4, 7, 64])
def test_together_is_as_alone(batch: int) -> None:
    """However many run together, and however prompts are cut, each gets its own answer."""
    sequences = [asked(p, most=6 + i) for i, p in enumerate(PROMPTS)]
    model = SumModel()
    with batching(model, batch=batch) as made:
        run_together(made, sequences)
    for i, (sequence, prompt) in enumerate(zip(sequences, PROMPTS, strict=True)):
        assert sequence.error == ""
        assert sequence.added == expected(prompt, 6 + i)
    assert max(model.steps) <= batch


def test_several_answers_share_a_step() -> None:
    """What is being answered at the same time is computed in one step."""
    model = SumModel()
    sequences = [asked(p, most=60) for p in PROMPTS]
    with batching(model) as made:
        with made._work:  # all at once: threads of their own might come too late on a busy machine
            made._waiting += sequences
            made._work.notify()
        assert all(s.done.wait(30) for s in sequences)
    assert max(map(len, model.sequences)) > 1
    assert len(model.steps) < 4 * 60


def test_an_ending_frees_the_slot() -> None:
    """More sequences than slots run one after the other, and nothing is left in the cache."""
    model = SumModel()
    with batching(model, slots=1) as made:
        for prompt in PROMPTS:
            sequence = asked(prompt)
            made.run(sequence)
            assert sequence.added == expected(prompt, 5)
            assert model.cache[0] == []


def test_the_chooser_may_end_it() -> None:
    """The token that ends an answer is counted; nothing is computed after it."""
    said = []

    def choose(logits: Logits) -> tuple[int, bool]:
        said.append(int(logits.argmax()))
        return said[-1], len(said) == 2

    sequence = asked([1, 2], most=50)
    sequence.choose = choose
    with batching(SumModel()) as made:
        made.run(sequence)
    assert sequence.added == said
    assert len(said) == 2


def test_a_kept_prompt_is_used_again() -> None:
    """A prompt that begins like an earlier one of the same user is computed from there on."""
    model = SumModel()
    start = list(range(30))
    with batching(model, keep=True) as made:
        made.run(asked([*start, 5]))
        before = model.computed
        again = asked([*start, 6, 7])
        made.run(again)
    assert again.shared == len(start)
    assert model.computed - before == 2 + 4  # the rest of the prompt, and all tokens but the last
    assert again.added == expected([*start, 6, 7], 5)


def test_a_busy_slot_lends_its_beginning() -> None:
    """What a running sequence has read serves another one that begins alike."""
    start = list(range(30))
    read, enough = threading.Event(), threading.Event()

    def choose(logits: Logits) -> tuple[int, bool]:
        read.set()
        return int(logits.argmax()), False

    first = asked([*start, 50], most=10**9)
    first.choose, first.cancelled = choose, enough.is_set
    with batching(SumModel(), keep=True) as made:
        thread = threading.Thread(target=made.run, args=(first,))
        thread.start()
        assert read.wait(10)
        second = asked([*start, 60])
        made.run(second)
        enough.set()
        thread.join(10)
    assert second.shared == len(start)
    assert second.added == expected([*start, 60], 5)
    assert first.added == expected([*start, 50], len(first.added))


def test_prompts_never_cross_users() -> None:
    """What one user's slot holds is nothing to another user."""
    start = list(range(30))
    with batching(SumModel(), keep=True) as made:
        made.run(asked([*start, 5], user="ann"))
        other = asked([*start, 6], user="bob")
        made.run(other)
        mine = asked([*start, 7], user="ann")
        made.run(mine)
    assert other.shared == 0
    assert mine.shared == len(start)


def test_nothing_is_shared_unless_asked_for() -> None:
    """Without kept prompts every prompt is computed in full, busy slots or not."""
    sequences = [asked([*range(30), i], most=20) for i in range(3)]
    with batching(SumModel()) as made:
        run_together(made, sequences)
    assert [s.shared for s in sequences] == [0, 0, 0]


def test_the_same_prompt_again_computes_its_last_token() -> None:
    """There is nothing to choose from without computing at least one token."""
    prompt = list(range(20))
    with batching(SumModel(), keep=True) as made:
        made.run(asked(prompt))
        again = asked(prompt)
        made.run(again)
    assert again.shared == len(prompt) - 1
    assert again.added == expected(prompt, 5)


@pytest.mark.parametrize(("code", "words"), [(FULL, "'context'"), (-3, "code -3")])
def test_a_step_that_fails_is_the_requests_error(code: int, words: str) -> None:
    """A sentence comes back, and the next request is served."""
    model = SumModel(broken=code)
    with batching(model) as made:
        bad = asked([1, 2, 3])
        made.run(bad)
        assert words in bad.error
        model._broken = 0
        good = asked([1, 2, 3])
        made.run(good)
    assert good.added == expected([1, 2, 3], 5)


def test_a_chooser_that_raises_fails_alone() -> None:
    """What a request's own code raises reaches that request; the others go on."""

    def choose(_: Logits) -> tuple[int, bool]:
        raise LookupError("bug")

    bad, good = asked([1, 2]), asked([3, 4], most=30)
    bad.choose = choose
    with batching(SumModel()) as made:
        run_together(made, [bad, good])
    assert isinstance(bad.failure, LookupError)
    assert good.failure is None
    assert good.added == expected([3, 4], 30)


def test_cancelled_before_the_next_step() -> None:
    """A request that nobody waits for ends, and gives up its slot."""
    sequence = asked([1, 2, 3], most=10**9)
    sequence.cancelled = lambda: len(sequence.added) > 3
    with batching(SumModel(), slots=1) as made:
        made.run(sequence)
        assert sequence.error == "the request was cancelled"
        after_it = asked([4])
        made.run(after_it)
    assert after_it.added == expected([4], 5)


def test_closing_ends_what_runs() -> None:
    """Nobody waits for ever for an engine that is gone."""
    began = threading.Event()

    def choose(logits: Logits) -> tuple[int, bool]:
        began.set()
        return int(logits.argmax()), False

    sequence = asked([1], most=10**9)
    sequence.choose = choose
    made = Batching(SumModel(), slots=1, batch=8, keep=False)
    thread = threading.Thread(target=made.run, args=(sequence,))
    thread.start()
    assert began.wait(10)
    made.close()
    thread.join(10)
    assert "closed" in sequence.error
    late = asked([1])
    made.run(late)
    assert "closed" in late.error


def test_right_kernels_diverge_by_nothing() -> None:
    """Read at once or in small steps, a sound model says the same, and its cache is left empty."""
    model = SumModel()
    assert divergence(model, list(range(48))) == 0.0
    assert model.cache[0] == []


class Loaded(SumModel):
    """What the engine asks of a loaded model before it trusts it."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        assert not add_special
        assert not parse_special
        return list(range(48))


@pytest.mark.parametrize(
    ("wrong_from", "wanted", "batch"), [(10**6, 512, 512), (32, 512, FEW), (32, 16, 16)]
)
def test_wrong_kernels_are_not_used(
    wrong_from: int, wanted: int, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Where many rows at once are predicted otherwise, steps stay small, and the log says so."""
    model = Loaded(wrong_from=wrong_from)
    with caplog.at_level(logging.WARNING):
        assert ik_engine._sound_batch(model, wanted) == batch  # type: ignore[arg-type]
    assert bool(caplog.records) == (batch == FEW)
