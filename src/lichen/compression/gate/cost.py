"""Check: is the child at least as cheap to run as its parent?

A smaller file is not always a faster one: some types decode slowly. Prefill, decode, load time and
memory are measured in turns with the parent, in CPU-seconds, which other work on the machine
disturbs least.
"""

from __future__ import annotations

from typing import Final

from lichen.compression.gate.report import Check
from lichen.compression.gate.subject import Subject, not_run
from lichen.core.interval import Interval
from lichen.core.measurement import Missing

NAME: Final = "cost"


def check(subject: Subject) -> Check:
    """Judge each ratio of child to parent."""
    measure, limits = subject.ports.cost, subject.thresholds
    if isinstance(measure, Missing):
        return not_run(NAME, measure.reason)
    found = measure(subject.parent, subject.child)
    ratios: list[tuple[str, Interval, float]] = [
        ("prefill", found.prefill, limits.cpu_ratio),
        ("decode", found.decode, limits.cpu_ratio),
        ("load", found.load, limits.load_ratio),
    ]
    if not isinstance(found.memory, Missing):
        ratios.append(("memory", found.memory.value, limits.memory_ratio))
    missed = [
        f"{name} above {limit:g} times the parent's"
        for name, ratio, limit in ratios
        if limits.above(ratio, limit)
    ]
    shown = ", ".join(f"{n} {r.value:.2f} ({r.low:.2f} to {r.high:.2f})" for n, r, _ in ratios)
    what = (
        f"child over parent: {shown}; CPU-ms per token {1e3 * found.parent_prefill_s:.2f} -> "
        f"{1e3 * found.child_prefill_s:.2f} prefill, {1e3 * found.parent_decode_s:.2f} -> "
        f"{1e3 * found.child_decode_s:.2f} decode, {found.rounds} rounds in turns"
    )
    if isinstance(found.memory, Missing):
        what += f"; memory not measured: {found.memory.reason}"
    return Check(
        name=NAME,
        passed=not missed,
        what="; ".join([what, *missed]),
        numbers={f"{name}_ratio": ratio.value for name, ratio, _ in ratios}
        | {f"{name}_ratio_high": ratio.high for name, ratio, _ in ratios}
        | {"rounds": found.rounds},
    )
