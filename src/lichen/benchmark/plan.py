"""The schedule of a run: which solution answers which problems in which block, in which order.

Solutions are interleaved in randomised blocks, so that drift of a shared machine hits all alike:
problems are cut into groups, and each group is answered by every solution in turn, in an order
shuffled per group. A block is the unit of measuring, of storing and of resuming; it depends on the
plan alone, so a resumed run repeats exactly the blocks that are missing.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from lichen.core.errors import ConfigError
from lichen.core.task import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a run is laid out.

    Args:
        samples: attempts per problem and solution, >= 1.
        seed: of the schedule and of all sampling, >= 0.
        block_size: most attempts in a block; the last groups are balanced, not left small.
        idle_s: length of the idle baseline before the run in seconds; 0 takes none.
    """

    samples: int = 1
    seed: int = 0
    block_size: int = 16
    idle_s: float = 5.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.samples < 1 or self.block_size < 1 or self.seed < 0 or self.idle_s < 0:
            raise ConfigError(
                "a plan needs samples >= 1, block_size >= 1, seed >= 0 and idle_s >= 0; "
                f"got {self.samples}, {self.block_size}, {self.seed}, {self.idle_s}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One sample of one problem; ``seed`` is derived from the plan's, problem and sample."""

    problem: Problem
    sample: int
    seed: int

    @property
    def id(self) -> str:
        """Name unique within a block."""
        return f"{self.problem.id}#{self.sample}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Attempts that one solution makes in one measuring window."""

    index: int
    solution: str
    attempts: tuple[Attempt, ...]


def schedule(plan: Plan, problems: Sequence[Problem], solutions: Sequence[str]) -> list[Block]:
    """Lay out all blocks, in the order they run; deterministic in its arguments.

    Problems are shuffled into groups of at most ``block_size`` attempts (whole problems, all their
    samples together), equally large to within one problem. Within a group the solutions' order is
    shuffled anew.
    """
    rng = random.Random(plan.seed)  # noqa: S311 (a schedule is no secret)
    shuffled = list(problems)
    rng.shuffle(shuffled)
    per_group = max(1, plan.block_size // plan.samples)
    groups = max(1, math.ceil(len(shuffled) / per_group))
    blocks: list[Block] = []
    for g in range(groups):
        attempts = tuple(
            Attempt(problem=p, sample=s, seed=attempt_seed(plan.seed, p.id, s))
            for p in shuffled[g::groups]
            for s in range(plan.samples)
        )
        order = list(solutions)
        rng.shuffle(order)
        for name in order:
            blocks.append(Block(index=len(blocks), solution=name, attempts=attempts))
    return blocks


def attempt_seed(seed: int, problem_id: str, sample: int) -> int:
    """Derive a sampling seed in [0, 2^31) that does not depend on order or batch."""
    digest = hashlib.sha256(f"{seed}\x1f{problem_id}\x1f{sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def select(
    problems: Sequence[Problem], *, limit: int | None, half: str, ids: Sequence[str]
) -> list[Problem]:
    """Choose problems: given ids, or the even/odd half by position, then ``limit`` spread evenly.

    A limit takes every n-th problem rather than the first ones, since data sets are often sorted.

    Raises:
        ConfigError: an unknown id or half, or nothing left.
    """
    chosen = list(problems)
    if ids:
        by_id = {p.id: p for p in problems}
        unknown = [i for i in ids if i not in by_id]
        if unknown:
            raise ConfigError(f"no problem is called {unknown[0]!r} in this task")
        chosen = [by_id[i] for i in ids]
    if half not in {"all", "even", "odd"}:
        raise ConfigError(f"half must be all, even or odd, not {half!r}")
    if half != "all":
        chosen = chosen[(0 if half == "even" else 1) :: 2]
    if limit is not None and limit < len(chosen):
        if limit < 1:
            raise ConfigError(f"a limit must be at least 1, not {limit}")
        chosen = [chosen[i * len(chosen) // limit] for i in range(limit)]
    if not chosen:
        raise ConfigError("no problem is left to run; check --limit, half and problems")
    return chosen
