"""Worlds whose truth is known, to ask how often an interval contains it.

A world draws what a comparison of two solutions would have seen: problem costs with a heavy tail
(log-normal), attempts that scatter around them, pass/fail that is correlated between the solutions
through the problem's difficulty, and one multiplicative disturbance per measuring window, shared by
all attempts in it. The truth is the median world's: ``log(cost_ratio)`` and equal quality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lichen.benchmark.costs import Sampling
from lichen.benchmark.pair import Arm, Pair
from lichen.core.summary import Dimension


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The parameters of a simulated comparison.

    Args:
        problems: how many, drawn anew in each repetition.
        samples: attempts per problem and solution.
        blocks: pairs of measuring windows, <= problems; whole problems per block.
        cost_ratio: true cost of B over A; 1 is an A/A comparison.
        tail: sigma of the log-normal problem costs; 0.8 has a mean 1.4 times the median.
        scatter: sigma of an attempt around its problem; 0 makes A and B use the same tokens.
        block_noise: sigma of a window's disturbance; 0.05 is about 5 %.
        quality: true mean pass rate of both, in (0, 1).
    """

    problems: int = 164
    samples: int = 1
    blocks: int = 16
    cost_ratio: float = 1.0
    tail: float = 0.8
    scatter: float = 0.3
    block_noise: float = 0.05
    quality: float = 0.55

    def pair(self, rng: np.random.Generator, *, draws: int, confidence: float = 0.95) -> Pair:
        """Draw one comparison; CPU time is its only cost."""
        length = rng.lognormal(0.0, self.tail, self.problems)
        # Beta with a small concentration: most problems are nearly always or nearly never solved.
        ease = rng.beta(2.0 * self.quality, 2.0 * (1.0 - self.quality), self.problems)
        arms = [self._arm(rng, length, ease, ratio) for ratio in (1.0, self.cost_ratio)]
        seed = int(rng.integers(2**31))
        return Pair(arms[0], arms[1], Sampling(confidence=confidence, draws=draws, seed=seed))

    def _arm(
        self,
        rng: np.random.Generator,
        length: np.ndarray[tuple[int], np.dtype[np.float64]],
        ease: np.ndarray[tuple[int], np.dtype[np.float64]],
        ratio: float,
    ) -> Arm:
        problem = np.repeat(np.arange(self.problems), self.samples)
        block = problem * self.blocks // self.problems
        disturbed = rng.lognormal(0.0, self.block_noise, self.blocks)[block]
        scattered = rng.lognormal(0.0, self.scatter, problem.size)
        passed = (rng.random(problem.size) < ease[problem]).astype(np.float64)
        return Arm(
            problem=problem,
            block=block,
            quality=passed,
            solved=passed,
            costs={Dimension.CPU_TIME: ratio * length[problem] * scattered * disturbed},
        )


def repeat(
    world: World, *, times: int, draws: int, seed: int, confidence: float = 0.95
) -> Iterator[Pair]:
    """Draw the same world many times, reproducibly."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        yield world.pair(rng, draws=draws, confidence=confidence)


def rate(pairs: Iterator[Pair], holds: Callable[[Pair], bool]) -> float:
    """Return the share of comparisons for which ``holds``."""
    results = [holds(pair) for pair in pairs]
    return sum(results) / len(results)
