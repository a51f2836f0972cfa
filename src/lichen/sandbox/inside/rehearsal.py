"""A trial that a cell plays to itself before the first real one.

Python 3.11 and later rewrites code as it warms up. What is warm before the fork stays shared; what
warms up in a trial is copied, page by page, in every trial again.
"""

from __future__ import annotations

import os
from typing import Any

from . import codec, judge, solution, wire

_ROUNDS = 20  # beyond the interpreter's own threshold of 8 executions
_SOURCE = "def f(x, *rest, **named):\n    return x\n"
_CHECK = """\
for value in (None, True, 1, -2.5, "text", b"", [1, [2]], (1, "a"), {"k": [1]}, {1, 2}):
    assert candidate(value) == value
"""


class _Loop(wire.Stream):
    """Answers each request at once: the judge's stream and the solution's in one."""

    def __init__(self, ends: tuple[int, int], module: Any) -> None:
        super().__init__(ends[0])
        self._other = wire.Stream(ends[1])
        self._module = module

    def send(self, *payloads: bytes) -> None:
        super().send(*payloads)
        entry_point = vars(self._module)["f"]
        self._other.send(*solution.answer(entry_point, self._other.receive(), self._module))


def play() -> None:
    """Judge a trivial solution a few times, in this process."""
    left, right = wire.pair()
    ends = (left.fileno(), right.fileno())
    ticket = {"setup": _SOURCE, "check": _CHECK, "entry_point": "f", "nonce": b"rehearsal"}
    judge.prepare(ticket)
    for _ in range(_ROUNDS):
        ready, module = solution.load(_SOURCE, "f")
        loop = _Loop(ends, module)
        os.write(ends[1], wire.framed(codec.encode(ready)))
        if judge.judge(ticket, loop)["nonce"] != ticket["nonce"]:
            raise OSError("the rehearsal of a trial failed")
    solution.unload()
    judge.unload()
    left.close()
    right.close()
