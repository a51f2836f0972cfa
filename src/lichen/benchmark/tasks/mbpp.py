"""MBPP: write a short Python function from one sentence (Austin et al. 2021, arXiv 2108.07732).

Two shapes of the data load by themselves:

* the original ``mbpp.jsonl``: task_id (number), text, code, test_list, test_setup_code,
  challenge_test_list; the question shows the tests, since they alone name the function;
* mxeval's ``mbpp_release_v1.jsonl`` (MBXP, arXiv 2210.14868): the columns of HumanEval, a stub with
  docstring. Its docstring examples equal the tests, so a strategy that runs them is an oracle.

The split follows the original numbering: 1-10 few-shot prompts, 11-510 test, 511-600 validation,
601-974 training. Challenge tests are not used, as in the paper's main results.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from lichen.benchmark.answers.python_function import preamble
from lichen.benchmark.answers.syntax import bound_names, parse, used_names
from lichen.benchmark.corpus.rows import Row, file_sha256, read_rows, unique_ids
from lichen.benchmark.executed import (
    METRIC,
    NEEDS,
    ExecutedTask,
    check_options,
    checking_program,
    chosen_style,
)
from lichen.benchmark.tasks import TaskContext, TaskFacts
from lichen.core.errors import ConfigError
from lichen.core.registry import unknown
from lichen.core.task import Problem, PromptStyle

STYLES: Final = (
    PromptStyle(
        name="concise",
        version="1",
        description="asks for the full function in a code block, which small models answer tersely",
    ),
    PromptStyle(
        name="natural",
        version="2",  # 1 had the code in blocks
        description="asks as people do, code pasted without a block; models add explanations",
    ),
)
FACTS: Final = TaskFacts(
    metric=METRIC, needs=NEEDS, styles=STYLES, options=("split",), self_check_is_oracle=True
)

SPLITS: Final = {
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
    "prompt": range(1, 11),
    "all": None,
}
"""Splits of the original release (its README); ``all`` keeps every row."""

_STUB_OPENING: Final = {
    "concise": "Complete the following Python function. "
    "Return the full function in a Python code block.",
    "natural": "Write this Python function:",
}
_TEXT_OPENING: Final = {
    "concise": "Write a Python function for the task below. "
    "Return the full function in a Python code block.",
    "natural": "Please write Python code for this.",
}


class Mbpp(ExecutedTask):
    """See the module."""

    name: ClassVar[str] = "mbpp"
    own_version: ClassVar[str] = "1"

    def question(self, problem: Problem) -> str:
        """Return the instruction with the stub, or with the sentence and its tests."""
        if problem.fields["stub"]:
            return f"{_STUB_OPENING[self.prompt_style]}\n\n{self.shown(problem.prompt)}"
        return (
            f"{_TEXT_OPENING[self.prompt_style]}\n\n{problem.prompt}\n\n"
            f"It must pass these tests:\n\n{self.shown(problem.fields['tests'])}"
        )


def make(context: TaskContext) -> Mbpp:
    """Build the task from either shape; raises ConfigError for bad data or options."""
    check_options(context.options, FACTS.options, task=Mbpp.name)
    split = context.options.get("split", "test")
    if split not in SPLITS:
        raise ConfigError(unknown("split of MBPP", split, list(SPLITS)))
    return Mbpp(
        problems=tuple(_problems(context.data_path, SPLITS[split])),
        style=chosen_style(STYLES, context.style, task=Mbpp.name),
        data_sha256=context.data_sha256 or file_sha256(context.data_path),
        sandbox=context.sandbox,
    )


def _problems(path: Path, numbers: range | None) -> Iterator[Problem]:
    for row, name in unique_ids((r, _name(r)) for r in read_rows(path)):
        if numbers is None or int(name.rpartition("/")[2]) in numbers:
            yield _from_stub(row, name) if "prompt" in row else _from_text(row, name)


def _name(row: Row) -> str:
    if "prompt" not in row:
        return f"MBPP/{row.number('task_id')}"
    name = row.text("task_id")
    if not re.fullmatch(r"\w{1,40}/[0-9]{1,9}", name):
        raise row.error(f"the task_id must look like 'MBPP/11', not {name[:60]!r}")
    return name


def _from_stub(row: Row, name: str) -> Problem:
    prompt, body = row.text("prompt"), row.text("canonical_solution", "")
    entry_point = row.identifier("entry_point")
    return Problem(
        id=name,
        prompt=prompt,
        entry_point=entry_point,
        reference=prompt + body if body else "",
        fields={
            "stub": prompt,
            "setup": preamble(prompt, entry_point=entry_point),
            "check": checking_program(row.text("test"), entry_point),
        },
    )


def _from_text(row: Row, name: str) -> Problem:
    code, tests = row.text("code"), "\n".join(row.texts("test_list"))
    setup = row.text("test_setup_code", "")
    entry_point = _entry_point(row, code, tests)
    helpers = (used_names(tests) | used_names(setup)) & _names(code) - {entry_point}
    return Problem(
        id=name,
        prompt=row.text("text"),
        entry_point=entry_point,
        reference=code,
        fields={
            "stub": "",
            "tests": tests,
            # a few tests build their inputs with a class of the reference program
            "setup": f"{code}\n{setup}\n" if helpers else setup,
            "check": tests + "\n",
        },
    )


def _entry_point(row: Row, code: str, tests: str) -> str:
    """Return the function the tests are about: the last one of the code that they call."""
    asked, module = parse(tests), parse(code)
    calls = [n for n in ast.walk(asked) if isinstance(n, ast.Call)] if asked else []
    called = [c.func.id for c in calls if isinstance(c.func, ast.Name)]
    functions = [s.name for s in module.body if isinstance(s, ast.FunctionDef)] if module else []
    known = _names(code)
    for choice in (
        [f for f in reversed(functions) if f in called],
        [c for c in called if c in known],
        [c for c in called if not hasattr(builtins, c)],
    ):
        if choice:
            return choice[0]
    raise row.error("the tests in 'test_list' call no function")


def _names(code: str) -> set[str]:
    module = parse(code)
    return bound_names(module.body) if module else set()
