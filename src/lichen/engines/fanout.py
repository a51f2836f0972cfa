"""Run many requests on a few slots and hand out what they say as it comes.

This is the concurrency that adapters share: one thread per slot, one queue per ``generate`` call,
cancellation. It knows nothing about models. The iterable of requests is advanced in the caller's
own thread, between two yields, so it needs no lock and may be a plain generator; it is asked for
another request only when one of the call's slots is free.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from lichen.core.errors import EngineError
from lichen.core.generation import Completion, Delta, Request, distinct

Clock = Callable[[], float]


class Job:
    """One running request: where its deltas go, and how it learns that nobody waits any more."""

    def __init__(self, request: Request, submitted_s: float, emit: Callable[[Delta], None]) -> None:
        self.request = request
        self.submitted_s = submitted_s
        self.emit = emit
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the work should end as soon as it can."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the work to end; wakes it if it is blocked and said how (idempotent)."""
        with self._lock:
            self._cancelled.set()
            if self._interrupt is not None:
                self._interrupt()

    def interrupt_with(self, hook: Callable[[], None] | None) -> None:
        """Say what unblocks the work now (None: nothing does); called at once if cancelled."""
        with self._lock:
            self._interrupt = hook
            if hook is not None and self._cancelled.is_set():
                hook()

    def sleep(self, seconds: float) -> bool:
        """Wait, or less if cancelled meanwhile; returns whether it was."""
        return self._cancelled.wait(seconds)


Work = Callable[[Job], Completion]
"""Runs one request. Failures of the request are completions; an exception ends the whole call."""

_Running = dict[Future[Completion], Job]


class Fanout:
    """A pool of ``slots`` threads that any number of ``run`` calls share.

    Args:
        slots: most requests in flight at once.
        name: the engine's name, for thread names and messages.
        clock: monotonic seconds; stamps the submission of each request.
    """

    def __init__(self, slots: int, name: str, clock: Clock) -> None:
        self._slots = slots
        self._name = name
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=slots, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._jobs: set[Job] = set()
        self._closed = False

    def run(self, requests: Iterable[Request], work: Work) -> Iterator[Delta | Completion]:
        """Yield what ``work`` emits and returns for each request, in the order it comes.

        Closing the iterator cancels the requests in flight and waits until their threads let go.

        Raises:
            EngineError: the engine is or was closed.
            ValueError: two requests have one id.
        """
        out: queue.SimpleQueue[Delta | Future[Completion]] = queue.SimpleQueue()
        running: _Running = {}
        source = distinct(requests)
        exhausted = False
        try:
            while True:
                while not exhausted and len(running) < self._slots:
                    request = next(source, None)
                    if request is None:
                        exhausted = True
                    else:
                        self._start(request, running, out, work)
                if not running:
                    return
                item = out.get()
                if self._closed:
                    raise self._closed_error()
                if isinstance(item, Delta):
                    yield item
                else:
                    self._jobs.discard(running.pop(item))
                    yield item.result()
        finally:
            self._abandon(running)

    def _start(
        self,
        request: Request,
        running: _Running,
        out: queue.SimpleQueue[Delta | Future[Completion]],
        work: Work,
    ) -> None:
        job = Job(request, self._clock(), out.put)
        with self._lock:
            if self._closed:
                raise self._closed_error()
            future = self._pool.submit(work, job)
            self._jobs.add(job)
        running[future] = job
        # The callback also fires for a future that is cancelled unstarted, so no one waits forever.
        future.add_done_callback(out.put)

    def _abandon(self, running: _Running) -> None:
        for job in running.values():
            job.cancel()
            self._jobs.discard(job)
        # Not those that never started: wait() would wait for ever for a worker to notice them.
        wait([future for future in running if not future.cancel()])

    def close(self) -> None:
        """Cancel everything in flight, of every ``run``, and end the threads (idempotent)."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _closed_error(self) -> EngineError:
        return EngineError(f"the engine {self._name!r} has been closed; open it again to use it")
