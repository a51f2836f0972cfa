"""HumanEval: complete a Python function from its signature and docstring (Chen et al. 2021).

Data: 164 rows of task_id, prompt, entry_point, canonical_solution, test (arXiv 2107.03374). A
candidate is a whole program; ``lichen.benchmark.answers.export`` writes it for the official scorer.
Four problems' tests call helpers of the prompt (32, 38, 50 ...), so these run beside the test.
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
        description="asks for the full function in a code block, which small models answer tersely",
    ),
    PromptStyle(
        name="natural",
        version="2",  # 1 had the code in a block, which made larger models as terse as concise
        description="'Write this Python function:' and the code pasted below it, as people ask; "
        "models add explanations and examples",
    ),
    PromptStyle(
        name="fenced",
        version="1",
        description="the same sentence, but the code in a block, which larger models answer with "
        "a block alone",
    ),
)
FACTS: Final = TaskFacts(metric=METRIC, needs=NEEDS, styles=STYLES)

_OPENING: Final = {
    "concise": "Complete the following Python function. "
    "Return the full function in a Python code block.",
    "natural": "Write this Python function:",
    "fenced": "Write this Python function:",
}


class HumanEval(ExecutedTask):
    """See the module."""

    name: ClassVar[str] = "humaneval"
    own_version: ClassVar[str] = "1"

    def question(self, problem: Problem) -> str:
        """Return the instruction and the prompt, in a block unless people would just paste it."""
        return f"{_OPENING[self.prompt_style]}\n\n{self.shown(problem.prompt)}"


def make(context: TaskContext) -> HumanEval:
    """Build the task from ``HumanEval.jsonl`` (or ``.gz``); raises ConfigError for bad data."""
    check_options(context.options, (), task=HumanEval.name)
    return HumanEval(
        problems=tuple(_problems(context.data_path)),
        style=chosen_style(STYLES, context.style, task=HumanEval.name),
        data_sha256=context.data_sha256 or file_sha256(context.data_path),
        sandbox=context.sandbox,
    )


def _problems(path: Path) -> Iterator[Problem]:
    for row, name in unique_ids((r, r.text("task_id")) for r in read_rows(path)):
        prompt, body = row.text("prompt"), row.text("canonical_solution", "")
        entry_point, test = row.identifier("entry_point"), row.text("test")
        yield Problem(
            id=name,
            prompt=prompt,
            entry_point=entry_point,
            reference=prompt + body if body else "",
            fields={
                "stub": prompt,
                "test": test,
                "setup": preamble(prompt, entry_point=entry_point),
                "check": checking_program(test, entry_point),
            },
        )
