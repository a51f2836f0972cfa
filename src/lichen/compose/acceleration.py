"""What the search over strategies needs of the world: candidates as solutions, measured for real.

``BenchmarkEvaluate`` is the search's port: one call is one stored benchmark run, in which plain and
the candidates answer the same problems in one block each, in a shuffled order. Calibration uses
the even problems; ``verification`` describes the run on the odd ones, which the search never saw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lichen.acceleration.candidates import FIRST_MODEL, CandidateSet, Choice, label, ordered
from lichen.acceleration.racing import Observed
from lichen.benchmark.plan import select
from lichen.benchmark.run import Observer
from lichen.benchmark.run import run as run_benchmark
from lichen.benchmark.summarise import StoredRun
from lichen.catalog import Catalog
from lichen.compose.build import MODEL_FREE_ENGINES, make_task, workbench
from lichen.compose.spec import RunSpec, SolutionSpec, StrategySpec, TaskSpec
from lichen.core.errors import ConfigError, EngineError, LichenError
from lichen.core.measurement import Measurement, Missing
from lichen.core.record import SampleRecord
from lichen.sandbox import open_sandbox

PLAIN: Final = "plain"
GREEN: Final = "green"

_NAME_LENGTH: Final = 100

RunIt = Callable[[RunSpec], StoredRun]
"""Runs a spec, stores it and returns its records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """Problem ids: what the search may see, and what the result is verified on."""

    calibration: tuple[str, ...]
    verification: tuple[str, ...]


def base_of(spec: RunSpec) -> SolutionSpec:
    """Return the one solution that is to be accelerated.

    Raises:
        ConfigError: there are several, or its engine runs elsewhere, so that CPU time is not seen.
    """
    if len(spec.solutions) != 1:
        names = ", ".join(s.name for s in spec.solutions)
        raise ConfigError(f"one solution is accelerated at a time; these were given: {names}")
    (base,) = spec.solutions
    if base.engine.name in MODEL_FREE_ENGINES:
        raise ConfigError(
            f"the engine {base.engine.name!r} computes outside this process, so what a strategy "
            "saves cannot be seen from here: accelerate where the model runs"
        )
    return base


def halves(spec: RunSpec, catalog: Catalog) -> Halves:
    """Split the task's problems into even (calibration) and odd (verification).

    ``spec.task.limit`` holds for each half.

    Raises:
        ConfigError: fewer than two problems.
    """
    sandbox = open_sandbox(workers=spec.sandbox.workers, unsafe=spec.sandbox.unsafe)
    try:
        problems = make_task(spec.task, catalog, sandbox).problems()
    finally:
        sandbox.close()
    chosen = select(problems, limit=None, half=spec.task.half, ids=spec.task.problems)
    even, odd = (
        tuple(p.id for p in select(chosen, limit=spec.task.limit, half=half, ids=()))
        for half in ("even", "odd")
    )
    return Halves(calibration=even, verification=odd)


def solution_of(base: SolutionSpec, candidate: CandidateSet, name: str) -> SolutionSpec:
    """Return the base solution with a candidate's strategies added, in layer order."""
    own = {s.name: s for s in base.strategies}
    choices = ordered((*(Choice(strategy=n) for n in own), *candidate))
    cascade = next((c for c in candidate if c.strategy == "cascade"), None)
    strategies = [own.get(c.strategy) or _strategy(c) for c in choices if c is not cascade]
    changes: dict[str, Any] = {"name": name[:_NAME_LENGTH], "strategies": tuple(strategies)}
    if cascade is not None:
        at = choices.index(cascade)
        options = dict(cascade.options)
        first = options.pop(FIRST_MODEL)
        level = _level(base, strategies[:at])
        routed = StrategySpec.model_validate({"name": "cascade", "levels": [level], **options})
        strategies.insert(at, routed)
        changes |= {"model": first, "strategies": tuple(strategies)}
    return base.model_copy(update=changes)


def _strategy(choice: Choice) -> StrategySpec:
    return StrategySpec.model_validate({"name": choice.strategy, **dict(choice.options)})


def _level(base: SolutionSpec, inner: Sequence[StrategySpec]) -> dict[str, Any]:
    """Describe the solution's own model as the cascade's next level, with the same strategies."""
    level: dict[str, Any] = {
        "model": base.model,
        "engine": base.engine.model_dump(mode="json"),
        "strategies": [s.model_dump(mode="json") for s in inner],
    }
    return {k: v for k, v in level.items() if v}


def runner(
    *, store_url: str, catalog: Catalog, observer: Observer | None = None, fresh: bool = True
) -> RunIt:
    """Return what runs specs here, into the store."""

    def run_it(spec: RunSpec) -> StoredRun:
        with workbench(spec, store_url=store_url, catalog=catalog, fresh=fresh) as bench:
            run = run_benchmark(
                bench.head,
                bench.solutions,
                bench.task,
                plan=bench.plan,
                meter=bench.meter,
                sink=bench.store,
                observer=observer,
                resume=bench.resume,
            )
            return StoredRun(
                run=run, samples=bench.store.samples(run.id), blocks=bench.store.blocks(run.id)
            )

    return run_it


@dataclass(slots=True)
class BenchmarkEvaluate:
    """The search's ``Evaluate``: each call is one interleaved run of one round.

    A candidate that cannot be loaded does not take the others of its round with it.

    Args:
        spec: with the one solution to accelerate.
        run_it: see ``RunIt``.
        run_ids: of all rounds, in order.
    """

    spec: RunSpec
    run_it: RunIt
    run_ids: list[str] = field(default_factory=list)

    def __call__(
        self, candidates: Sequence[CandidateSet], problems: Sequence[str]
    ) -> Sequence[Observed]:
        """Run plain and the candidates on these problems.

        Raises:
            LichenError: plain itself cannot be run.
        """
        try:
            return self._round(candidates, problems)
        except LichenError as exc:
            if not candidates:
                raise
            if len(candidates) == 1:
                (plain,) = self._round((), problems)  # raises if plain is what does not work
                return plain, Observed(error=str(exc))
            return self._without_the_broken(candidates, problems, str(exc))

    def _without_the_broken(
        self, candidates: Sequence[CandidateSet], problems: Sequence[str], why: str
    ) -> Sequence[Observed]:
        """Try each candidate alone on one problem, then run those that work together."""
        broken = {c: self([c], problems[:1])[1].error for c in candidates}
        working = [c for c in candidates if not broken[c]]
        if len(working) == len(candidates):  # each works alone: together they are too much
            broken = dict.fromkeys(candidates, why)
            working = []
        plain, *seen = self(working, problems)
        found = dict(zip(working, seen, strict=True))
        return plain, *(found.get(c) or Observed(error=broken[c]) for c in candidates)

    def _round(
        self, candidates: Sequence[CandidateSet], problems: Sequence[str]
    ) -> tuple[Observed, ...]:
        base = base_of(self.spec)
        solutions = (
            base.model_copy(update={"name": PLAIN}),
            *(solution_of(base, c, f"{i} {label(c)}") for i, c in enumerate(candidates, 1)),
        )
        stored = self.run_it(
            _on(self.spec, problems).model_copy(
                update={
                    "solutions": solutions,
                    "seed": self.spec.seed + len(self.run_ids),  # another order in each round
                    "samples": 1,
                    "block_size": len(problems),
                    "idle_s": 0.0,
                }
            )
        )
        self.run_ids.append(stored.run.id)
        return tuple(observed(stored, s.name, problems) for s in solutions)


def observed(stored: StoredRun, solution: str, problems: Sequence[str]) -> Observed:
    """Return what a solution did in a run, in the order of ``problems``.

    Raises:
        EngineError: its CPU time was not measured, or every answer failed.
    """
    by_id = {s.problem_id: s for s in stored.samples if s.solution == solution}
    samples = [by_id[p] for p in problems]
    errors = [s.error for s in samples if s.error]
    if len(errors) == len(samples):
        return _unusable(solution, f"no answer came: {errors[0]}")
    costs = [_cpu_s(s.generation) for s in samples]
    if not math.fsum(costs) > 0:
        return _unusable(solution, "its CPU time is too short to be measured")
    record = next(s for s in stored.run.solutions if s.name == solution)
    return Observed(
        quality=tuple(s.score.value for s in samples),
        cpu_s=tuple(costs),
        latency_s=tuple(_latency_s(s) for s in samples),
        load_cpu_s=_cpu_s(record.load) if record.load is not None else 0.0,
    )


def _unusable(solution: str, why: str) -> Observed:
    if solution == PLAIN:
        raise EngineError(f"the plain solution cannot be measured: {why}")
    return Observed(error=why)


def _cpu_s(measurement: Measurement) -> float:
    found = measurement.cpu_s
    if isinstance(found, Missing):
        raise EngineError(f"CPU time cannot be measured here: {found.reason}")
    return found.value.value


def _latency_s(sample: SampleRecord) -> float:
    return sample.timings.total_s


def cpu_bill(stored: StoredRun) -> float:
    """Return all CPU-seconds of a run: answering, judging and loading."""
    windows = [w for b in stored.blocks for w in (b.generation, b.judging) if w is not None]
    loads = [s.load for s in stored.run.solutions if s.load is not None]
    return math.fsum(_cpu_s(m) for m in (*windows, *loads))


def verification(
    spec: RunSpec, best: CandidateSet, problems: Sequence[str], *, ablation: bool
) -> RunSpec:
    """Describe the run that proves a candidate: plain against green on problems not seen before.

    Args:
        spec: with the one solution to accelerate.
        best: the winner.
        problems: ids of the verification half.
        ablation: add green without each of its strategies.
    """
    base = base_of(spec)
    solutions = [base.model_copy(update={"name": PLAIN}), solution_of(base, best, GREEN)]
    if ablation and len(best) > 1:
        for choice in best:
            rest = tuple(c for c in best if c != choice)
            solutions.append(solution_of(base, rest, f"{GREEN} without {choice.strategy}"))
    return _on(spec, problems).model_copy(update={"solutions": tuple(solutions)})


def _on(spec: RunSpec, problems: Sequence[str]) -> RunSpec:
    """Return the spec on exactly these problems."""
    task: TaskSpec = spec.task.model_copy(
        update={"problems": tuple(problems), "limit": None, "half": "all"}
    )
    return spec.model_copy(update={"task": task})
