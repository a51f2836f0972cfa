"""Run solutions on a task: generate, judge, measure, store; block by block, resumable.

Each block has two windows: one around generation, one around judging. Windows are measured; the
cost of a single sample is its share of its block's windows (``allocate``). The reference solutions
are judged before any model runs, so that a broken data set or sandbox shows first. What a sample
does wrong is data; only a broken run raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from lichen.benchmark.allocate import split_generation, split_judging
from lichen.benchmark.plan import Attempt, Block, Plan, schedule
from lichen.benchmark.resident import Residents, without
from lichen.benchmark.set_aside import judged
from lichen.benchmark.shown import request_sha256
from lichen.core.errors import ConfigError
from lichen.core.generation import Completion, Finish, Request
from lichen.core.measurement import Measurement, Missing, total
from lichen.core.model import ModelShape
from lichen.core.ports import AdaptsEngine, Candidate, Engine, Meter, Sink, Task, require
from lichen.core.record import (
    BlockRecord,
    OracleRecord,
    RunRecord,
    RunState,
    SampleRecord,
    SolutionRecord,
)
from lichen.core.task import Problem, Score, Status, Verdict
from lichen.meter import disturbances, engine_counters, idle_baseline

logger = logging.getLogger(__name__)

_WARM_UP_TOKENS = 4
_UNCOUNTED = Missing(reason="what judged programs compute is not counted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Sampling settings of a solution: limits and temperature, in the units of ``Request``."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What is compared: a name, a way to bring up its engine, and its sampling settings.

    ``record`` says what it is; ``batch`` is how many sequences the engine decodes together at most
    (1 if unknown), used only to model the bytes that weights cost per token; ``in_hand`` is how
    many requests all of its parts need to have work, so that blocks should not be smaller.
    """

    record: SolutionRecord
    open: Callable[[], Engine]
    generation: Generation = Generation()
    batch: int = 1
    in_hand: int = 1

    @property
    def name(self) -> str:
        """Name of the solution in all records."""
        return self.record.name


class Observer(Protocol):
    """Told how a run goes; every method may do nothing."""

    def stage(self, text: str) -> None:
        """Report that something that takes a while begins."""

    def advanced(self, attempts: int, text: str) -> None:
        """Report that so many more attempts are finished and stored."""


class Silent:
    """An observer that does nothing."""

    def stage(self, text: str) -> None:
        """Ignore it."""

    def advanced(self, attempts: int, text: str) -> None:
        """Ignore it."""


def run(  # noqa: PLR0913 (one verb, its values and its ports)
    head: RunRecord,
    solutions: Sequence[Solution],
    task: Task,
    *,
    plan: Plan,
    meter: Meter,
    sink: Sink,
    observer: Observer | None = None,
    resume: bool = False,
) -> RunRecord:
    """Run (or finish) the run that ``head`` describes and return its final head.

    ``head.problem_ids`` selects the problems; a head that says how the reference solutions fared
    spares judging them again. A new run is stored once the reference solutions are
    judged, the idle baseline is taken and every solution is up, with what that cost; a resumed one
    (``resume=True``: the sink knows it) keeps the blocks it has and runs the missing ones.

    Raises:
        ConfigError: the task lacks one of the problems, or two solutions share a name.
        CapabilityError: an engine cannot do what the task needs.
        EngineError, SandboxError, StoreError: the run cannot go on; what is stored stays.
    """
    watch = observer or Silent()
    problems = _problems(task, head.problem_ids)
    names = [s.name for s in solutions]
    if len(set(names)) != len(names):
        raise ConfigError(f"solutions need different names, got {', '.join(names)}")
    blocks = schedule(plan, problems, names)
    done = {b.index for b in sink.blocks(head.id)} if resume else set()
    for b in blocks:
        if b.index in done:
            watch.advanced(len(b.attempts), "stored before")
    remaining = [b for b in blocks if b.index not in done]
    if not resume:
        head = _prepare(head, task, problems, plan, meter, watch)
    if remaining:
        with ExitStack() as stack:
            residents = Residents(meter)
            engines, loads = _bring_up(solutions, task, residents, stack, watch)
            if not resume:
                sink.add_run(_with_loads(head, engines, loads))
            by_name = {s.name: s for s in solutions}
            worker = _Worker(head.id, task, meter, engines, by_name, residents)
            for block in remaining:
                record, samples = worker.work(block)
                sink.add_block(record, samples)
                solved = sum(s.score.solved for s in samples)
                watch.advanced(len(samples), f"{block.solution}: {solved}/{len(samples)} solved")
    windows = [b.generation for b in sink.blocks(head.id)]
    notes = disturbances(total(windows), head.environment.usable_cpus) if windows else ()
    sink.finish_run(head.id, RunState.FINISHED, notes)
    return sink.run(head.id)


def judge_references(task: Task, problems: Sequence[Problem]) -> OracleRecord:
    """Score the reference solutions; problems without one are not counted."""
    known = [p for p in problems if p.reference]
    candidates = [Candidate(id=p.id, problem=p, code=p.reference) for p in known]
    scores = dict(task.score(candidates))
    failures = []
    for p in known:
        score = scores[p.id]
        if not score.solved:
            verdict = score.verdict
            why = f"{verdict.status} {verdict.kind}".strip() if verdict else f"{score.value:.2f}"
            failures.append((p.id, why))
    return OracleRecord(
        problems=len(known), passed=len(known) - len(failures), failures=tuple(failures)
    )


def _prepare(
    head: RunRecord,
    task: Task,
    problems: Sequence[Problem],
    plan: Plan,
    meter: Meter,
    watch: Observer,
) -> RunRecord:
    oracle = head.oracle
    if oracle is None:
        watch.stage("judging the reference solutions")
        oracle = judge_references(task, problems)
    idle = None
    if plan.idle_s > 0:
        watch.stage(f"measuring the idle machine for {plan.idle_s:g} s")
        idle = idle_baseline(meter, plan.idle_s)
    return replace(head, oracle=oracle, idle=idle, state=RunState.RUNNING)


def _with_loads(
    head: RunRecord, engines: Mapping[str, Engine], loads: Mapping[str, Measurement]
) -> RunRecord:
    return replace(
        head,
        solutions=tuple(
            replace(
                s,
                load=loads[s.name],
                settings=tuple(sorted({**_resolved(engines[s.name]), **dict(s.settings)}.items())),
            )
            for s in head.solutions
        ),
    )


def _resolved(engine: Engine) -> dict[str, str]:
    """Return an engine's options with its defaults, as text; nothing that is called a key."""
    while not hasattr(engine, "options") and hasattr(engine, "inner"):
        engine = engine.inner
    options = getattr(engine, "options", None)
    if not is_dataclass(options):
        return {}
    found = {f.name: getattr(options, f.name) for f in fields(options)}
    return {f"engine.{k}": str(v) for k, v in found.items() if "key" not in k}


def _problems(task: Task, ids: Sequence[str]) -> list[Problem]:
    by_id = {p.id: p for p in task.problems()}
    missing = [i for i in ids if i not in by_id]
    if missing:
        raise ConfigError(
            f"the task {task.name!r} has no problem {missing[0]!r}; its data changed since the run"
        )
    return [by_id[i] for i in ids]


def _bring_up(
    solutions: Sequence[Solution],
    task: Task,
    residents: Residents,
    stack: ExitStack,
    watch: Observer,
) -> tuple[dict[str, Engine], dict[str, Measurement]]:
    engines: dict[str, Engine] = {}
    loads: dict[str, Measurement] = {}
    for solution in solutions:
        watch.stage(f"loading {solution.name}")
        label = f"load {solution.name}"
        with residents.acting(solution.name) as held, residents.meter.window(label) as window:
            engine = solution.open()
            stack.callback(engine.close)
            if isinstance(task, AdaptsEngine):
                engine = task.adapt(engine)
            require(engine, task.needs, who=f"the task {task.name!r}")
            if not _warm(engine):
                _warm_up(solution.name, engine, task)
            loads[solution.name] = without(window.close(), held)
        engines[solution.name] = engine
    return engines, loads


def _warm(engine: Engine) -> bool:
    """Whether the engine inside says that it was in use before it was opened for this run."""
    while hasattr(engine, "inner") and not getattr(engine, "warm", False):
        engine = engine.inner
    return bool(getattr(engine, "warm", False))


def _warm_up(name: str, engine: Engine, task: Task) -> None:
    # The first pass touches every page of the weights; that belongs to loading, not to a block.
    problem = task.problems()[0]
    request = replace(
        task.request(problem, sample=0, seed=0), id="warm-up", max_tokens=_WARM_UP_TOKENS, stop=None
    )
    for item in engine.generate([request]):
        if isinstance(item, Completion) and item.finish is Finish.ERROR:
            logger.warning("warm-up of %s failed: %s", name, item.error)


@dataclass(frozen=True, slots=True)
class _Worker:
    run_id: str
    task: Task
    meter: Meter
    engines: dict[str, Engine]
    solutions: dict[str, Solution]
    residents: Residents

    def work(self, block: Block) -> tuple[BlockRecord, list[SampleRecord]]:
        """Generate, judge and measure one block."""
        started = datetime.now(UTC).isoformat()
        solution, engine = self.solutions[block.solution], self.engines[block.solution]
        requests = [self._request(a, solution) for a in block.attempts]
        label = f"{block.solution} {block.index}"
        with (
            self.residents.acting(block.solution) as held,
            self.meter.window(f"generate {label}") as window,
        ):
            completions = _complete(engine, requests)
            generation = without(window.close(), held)
        answered = [completions[a.id] for a in block.attempts]
        generation = self._with_counters(generation, solution, answered)
        candidates = [
            Candidate(id=a.id, problem=a.problem, code=self.task.extract(a.problem, c.text))
            for a, c in zip(block.attempts, answered, strict=True)
        ]
        with self.meter.window(f"judge {label}") as window:
            scores = self._scores(candidates, completions)
            judging = replace(
                without(window.close(), held), flop=_UNCOUNTED, bytes_moved=_UNCOUNTED
            )
        answered = judged(self.task, [a.problem for a in block.attempts], answered)
        shares = split_generation(generation, answered)
        checks = split_judging(judging, [scores[a.id] for a in block.attempts])
        samples = [
            self._sample(block, attempt, request, (completion, candidate.code, score), parts)
            for attempt, request, completion, candidate, score, parts in zip(
                block.attempts,
                requests,
                answered,
                candidates,
                (scores[a.id] for a in block.attempts),
                zip(shares, checks, strict=True),
                strict=True,
            )
        ]
        record = BlockRecord(
            run_id=self.run_id,
            index=block.index,
            solution=block.solution,
            generation=generation,
            judging=judging,
            started_at=started,
        )
        return record, samples

    def _request(self, attempt: Attempt, solution: Solution) -> Request:
        asked = self.task.request(attempt.problem, sample=attempt.sample, seed=attempt.seed)
        g = solution.generation
        return replace(
            asked,
            id=attempt.id,
            max_tokens=g.max_tokens,
            temperature=g.temperature,
            top_p=g.top_p,
            logprobs=g.logprobs,
            seed=attempt.seed,
        )

    def _with_counters(
        self, window: Measurement, solution: Solution, answered: Sequence[Completion]
    ) -> Measurement:
        usages = [c.usage for c in answered]
        usage = usages[0]
        for u in usages[1:]:
            usage = usage + u
        shape = _shape(solution)
        if shape is None:
            return replace(window, usage=usage)
        flop, moved = engine_counters(
            shape, usages, mean_batch=min(solution.batch, max(1, len(usages)))
        )
        return replace(window, usage=usage, flop=flop, bytes_moved=moved)

    def _scores(
        self, candidates: Sequence[Candidate], completions: dict[str, Completion]
    ) -> dict[str, Score]:
        broken = {
            c.id: Score(
                metric=self.task.metric,
                value=0.0,
                verdict=Verdict(
                    status=Status.ERROR, kind="engine", message=completions[c.id].error[:500]
                ),
            )
            for c in candidates
            if completions[c.id].finish is Finish.ERROR
        }
        return broken | dict(self.task.score([c for c in candidates if c.id not in broken]))

    def _sample(
        self,
        block: Block,
        attempt: Attempt,
        request: Request,
        outcome: tuple[Completion, str, Score],
        shares: tuple[Measurement, Measurement],
    ) -> SampleRecord:
        completion, code, score = outcome
        return SampleRecord(
            run_id=self.run_id,
            solution=block.solution,
            problem_id=attempt.problem.id,
            sample=attempt.sample,
            block=block.index,
            seed=attempt.seed,
            prompt_sha256=request_sha256(request),
            text=_valid(completion.text),
            candidate=_valid(code),
            finish=completion.finish,
            usage=completion.usage,
            timings=completion.timings,
            score=score,
            generation=shares[0],
            judging=shares[1],
            confidence=completion.confidence,
            ledger=completion.ledger,
            draft_tokens=completion.draft_tokens,
            draft_accepted=completion.draft_accepted,
            error=_valid(completion.error),
        )


def _complete(engine: Engine, requests: Sequence[Request]) -> dict[str, Completion]:
    return {c.id: c for c in engine.generate(requests) if isinstance(c, Completion)}


def _valid(text: str) -> str:
    # Lone surrogates (from a server's JSON escapes, say) cannot be stored as UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def _shape(solution: Solution) -> ModelShape | None:
    model = solution.record.model
    return model.shape if model is not None else None
