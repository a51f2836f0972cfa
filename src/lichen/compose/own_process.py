"""Call a function in a process of its own: its memory and CPU time are its own, and so are crashes.

The process is started afresh (``spawn``), so nothing of this one is inherited. The function and its
arguments must be importable and picklable.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import psutil  # type: ignore[import-untyped]  # types-psutil is not needed to run

from lichen.core.errors import EngineError

P = ParamSpec("P")
T = TypeVar("T")


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``function`` returns there; what it raises is raised here.

    Raises:
        EngineError: the process ended without an answer (a crash, or it was killed).
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as exc:
            raise EngineError(
                "the process that ran the model ended without an answer: it crashed, or memory "
                "ran out"
            ) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """CPU-seconds this process has used since it began, and the bytes it has resident now."""

    cpu_s: float
    resident_bytes: int


def used() -> Used:
    """Return what this process uses; all its threads are counted.

    Not ``getrusage``'s peak: a new process inherits that of the one that started it.
    """
    return Used(cpu_s=time.process_time(), resident_bytes=int(psutil.Process().memory_info().rss))
