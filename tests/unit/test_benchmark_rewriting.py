"""Rewritten problems: other words, the same meaning, proven by the reference."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest

from lichen.benchmark.rewriting import REWRITES
from lichen.benchmark.rewriting.reformat import rewrite as reformat
from lichen.benchmark.rewriting.rename import rewrite as rename
from lichen.benchmark.rewriting.reorder import rewrite as reorder
from lichen.benchmark.rewritten import rewritten
from lichen.benchmark.tasks import TASKS, TaskContext
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.ports import Candidate
from lichen.core.task import Problem
from lichen.testing.in_process_sandbox import InProcessSandbox
from lichen.testing.task_data import ADD_STUB, HUMANEVAL_ROWS, MBPP_ORIGINAL_ROWS, write_rows

SCALED = (
    "import math\nfrom typing import List\n\n\n"
    "def scaled_sum(xs: List[float], by_n: float) -> float:\n"
    '    """ Add up `xs` and multiply by by_n.\n'
    "    >>> scaled_sum([1, 2], by_n=2)\n    6\n"
    "    >>> scaled_sum([], 3)\n    0\n"
    '    """\n'
)


def scaled(**changes: object) -> Problem:
    values: dict[str, object] = {
        "id": "T/0",
        "prompt": SCALED,
        "entry_point": "scaled_sum",
        "reference": SCALED + "    return sum(x * by_n for x in xs)\n",
        "fields": {
            "stub": SCALED,
            "setup": "import math\n",
            "check": "def check(candidate):\n    assert candidate([1], by_n=2) == 2\n\ncheck(scaled_sum)\n",
        },
    }
    return Problem(**(values | changes))


def humaneval(tmp_path: Path, rows=HUMANEVAL_ROWS):
    path = write_rows(tmp_path / "h.jsonl", rows)
    return TASKS.get("humaneval")(
        TaskContext(data_path=path, data_sha256="", sandbox=InProcessSandbox())
    )


def passes(problem: Problem, task) -> bool:
    (result,) = task.score([Candidate(id="r", problem=problem, code=problem.reference)])
    return result[1].solved


@pytest.mark.parametrize("name", REWRITES.names())
def test_every_rewrite_changes_the_question_and_keeps_the_reference_right(tmp_path, name):
    """A rewritten problem asks in other words, and its reference passes its own tests."""
    task = humaneval(tmp_path)
    problem = REWRITES.get(name)(scaled(), random.Random(1))
    assert problem is not None
    assert problem.prompt != SCALED
    assert problem.fields["stub"] == problem.prompt
    assert passes(problem, task)


@pytest.mark.parametrize("name", REWRITES.names())
def test_every_rewrite_is_deterministic(name):
    """The same problem and seed give the same text."""
    change = REWRITES.get(name)
    assert change(scaled(), random.Random(7)) == change(scaled(), random.Random(7))


def test_rename_changes_signature_docstring_and_tests_together():
    """The function and its parameters have new names wherever they are meant, and only there."""
    problem = rename(scaled(), random.Random(0))
    assert problem.entry_point == "scaledSum"
    assert "scaled_sum" not in problem.prompt + problem.fields["check"]
    function = ast.parse(problem.prompt).body[-1]
    first, second = (a.arg for a in function.args.args)
    assert f"`{first}`" in problem.prompt
    assert f"multiply by {second}." in problem.prompt
    assert f"scaledSum([1, 2], {second}=2)" in problem.prompt
    assert f"{second}=2" in problem.fields["check"]
    assert "Add up" in problem.prompt


def test_rename_leaves_english_words_and_quoted_letters_alone():
    """A parameter called like a word of the text does not turn the text into nonsense."""
    stub = 'def pick(a, n, text):\n    """Return a letter \'n\' of n in the text."""\n'
    problem = rename(
        scaled(
            prompt=stub,
            entry_point="pick",
            reference=stub + "    return text[n]\n",
            fields={"stub": stub, "setup": "", "check": "pick"},
        ),
        random.Random(0),
    )
    line = problem.prompt.split("\n")[1]
    name = ast.parse(problem.prompt).body[0].args.args[1].arg
    assert line == f'    """Return a letter \'n\' of {name} in the text."""'


def test_rename_keeps_parameters_that_an_inner_function_binds_again():
    """Where plain substitution could change the meaning, only the function is renamed."""
    body = "    def inner(xs):\n        return xs\n    return by_n * sum(inner(xs=xs))\n"
    problem = rename(scaled(reference=SCALED + body), random.Random(0))
    assert "xs: List[float]" in problem.prompt
    assert "def scaledSum(" in problem.prompt


def test_rename_never_uses_a_name_that_occurs_already():
    """A new name that the problem knows already would capture it."""
    body = "    scaledSum = 1\n    return scaledSum\n"
    assert rename(scaled(reference=SCALED + body), random.Random(0)).entry_point == "scaledSum_2"


def test_reorder_rotates_imports_and_examples():
    """All lines are still there, in another order; what an example prints stays with it."""
    problem = reorder(scaled(), random.Random(0))
    assert sorted(problem.prompt.split("\n")) == sorted(SCALED.split("\n"))
    assert problem.prompt.startswith("from typing import List\nimport math\n")
    assert "scaled_sum([], 3)\n    0\n    >>> scaled_sum([1, 2], by_n=2)\n    6\n" in problem.prompt


def test_reorder_leaves_examples_that_build_on_each_other():
    """An assignment, or a call for its effect, fixes the order."""
    stub = 'def f(x):\n    """\n    >>> a = f(1)\n    >>> a\n    2\n    >>> f(2)\n    3\n    """\n'
    problem = scaled(prompt=stub, entry_point="f", fields={"stub": stub})
    assert reorder(problem, random.Random(0)) is None


def test_reformat_keeps_the_syntax_tree():
    """Only layout differs: without the docstring the two programs are one tree."""
    for seed in range(8):
        problem = reformat(scaled(), random.Random(seed))
        trees = [ast.parse(text) for text in (SCALED, problem.prompt)]
        for tree in trees:
            del tree.body[-1].body[0]
        assert ast.dump(trees[0]) == ast.dump(trees[1])


def test_reformat_keeps_what_the_docstring_says():
    """White space at the margins may change, words and examples may not."""
    for seed in range(8):
        problem = reformat(scaled(), random.Random(seed))
        said = [ast.get_docstring(ast.parse(t).body[-1]).split() for t in (SCALED, problem.prompt)]
        assert said[0] == said[1]


def test_a_question_that_shows_its_tests_has_them_rewritten(tmp_path):
    """MBPP's original questions show assertions: these, and what is run, change alike."""
    path = write_rows(tmp_path / "m.jsonl", MBPP_ORIGINAL_ROWS)
    task = TASKS.get("mbpp")(
        TaskContext(data_path=path, data_sha256="", sandbox=InProcessSandbox())
    )
    for name in REWRITES:
        changed = rewritten(task, name)
        plain = {p.id: p for p in task.problems()}
        for problem in changed.problems():
            assert problem.fields["tests"] != plain[problem.id].fields["tests"]
            assert passes(problem, task)


def test_the_rewritten_task_holds_only_what_was_proven(tmp_path):
    """A problem whose reference fails its tests is no proof, and is left out."""
    broken = {**HUMANEVAL_ROWS[0], "canonical_solution": "    return x - y\n"}
    task = humaneval(tmp_path, [broken, HUMANEVAL_ROWS[1]])
    assert [p.id for p in rewritten(task, "rename").problems()] == ["HumanEval/1"]


def test_the_rewritten_task_pairs_with_the_plain_one(tmp_path):
    """Ids, metric and data are the plain task's; the version tells the wording apart."""
    task = humaneval(tmp_path)
    changed = rewritten(task, "rename", seed=3)
    assert (changed.name, changed.metric, changed.data_sha256, changed.needs) == (
        task.name,
        task.metric,
        task.data_sha256,
        task.needs,
    )
    assert changed.version == f"{task.version}+rewrite.rename.1.3"
    problem = changed.problems()[0]
    request = changed.request(problem, sample=0, seed=0)
    assert request.hints.entry_point == problem.entry_point != "add"
    assert ADD_STUB not in request.messages[0].content


def test_what_cannot_be_rewritten_is_said(tmp_path):
    """An unknown rewrite, or a task with nothing to change, is one sentence."""
    task = humaneval(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'rename'"):
        rewritten(task, "renam")
    with pytest.raises(ConfigError, match="could be rewritten by 'reorder'"):
        rewritten(task, "reorder")
