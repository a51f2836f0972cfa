"""The rounds of a search as stored runs: nothing is loaded, judged or run twice without need.

All rounds stand on one ``Ground``. Engines stay loaded (``kept_engines``), the reference solution
of a problem is judged when the problem first comes up, and a round whose spec is stored already is
read, not run: a search that was interrupted is repeated up to where it was. The rounds of a search
are runs like others; the spec's ``part_of`` says which search they belong to.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from lichen.benchmark.run import Observer, judge_references
from lichen.benchmark.run import run as run_benchmark
from lichen.benchmark.summarise import StoredRun
from lichen.catalog import Catalog
from lichen.compose import settings
from lichen.compose.build import Ground, Workbench, ground, load_engine, prepared
from lichen.compose.kept_engines import KeptEngines
from lichen.compose.parts import label_for
from lichen.compose.spec import RunSpec
from lichen.core.errors import EngineError, LichenError
from lichen.core.measurement import Measurement, Missing
from lichen.core.record import OracleRecord, RunRecord, RunState
from lichen.core.task import Problem
from lichen.store import Store

_DIGITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What runs took: CPU-seconds and seconds of loading, answering and judging."""

    cpu_s: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(cpu_s=self.cpu_s + other.cpu_s, seconds=self.seconds + other.seconds)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(cpu_s=self.cpu_s - other.cpu_s, seconds=self.seconds - other.seconds)


@dataclass(slots=True)
class Rounds:
    """Runs what a search asks for.

    Args:
        ground: what all rounds share; its ``load`` is that of ``engines``.
        engines: kept between rounds.
        label: of the search, see ``label_for``.
        notes: file for what the search has to remember beside its rounds.
        spent: on all rounds so far, stored ones included: what they took when they ran.
        ran: rounds that were run now; ``stored``: rounds that were read.
    """

    ground: Ground
    engines: KeptEngines
    label: str
    notes: Path
    spent: Spent = Spent()
    ran: int = 0
    stored: int = 0
    _references: dict[str, str] = field(default_factory=dict)
    _failures: dict[str, Measurement] = field(default_factory=dict)

    def __call__(self, spec: RunSpec) -> StoredRun:
        """Return the round that ``spec`` describes, from the store if it is there.

        Raises:
            LichenError: it cannot be run, or could not when it was tried (see ``gave_up``).
        """
        with prepared(self._labelled(spec), self.ground, ended=True) as bench:
            if bench.head.state is RunState.RUNNING:
                self._run(bench)
                self.ran += 1
            else:
                self.stored += 1
            found = read(self.ground.store, bench.head.id)
        self.spent += spent_on(found)
        if found.run.state is RunState.FAILED:
            raise EngineError(found.run.notes[-1])
        self._learn(found.run)
        return found

    def gave_up(self, spec: RunSpec, why: str) -> None:
        """Store that a round cannot be run, so that it is not tried again; see ``__call__``."""
        try:
            with prepared(self._labelled(spec), self.ground, ended=True) as bench:
                if bench.head.state is RunState.RUNNING:
                    self._store_failure(bench, why)
        except LichenError:
            # What cannot even be described costs nothing to find out again.
            return

    def prove(self, spec: RunSpec, *, fresh: bool, observer: Observer) -> StoredRun:
        """Run a verification: with engines of its own, so that their loading is seen in full.

        One that is stored is read, unless ``fresh``; one that was interrupted goes on.
        """
        self.engines.close()
        alone = replace(self.ground, load=load_engine)
        with prepared(spec, alone, fresh=fresh, ended=True) as bench:
            if bench.head.state is RunState.RUNNING:
                _run_on(bench, bench.head, observer)
            return read(self.ground.store, bench.head.id)

    def _labelled(self, spec: RunSpec) -> RunSpec:
        return spec.model_copy(update={"part_of": self.label})

    def _run(self, bench: Workbench) -> None:
        head = bench.head
        if not bench.resume:
            chosen = set(head.problem_ids)
            problems = [p for p in bench.task.problems() if p.id in chosen]
            head = replace(head, oracle=self._oracle(problems))
        with bench.meter.window("round") as window:
            try:
                _run_on(bench, head)
            except LichenError:
                self._failures[head.spec_hash] = window.close()
                raise

    def _store_failure(self, bench: Workbench, why: str) -> None:
        head, cost = bench.head, self._failures.pop(bench.head.spec_hash, None)
        if not bench.resume:
            first, *others = head.solutions
            self.ground.store.add_run(replace(head, solutions=(replace(first, load=cost), *others)))
        self.ground.store.finish_run(head.id, RunState.FAILED, [why])
        self.spent += spent_on(read(self.ground.store, head.id))

    def _oracle(self, problems: Sequence[Problem]) -> OracleRecord:
        """Return how the references fare, judging those that were not judged before."""
        known = [p for p in problems if p.reference]
        new = [p for p in known if p.id not in self._references]
        if new:
            failures = dict(judge_references(self.ground.task, new).failures)
            self._references |= {p.id: failures.get(p.id, "") for p in new}
        failed = tuple((p.id, why) for p in known if (why := self._references[p.id]))
        return OracleRecord(problems=len(known), passed=len(known) - len(failed), failures=failed)

    def _learn(self, run: RunRecord) -> None:
        if run.oracle is not None:
            failures = dict(run.oracle.failures)
            for problem in run.problem_ids:
                self._references.setdefault(problem, failures.get(problem, ""))


@contextmanager
def rounds_for(
    spec: RunSpec, *, store_url: str, catalog: Catalog, fresh: bool = False
) -> Iterator[Rounds]:
    """Open what a search over ``spec`` needs; ``fresh`` leaves aside what is stored of it."""
    engines = KeptEngines()
    try:
        with ground(spec, store_url=store_url, catalog=catalog, load=engines.open) as shared:
            label = label_for(spec, shared.store, fresh=fresh)
            where = hashlib.sha256(store_url.encode()).hexdigest()[:_DIGITS]
            notes = settings.cache_dir() / "strategies" / "searches" / f"{label}-{where}.json"
            yield Rounds(ground=shared, engines=engines, label=label, notes=notes)
    finally:
        engines.close()


def read(store: Store, run_id: str) -> StoredRun:
    """Return a run with all its records."""
    return StoredRun(
        run=store.run(run_id), samples=store.samples(run_id), blocks=store.blocks(run_id)
    )


def spent_on(stored: StoredRun) -> Spent:
    """Return what a run took, answering, judging and loading.

    Raises:
        EngineError: CPU time was not measured.
    """
    windows = [w for b in stored.blocks for w in (b.generation, b.judging) if w is not None]
    loads = [s.load for s in stored.run.solutions if s.load is not None]
    return Spent(
        cpu_s=math.fsum(cpu_s(m) for m in (*windows, *loads)),
        seconds=math.fsum(wall_s(m) for m in (*windows, *loads)),
    )


def cpu_s(measurement: Measurement) -> float:
    """Return CPU-seconds; EngineError where they were not measured."""
    found = measurement.cpu_s
    if isinstance(found, Missing):
        raise EngineError(f"CPU time cannot be measured here: {found.reason}")
    return found.value.value


def wall_s(measurement: Measurement) -> float:
    """Return seconds; EngineError where they were not measured."""
    found = measurement.wall_s
    if isinstance(found, Missing):
        raise EngineError(f"time cannot be measured here: {found.reason}")
    return found.value.value


def _run_on(bench: Workbench, head: RunRecord, observer: Observer | None = None) -> None:
    run_benchmark(
        head,
        bench.solutions,
        bench.task,
        plan=bench.plan,
        meter=bench.meter,
        sink=bench.store,
        observer=observer,
        resume=bench.resume,
    )
