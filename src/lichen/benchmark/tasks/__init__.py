"""The kinds of software-engineering work that lichen can measure: one file each.

A task module exports ``make(context) -> Task`` and ``FACTS``. Adding a task = one file,
one row here, one line in ``docs/reference/tasks.md``; the contract suite then tests it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lichen.core.generation import Capability
from lichen.core.ports import Sandbox, Task
from lichen.core.registry import Registry
from lichen.core.task import PromptStyle


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """What a task is made from.

    Args:
        data_path: the task's data file (already fetched and verified), or the repository to read.
        data_sha256: hash of that file ("" for a repository: the task hashes what it reads).
        sandbox: where candidates are judged.
        style: name of a prompt style, "" for the task's default.
        options: further settings as text, validated by the task.
    """

    data_path: Path
    data_sha256: str
    sandbox: Sandbox
    style: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """What can be said of a task without its data.

    ``needs`` are the capabilities of the default style; ``either`` are alternatives, one of which
    the engine must have. ``self_check_is_oracle`` warns that the question shows the very tests that
    decide, so that a strategy which runs them knows the verdict.
    """

    metric: str
    needs: frozenset[Capability]
    styles: tuple[PromptStyle, ...]
    options: tuple[str, ...] = ()
    either: frozenset[Capability] = frozenset()
    self_check_is_oracle: bool = False


TaskFactory = Callable[[TaskContext], Task]

TASKS: Registry[TaskFactory] = Registry(
    "task",
    "lichen.tasks",
    {
        "humaneval": "lichen.benchmark.tasks.humaneval:make",
        "infill": "lichen.benchmark.tasks.infill:make",
        "mbpp": "lichen.benchmark.tasks.mbpp:make",
        "repair": "lichen.benchmark.tasks.repair:make",
        "search": "lichen.benchmark.tasks.search:make",
    },
)
"""Task name -> factory."""

DATA_SETS: Mapping[str, str] = {
    "humaneval": "humaneval",
    "mbpp": "mbpp",
    "repair": "humanevalpack-python",
}
"""Task name -> the catalog's data set; tasks that read a local repository are not in it."""


def facts(name: str) -> TaskFacts | None:
    """Return a task's facts, None for a plug-in whose module does not export ``FACTS``."""
    module = sys.modules[TASKS.get(name).__module__]
    found = getattr(module, "FACTS", None)
    return found if isinstance(found, TaskFacts) else None
