"""What the search over strategies needs of the world: candidates as solutions, measured for real.

``BenchmarkEvaluate`` is the search's port: one call is one stored benchmark run, in which plain and
the candidates answer the same problems in one block each, in a shuffled order. Calibration uses
the even problems; ``verification`` describes the run on the odd ones, which the search never saw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lichen.acceleration.candidates import (
    FIRST_MODEL,
    LAYERS,
    RECIPE,
    SECOND_FORM,
    CandidateSet,
    Choice,
    label,
    ordered,
)
from lichen.acceleration.racing import Observed
from lichen.acceleration.searched import Round
from lichen.acceleration.strategy import Layer
from lichen.benchmark.plan import select
from lichen.benchmark.summarise import StoredRun
from lichen.catalog import Catalog
from lichen.compose.build import MODEL_FREE_ENGINES, make_task
from lichen.compose.rounds import Rounds, cpu_s, wall_s
from lichen.compose.spec import RunSpec, SolutionSpec, StrategySpec, TaskSpec, load
from lichen.compression.recipe import recipe_held
from lichen.core.errors import ConfigError, EngineError, LichenError
from lichen.core.generation import Request
from lichen.sandbox import open_sandbox

PLAIN: Final = "plain"
GREEN: Final = "green"

_NAME_LENGTH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """Problem ids: what the search may see, and what the result is verified on.

    ``asked`` is the first question of the calibration half, without sampling settings.
    """

    calibration: tuple[str, ...]
    verification: tuple[str, ...]
    asked: Request


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
        task = make_task(spec.task, catalog, sandbox)
        chosen = select(task.problems(), limit=None, half=spec.task.half, ids=spec.task.problems)
        even, odd = (
            select(chosen, limit=spec.task.limit, half=half, ids=()) for half in ("even", "odd")
        )
        asked = task.request(even[0], sample=0, seed=0)
    finally:
        sandbox.close()
    return Halves(
        calibration=tuple(p.id for p in even),
        verification=tuple(p.id for p in odd),
        asked=asked,
    )


def solution_of(base: SolutionSpec, candidate: CandidateSet, name: str) -> SolutionSpec:
    """Return the base solution with a candidate's strategies added, in layer order.

    Raises:
        ConfigError: a file that the candidate names cannot be used.
    """
    made = next((c for c in candidate if c.strategy == RECIPE), None)
    if made is not None:
        candidate = tuple(c for c in candidate if c is not made)
        base = base.model_copy(update={"recipe": recipe_held(str(dict(made.options)["name"]))})
    own = {s.name: s for s in base.strategies}
    choices = ordered((*(Choice(strategy=n) for n in own), *candidate))
    cascade = next((c for c in candidate if c.strategy == "cascade"), None)
    strategies = [own.get(c.strategy) or _strategy(c) for c in choices if c is not cascade]
    changes: dict[str, Any] = {"name": name[:_NAME_LENGTH], "strategies": tuple(strategies)}
    if cascade is not None:
        at = choices.index(cascade)
        options = dict(cascade.options)
        first = _first(str(options.pop(FIRST_MODEL)))
        inner = _in_form(strategies[:at], str(options.pop(SECOND_FORM, "")))
        level = _level(base, inner)
        routed = StrategySpec.model_validate({"name": "cascade", "levels": [level], **options})
        strategies.insert(at, routed)
        changes |= {**first, "strategies": tuple(strategies)}
    return base.model_copy(update=changes)


def _first(named: str) -> dict[str, Any]:
    """Return the model, and its recipe, that a cascade asks first."""
    if not named.endswith(".toml"):
        return {"model": named, "recipe": ""}
    solutions = load([Path(named)]).solutions
    if len(solutions) != 1 or solutions[0].strategies or solutions[0].model is None:
        raise ConfigError(
            f"{named} is to be the solution that a cascade asks first: one model, with or without "
            "a recipe, and no strategies, which the search chooses"
        )
    return {"model": solutions[0].model, "recipe": solutions[0].recipe}


def _strategy(choice: Choice) -> StrategySpec:
    return StrategySpec.model_validate({"name": choice.strategy, **dict(choice.options)})


def _in_form(inner: Sequence[StrategySpec], form: str) -> list[StrategySpec]:
    """Return a level's strategies with ``answer_prefix`` in another style; "" leaves them alone."""
    if not form:
        return list(inner)
    prefix = _strategy(Choice(strategy="answer_prefix", options=(("style", form),)))
    others = [s for s in inner if s.name != prefix.name]
    engines = sum(LAYERS.get(s.name) == Layer.ENGINE for s in others)
    return [*others[:engines], prefix, *others[engines:]]


def _level(base: SolutionSpec, inner: Sequence[StrategySpec]) -> dict[str, Any]:
    """Describe the solution's own model as the cascade's next level, with the same strategies."""
    level: dict[str, Any] = {
        "model": base.model,
        "recipe": base.recipe,
        "engine": base.engine.model_dump(mode="json"),
        "strategies": [s.model_dump(mode="json") for s in inner],
    }
    return {k: v for k, v in level.items() if v}


@dataclass(slots=True)
class BenchmarkEvaluate:
    """The search's ``Evaluate``: each call is one interleaved run of one round.

    A candidate that cannot be loaded does not take the others of its round with it. What is run
    follows from the calls alone, so that the same search finds its stored rounds again.

    Args:
        spec: with the one solution to accelerate.
        rounds: runs them.
        run_ids: of all rounds, in order.
    """

    spec: RunSpec
    rounds: Rounds
    run_ids: list[str] = field(default_factory=list)

    def __call__(self, candidates: Sequence[CandidateSet], problems: Sequence[str]) -> Round:
        """Run the candidates on these problems; the empty one is plain.

        Raises:
            LichenError: plain itself cannot be run.
        """
        before, ran = self.rounds.spent, self.rounds.ran
        seen = self._observed(candidates, problems)
        spent = self.rounds.spent - before
        return Round(
            observed=tuple(seen),
            cpu_s=spent.cpu_s,
            seconds=spent.seconds,
            stored=self.rounds.ran == ran,
        )

    def _observed(
        self, candidates: Sequence[CandidateSet], problems: Sequence[str]
    ) -> Sequence[Observed]:
        spec = self._spec_of(candidates, problems)
        try:
            return self._round(spec, problems)
        except LichenError as exc:
            if len(candidates) == 1:
                if candidates[0] == ():
                    raise
                return (Observed(error=str(exc)),)
            seen = self._without_the_broken(candidates, problems, str(exc))
            self.rounds.gave_up(spec, str(exc))  # the first does work, so this is for good
            return seen

    def _without_the_broken(
        self, candidates: Sequence[CandidateSet], problems: Sequence[str], why: str
    ) -> Sequence[Observed]:
        """Try each beside the first alone on one problem, then run those that work together."""
        first, *others = candidates
        if len(others) == 1:
            (seen,) = self._observed([first], problems)  # raises if plain is what does not work
            return seen, Observed(error=why)
        broken = {c: self._observed([first, c], problems[:1])[1].error for c in others}
        working = [c for c in others if not broken[c]]
        if len(working) == len(others):  # each works alone: together they are too much
            broken = dict.fromkeys(others, why)
            working = []
        seen, *rest = self._observed([first, *working], problems)
        found = dict(zip(working, rest, strict=True))
        return seen, *(found.get(c) or Observed(error=broken[c]) for c in others)

    def _spec_of(self, candidates: Sequence[CandidateSet], problems: Sequence[str]) -> RunSpec:
        base = base_of(self.spec)
        plain = base.model_copy(update={"name": PLAIN})
        solutions = tuple(
            solution_of(base, c, f"{i} {label(c)}") if c else plain
            for i, c in enumerate(candidates)
        )
        return _on(self.spec, problems).model_copy(
            update={
                "solutions": solutions,
                "seed": self.spec.seed + len(self.run_ids),  # another order in each round
                "samples": 1,
                "block_size": len(problems),
                "idle_s": 0.0,
            }
        )

    def _round(self, spec: RunSpec, problems: Sequence[str]) -> tuple[Observed, ...]:
        stored = self.rounds(spec)
        self.run_ids.append(stored.run.id)
        return tuple(observed(stored, s.name, problems) for s in spec.solutions)


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
    costs = [cpu_s(s.generation) for s in samples]
    if not math.fsum(costs) > 0:
        return _unusable(solution, "its CPU time is too short to be measured")
    windows = [
        w
        for b in stored.blocks
        if b.solution == solution
        for w in (b.generation, b.judging)
        if w is not None
    ]
    return Observed(
        quality=tuple(s.score.value for s in samples),
        cpu_s=tuple(costs),
        latency_s=tuple(s.timings.total_s for s in samples),
        wall_s=math.fsum(wall_s(w) for w in windows),
    )


def _unusable(solution: str, why: str) -> Observed:
    if solution == PLAIN:
        raise EngineError(f"the plain solution cannot be measured: {why}")
    return Observed(error=why)


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
