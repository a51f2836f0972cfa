"""What one solution cost: eight dimensions, per attempt and per solved task, by stage.

Energy per solved task is the energy of *all* attempts over the number solved (a ratio of sums, not
a mean of ratios). The total is the sum of measured windows; the bootstrap over problems says how
far another draw of problems could have moved it (sampling), and the readings' and factors' bounds
how far the number itself may be off (systematic). Water, carbon and money are priced once, from
the total; over resamples operational parts follow the energy and the embodied part the machine
time, since pricing is linear in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from lichen.benchmark.allocate import prefill_ratio, work
from lichen.benchmark.attempts import Table
from lichen.benchmark.bootstrap import (
    Array,
    normal_quantile,
    percentile,
    resampled_sums,
    stretch_for,
    stretched,
)
from lichen.benchmark.passk import wilson
from lichen.core.footprint import Footprint, Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Measurement, Method, Missing, Quantity, Reading
from lichen.core.summary import Cost, Dimension, StageShare

MEASURED: Final = (Dimension.COMPUTATION, Dimension.TIME, Dimension.CPU_TIME, Dimension.ENERGY)
PRICED: Final = (Dimension.WATER, Dimension.CARBON, Dimension.MONEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How resampling is done: one choice for a whole summary."""

    confidence: float
    draws: int
    seed: int

    def rng(self) -> np.random.Generator:
        """Return a fresh generator, so that every table is resampled reproducibly."""
        return np.random.default_rng(self.seed)


def all_columns(table: Table, footprint: Footprint) -> dict[Dimension, Array | Missing]:
    """Return one additive cost column per dimension but memory, priced ones included."""
    columns = dict(table.columns)
    energy, machine = columns[Dimension.ENERGY], columns[Dimension.CPU_TIME]
    if isinstance(machine, Missing):
        machine = columns[Dimension.TIME]
    columns[Dimension.WATER] = _follow(footprint.water_l, energy)
    columns[Dimension.MONEY] = _follow(footprint.electricity_cost, energy)
    operational = _follow(footprint.operational_carbon_g, energy)
    embodied = _follow(footprint.embodied_carbon_g, machine)
    columns[Dimension.CARBON] = (
        operational
        if isinstance(operational, Missing)
        else embodied
        if isinstance(embodied, Missing)
        else operational + embodied
    )
    return columns


def costs(
    table: Table, columns: Mapping[Dimension, Array | Missing], footprint: Footprint, how: Sampling
) -> tuple[Cost, ...]:
    """Return the eight costs in their order."""
    whole = table.whole
    energy = whole.it_energy_j
    totals: dict[Dimension, tuple[Priced, Method | None]] = {
        Dimension.COMPUTATION: _of(whole.flop),
        Dimension.TIME: _of(whole.wall_s),
        Dimension.CPU_TIME: _of(whole.cpu_s),
        Dimension.ENERGY: _of(energy),
        Dimension.WATER: (footprint.water_l, _of(energy)[1]),
        Dimension.CARBON: (footprint.carbon_g, _of(energy)[1]),
        Dimension.MONEY: (footprint.electricity_cost, _of(energy)[1]),
    }
    known = {
        d: column
        for d, column in columns.items()
        if not isinstance(column, Missing) and isinstance(totals[d][0], Interval)
    }
    draws = _draws(table, known, how)
    found = []
    for d in Dimension:
        if d is Dimension.MEMORY:
            found.append(_memory(*_of(whole.peak_memory_bytes)))
            continue
        amount, method = totals[d]
        if d in known and isinstance(amount, Interval):
            found.append(_cost(d, amount, method, draws, list(known).index(d), table, how))
        else:
            column = columns[d]
            why = amount if isinstance(amount, Missing) else column
            gone = why if isinstance(why, Missing) else Missing(reason="not measured")
            found.append(
                Cost(
                    dimension=d,
                    total=amount,
                    per_attempt=gone,
                    per_solved=gone,
                    systematic=gone,
                    method=method,
                )
            )
    return tuple(found)


def waste_share(table: Table) -> float | None:
    """Return the part of energy, or else CPU time, spent on attempts that solved nothing; 0..1."""
    for d in (Dimension.ENERGY, Dimension.CPU_TIME):
        column = table.columns[d]
        if not isinstance(column, Missing) and float(np.sum(column)) > 0:
            return float(np.sum(column * (1.0 - table.solved)) / np.sum(column))
    return None


def stages(table: Table) -> tuple[StageShare, ...]:
    """Split CPU time and energy into prefill, decode, sandbox and, with a baseline, idle.

    Prefill and decode share the generation windows by modelled work (``allocate``). Idle is what
    the machine draws doing nothing, over the same wall time: part of a counter's reading, beside
    a model of busy cores; it is never added to a total.
    """
    timed = [(s.usage, s.timings) for s in table.samples]
    ratio = prefill_ratio(timed, table.generation.wall_s)
    everything = math.fsum(work(u, ratio) for u, _ in timed)
    prefill = math.fsum(u.prefilled * ratio for u, _ in timed)
    part = prefill / everything if everything > 0 else 0.0
    found = [
        _stage("prefill", table.generation.scaled(part)),
        _stage("decode", table.generation.scaled(1.0 - part)),
    ]
    if table.judging is not None:
        found.append(_stage("sandbox", table.judging))
    idle, busy = table.run.idle, table.whole.wall_s
    if idle is not None and isinstance(busy, Reading) and isinstance(idle.wall_s, Reading):
        seconds = idle.wall_s.value.value
        if seconds > 0:
            found.append(_stage("idle", idle.scaled(busy.value.value / seconds)))
    return tuple(found)


def _follow(amount: Priced, column: Array | Missing) -> Array | Missing:
    if isinstance(amount, Missing):
        return amount
    if isinstance(column, Missing):
        return column
    whole = float(np.sum(column))
    return column * (amount.value / whole) if whole > 0 else np.zeros_like(column)


def _draws(table: Table, known: Mapping[Dimension, Array], how: Sampling) -> Array:
    columns = [table.per_problem(c) for c in known.values()]
    features = np.stack([*columns, table.attempts_per_problem, table.per_problem(table.solved)], 1)
    return resampled_sums(features, draws=how.draws, rng=how.rng())


def _cost(
    dimension: Dimension,
    amount: Interval,
    method: Method | None,
    draws: Array,
    index: int,
    table: Table,
    how: Sampling,
) -> Cost:
    attempts, solved = len(table.samples), float(np.sum(table.solved))
    factor = stretch_for(len(table.problem_ids), how.confidence)
    spent = draws[:, index]
    per_attempt = _ratio_interval(spent, draws[:, -2], amount.value / attempts, factor, how)
    if solved > 0:
        per_solved = _ratio_interval(spent, draws[:, -1], amount.value / solved, factor, how)
        systematic = amount * (1.0 / solved)
    else:
        # Nothing was solved, but the true rate may be as high as Wilson's bound: a finite low end.
        n = len(table.problem_ids)
        z = normal_quantile((1.0 + how.confidence) / 2.0)
        best = wilson(0.0, n, z=z).high
        per_solved = Interval(low=per_attempt.value / best, value=math.inf, high=math.inf)
        systematic = Interval(low=math.inf, value=math.inf, high=math.inf)
    return Cost(
        dimension=dimension,
        total=amount,
        per_attempt=per_attempt,
        per_solved=per_solved,
        systematic=systematic,
        method=method,
    )


def log_quotient(above: Array, below: Array) -> Array:
    """Return ``log(above / below)`` of sums >= 0: infinite where one is 0, and 0 where both are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(above) - np.log(below)
    return np.where((above == 0) & (below == 0), 0.0, logs)


def unlogged(logs: Interval) -> Interval:
    """Return the exponential of an interval whose bounds may be infinite."""
    low, value, high = (
        math.exp(x) if x < math.inf else math.inf for x in (logs.low, logs.value, logs.high)
    )
    return Interval(low=low, value=value, high=high)


def _ratio_interval(
    above: Array, below: Array, estimate: float, factor: float, how: Sampling
) -> Interval:
    if estimate <= 0:
        return Interval.exact(estimate)
    draws = stretched(log_quotient(above, below), math.log(estimate), factor)
    logs = unlogged(percentile(draws, math.log(estimate), confidence=how.confidence))
    # exp(log(x)) may miss x by a bit; the estimate shall be the exact quotient.
    return Interval(low=min(logs.low, estimate), value=estimate, high=max(logs.high, estimate))


def _memory(amount: Priced, method: Method | None) -> Cost:
    return Cost(
        dimension=Dimension.MEMORY,
        total=amount,
        per_attempt=amount,
        per_solved=amount,
        systematic=amount,
        method=method,
    )


def _of(quantity: Quantity) -> tuple[Priced, Method | None]:
    if isinstance(quantity, Missing):
        return quantity, None
    return quantity.value, quantity.method


def _stage(name: str, window: Measurement) -> StageShare:
    return StageShare(stage=name, cpu_s=_of(window.cpu_s)[0], energy_j=_of(window.it_energy_j)[0])
