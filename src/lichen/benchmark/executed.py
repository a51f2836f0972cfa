"""What tasks that run Python functions share: asking in a chat, extraction, judging, pass@1.

A concrete task says where problems come from and how one becomes a question. The score of a sample
is 1 or 0; pass@k over several samples is computed from these elsewhere.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Final

from lichen.benchmark.answers.python_function import EXTRACTION_VERSION, extract_function
from lichen.benchmark.answers.syntax import parse
from lichen.benchmark.styled import StyledTask
from lichen.core.errors import ConfigError
from lichen.core.generation import Capability, Hints, Message, Request, Role
from lichen.core.ports import Candidate, Sandbox
from lichen.core.registry import unknown
from lichen.core.task import Problem, PromptStyle, Score, Status, Trial, Verdict

METRIC: Final = "pass@1"
NEEDS: Final = frozenset({Capability.CHAT})


class ExecutedTask(StyledTask, ABC):
    """A task whose answers are Python functions that are run against tests.

    Args:
        problems: in the data set's order. Their ``fields`` hold ``stub``, the code that the
            question shows up to the body ("" if it shows none), ``setup``, what tests need
            beside the solution (helpers of the stub, say), and ``check``, the test program.
        style: one of the task's styles.
        data_sha256: hash of the data file.
        sandbox: where candidates are judged.
    """

    metric: ClassVar[str] = METRIC

    def __init__(
        self,
        *,
        problems: Sequence[Problem],
        style: PromptStyle,
        data_sha256: str,
        sandbox: Sandbox,
    ) -> None:
        super().__init__(problems=problems, style=style, data_sha256=data_sha256)
        self._sandbox = sandbox

    @property
    def version(self) -> str:
        """Versions of prompts and scoring, of the wording, and of extraction."""
        return f"{super().version}+extract.{EXTRACTION_VERSION}"

    @property
    def needs(self) -> frozenset[Capability]:
        """Chat."""
        return NEEDS

    def request(self, problem: Problem, *, sample: int, seed: int) -> Request:
        """Ask for one attempt in a single user message."""
        message = Message(role=Role.USER, content=self.question(problem))
        hints = Hints(
            language="python",
            entry_point=problem.entry_point,
            given=problem.fields.get("stub", ""),
        )
        return Request(id=f"{problem.id}#{sample}", messages=(message,), seed=seed, hints=hints)

    def extract(self, problem: Problem, text: str) -> str:
        """Read the answer; see ``lichen.benchmark.answers.python_function``."""
        return extract_function(
            text, entry_point=problem.entry_point, stub=problem.fields.get("stub", "")
        )

    def score(self, candidates: Iterable[Candidate]) -> Iterator[tuple[str, Score]]:
        """Judge candidates in the sandbox; an empty one fails without costing a process."""
        judged: list[Candidate] = []
        for candidate in candidates:
            if candidate.code.strip():
                judged.append(candidate)
            else:
                message = "the answer holds no code"
                yield (
                    candidate.id,
                    scored(Verdict(status=Status.ERROR, kind="no-entry", message=message)),
                )
        if judged:
            for name, verdict in self._sandbox.judge(_trial(c) for c in judged):
                yield name, scored(verdict)

    @abstractmethod
    def question(self, problem: Problem) -> str:
        """Return the text of the user's message."""

    def shown(self, code: str) -> str:
        """Return code in a block, or pasted where the wording is the one that people use."""
        return pasted(code) if self.prompt_style == "natural" else fenced(code)


def _trial(candidate: Candidate) -> Trial:
    problem = candidate.problem
    return Trial(
        id=candidate.id,
        solution=candidate.code,
        entry_point=problem.entry_point,
        setup=problem.fields["setup"],
        check=problem.fields["check"],
    )


def scored(verdict: Verdict) -> Score:
    """Return the pass/fail score of a verdict."""
    return Score(metric=METRIC, value=float(verdict.passed), verdict=verdict)


def chosen_style(styles: Sequence[PromptStyle], name: str, *, task: str) -> PromptStyle:
    """Return the style of that name, the first for ""; raises ConfigError with near names."""
    by_name = {s.name: s for s in styles}
    if not name:
        return styles[0]
    if name not in by_name:
        raise ConfigError(unknown(f"prompt style of the task {task!r}", name, list(by_name)))
    return by_name[name]


def check_options(options: Iterable[str], known: Sequence[str], *, task: str) -> None:
    """Raise ConfigError for an option that a task does not have."""
    for name in options:
        if name not in known:
            if not known:
                raise ConfigError(f"the task {task!r} has no options, so {name!r} cannot be set")
            raise ConfigError(unknown(f"option of the task {task!r}", name, list(known)))


def checking_program(test: str, entry_point: str) -> str:
    """Return test code that holds the solution to ``check``, whether or not it calls it itself."""
    tree = parse(test)
    calls = tree is not None and any(
        isinstance(s, ast.Expr)
        and isinstance(s.value, ast.Call)
        and isinstance(s.value.func, ast.Name)
        and s.value.func.id == "check"
        for s in tree.body
    )
    return test if calls else f"{test}\n\ncheck({entry_point})\n"


def fenced(code: str) -> str:
    """Return code in a Python block; blank lines around it are dropped."""
    mark = "```"
    while mark in code:
        mark += "`"
    return f"{mark}python\n{pasted(code)}\n{mark}"


def pasted(code: str) -> str:
    """Return code as people paste it, without a block; blank lines around it are dropped."""
    return code.strip("\n").rstrip()
