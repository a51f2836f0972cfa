"""Beginnings of prompts that several slots need: read in one slot, copied into the others.

A slot reuses what it holds itself; with S slots a common beginning (a system prompt, a worked
example, a file) would be read S times. Here the second request that needs it reads it alone and
has llama.cpp write the slot's keys and values to a file; slots of later requests load that file.
What a file holds beyond the common part, llama.cpp drops when the prompt comes.

Files are as private as what they hold: one user's are for that user alone, the folder is this
engine's own and goes when it is closed, and the ones unused for longest give way.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from lichen.engines.fanout import Job
from lichen.engines.llama_cpp.slots import Seat
from lichen.engines.local import common_prefix

_LOG: Final = logging.getLogger(__name__)

WORTH_COPYING: Final = 256
"""Characters that a slot must gain: some 60 tokens, which cost more than writing a file does."""

MOST: Final = 4
"""Files kept; each is as large as the keys and values of what it holds."""

_LOOK_S: Final = 0.2
"""How often a request that waits for another one's reading looks whether it was cancelled."""


class Posting(Protocol):
    """What is needed of ``lichen.engines.llama_cpp.loopback.Loopback``."""

    def post(self, path: str, body: Mapping[str, Any], job: Job | None = None) -> Any:
        """Post JSON and return the JSON answer; ``{}`` where the job was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A slot that is ready for its request.

    Args:
        reuse: whether what the slot holds may be reused.
        tokens, seconds: what was computed for the request ahead of it.
    """

    reuse: bool
    tokens: int = 0
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class _Beginning:
    user: str
    text: str
    file: str
    done: threading.Event = field(default_factory=threading.Event)
    good: bool = False


class Beginnings:
    """The beginnings of one engine.

    Args:
        server: llama.cpp.
        folder: where llama.cpp was told to keep slots; only this object writes there.
    """

    def __init__(self, server: Posting, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._lock = threading.Lock()
        self._kept: list[_Beginning] = []  # the last used one last
        self._made = 0

    def prepare(self, seat: Seat, user: str, prompt: str, job: Job) -> Prepared:
        """Give a slot the beginning of a prompt if others of its user have it and it has not.

        Never fails: a slot that cannot be prepared reads the whole prompt.
        """
        beginning, fresh = self._choose(seat, user, prompt)
        if beginning is None:
            return Prepared(reuse=seat.reuse)
        if fresh:
            return self._read(beginning, seat, job)
        while not beginning.done.wait(_LOOK_S):
            if job.cancelled:
                return Prepared(reuse=seat.reuse)
        loaded = beginning.good and self._slot("restore", "n_restored", beginning, seat)
        return Prepared(reuse=seat.reuse or loaded)

    def _choose(self, seat: Seat, user: str, prompt: str) -> tuple[_Beginning | None, bool]:
        """Return a beginning and whether it is yet to be read; None where little is to gain."""
        with self._lock:
            mine = {b: common_prefix(b.text, prompt) for b in self._kept if b.user == user}
            best = max(mine, key=lambda b: mine[b], default=None)
            there = mine[best] if best is not None else 0
            if max(there, seat.elsewhere) - seat.kept < WORTH_COPYING:
                return None, False
            if best is not None and there > seat.elsewhere - WORTH_COPYING:
                self._kept.remove(best)
                self._kept.append(best)
                return best, False
            self._made += 1
            fresh = _Beginning(user, prompt[: seat.elsewhere], f"{self._made}.slot")
            self._kept.append(fresh)
            spare = max(len(self._kept) - MOST, 0)
            for old in [b for b in self._kept if b.done.is_set()][:spare]:
                self._drop(old)
            return fresh, True

    def _read(self, beginning: _Beginning, seat: Seat, job: Job) -> Prepared:
        body = {
            "prompt": beginning.text,
            "max_tokens": 1,
            "samplers": ["top_k"],
            "top_k": 1,
            "id_slot": seat.index,
            "cache_prompt": seat.reuse,
        }
        try:
            answer = self._server.post("/v1/completions", body, job)
            timings = answer.get("timings")
            if timings is None:
                return Prepared(reuse=seat.reuse)
            beginning.good = self._slot("save", "n_saved", beginning, seat)
            return Prepared(
                reuse=True, tokens=timings["prompt_n"], seconds=timings["prompt_ms"] / 1000
            )
        finally:
            beginning.done.set()
            if not beginning.good:
                with self._lock:
                    self._drop(beginning)

    def _slot(self, action: str, sign: str, beginning: _Beginning, seat: Seat) -> bool:
        path = f"/slots/{seat.index}?action={action}"
        answer = self._server.post(path, {"filename": beginning.file})
        if sign not in answer:
            _LOG.info("llama.cpp could not %s a slot: %s", action, answer.get("error"))
        return sign in answer

    def _drop(self, beginning: _Beginning) -> None:
        """Forget one; whoever was about to load it reads the whole prompt instead."""
        if beginning in self._kept:
            self._kept.remove(beginning)
        with contextlib.suppress(OSError):
            (self._folder / beginning.file).unlink()
