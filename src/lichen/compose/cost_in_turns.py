"""What parent and child cost to run, measured in turns so that drift meets both.

Prefill and decode: both models are loaded, and each round measures one after the other in an order
that alternates. Load and memory: each file is loaded in a process of its own, also in turns, since
memory that two models share cannot be told apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from lichen.acceleration.engine_cost import EngineSetting, Phase, Workload, measure, warm
from lichen.compose.own_process import in_own_process, used
from lichen.compose.paired_runs import mean_ratio
from lichen.compose.recommended import recommendations
from lichen.compression.gate.ports import CostValue
from lichen.core.errors import EngineError
from lichen.core.measurement import Component, Method, Missing, Quantity, Reading
from lichen.core.model import ModelArtifact
from lichen.core.ports import Engine, Meter
from lichen.engines import ENGINES

ROUNDS: Final = 4
LOADS: Final = 3

Open = Callable[[Path], Engine]


def cost_in_turns(
    parent: Path,
    child: Path,
    *,
    open_engine: Open,
    meter: Meter,
    load: Callable[[Path], tuple[float, float]],
    rounds: int = ROUNDS,
    loads: int = LOADS,
) -> CostValue:
    """Measure both models.

    Args:
        parent: the file that the other is held against.
        child: the file in question.
        open_engine: loads one, with one slot.
        meter: sees this process's CPU time.
        load: CPU-seconds and bytes that loading one takes, see ``load_alone``.
        rounds: turns for prefill and decode, >= 2.
        loads: turns for load and memory, >= 2.

    Raises:
        EngineError: one of the two cannot be loaded, run or measured.
    """
    costs = _per_token(parent, child, open_engine, meter, rounds)
    loaded = [(load(parent), load(child)) for _ in range(loads)]
    memory: Quantity = Missing(reason="loading did not raise the memory of its process")
    if all(a[1] > 0 and b[1] > 0 for a, b in loaded):
        memory = Reading(
            value=mean_ratio([a[1] for a, _ in loaded], [b[1] for _, b in loaded]),
            method=Method.COUNTER,
            component=Component.PROCESS,
            source="resident bytes after the first token",
        )
    ratios = {p: mean_ratio(*costs[p]) for p in Phase}
    means = {p: [statistics.fmean(side) for side in costs[p]] for p in Phase}
    return CostValue(
        prefill=ratios[Phase.PREFILL],
        decode=ratios[Phase.DECODE],
        load=mean_ratio([a[0] for a, _ in loaded], [b[0] for _, b in loaded]),
        memory=memory,
        rounds=rounds,
        parent_prefill_s=means[Phase.PREFILL][0],
        child_prefill_s=means[Phase.PREFILL][1],
        parent_decode_s=means[Phase.DECODE][0],
        child_decode_s=means[Phase.DECODE][1],
    )


def _per_token(
    parent: Path, child: Path, open_engine: Open, meter: Meter, rounds: int
) -> dict[Phase, tuple[list[float], list[float]]]:
    """Return CPU-seconds per token of the parent and of the child, a value per round."""
    setting, workload = EngineSetting(slots=1), Workload()
    costs: dict[Phase, tuple[list[float], list[float]]] = {p: ([], []) for p in Phase}
    first = open_engine(parent)
    try:
        second = open_engine(child)
        try:
            engines = (first, second)
            for engine in engines:
                warm(engine)
            for number in range(rounds):
                order = (0, 1) if number % 2 == 0 else (1, 0)
                for phase in Phase:
                    for side in order:
                        sample = measure(engines[side], setting, phase, workload, meter)
                        costs[phase][side].append(_positive(sample.cpu_s_per_token))
        finally:
            second.close()
    finally:
        first.close()
    return costs


def _positive(cpu_s: float) -> float:
    if not cpu_s > 0:
        raise EngineError("the CPU time of a round was too short to be measured")
    return cpu_s


def open_file(engine: str, options: Mapping[str, object], path: Path) -> Engine:
    """Open a model file that is in no catalog, with one slot, as it recommends itself."""
    model = ModelArtifact(
        name=path.stem,
        path=str(path),
        format="gguf",
        sha256="",
        size_bytes=path.stat().st_size,
    )
    return ENGINES.get(engine)(model, _advised(engine, model, {**options, "slots": 1}))


def _advised(engine: str, model: ModelArtifact, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options, and what the file recommends beyond them; a gate opens it many times."""
    return {**recommendations(engine, model, options, say=False), **options}


def load_alone(engine: str, options: Mapping[str, object], path: Path) -> tuple[float, float]:
    """Load a model in a process of its own; return (CPU-seconds, bytes) up to the first token."""
    return in_own_process(_load, engine, dict(options), str(path))


def _load(engine: str, options: dict[str, object], path: str) -> tuple[float, float]:
    """Run there. What imports and reading the file's recommendations take is not the model's."""
    model = ModelArtifact(name="model", path=path, format="gguf", sha256="", size_bytes=0)
    factory = ENGINES.get(engine)
    advised = _advised(engine, model, options)
    _import_library(engine)
    before = used()
    loaded = factory(model, advised)
    try:
        warm(loaded)
        after = used()
    finally:
        loaded.close()
    return after.cpu_s - before.cpu_s, float(after.resident_bytes - before.resident_bytes)


def _import_library(engine: str) -> None:
    """Import the engine's library before the clock starts, by failing to load nothing."""
    factory = ENGINES.get(engine)
    nothing = ModelArtifact(name="none", path="", format="gguf", sha256="", size_bytes=0)
    try:
        factory(nothing, {}).close()
    except Exception:  # noqa: BLE001 (it must fail; only what it imported on the way is wanted)
        return
