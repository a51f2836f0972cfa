"""One solution's records as columns, so that statistics are array arithmetic.

A ``Table`` holds one row per attempt. Costs include the judging of the attempt. A cost column is
an array, or ``Missing`` when any attempt lacks the quantity: a column with holes would understate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lichen.benchmark.bootstrap import Array
from lichen.core.measurement import Component, Measurement, Missing, Quantity, Reading, total
from lichen.core.record import BlockRecord, RunRecord, SampleRecord
from lichen.core.summary import Dimension

Indices = NDArray[np.intp]

_NOT_JUDGED: Final = "this run did not judge its answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One solution of one run, a row per attempt.

    Args:
        name: as the summary calls it.
        run: the run that the attempts belong to.
        samples: the rows, ordered by (problem, sample).
        problem: row -> position in ``problem_ids``.
        problem_ids: the solution's problems that have attempts.
        quality: row -> score in [0, 1].
        solved: row -> 1.0 or 0.0.
        columns: additive costs per row: computation, time, CPU time, energy.
        generation, judging: the sums over the solution's blocks.
    """

    name: str
    run: RunRecord
    samples: tuple[SampleRecord, ...]
    problem: Indices
    problem_ids: tuple[str, ...]
    quality: Array
    solved: Array
    columns: dict[Dimension, Array | Missing]
    generation: Measurement
    judging: Measurement | None
    peaks_bytes: tuple[Quantity, ...]

    @property
    def whole(self) -> Measurement:
        """Generation plus judging; FLOP, bytes and the peak are the model's alone."""
        g, j = self.generation, self.judging
        if j is None:
            return g
        return replace(
            g + j,
            peak_memory_bytes=g.peak_memory_bytes,
            flop=g.flop,
            bytes_moved=g.bytes_moved,
        )

    @property
    def pass_fail(self) -> bool:
        """Whether every attempt has a verdict."""
        return all(s.score.verdict is not None for s in self.samples)

    def per_problem(self, column: Array) -> Array:
        """Sum a column over each problem's attempts."""
        sums = np.bincount(self.problem, weights=column, minlength=len(self.problem_ids))
        return sums.astype(np.float64)  # an empty column counts in whole numbers

    @property
    def attempts_per_problem(self) -> Array:
        """How many attempts each problem had."""
        return self.per_problem(np.ones(len(self.samples)))

    @property
    def mean_quality(self) -> Array:
        """Mean score of each problem."""
        return self.per_problem(self.quality) / self.attempts_per_problem

    def only(self, problem_ids: Sequence[str]) -> Table:
        """Return the table of these problems alone, numbered as given; sums stay the whole's."""
        place = {p: i for i, p in enumerate(problem_ids)}
        rows = [i for i, s in enumerate(self.samples) if s.problem_id in place]
        if len(rows) == len(self.samples) and tuple(problem_ids) == self.problem_ids:
            return self
        return replace(
            self,
            samples=tuple(self.samples[i] for i in rows),
            problem=np.array([place[self.samples[i].problem_id] for i in rows], dtype=np.intp),
            problem_ids=tuple(problem_ids),
            quality=self.quality[rows],
            solved=self.solved[rows],
            columns={d: c if isinstance(c, Missing) else c[rows] for d, c in self.columns.items()},
        )


def tabulate(
    run: RunRecord,
    solution: str,
    samples: Sequence[SampleRecord],
    blocks: Sequence[BlockRecord],
    *,
    name: str,
) -> Table:
    """Build the table of one solution, which must have at least one sample.

    Windows are summed over the blocks; where there are none (imported samples), over the samples.
    """
    place = {p: i for i, p in enumerate(run.problem_ids)}
    own = sorted(
        (s for s in samples if s.solution == solution),
        key=lambda s: (place.get(s.problem_id, len(place)), s.problem_id, s.sample),
    )
    ids = tuple(dict.fromkeys(s.problem_id for s in own))
    number = {p: i for i, p in enumerate(ids)}
    mine = [b for b in blocks if b.solution == solution]
    windows: Sequence[BlockRecord | SampleRecord] = mine or own
    judged = [w.judging for w in windows if w.judging is not None]
    generation = total([w.generation for w in windows])
    judging = total(judged) if judged else None
    return Table(
        name=name,
        run=run,
        samples=tuple(own),
        problem=np.array([number[s.problem_id] for s in own], dtype=np.intp),
        problem_ids=ids,
        quality=np.array([s.score.value for s in own]),
        solved=np.array([float(s.score.solved) for s in own]),
        columns=_columns(own),
        generation=generation,
        judging=judging,
        peaks_bytes=tuple(w.generation.peak_memory_bytes for w in windows),
    )


def _columns(samples: Sequence[SampleRecord]) -> dict[Dimension, Array | Missing]:
    def both(of: Callable[[Measurement], float | Missing]) -> Array | Missing:
        judged = _column([s.judging for s in samples], of)
        generated = _column([s.generation for s in samples], of)
        if isinstance(generated, Missing):
            return generated
        return judged if isinstance(judged, Missing) else generated + judged

    components = frozenset(
        e.component for e in samples[0].generation.energy_j if isinstance(e, Reading)
    )
    return {
        Dimension.COMPUTATION: _column([s.generation for s in samples], lambda m: _value(m.flop)),
        Dimension.TIME: both(lambda m: _value(m.wall_s)),
        Dimension.CPU_TIME: both(lambda m: _value(m.cpu_s)),
        Dimension.ENERGY: both(lambda m: _energy(m, components)),
    }


def _column(
    windows: Sequence[Measurement | None], of: Callable[[Measurement], float | Missing]
) -> Array | Missing:
    values: list[float] = []
    for window in windows:
        value = 0.0 if window is None else of(window)  # not judged costs nothing to judge
        if isinstance(value, Missing):
            return value
        values.append(value)
    return np.array(values)


def _value(quantity: Quantity) -> float | Missing:
    return quantity if isinstance(quantity, Missing) else quantity.value.value


def _energy(m: Measurement, components: frozenset[Component]) -> float | Missing:
    # ``Measurement.it_energy_j`` says the same, but builds a Reading per addition: too slow here.
    present = [e.value.value for e in m.energy_j if isinstance(e, Reading)]
    if len(present) == len(components) and present:
        return sum(present)
    if not present:
        quantity = m.it_energy_j
        return quantity if isinstance(quantity, Missing) else quantity.value.value
    return Missing(reason="some windows lack an energy reading that others have")
