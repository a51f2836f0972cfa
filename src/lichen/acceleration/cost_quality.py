"""The cost and quality of a cascade over its threshold, from stored answers of every level.

``curve`` replays stored outcomes: no model runs. For honest points the score is calibrated on other
problems than those given here. A threshold below every score always keeps the first level's answer;
one above every score always goes to the last level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelOutcome:
    """What one level made of one problem.

    Args:
        score: of the answer, the higher the surer (a probability, say; 1 where the question's
            examples passed, 0 where they failed); not looked at for the last level.
        solved: whether the answer is right.
        cost: of the attempt and its check, >= 0, in any one unit.
    """

    score: float
    solved: bool
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A cascade at one threshold, as means over problems.

    Args:
        threshold: answers that score below it are handed on.
        cost: per problem, all levels that were asked.
        quality: share of problems solved.
        reached: share of problems that reach each level; the first is 1.
    """

    threshold: float
    cost: float
    quality: float
    reached: tuple[float, ...]

    @property
    def cost_per_solved(self) -> float:
        """Cost of all attempts over problems solved; infinite if none is."""
        return self.cost / self.quality if self.quality else math.inf


def curve(samples: Sequence[Sequence[LevelOutcome]]) -> tuple[CurvePoint, ...]:
    """Return one point per threshold that changes anything, from never to always handing on.

    Args:
        samples: per problem, the outcomes of all levels, from cheap to dear.

    Raises:
        ValueError: no problem, or problems with different numbers of levels.
    """
    if not samples or len({len(s) for s in samples}) != 1 or not samples[0]:
        raise ValueError("a curve needs problems that all have the outcomes of the same levels")
    scores = {o.score for s in samples for o in s[:-1]}
    thresholds = [-math.inf, *sorted(math.nextafter(x, math.inf) for x in scores)]
    return tuple(at(samples, t) for t in thresholds)


def at(samples: Sequence[Sequence[LevelOutcome]], threshold: float) -> CurvePoint:
    """Return the point at one threshold.

    Problems may have fewer outcomes than others: those of the levels that were asked. That is
    enough for thresholds up to the one they were asked with; the last outcome there is counts.
    """
    cost, solved, reached = 0.0, 0, [0] * max(map(len, samples))
    for outcomes in samples:
        for k, outcome in enumerate(outcomes):
            cost += outcome.cost
            reached[k] += 1
            if outcome.score >= threshold or k == len(outcomes) - 1:
                solved += outcome.solved
                break
    n = len(samples)
    return CurvePoint(
        threshold=threshold,
        cost=cost / n,
        quality=solved / n,
        reached=tuple(r / n for r in reached),
    )


def frontier(points: Sequence[CurvePoint]) -> tuple[CurvePoint, ...]:
    """Return the points that no other beats in cost and quality at once, by rising cost."""
    kept: list[CurvePoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not kept or point.quality > kept[-1].quality:
            kept.append(point)
    return tuple(kept)
