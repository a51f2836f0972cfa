"""What the gate needs of the world, made of engines, the benchmark and the sandbox.

``gate_ports`` binds a run spec with one solution (how the user runs the model, and on which task)
to the gate's ports. The task is run once for parent and child together, interleaved and stored;
each rewrite is a further run of the same kind on the problems that it can change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from lichen.acceleration.strategies import concurrency
from lichen.benchmark.plan import select
from lichen.benchmark.run import Observer
from lichen.benchmark.run import run as run_benchmark
from lichen.benchmark.summarise import StoredRun
from lichen.catalog import Catalog
from lichen.compose.build import make_task, workbench
from lichen.compose.cost_in_turns import cost_in_turns, load_alone, open_file
from lichen.compose.own_process import in_own_process
from lichen.compose.paired_runs import CHILD, PARENT, flips_value, task_value
from lichen.compose.spec import RunSpec, SolutionSpec, StrategySpec
from lichen.compression.agreement import Comparing, measure_agreement
from lichen.compression.corpus import Document
from lichen.compression.gate.ports import (
    AgreementValue,
    CostValue,
    FlipsValue,
    GatePorts,
    TaskValue,
    Tokenises,
)
from lichen.core.errors import ConfigError, EngineError
from lichen.core.generation import Message, Role
from lichen.core.measurement import Missing
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer
from lichen.meter import open_meter
from lichen.sandbox import open_sandbox

REWRITES: Final = ("rename", "reorder", "reformat")
REWRITTEN_PROBLEMS: Final = 40
"""Problems per rewrite at most: with three rewrites 120 pairs, which shows an excess of flips of
about ten points."""

ANSWER_SLOTS: Final = 8
"""Answers that a model gives at a time, unless the user says otherwise: what they are is asked
here, not what they cost, and in batches they take four fifths of the CPU time."""

_FEWEST_REWRITTEN: Final = 8
"""Problems of small tasks that are rewritten, if there are as many."""

_USER: Final = Message(role=Role.USER, content="Write a function `f(x)` that returns x + 1.")
CONVERSATIONS: Final[tuple[tuple[Message, ...], ...]] = (
    (_USER,),
    (Message(role=Role.SYSTEM, content="You answer with code only."), _USER),
    (
        _USER,
        Message(role=Role.ASSISTANT, content="```python\ndef f(x):\n    return x + 1\n```"),
        Message(role=Role.USER, content="And for <lists>? {{ x }} {% if %} naïve \N{ROCKET}\n"),
    ),
)
"""What both templates render: one turn, a system message, several turns with odd characters."""


@runtime_checkable
class Renders(Protocol):
    """An engine that shows what its chat template makes of a conversation."""

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt; raises EngineError where the template refuses the conversation."""


@dataclass(slots=True, kw_only=True)
class GateRuns:
    """Runs parent and child on the task, each run once, however many checks read it.

    Args:
        spec: with one solution; its model is replaced by the two files.
        catalog, store_url: where data comes from and records go.
        observer: told how the runs go.
        rewrites: names of the rewrites for ``flips``.
        rewritten_problems: at most, for each rewrite; of many problems about a quarter, so that
            they cost less than the questions themselves.
    """

    spec: RunSpec
    catalog: Catalog
    store_url: str
    observer: Observer | None = None
    rewrites: tuple[str, ...] = REWRITES
    rewritten_problems: int = REWRITTEN_PROBLEMS
    run_ids: list[str] = field(default_factory=list)
    _plain: dict[tuple[Path, Path], StoredRun] = field(default_factory=dict)

    def answers(self) -> int:
        """Return how many answers each model gives, rewritten questions included, at most."""
        sandbox = open_sandbox(workers=self.spec.sandbox.workers, unsafe=self.spec.sandbox.unsafe)
        task = self.spec.task
        try:
            problems = make_task(task, self.catalog, sandbox).problems()
        finally:
            sandbox.close()
        count = len(select(problems, limit=task.limit, half=task.half, ids=task.problems))
        rewritten = len(self.rewrites) * self._rewritten_of(count)
        return (count + rewritten) * self.spec.samples

    def task(self, parent: Path, child: Path) -> TaskValue:
        """Return what the run on the task as it is says."""
        return task_value(self._plain_run(parent, child))

    def flips(self, parent: Path, child: Path) -> FlipsValue:
        """Return whose verdicts change when the questions are rewritten.

        Raises:
            ConfigError: no rewrite can change any problem of the task.
        """
        plain = self._plain_run(parent, child)
        stored = {}
        for rewrite in self.rewrites:
            ids = self._rewritten_ids(rewrite, plain.run.problem_ids)
            if ids:
                task = self.spec.task.model_copy(
                    update={"rewrite": rewrite, "problems": ids, "limit": None, "half": "all"}
                )
                stored[rewrite] = self._run(
                    self.spec.model_copy(update={"task": task}), parent, child
                )
        if not stored:
            raise ConfigError(
                f"no problem of the task {self.spec.task.name!r} could be rewritten, so how "
                "verdicts depend on the wording cannot be told"
            )
        return flips_value(plain, stored)

    def _plain_run(self, parent: Path, child: Path) -> StoredRun:
        if (parent, child) not in self._plain:
            self._plain[parent, child] = self._run(self.spec, parent, child)
        return self._plain[parent, child]

    def _rewritten_of(self, count: int) -> int:
        """Return how many of so many problems each rewrite asks again: about a quarter of them."""
        return min(count, self.rewritten_problems, max(_FEWEST_REWRITTEN, math.ceil(count / 4)))

    def _rewritten_ids(self, rewrite: str, ids: Sequence[str]) -> tuple[str, ...]:
        task = self.spec.task.model_copy(update={"rewrite": rewrite})
        sandbox = open_sandbox(workers=self.spec.sandbox.workers, unsafe=self.spec.sandbox.unsafe)
        try:
            problems = make_task(task, self.catalog, sandbox).problems()
        except ConfigError:  # this rewrite changes nothing here; another one may
            return ()
        finally:
            sandbox.close()
        wanted = [p for p in problems if p.id in frozenset(ids)]
        most = self._rewritten_of(len(ids))
        chosen = select(wanted, limit=most, half="all", ids=())
        return tuple(p.id for p in chosen)

    def _run(self, spec: RunSpec, parent: Path, child: Path) -> StoredRun:
        solutions = tuple(
            in_batches(base_of(spec)).model_copy(update={"name": name, "model": str(path)})
            for name, path in ((PARENT, parent), (CHILD, child))
        )
        spec = spec.model_copy(update={"solutions": solutions, "idle_s": 0.0})
        with workbench(spec, store_url=self.store_url, catalog=self.catalog) as bench:
            run = run_benchmark(
                bench.head,
                bench.solutions,
                bench.task,
                plan=bench.plan,
                meter=bench.meter,
                sink=bench.store,
                observer=self.observer,
                resume=bench.resume,
            )
            self.run_ids.append(run.id)
            return StoredRun(
                run=run, samples=bench.store.samples(run.id), blocks=bench.store.blocks(run.id)
            )


def base_of(spec: RunSpec) -> SolutionSpec:
    """Return the one solution of a spec; ConfigError if there are several."""
    if len(spec.solutions) != 1:
        names = ", ".join(s.name for s in spec.solutions)
        raise ConfigError(f"one model is compressed at a time; these were given: {names}")
    return spec.solutions[0]


def in_batches(solution: SolutionSpec) -> SolutionSpec:
    """Return the solution with ``ANSWER_SLOTS`` unless it says how many it answers at a time."""
    by_itself = solution.engine.name != "llama_cpp" or "slots" in solution.engine.options
    if by_itself or any(s.name == concurrency.NAME for s in solution.strategies):
        return solution
    slots = StrategySpec.model_validate({"name": concurrency.NAME, "slots": ANSWER_SLOTS})
    return solution.model_copy(update={"strategies": (slots, *solution.strategies)})


def gate_ports(
    spec: RunSpec,
    *,
    held_out: Sequence[Document],
    runs: GateRuns | Missing,
    comparing: Comparing | None = None,
) -> GatePorts:
    """Return the gate's ports for models that run here.

    Args:
        spec: with one solution, whose engine options hold for loading and measuring.
        held_out: texts that the compression has not seen.
        runs: what runs the task; ``Missing`` where the user gave none.
        comparing: on how much of the texts next tokens are compared.
    """
    base = base_of(spec)
    engine, options = base.engine.name, base.engine.options

    def cost(parent: Path, child: Path) -> CostValue:
        meter = open_meter()
        try:
            return cost_in_turns(
                parent,
                child,
                open_engine=lambda path: open_file(engine, options, path),
                meter=meter,
                load=lambda path: load_alone(engine, options, path),
            )
        finally:
            meter.close()

    def agreement(parent: Path, child: Path) -> AgreementValue:
        return measure_agreement(parent, child, held_out, comparing)

    return GatePorts(
        held_out=tuple(held_out),
        tokenizer=_tokenizer,
        chats=lambda path: rendered(engine, options, path),
        agreement=agreement,
        task=runs if isinstance(runs, Missing) else runs.task,
        flips=runs if isinstance(runs, Missing) else runs.flips,
        cost=cost,
    )


def rendered(engine: str, options: Mapping[str, object], path: Path) -> tuple[str, ...]:
    """Render ``CONVERSATIONS`` with a file's chat template, in a process of its own.

    A conversation that the template refuses becomes the refusal: both models must refuse alike.

    Raises:
        EngineError: the model cannot be loaded, or the template renders nothing at all.
        ConfigError: the engine cannot show what its template makes.
    """
    return in_own_process(_render, engine, dict(options), str(path))


def _render(engine: str, options: dict[str, object], path: str) -> tuple[str, ...]:
    loaded = open_file(engine, options, Path(path))
    try:
        if not isinstance(loaded, Renders):
            raise ConfigError(f"the engine {engine!r} does not show what its template makes")
        texts = [_one(loaded, messages) for messages in CONVERSATIONS]
    finally:
        loaded.close()
    if all(refused for _, refused in texts):
        raise EngineError(f"the chat template renders nothing: {texts[0][0]}")
    return tuple(text for text, _ in texts)


def _one(engine: Renders, messages: Sequence[Message]) -> tuple[str, bool]:
    try:
        return engine.render(messages), False
    except EngineError as exc:
        return str(exc), True


def _tokenizer(path: Path) -> Tokenises:
    return NativeTokenizer(path)
