"""From a spec to objects: the only place where engines, tasks, meters and stores are constructed.

``workbench(spec, ...)`` resolves everything that a run needs, finds out whether an interrupted run
of the same spec can go on, and closes all of it at the end. Many runs of one task (a search) share
a ``ground``: what is opened once, on which each run is ``prepared``.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from uuid import uuid4

from pydantic import ValidationError

import lichen
from lichen.acceleration import STRATEGIES
from lichen.acceleration.strategies import early_exit
from lichen.acceleration.strategy import Gathers, Strategy, StrategyContext, configured, wrapped
from lichen.benchmark.plan import Plan, select
from lichen.benchmark.rewritten import rewritten
from lichen.benchmark.run import Generation, Solution
from lichen.benchmark.tasks import DATA_SETS, TASKS, TaskContext
from lichen.catalog import Catalog
from lichen.compose import settings
from lichen.compose.made_models import model_of
from lichen.compose.recommended import recommendations
from lichen.compose.shown_tests import oracle_notes
from lichen.compose.spec import RunSpec, SolutionSpec, TaskSpec, spec_hash
from lichen.core.errors import CapabilityError, ConfigError
from lichen.core.model import ModelArtifact
from lichen.core.ports import Engine, Meter, Sandbox, Task
from lichen.core.record import Environment, RunRecord, RunState, SolutionRecord
from lichen.engines import ENGINES
from lichen.meter import open_meter
from lichen.meter.environment import capture
from lichen.meter.process_tree import ProcessTree
from lichen.sandbox import open_sandbox
from lichen.store import Store, open_store

_PACKAGES = (
    "xllamacpp",
    "ik-llama-cpp-python",
    "numpy",
    "pydantic",
    "sqlalchemy",
    "torch",
    "transformers",
)
"""Packages whose versions could explain a difference between two runs."""

_MOST_PER_BLOCK = 16
_WANTED_BLOCKS = 8
_FEWEST_BLOCKS = 5

MODEL_FREE_ENGINES = frozenset({"bm25", "openai_http"})
"""Engines that load no model file on this machine."""


EXITS_EARLY = frozenset({"transformers"})
"""Engines of lichen's own that can leave out a model's layers."""

_RUN_WHOLE = frozenset({"bm25", "ik_llama_cpp", "llama_cpp", "openai_http"})
"""Engines of lichen's own that cannot; others are asked when they are open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """Everything a run needs, constructed. ``resume`` tells that the store knows ``head``."""

    head: RunRecord
    solutions: tuple[Solution, ...]
    task: Task
    plan: Plan
    meter: Meter
    store: Store
    resume: bool


Load = Callable[[str, ModelArtifact | None, Mapping[str, object]], Engine]
"""Opens the engine of that name for a model, with options."""


def load_engine(name: str, model: ModelArtifact | None, options: Mapping[str, object]) -> Engine:
    """Open a registered engine; see ``Load``."""
    return ENGINES.get(name)(model, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the runs of one task share."""

    task: Task
    sandbox: Sandbox
    environment: Environment
    store: Store
    meter: Meter
    catalog: Catalog
    load: Load


def make_catalog(
    progress: Callable[[str, int, int | None], None] | None = None, *, offline: bool | None = None
) -> Catalog:
    """Return the user's catalog: cache, mirrors and network as the environment says."""
    return Catalog(
        cache_dir=settings.cache_dir(),
        mirror_dirs=settings.mirror_dirs(),
        offline=settings.offline() if offline is None else offline,
        progress=progress,
    )


def make_task(spec: TaskSpec, catalog: Catalog, sandbox: Sandbox) -> Task:
    """Fetch a task's data (or take the repository that ``spec.data`` names) and make the task."""
    factory = TASKS.get(spec.name)
    if spec.name in DATA_SETS:
        data = catalog.data_set(spec.data or DATA_SETS[spec.name])
        path, sha256 = Path(data.path), data.sha256
    else:
        path, sha256 = Path(spec.data or ".").resolve(), ""
    task = factory(
        TaskContext(
            data_path=path,
            data_sha256=sha256,
            sandbox=sandbox,
            style=spec.style,
            options=spec.options,
        )
    )
    return rewritten(task, spec.rewrite, seed=spec.rewrite_seed) if spec.rewrite else task


def make_solution(
    spec: SolutionSpec, catalog: Catalog, sandbox: Sandbox, load: Load = load_engine
) -> Solution:
    """Fetch a solution's model and say how to open it; nothing is loaded yet."""
    ENGINES.get(spec.engine.name)  # an unknown name is refused now, not at loading
    _check_exits(spec)
    model = None if spec.engine.name in MODEL_FREE_ENGINES else model_of(spec, catalog)
    options = spec.engine.options
    if spec.model is not None and spec.engine.name == "openai_http":
        options.setdefault("model", spec.model)
    strategies = make_strategies(spec, model, catalog, sandbox, load)
    options = configured(strategies, options)
    advice = recommendations(spec.engine.name, model, options)
    options |= advice

    def open_it() -> Engine:
        return wrapped(strategies, load(spec.engine.name, model, options))

    slots = options.get("slots", 1)
    batch = slots if isinstance(slots, int) and slots > 0 else 1
    return Solution(
        record=SolutionRecord(
            name=spec.name,
            model=model,
            engine=spec.engine.name,
            settings=_settings(spec, advice),
        ),
        open=open_it,
        generation=Generation(**spec.generation.model_dump()),
        batch=batch,
        in_hand=max([batch, *(s.in_hand for s in strategies if isinstance(s, Gathers))]),
    )


def _check_exits(spec: SolutionSpec) -> None:
    """Refuse before a model is fetched what an engine would call an unknown option."""
    name = early_exit.NAME
    if spec.engine.name in _RUN_WHOLE and any(s.name == name for s in spec.strategies):
        raise CapabilityError(
            f"the strategy {name!r} leaves out layers of the model, which the engine "
            f"{spec.engine.name!r} cannot: use the engine {' or '.join(sorted(EXITS_EARLY))}"
        )


def make_strategies(
    spec: SolutionSpec,
    model: ModelArtifact | None,
    catalog: Catalog,
    sandbox: Sandbox,
    load: Load = load_engine,
) -> tuple[Strategy, ...]:
    """Make a solution's strategies, with what they may use of the world.

    What only compose knows is filled in where the spec leaves it out: the model's size for
    ``kv_cache_type``, its hash for ``answer_cache`` and ``early_exit``, a draft model's path for
    ``speculation``.
    """

    def open_engine(description: Mapping[str, object]) -> Engine:
        try:
            further = SolutionSpec.model_validate(description)
        except ValidationError as exc:
            raise ConfigError(f"a level of {spec.name!r} is not usable: {exc}") from exc
        return make_solution(further, catalog, sandbox, load).open()

    if not spec.strategies:
        return ()
    tree = ProcessTree()
    context = StrategyContext(
        sandbox=sandbox,
        open_engine=open_engine,
        data_dir=settings.cache_dir() / "strategies",
        cpu_s=lambda: tree.read().cpu_s,
    )
    made = []
    for entry in spec.strategies:
        options = entry.options
        if entry.name == "kv_cache_type" and model is not None and model.shape is not None:
            options.setdefault("parameters", model.shape.parameters)
        elif entry.name in {"answer_cache", "early_exit"}:
            options.setdefault("model", model.sha256 if model is not None else spec.model or "")
        elif entry.name == "speculation" and isinstance(options.get("draft"), str):
            options["draft"] = catalog.model(options["draft"]).path
        made.append(STRATEGIES.get(entry.name)(options, context))
    return tuple(made)


@contextmanager
def workbench(
    spec: RunSpec,
    *,
    store_url: str,
    catalog: Catalog,
    fresh: bool = False,
) -> Iterator[Workbench]:
    """Construct what ``spec`` says; an unfinished run of the same spec is taken up again.

    A run that another process is working on is never taken up: each running run holds a lock.
    ``fresh=True`` starts anew in any case.
    """
    with (
        ground(spec, store_url=store_url, catalog=catalog) as shared,
        prepared(spec, shared, fresh=fresh) as bench,
    ):
        yield bench


@contextmanager
def ground(
    spec: RunSpec, *, store_url: str, catalog: Catalog, load: Load = load_engine
) -> Iterator[Ground]:
    """Open what all runs on the task of ``spec`` share, and close it at the end."""
    with ExitStack() as stack:
        sandbox = open_sandbox(workers=spec.sandbox.workers, unsafe=spec.sandbox.unsafe)
        stack.callback(sandbox.close)
        task = make_task(spec.task, catalog, sandbox)
        environment = capture(packages=_PACKAGES)
        store = open_store(store_url)
        stack.callback(store.close)
        meter = open_meter()
        stack.callback(meter.close)
        yield Ground(
            task=task,
            sandbox=sandbox,
            environment=environment,
            store=store,
            meter=meter,
            catalog=catalog,
            load=load,
        )


@contextmanager
def prepared(
    spec: RunSpec, ground: Ground, *, fresh: bool = False, ended: bool = False
) -> Iterator[Workbench]:
    """Construct one run on a ground; see ``workbench``.

    ``ended=True``: a run of the same spec that has ended, well or not, is taken in place of a new
    one; its head says so.
    """
    task, store = ground.task, ground.store
    with ExitStack() as stack:
        solutions = tuple(
            make_solution(s, ground.catalog, ground.sandbox, ground.load) for s in spec.solutions
        )
        chosen = select(
            task.problems(),
            limit=spec.task.limit,
            half=spec.task.half,
            ids=spec.task.problems,
        )
        digest = spec_hash(spec, _identities(solutions, task, ground.environment))
        found = None if fresh else _taken_up(store, digest, stack, ended=ended)
        head = found or RunRecord(
            id=_new_id(digest),
            created_at=datetime.now(UTC).isoformat(),
            task=task.name,
            task_version=task.version,
            prompt_style=task.prompt_style,
            metric=task.metric,
            data_sha256=task.data_sha256,
            problem_ids=tuple(p.id for p in chosen),
            samples_per_problem=spec.samples,
            seed=spec.seed,
            spec=spec.canonical(),
            spec_hash=digest,
            environment=ground.environment,
            solutions=tuple(s.record for s in solutions),
            state=RunState.RUNNING,
            notes=oracle_notes(spec, [s.record.name for s in solutions]),
        )
        if found is None:
            _lock(head.id, stack)
        yield Workbench(
            head=head,
            solutions=solutions,
            task=task,
            plan=Plan(
                samples=spec.samples,
                seed=spec.seed,
                block_size=spec.block_size
                or _block_size(len(chosen) * spec.samples, max(s.in_hand for s in solutions)),
                idle_s=spec.idle_s,
            ),
            meter=ground.meter,
            store=store,
            resume=found is not None,
        )


def _block_size(attempts: int, in_hand: int) -> int:
    # Measurement error is shared within a block, so intervals need several blocks (8 or more). A
    # block smaller than the slots leaves some of them without work; but with fewer than five
    # blocks Student's t (12.7 for three of unequal weight) makes any interval worthless.
    filled = min(in_hand, -(-attempts // _FEWEST_BLOCKS))
    return max(filled, min(_MOST_PER_BLOCK, -(-attempts // _WANTED_BLOCKS)))


def _settings(spec: SolutionSpec, advice: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    recommended = {f"engine.{k}": f"{v} (recommended by the model)" for k, v in advice.items()}
    pairs = {f"engine.{k}": str(v) for k, v in spec.engine.options.items() if k != "api_key"}
    for place, strategy in enumerate(spec.strategies):
        pairs[f"strategies.{place}"] = strategy.name
        pairs |= {f"strategies.{place}.{k}": str(v) for k, v in strategy.options.items()}
    pairs |= {f"generation.{k}": str(v) for k, v in spec.generation.model_dump().items()}
    return tuple(sorted({**recommended, **pairs}.items()))


def _identities(
    solutions: tuple[Solution, ...], task: Task, environment: Environment
) -> Mapping[str, str]:
    models = {f"model {s.name}": s.record.model.sha256 for s in solutions if s.record.model}
    versions = dict(environment.versions)
    return {
        **models,
        "data": task.data_sha256,
        "task": f"{task.name} {task.version} {task.prompt_style}",
        "lichen": lichen.__version__,
        "engine": versions.get("xllamacpp", ""),
        "cpu": environment.cpu_model,
    }


def _new_id(digest: str) -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{digest[:4]}{uuid4().hex[:4]}"


def _taken_up(store: Store, digest: str, stack: ExitStack, *, ended: bool) -> RunRecord | None:
    for run in store.of_spec(digest) if ended else store.unfinished(digest):
        if (ended and run.state is not RunState.RUNNING) or _lock(run.id, stack):
            return run
    return None


def _lock(run_id: str, stack: ExitStack) -> bool:
    """Hold a run's lock until the stack closes; False when another process holds it."""
    folder = settings.cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(run_id.encode()).hexdigest()[:16]
    handle: IO[str] = (folder / f"run-{name}").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return False
    stack.callback(handle.close)
    return True
