"""A task whose questions are worded differently: the same problems, asked another way.

Wraps a task that runs Python (``executed``) and leaves asking, reading and scoring to it. Only
problems that the rewrite changes are in it, under their own ids, so that a run of it pairs with a
run of the plain task; and only those whose rewritten reference passes the rewritten tests in the
sandbox, which is the proof that the rewrite kept the meaning.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence

from lichen.benchmark.executed import ExecutedTask
from lichen.benchmark.rewriting import REWRITES, VERSION
from lichen.core.errors import ConfigError
from lichen.core.generation import Capability, Request
from lichen.core.ports import Candidate, Task
from lichen.core.task import Problem, Score


class RewrittenTask:
    """See the module. Implements ``lichen.core.ports.Task``.

    Args:
        task: the plain one.
        rewrite: name in ``REWRITES``.
        seed: of the choices a rewrite makes; with the problem's id it gives each its own.
        problems: the rewritten ones.
    """

    def __init__(
        self, task: ExecutedTask, rewrite: str, seed: int, problems: Sequence[Problem]
    ) -> None:
        self._task = task
        self._rewrite = rewrite
        self._seed = seed
        self._problems = tuple(problems)

    @property
    def name(self) -> str:
        """The plain task's name: the problems are the same."""
        return self._task.name

    @property
    def version(self) -> str:
        """The plain task's version, and which rewrite."""
        return f"{self._task.version}+rewrite.{self._rewrite}.{VERSION}.{self._seed}"

    @property
    def metric(self) -> str:
        """The plain task's."""
        return self._task.metric

    @property
    def prompt_style(self) -> str:
        """The plain task's."""
        return self._task.prompt_style

    @property
    def data_sha256(self) -> str:
        """The plain task's."""
        return self._task.data_sha256

    @property
    def needs(self) -> frozenset[Capability]:
        """The plain task's."""
        return self._task.needs

    def problems(self) -> Sequence[Problem]:
        """The problems that were rewritten, in the data set's order."""
        return self._problems

    def request(self, problem: Problem, *, sample: int, seed: int) -> Request:
        """Ask as the plain task does."""
        return self._task.request(problem, sample=sample, seed=seed)

    def extract(self, problem: Problem, text: str) -> str:
        """Read as the plain task does."""
        return self._task.extract(problem, text)

    def score(self, candidates: Iterable[Candidate]) -> Iterator[tuple[str, Score]]:
        """Score as the plain task does."""
        return self._task.score(candidates)


def rewritten(task: Task, rewrite: str, *, seed: int = 0) -> RewrittenTask:
    """Return the task with its questions rewritten, and prove each by its reference.

    Runs as many references as there are rewritten problems in the task's sandbox.

    Raises:
        UnknownNameError: no such rewrite.
        ConfigError: the task does not run Python, or nothing in it could be rewritten and proven.
    """
    change = REWRITES.get(rewrite)
    if not isinstance(task, ExecutedTask):
        raise ConfigError(
            f"the task {task.name!r} cannot be rewritten: only tasks that run Python functions can"
        )
    changed = []
    for problem in task.problems():
        try:
            fresh = (
                change(problem, _source(seed, rewrite, problem.id)) if problem.reference else None
            )
        except RecursionError:  # nested deeper than Python writes down: left out like others
            fresh = None
        if fresh is not None:
            changed.append(fresh)
    proven = _proven(task, changed)
    if not proven:
        raise ConfigError(
            f"no problem of the task {task.name!r} could be rewritten by {rewrite!r} and proven "
            "by its reference solution"
        )
    return RewrittenTask(task, rewrite, seed, proven)


def _source(seed: int, rewrite: str, problem: str) -> random.Random:
    """Return the randomness of one problem: it does not depend on which others there are."""
    digest = hashlib.sha256(f"{seed}\0{rewrite}\0{problem}".encode()).digest()
    return random.Random(digest)  # noqa: S311 (a choice of wording, not a secret)


def _proven(task: ExecutedTask, problems: Sequence[Problem]) -> list[Problem]:
    candidates = [Candidate(id=p.id, problem=p, code=p.reference) for p in problems]
    passed = {name for name, score in task.score(candidates) if score.solved}
    return [p for p in problems if p.id in passed]
