"""One stored run of a parent and a child, read pair by pair: values for the gate.

Problems are the units: attempts at one problem are averaged before anything is resampled. Intervals
are 95 %; differences are child minus parent, ratios child over parent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lichen.benchmark.bootstrap import (
    Array,
    percentile,
    resampled_sums,
    stretch_for,
    stretched,
    student_t_quantile,
)
from lichen.benchmark.paired import mcnemar, mean_difference
from lichen.benchmark.summarise import StoredRun
from lichen.compression.gate.ports import AnswersValue, FlipsValue, QualityValue, TaskValue
from lichen.core.errors import EngineError
from lichen.core.generation import Finish
from lichen.core.interval import Interval
from lichen.core.record import SampleRecord

PARENT: Final = "parent"
CHILD: Final = "child"
CONFIDENCE: Final = 0.95

_DRAWS: Final = 4000
_LARGEST_LOG: Final = 50.0


@dataclass(frozen=True, slots=True)
class Pair:
    """The parent's and the child's answer to one question."""

    parent: SampleRecord
    child: SampleRecord

    @property
    def problem(self) -> str:
        """Which problem it is about."""
        return self.parent.problem_id

    @property
    def solved(self) -> tuple[bool, bool]:
        """Whether the parent solved it, and whether the child did."""
        return self.parent.score.solved, self.child.score.solved


def pairs_of(stored: StoredRun) -> list[Pair]:
    """Return the pairs of a run of the solutions ``parent`` and ``child``.

    Raises:
        EngineError: there is none, or one of the two answered nothing at all.
    """
    by_key = {(s.solution, s.problem_id, s.sample): s for s in stored.samples}
    pairs = [
        Pair(sample, by_key[CHILD, sample.problem_id, sample.sample])
        for (solution, _, _), sample in by_key.items()
        if solution == PARENT and (CHILD, sample.problem_id, sample.sample) in by_key
    ]
    for name, samples in ((PARENT, [p.parent for p in pairs]), (CHILD, [p.child for p in pairs])):
        errors = [s.error for s in samples if s.error]
        if not samples or len(errors) == len(samples):
            why = errors[0] if errors else "the run has no answers"
            raise EngineError(f"the {name} cannot be compared: {why}")
    return pairs


def task_value(stored: StoredRun) -> TaskValue:
    """Return quality and answers of one run."""
    pairs = pairs_of(stored)
    return TaskValue(quality=_quality(stored.run.metric, pairs), answers=_answers(pairs))


def _quality(metric: str, pairs: Sequence[Pair]) -> QualityValue:
    first = {p.problem: p for p in reversed(pairs)}.values()
    solved = Counter(p.solved for p in first)
    only_parent, only_child = solved[True, False], solved[False, True]
    differences = _means(pairs, [p.child.score.value - p.parent.score.value for p in pairs])
    return QualityValue(
        metric=metric,
        problems=len(first),
        parent_solved=only_parent + solved[True, True],
        child_solved=only_child + solved[True, True],
        only_parent=only_parent,
        only_child=only_child,
        difference=mean_difference(differences, confidence=CONFIDENCE),
        mcnemar_p=mcnemar(only_parent, only_child),
    )


def _answers(pairs: Sequence[Pair]) -> AnswersValue:
    ends = [Counter(str(s.finish) for s in side) for side in _sides(pairs)]
    cut = [
        float(p.child.finish is Finish.LENGTH) - (p.parent.finish is Finish.LENGTH) for p in pairs
    ]
    lengths = [[float(s.usage.completion) for s in side] for side in _sides(pairs)]
    return AnswersValue(
        answers=len(pairs),
        length_ratio=ratio_of_sums(*(_means(pairs, side) for side in lengths)),
        parent_truncated=ends[0][str(Finish.LENGTH)],
        child_truncated=ends[1][str(Finish.LENGTH)],
        truncated_excess=mean_difference(_means(pairs, cut), confidence=CONFIDENCE),
        finishes=tuple((how, ends[0][how], ends[1][how]) for how in sorted(ends[0] | ends[1])),
    )


def flips_value(plain: StoredRun, rewritten: Mapping[str, StoredRun]) -> FlipsValue:
    """Return whose verdicts changed when questions were rewritten; keys name the rewrites."""
    before = {(p.problem, p.parent.sample): p.solved for p in pairs_of(plain)}
    problems: list[str] = []
    flips: list[tuple[bool, bool]] = []
    for stored in rewritten.values():
        for pair in pairs_of(stored):
            was = before.get((pair.problem, pair.parent.sample))
            if was is not None:
                problems.append(pair.problem)
                flips.append((was[0] != pair.solved[0], was[1] != pair.solved[1]))
    seen = Counter(flips)
    only_parent, only_child = seen[True, False], seen[False, True]
    excess = [float(child) - parent for parent, child in flips]
    return FlipsValue(
        rewrites=tuple(rewritten),
        pairs=len(flips),
        parent_flips=only_parent + seen[True, True],
        child_flips=only_child + seen[True, True],
        only_parent=only_parent,
        only_child=only_child,
        excess=mean_difference(_grouped(problems, excess), confidence=CONFIDENCE)
        if flips
        else Interval.exact(0.0),
        mcnemar_p=mcnemar(only_parent, only_child),
    )


def ratio_of_sums(parent: Array, child: Array) -> Interval:
    """Return ``sum(child) / sum(parent)`` with its bootstrap interval over the entries.

    A sum of zero is taken as one, so that a model that says nothing still has a ratio.
    """
    sums = resampled_sums(
        np.stack([parent, child], axis=1), draws=_DRAWS, rng=np.random.default_rng(0)
    )
    logs = np.log(np.maximum(sums[:, 1], 1.0)) - np.log(np.maximum(sums[:, 0], 1.0))
    estimate = math.log(max(float(child.sum()), 1.0)) - math.log(max(float(parent.sum()), 1.0))
    wide = stretched(logs, estimate, stretch_for(parent.size, CONFIDENCE))
    return _exponential(percentile(wide, estimate, confidence=CONFIDENCE))


def mean_ratio(parent: Sequence[float], child: Sequence[float]) -> Interval:
    """Return the geometric mean of paired ratios with Student's interval; values must be > 0.

    A single pair has no interval that could be learnt from it: its bounds are 0 and infinity.
    """
    logs = np.log(np.asarray(child)) - np.log(np.asarray(parent))
    mean = float(logs.mean())
    if logs.size == 1:
        return Interval(low=0.0, value=math.exp(mean), high=math.inf)
    error = float(logs.std(ddof=1)) / math.sqrt(logs.size)
    half = student_t_quantile((1 + CONFIDENCE) / 2, logs.size - 1) * error
    return _exponential(Interval(low=mean - half, value=mean, high=mean + half))


def _exponential(logs: Interval) -> Interval:
    low, value, high = (math.exp(min(x, _LARGEST_LOG)) for x in (logs.low, logs.value, logs.high))
    return Interval(low=low, value=value, high=high)


def _sides(pairs: Sequence[Pair]) -> tuple[list[SampleRecord], list[SampleRecord]]:
    return [p.parent for p in pairs], [p.child for p in pairs]


def _means(pairs: Sequence[Pair], values: Sequence[float]) -> Array:
    return _grouped([p.problem for p in pairs], values)


def _grouped(groups: Sequence[str], values: Sequence[float]) -> Array:
    """Return the mean of the values of each group, in order of appearance."""
    number = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    index = np.array([number[g] for g in groups], dtype=np.intp)
    counts = np.bincount(index, minlength=len(number))
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64), minlength=len(number))
    means: Array = sums / counts
    return means
