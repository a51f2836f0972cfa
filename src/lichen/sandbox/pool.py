"""The sandbox: a pool of warm workers behind one iterator. One thread, one selector, no queues.

Trials are pulled from the caller's iterable as workers become free, so nothing piles up. A
time-out is held back and run again, alone, after all others; only that second result counts.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import selectors
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from lichen.core.errors import SandboxError
from lichen.core.ports import Execution, Program
from lichen.core.task import Limits, Status, Trial, Verdict
from lichen.sandbox import verdicts, walls
from lichen.sandbox.inside import plain
from lichen.sandbox.worker import Cell, CellDied, Job, Worker

_MAX_CRASHES = 2
_FIRST_SHARE = 0.25
_FIRST_CPU_S, _FIRST_WALL_S = 1.0, 15.0
"""What a first attempt may use: a quarter of the limits, but at least this much of them.

Who needs more is run again alone with all of it anyway, so an endless loop need not burn it twice.
"""

Done = tuple[Job, Verdict]


class Pool:
    """Implements ``core.ports.Sandbox``. Also a context manager. ``wall`` says what contains."""

    def __init__(self, *, wall: str, workers: int, packages: Sequence[Path] = ()) -> None:
        self.wall = wall
        spawner = ThreadPoolExecutor(1, thread_name_prefix="lichen-sandbox")
        new_cell = _cell_factory(wall, tuple(packages), spawner)
        self._workers = [Worker(new_cell) for _ in range(workers)]
        self._lock = threading.Lock()
        self._holder: int | None = None
        self._end = weakref.finalize(self, _end, self._workers, spawner)

    @property
    def contained(self) -> bool:
        """Whether programs are contained, not merely limited."""
        return self.wall != walls.UNCONTAINED

    def judge(self, trials: Iterable[Trial]) -> Iterator[tuple[str, Verdict]]:
        """Hold solutions against checks; see the port."""
        for job, verdict in self._run(map(_trial_job, trials), _judge_verdict):
            yield job.id, verdict

    def run(self, programs: Iterable[Program]) -> Iterator[Execution]:
        """Run scripts; see the port."""
        for job, verdict in self._run(map(_script_job, programs), _script_verdict):
            outcome = job.outcomes.get("script")
            out, err = outcome.output if outcome is not None else (b"", b"")
            texts = [raw.decode("utf-8", "replace") for raw in (out, err)]
            yield Execution(id=job.id, verdict=verdict, stdout=texts[0], stderr=texts[1])

    def close(self) -> None:
        """End the worker processes; idempotent."""
        self._end()

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pool."""
        self.close()

    def _run(self, jobs: Iterator[Job], decide: Callable[[Job], Verdict]) -> Iterator[Done]:
        with self._held():
            again: list[Job] = []
            with contextlib.closing(self._drive(jobs, self._workers, decide)) as first:
                for job, verdict in first:
                    if verdict.status is Status.TIMEOUT:
                        again.append(job)
                    else:
                        yield job, verdict
            yield from self._alone(again, decide)

    def _alone(self, jobs: list[Job], decide: Callable[[Job], Verdict]) -> Iterator[Done]:
        """Run time-outs again one by one; a twin of one that timed out again shares its verdict."""
        known: dict[tuple[object, ...], Done] = {}
        for job in jobs:
            if job.key not in known:
                job.attempt += 1
                job.limit(job.limits)
                with contextlib.closing(self._drive(iter([job]), self._workers[:1], decide)) as one:
                    done = next(one)
                if done[1].status is not Status.TIMEOUT:
                    yield done
                    continue
                known[job.key] = done
            twin, verdict = known[job.key]
            job.outcomes = twin.outcomes
            yield job, verdict

    def _drive(
        self, jobs: Iterator[Job], workers: Sequence[Worker], decide: Callable[[Job], Verdict]
    ) -> Generator[Done, None, None]:
        """Keep the workers busy until the jobs run out; yields in completion order."""
        crashed: list[Job] = []
        try:
            while True:
                for worker in workers:
                    while worker.job is None:
                        job = crashed.pop() if crashed else next(jobs, None)
                        if job is None:
                            break
                        yield from _begin(worker, job, crashed)
                busy = [worker for worker in workers if worker.job is not None]
                if not busy:
                    return
                for job in _advance(busy, crashed):
                    yield job, decide(job) if job.finished else verdicts.broken(job.attempt)
        finally:
            for worker in workers:
                if worker.job is not None:  # the caller left early: what runs must not go on
                    worker.kill()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the workers for one call; other threads wait, the same thread cannot."""
        if not self._end.alive:
            raise SandboxError("the sandbox is closed")
        me = threading.get_ident()
        if self._holder == me:
            raise SandboxError("finish or close the sandbox's previous iterator first")
        with self._lock:
            self._holder = me
            try:
                yield
            finally:
                self._holder = None


def _cell_factory(
    wall: str, packages: tuple[Path, ...], spawner: ThreadPoolExecutor
) -> Callable[[Limits], Cell]:
    """Return what starts cells; it holds no pool, so that an unused pool can end by itself."""
    index = itertools.count()

    def new_cell(limits: Limits) -> Cell:
        number = next(index)

        def launch(fd: int) -> walls.Launch:
            return walls.launch(wall, control_fd=fd, index=number, limits=limits, packages=packages)

        return Cell(launch, limits, spawner)

    return new_cell


def _begin(worker: Worker, job: Job, crashed: list[Job]) -> Iterator[Done]:
    """Start a job; yields its verdict at once where it cannot even be handed over."""
    try:
        worker.start(job)
    except CellDied:
        for lost in _crash(worker, crashed):
            yield lost, verdicts.broken(lost.attempt)
    except plain.Unsendable as exc:
        worker.kill()
        yield job, verdicts.unsendable(f"the program cannot be handed over: {exc}")


def _advance(busy: Sequence[Worker], crashed: list[Job]) -> list[Job]:
    """Wait for messages, take them in, and return the jobs that ended."""
    ended: list[Job] = []
    with selectors.PollSelector() as selector:
        for worker in busy:
            for cell in worker.cells():
                selector.register(cell.control, selectors.EVENT_READ, (worker, cell))
        wait_s = max(0.0, min(worker.late_s() for worker in busy))
        events = selector.select(wait_s)
    for key, _mask in events:
        worker, cell = key.data
        job = worker.job
        if job is None:
            continue  # ended by an earlier message of this round
        try:
            worker.handle(cell)
        except CellDied:
            ended += _crash(worker, crashed)
            continue
        if job.finished:
            worker.job = None
            ended.append(job)
    for worker in busy:
        if worker.job is not None and worker.late_s() <= 0:
            ended += _crash(worker, crashed)
    return ended


def _crash(worker: Worker, crashed: list[Job]) -> list[Job]:
    """Replace a broken worker; its job runs once more, and is returned when that was in vain."""
    job = worker.job
    worker.kill()
    if job is None:
        return []
    job.crashes += 1
    job.outcomes.clear()
    if job.crashes < _MAX_CRASHES:
        crashed.append(job)
        return []
    return [job]


def _end(workers: list[Worker], spawner: ThreadPoolExecutor) -> None:
    for worker in workers:
        worker.dismiss()
    for worker in workers:
        worker.kill()
    spawner.shutdown(wait=False)


def _trial_job(trial: Trial) -> Job:
    nonce = secrets.token_bytes(16)
    solution = {
        "role": "solution",
        "source": trial.solution,
        "entry_point": trial.entry_point,
    }
    judge = {
        "role": "judge",
        "setup": trial.setup,
        "check": trial.check,
        "entry_point": trial.entry_point,
        "nonce": nonce,
    }
    job = Job(
        id=trial.id,
        tickets={"solution": solution, "judge": judge},
        limits=trial.limits,
        key=(trial.solution, trial.entry_point, trial.setup, trial.check, trial.limits),
        nonce=nonce,
    )
    job.limit(_first(trial.limits))
    return job


def _script_job(program: Program) -> Job:
    ticket = {
        "role": "script",
        "source": program.source,
        "stdin": program.stdin,
    }
    job = Job(
        id=program.id,
        tickets={"script": ticket},
        limits=program.limits,
        key=(program.source, program.stdin, program.limits),
    )
    job.limit(_first(program.limits))
    return job


def _first(limits: Limits) -> Limits:
    """Return the limits of a first attempt."""
    cpu_s = max(_FIRST_SHARE * limits.cpu_s, min(_FIRST_CPU_S, limits.cpu_s))
    wall_s = max(_FIRST_SHARE * limits.wall_s, min(_FIRST_WALL_S, limits.wall_s))
    return replace(limits, cpu_s=cpu_s, wall_s=wall_s)


def _judge_verdict(job: Job) -> Verdict:
    return verdicts.judged(job.outcomes, job.nonce, job.attempt)


def _script_verdict(job: Job) -> Verdict:
    return verdicts.executed(job.outcomes["script"], job.attempt)
