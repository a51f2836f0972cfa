"""Continuous batching: one thread that computes a step for all requests in hand at a time.

A step holds the next token of every sequence that is being answered and, as far as there is room,
tokens of prompts that are being read (Yu et al., 2022, Orca). Between steps sequences come and go.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from lichen.engines.ik_llama_cpp.library import FULL, Item
from lichen.engines.local import common_prefix

Logits = npt.NDArray[np.float32]

WORTH_SHARING: Final = 8
"""Tokens in common from which on a kept beginning is used."""


class Model(Protocol):
    """What a step needs of the model and its cache; see ``library.Loaded``."""

    def step(self, items: Sequence[Item]) -> int:
        """Compute some tokens; 0 if it went well."""

    def logits(self, row: int) -> Logits:
        """Return what follows the item ``row`` of the last step, a view."""

    def forget(self, sequence: int, start: int = 0) -> None:
        """Drop a sequence's tokens from ``start`` on."""

    def share(self, source: int, target: int, end: int) -> None:
        """Let ``target`` begin with the first tokens of ``source``."""


@dataclass(eq=False, kw_only=True)
class InHand:
    """One request while it is computed.

    Args:
        user: whose it is; kept prompts never cross users.
        prompt: token ids, at least one.
        most: most tokens to add, at least 1.
        choose: takes the logits after the last token; returns the next one, and whether the
            answer ends with it. Called in the batching thread.
        cancelled: asked before every step.
        shared: prompt tokens that were kept from another request.
        added: the tokens of the answer.
        reading_s, decoding_s: seconds that prompt and answer took; None if they never ended.
        error: a sentence if it was not answered.
        failure: what ``choose`` raised.
        ended: whether ``choose`` said so, or ``most`` is reached.
        done: set when all of this is final.
        slot, computed, began_s, first_s: the batching thread's own notes.
    """

    user: str
    prompt: Sequence[int]
    most: int
    choose: Callable[[Logits], tuple[int, bool]]
    cancelled: Callable[[], bool]
    shared: int = 0
    added: list[int] = field(default_factory=list)
    reading_s: float | None = None
    decoding_s: float | None = None
    error: str = ""
    failure: BaseException | None = None
    ended: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    slot: int = -1
    computed: int = 0
    began_s: float | None = None
    first_s: float | None = None


@dataclass(kw_only=True)
class _Slot:
    """What a sequence of the cache holds, and whose it is."""

    user: str = ""
    held: list[int] = field(default_factory=list)
    taken: bool = False


class Batching:
    """Runs sequences on ``slots`` slots of a model, in a thread of its own.

    Args:
        model: what computes.
        slots: most sequences at a time; callers see to it that there are not more.
        batch: most tokens per step.
        keep: whether a slot's tokens are kept for later requests of the same user.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        model: Model,
        *,
        slots: int,
        batch: int,
        keep: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._batch = batch
        self._keep = keep
        self._clock = clock
        self._slots = [_Slot() for _ in range(slots)]
        self._work = threading.Condition()
        self._waiting: list[InHand] = []
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="ik_llama_cpp", daemon=True)
        self._thread.start()

    def run(self, sequence: InHand) -> None:
        """Compute a sequence; returns when it has ended."""
        with self._work:
            if self._closed:
                sequence.error = "the engine has been closed"
                return
            self._waiting.append(sequence)
            self._work.notify()
        sequence.done.wait()

    def close(self) -> None:
        """End the thread; sequences in hand are given up (idempotent)."""
        with self._work:
            self._closed = True
            self._work.notify()
        self._thread.join()

    def _loop(self) -> None:
        running: list[InHand] = []
        while True:
            with self._work:
                while not (running or self._waiting or self._closed):
                    self._work.wait()
                fresh, self._waiting = self._waiting, []
                closed = self._closed
            running += fresh
            if closed:
                for sequence in running:
                    sequence.error = sequence.error or "the engine has been closed"
                    sequence.done.set()
                return
            try:
                self._round(running)
            except Exception as exc:  # noqa: BLE001 (handed to those who wait: the thread goes on)
                for sequence in running:
                    sequence.failure = sequence.failure or exc
            for sequence in [s for s in running if s.ended or s.error or s.failure]:
                running.remove(sequence)
                self._leave(sequence)
                sequence.done.set()

    def _round(self, running: list[InHand]) -> None:
        for sequence in running:
            if sequence.cancelled():
                sequence.error = "the request was cancelled"
            elif sequence.slot < 0:
                self._enter(sequence)
        going = [s for s in running if not s.error]
        if going:
            self._compute(self._planned(going), {s.slot: s for s in going})

    # -- slots ---------------------------------------------------------------------------------

    def _enter(self, sequence: InHand) -> None:
        """Take a free slot, with as much of the prompt as some slot of the same user holds."""
        sequence.began_s = self._clock()
        usable = sequence.prompt[:-1]  # the last one is always computed
        common = {
            i: common_prefix(slot.held, usable)
            for i, slot in enumerate(self._slots)
            if self._keep and slot.held and slot.user == sequence.user
        }
        free = [i for i, slot in enumerate(self._slots) if not slot.taken]
        best = max(common, key=lambda i: (common[i], i in free), default=-1)
        start = common.get(best, 0)
        if start < WORTH_SHARING:
            best, start = -1, 0
        # Own slot, else an empty one, else that which holds least.
        mine = best if best in free else min(free, key=lambda i: len(self._slots[i].held))
        self._model.forget(mine, start if mine == best else 0)
        if best >= 0 and mine != best:
            self._model.share(best, mine, start)
        slot = self._slots[mine]
        slot.user, slot.held, slot.taken = sequence.user, list(sequence.prompt[:start]), True
        sequence.slot, sequence.computed, sequence.shared = mine, start, start

    def _leave(self, sequence: InHand) -> None:
        if sequence.slot < 0:
            return
        now = self._clock()
        if sequence.first_s is not None:
            sequence.decoding_s = now - sequence.first_s
        slot = self._slots[sequence.slot]
        slot.taken = False
        if not self._keep or sequence.error or sequence.failure:
            slot.held = []
            self._model.forget(sequence.slot)

    # -- steps ---------------------------------------------------------------------------------

    def _planned(self, going: list[InHand]) -> list[Item]:
        """The next token of each that is being answered, then as much of prompts as has room."""
        items: list[Item] = []
        for s in going:
            if s.added:
                at = len(s.prompt) + len(s.added) - 1
                items.append(Item(token=s.added[-1], position=at, sequence=s.slot, wanted=True))
        for s in going:
            if not s.added:
                end = min(len(s.prompt), s.computed + self._batch - len(items))
                items += [
                    Item(
                        token=s.prompt[at],
                        position=at,
                        sequence=s.slot,
                        wanted=at + 1 == len(s.prompt),
                    )
                    for at in range(s.computed, end)
                ]
        return items

    def _compute(self, items: list[Item], owners: dict[int, InHand]) -> None:
        """Compute items in one step, and take in what follows."""
        code = self._model.step(items)
        if code != 0:
            for item in items:
                owners[item.sequence].error = _refused(code)
            return
        for row, item in enumerate(items):
            self._note(owners[item.sequence], item)
            if item.wanted:
                self._take(owners[item.sequence], self._model.logits(row))

    def _note(self, sequence: InHand, item: Item) -> None:
        self._slots[sequence.slot].held.append(item.token)
        sequence.computed = item.position + 1

    def _take(self, sequence: InHand, logits: Logits) -> None:
        if sequence.first_s is None:
            sequence.first_s = self._clock()
            sequence.reading_s = sequence.first_s - (sequence.began_s or 0.0)
        try:
            token, ended = sequence.choose(logits)
        except Exception as exc:  # noqa: BLE001 (raised where the request waits)
            sequence.failure = exc
            return
        sequence.added.append(token)
        sequence.ended = ended or len(sequence.added) >= sequence.most


def _refused(code: int) -> str:
    if code == FULL:
        return (
            "the prompt does not fit beside what the other slots hold: raise the option 'context'"
        )
    return f"ik_llama.cpp failed to compute a step (code {code})"
