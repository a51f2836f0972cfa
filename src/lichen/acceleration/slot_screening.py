"""How many requests at once are worth a race? A quick look at the engine alone, no task.

More slots share each reading of the weights; how many pay depends on cores and memory. Decoding a
few dozen tokens tells that in seconds, where a look on the task takes minutes. What costs more per
token than fewer slots do is left out, and of the rest the cheapest few enter the search. The looks
decide only what is tried: whether it pays is found out on the task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lichen.acceleration.candidates import Choice
from lichen.acceleration.engine_cost import EngineSetting, Phase, Workload, measure, warm
from lichen.acceleration.free_memory import REPACKED, sequence_bytes
from lichen.core.errors import LichenError
from lichen.core.measurement import Missing
from lichen.core.model import ModelArtifact
from lichen.core.ports import Engine, Meter

LADDER: Final = (1, 2, 4, 8, 16)
"""Slots worth a look: each step doubles what shares one reading of the weights, and from 16 on the
arithmetic of a CPU is the limit, no longer its memory."""

KEPT: Final = 2
"""Settings that race on the task at most, where no latency is asked for."""

NOISE: Final = 1.05
"""Single looks differ by some percent: what is this much dearer than fewer slots still races."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLook:
    """What one number of slots costs: CPU-seconds per decoded token, or why it is not known."""

    slots: int
    cpu_s_per_token: float | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotScreening:
    """All looks, and what they took, loading included.

    Args:
        threads: that the engine was told to use; 0 for all it may.
        looks: by rising number of slots.
        cpu_s: CPU-seconds.
        seconds: wall clock.
    """

    threads: int
    looks: tuple[SlotLook, ...]
    cpu_s: float
    seconds: float


def ladder(
    *, own: int, model: ModelArtifact | None, context: int, free: float | None
) -> tuple[int, ...]:
    """Return the numbers of slots that fit into memory, the solution's own among them.

    Args:
        own: slots that the solution has, >= 1.
        model: None if unknown; then nothing is left out.
        context: tokens that each slot may hold, >= 1.
        free: bytes of memory, None if unknown.
    """
    most: float = max(LADDER)
    if model is not None and free is not None and (each := sequence_bytes(model, context)) > 0:
        most = (free - REPACKED * model.size_bytes) / each
    return tuple(sorted({own, *(n for n in LADDER if n <= most)}))


def screen_slots(
    open_engine: Callable[[Mapping[str, object]], Engine],
    slots: Sequence[int],
    meter: Meter,
    *,
    threads: int = 0,
    seconds: float = math.inf,
) -> SlotScreening:
    """Look at each number of slots once.

    Args:
        open_engine: opens the solution's engine with these options changed.
        slots: to look at.
        meter: its windows give CPU-seconds.
        threads: to set; 0 leaves them as they are.
        seconds: after which no further look is begun, > 0.
    """
    looks, cpu_s, wall_s = [], 0.0, 0.0
    for number in sorted(slots):
        if wall_s >= seconds:
            looks.append(SlotLook(slots=number, cpu_s_per_token=Missing(reason="no time was left")))
            continue
        with meter.window(f"slots {number}") as window:
            cost = _look(open_engine, number, threads, meter)
            took = window.close()
        looks.append(SlotLook(slots=number, cpu_s_per_token=cost))
        cpu_s += 0.0 if isinstance(took.cpu_s, Missing) else took.cpu_s.value.value
        wall_s += 0.0 if isinstance(took.wall_s, Missing) else took.wall_s.value.value
    return SlotScreening(threads=threads, looks=tuple(looks), cpu_s=cpu_s, seconds=wall_s)


def worth_racing(screening: SlotScreening, *, own: int, all_that_pay: bool) -> tuple[Choice, ...]:
    """Return the settings that are worth a race on the task, the cheapest first.

    Args:
        screening: see ``screen_slots``.
        own: slots that the solution has.
        all_that_pay: keep every setting that is cheaper than fewer slots, not the cheapest only: a
            latency bound may rule out the cheapest.
    """
    found: list[tuple[float, int]] = []
    least = math.inf
    for look in screening.looks:
        cost = look.cpu_s_per_token
        if isinstance(cost, Missing):
            continue
        if cost <= least * NOISE and (look.slots != own or screening.threads):
            found.append((cost, look.slots))
        least = min(least, cost)
    kept = sorted(found)[: None if all_that_pay else KEPT]
    threads = (("threads", screening.threads),) if screening.threads else ()
    return tuple(
        Choice(strategy="concurrency", options=(("slots", slots), *threads)) for _, slots in kept
    )


def _look(
    open_engine: Callable[[Mapping[str, object]], Engine], slots: int, threads: int, meter: Meter
) -> float | Missing:
    options: dict[str, object] = {"slots": slots}
    if threads:
        options["threads"] = threads
    try:
        engine = open_engine(options)
        try:
            warm(engine)
            setting = EngineSetting(slots=slots)
            return measure(engine, setting, Phase.DECODE, Workload(), meter).cpu_s_per_token
        finally:
            engine.close()
    except LichenError as exc:  # a setting that cannot be had is a result
        return Missing(reason=str(exc))
