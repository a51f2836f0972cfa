"""Decode several requests together, on as many threads as there are free CPUs.

Weights are read once for all sequences of a step, so that a token costs less the more are decoded
together (continuous batching: Yu et al., 2022, Orca), at the price of slower single answers.
llama.cpp's threads spin at barriers: a thread on a core that something else keeps busy makes all
others burn CPU while they wait.

With explicit options the strategy sets them. With ``auto`` it uses what ``tuning`` found for this
machine, model, engine and number of free CPUs. It does not tune by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from lichen.acceleration.engine_cost import EngineSetting
from lichen.acceleration.free_cpus import free_cpus
from lichen.acceleration.strategy import Layer, StrategyContext
from lichen.acceleration.tuned import Tuning
from lichen.acceleration.tuning_cache import TuningCache, TuningKey, machine_id
from lichen.acceleration.watching import watched
from lichen.core.errors import ConfigError
from lichen.core.generation import Capability, Completion, Step
from lichen.core.ports import Engine
from lichen.engines.options import read_options
from lichen.meter import capture, open_meter

NAME: Final = "concurrency"

TUNABLE: Final = ("slots", "threads", "threads_batch", "batch", "ubatch")

CACHE_FOLDER: Final = "tunings"
"""Below the strategies' data directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyOptions:
    """What to set; 0 leaves an option to the engine's own settings.

    Args:
        slots: requests decoded together.
        threads, threads_batch: CPU threads for decoding and for prefill.
        batch, ubatch: most prompt tokens per logical and per physical step.
        auto: take all of these from the stored tuning instead.
        model_sha256, engine: whose tuning (auto only); see ``TuningKey``.
        cpus_free: CPUs that are free (auto only); 0 looks at the machine's load for a second.
        latency_bound_s: the bound that was tuned for (auto only); 0 for none.
    """

    slots: int = 0
    threads: int = 0
    threads_batch: int = 0
    batch: int = 0
    ubatch: int = 0
    auto: bool = False
    model_sha256: str = ""
    engine: str = ""
    cpus_free: int = 0
    latency_bound_s: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        for name in (*TUNABLE, "cpus_free", "latency_bound_s"):
            if getattr(self, name) < 0:
                msg = f"{name} cannot be negative, got {getattr(self, name)}"
                raise ValueError(msg)
        explicit = [name for name in TUNABLE if getattr(self, name)]
        if self.auto and explicit:
            msg = f"auto = true chooses {', '.join(explicit)} itself: leave one of the two out"
            raise ValueError(msg)
        if self.batch and self.ubatch > self.batch:
            msg = f"ubatch ({self.ubatch}) cannot exceed batch ({self.batch})"
            raise ValueError(msg)
        if self.auto and not (self.model_sha256 and self.engine):
            msg = "auto = true needs to know whose tuning to take: model_sha256 and engine"
            raise ValueError(msg)

    def chosen(self) -> dict[str, object]:
        """Return the engine options that are given; 4 slots if none is."""
        given = {name: getattr(self, name) for name in TUNABLE if getattr(self, name)}
        return given or {"slots": DEFAULT_SLOTS}


DEFAULT_SLOTS: Final = 4
"""Cuts a 0.5B model's CPU time per decoded token from 71 to 46 ms (measured here); 8 slots: 36 ms,
but four are still about as fast for each request as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """Sets the engine options in ``changes``."""

    changes: Mapping[str, object]
    origin: str
    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.ENGINE
    needs: ClassVar[frozenset[Capability]] = frozenset()

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Set them; of batch and micro-batch, the one that is not set follows the other."""
        result = {**options, **self.changes}
        usual = EngineSetting()
        batch, ubatch = result.get("batch", usual.batch), result.get("ubatch", usual.ubatch)
        if isinstance(batch, int) and isinstance(ubatch, int) and ubatch > batch:
            follower = "batch" if "ubatch" in self.changes else "ubatch"
            result[follower] = ubatch if follower == "batch" else batch
        return result

    def wrap(self, engine: Engine) -> Engine:
        """Write the settings into each ledger."""
        action = ", ".join(f"{k} {v}" for k, v in self.changes.items())
        step = Step(actor=NAME, action=action, detail=self.origin)

        def note(_completion: Completion) -> Step:
            return step

        return watched(engine, NAME, note)


def make(options: Mapping[str, object], context: StrategyContext) -> Concurrency:
    """Return the strategy.

    Raises:
        ConfigError: options that cannot be used, or ``auto`` without a tuning for this case.
    """
    settings = read_options(ConcurrencyOptions, options, who=f"strategy {NAME}")
    if not settings.auto:
        return Concurrency(changes=settings.chosen(), origin="as configured")
    tuning = stored_tuning(settings, context.data_dir / CACHE_FOLDER)
    return Concurrency(
        changes=tuning.setting.options(),
        origin=f"tuned with {tuning.cpus_free} free CPUs: {1000 * tuning.cost_s:.1f} CPU-ms/token",
    )


def stored_tuning(
    options: ConcurrencyOptions,
    folder: Path,
    *,
    machine: Callable[[], str] = lambda: machine_id(capture()),
    free: Callable[[], int] | None = None,
) -> Tuning:
    """Return the tuning that fits ``options`` and the CPUs that are free.

    Raises:
        ConfigError: there is none.
    """
    cpus = options.cpus_free or (free or _free_now)()
    key = TuningKey(
        machine=machine(),
        model_sha256=options.model_sha256,
        engine=options.engine,
        cpus_free=cpus,
        latency_bound_s=options.latency_bound_s or None,
    )
    tuning = TuningCache(folder).nearest(key)
    if tuning is None:
        raise ConfigError(
            f"strategy {NAME}: this model was not tuned on this machine with {cpus} free CPUs or "
            "fewer: run  lichen accelerate --engine-only  first, or set slots and threads yourself"
        )
    return tuning


def _free_now() -> int:
    with open_meter(probes=["system"]) as meter:
        return free_cpus(meter, capture().usable_cpus)
