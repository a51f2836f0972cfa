"""Repair: a Python function with one bug put in comes in, a fixed one goes out.

Data: HumanEvalPack's Python file (Muennighoff et al. 2023, OctoPack, arXiv 2308.07124), 164 rows
with ``buggy_solution``. The ``tests`` style follows the paper's HumanEvalFix, where the model sees
the tests; the default shows the docstring instead, so that passing cannot be memorised from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from lichen.benchmark.answers.python_function import preamble
from lichen.benchmark.corpus.rows import file_sha256, read_rows, unique_ids
from lichen.benchmark.executed import (
    METRIC,
    NEEDS,
    ExecutedTask,
    check_options,
    checking_program,
    chosen_style,
)
from lichen.benchmark.tasks import TaskContext, TaskFacts
from lichen.core.task import Problem, PromptStyle

STYLES: Final = (
    PromptStyle(
        name="concise",
        version="1",
        description="shows the docstring and the buggy body; asks for the full function in a block",
    ),
    PromptStyle(
        name="natural",
        version="2",  # 1 had the code in a block
        description="the same code, pasted without a block and asked for as people do",
    ),
    PromptStyle(
        name="tests",
        version="1",
        description="no docstring, but the tests, as in HumanEvalFix",
    ),
)
FACTS: Final = TaskFacts(metric=METRIC, needs=NEEDS, styles=STYLES)

_FIX: Final = (
    "Fix the bug in the following Python function. "
    "Return the full corrected function in a Python code block."
)


class Repair(ExecutedTask):
    """See the module."""

    name: ClassVar[str] = "repair"
    own_version: ClassVar[str] = "1"

    def question(self, problem: Problem) -> str:
        """Return the instruction with the buggy function (and, in style ``tests``, the tests)."""
        if self.prompt_style == "natural":
            return f"This Python function has a bug. Please fix it:\n\n{self.shown(problem.prompt)}"
        if self.prompt_style == "concise":
            return f"{_FIX}\n\n{self.shown(problem.prompt)}"
        bare = problem.fields["declaration"] + problem.fields["buggy_solution"]
        tests = self.shown(problem.fields["test"])
        return f"{_FIX}\n\n{self.shown(bare)}\n\nIt must pass these tests:\n\n{tests}"


def make(context: TaskContext) -> Repair:
    """Build the task from HumanEvalPack's Python file; raises ConfigError for bad data."""
    check_options(context.options, (), task=Repair.name)
    return Repair(
        problems=tuple(_problems(context.data_path)),
        style=chosen_style(STYLES, context.style, task=Repair.name),
        data_sha256=context.data_sha256 or file_sha256(context.data_path),
        sandbox=context.sandbox,
    )


def _problems(path: Path) -> Iterator[Problem]:
    for row, name in unique_ids((r, r.text("task_id")) for r in read_rows(path)):
        stub, buggy = row.text("prompt"), row.text("buggy_solution")
        body = row.text("canonical_solution", "")
        entry_point, test = row.identifier("entry_point"), row.text("test")
        yield Problem(
            id=name,
            prompt=stub + buggy,
            entry_point=entry_point,
            reference=stub + body if body else "",
            fields={
                "stub": stub,
                "test": test,
                "setup": preamble(stub, entry_point=entry_point),
                "check": checking_program(test, entry_point),
                "declaration": row.text("declaration"),
                "buggy_solution": buggy,
                "bug_type": row.text("bug_type", ""),
            },
        )
