"""Tune a solution's engine for this machine: opens what ``acceleration.tuning`` measures.

The result is kept per machine, model and number of free CPUs, where the strategy ``concurrency``
with ``auto = true`` finds it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lichen.acceleration.candidates import Choice
from lichen.acceleration.engine_cost import Workload
from lichen.acceleration.free_cpus import free_cpus
from lichen.acceleration.strategies.concurrency import CACHE_FOLDER
from lichen.acceleration.tuned import Goal, Tuning
from lichen.acceleration.tuning import tune_once
from lichen.acceleration.tuning_cache import TuningCache, TuningKey, machine_id
from lichen.catalog import Catalog
from lichen.compose import settings
from lichen.compose.acceleration import base_of, solution_of
from lichen.compose.made_models import model_of
from lichen.compose.spec import RunSpec, SolutionSpec
from lichen.core.errors import ConfigError
from lichen.core.ports import Engine
from lichen.engines import ENGINES
from lichen.meter import capture, open_meter

_PACKAGES = {
    "ik_llama_cpp": "ik-llama-cpp-python",
    "llama_cpp": "xllamacpp",
    "transformers": "transformers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedSolution:
    """A tuning, whether it was stored before, and the solution with its settings."""

    tuning: Tuning
    stored: bool
    solution: SolutionSpec


def tune_engine(
    spec: RunSpec,
    catalog: Catalog,
    *,
    budget_s: float,
    max_latency_s: float | None = None,
    fresh: bool = False,
    progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> TunedSolution:
    """Find slots, threads and batches with the least CPU-seconds per token on this machine.

    Args:
        spec: with the one solution to tune.
        catalog: gives its model.
        budget_s: wall-clock seconds, > 0.
        max_latency_s: of an answer as long as ``Workload``'s; None for no bound.
        fresh: tune anew even if a tuning is stored.
        progress: see ``acceleration.tuning.tune``.

    Raises:
        ConfigError: no model, or the solution has ``concurrency`` already.
        EngineError: the engine cannot be opened or measured.
    """
    base = base_of(spec)
    if any(s.name == "concurrency" for s in base.strategies):
        raise ConfigError(
            f"the solution {base.name!r} sets its concurrency already: leave that strategy out"
        )
    model = model_of(base, catalog)
    factory = ENGINES.get(base.engine.name)

    def open_engine(changes: Mapping[str, object]) -> Engine:
        return factory(model, {**base.engine.options, **changes})

    package = _PACKAGES.get(base.engine.name, base.engine.name)
    machine = capture(packages=(package,))
    bound = max_latency_s / Workload().completion_tokens if max_latency_s is not None else None
    with open_meter() as meter:
        free = free_cpus(meter, machine.usable_cpus)
        key = TuningKey(
            machine=machine_id(machine),
            model_sha256=model.sha256,
            engine=f"{base.engine.name} {dict(machine.versions).get(package, '')}".strip(),
            cpus_free=free,
            latency_bound_s=bound,
        )
        tuning, stored = tune_once(
            open_engine,
            Goal(cpus_free=free, latency_bound_s=bound, budget_s=budget_s),
            key=key,
            cache=TuningCache(settings.cache_dir() / "strategies" / CACHE_FOLDER),
            meter=meter,
            fresh=fresh,
            progress=progress,
        )
    options = tuple((k, v) for k, v in tuning.setting.options().items() if isinstance(v, int))
    choice = Choice(strategy="concurrency", options=options)
    return TunedSolution(
        tuning=tuning, stored=stored, solution=solution_of(base, (choice,), "green")
    )
