"""HumanEval, MBPP and repair: questions, trials and export."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.benchmark.answers.export import (
    candidate_of_row,
    evalplus_row,
    human_eval_row,
    to_official_completion,
)
from lichen.benchmark.executed import checking_program
from lichen.benchmark.stored import score_samples
from lichen.benchmark.tasks import TASKS, TaskContext, facts
from lichen.core.errors import ConfigError
from lichen.core.ports import Candidate, Task
from lichen.core.task import Status
from lichen.testing.in_process_sandbox import InProcessSandbox
from lichen.testing.task_data import (
    HUMANEVAL_ROWS,
    MBPP_ORIGINAL_ROWS,
    MBPP_STUB_ROWS,
    REPAIR_ROWS,
    write_rows,
)

ROWS = {"humaneval": HUMANEVAL_ROWS, "mbpp": MBPP_STUB_ROWS, "repair": REPAIR_ROWS}


def task_of(tmp_path: Path, name: str, rows=None, style: str = "", **options: str) -> Task:
    """Make a task from tiny data."""
    path = write_rows(tmp_path / "data.jsonl", rows if rows is not None else ROWS[name])
    context = TaskContext(
        data_path=path,
        data_sha256="",
        sandbox=InProcessSandbox(),
        style=style,
        options=options,
    )
    return TASKS.get(name)(context)


def question(task: Task) -> str:
    """Return the user's message for the first problem."""
    messages = task.request(task.problems()[0], sample=0, seed=0).messages
    assert messages is not None
    return messages[0].content


def test_the_concise_question_is_the_published_one(tmp_path: Path) -> None:
    """The default wording is fixed, since the reference points were measured with it."""
    assert question(task_of(tmp_path, "humaneval")) == (
        "Complete the following Python function. Return the full function in a Python code block."
        "\n\n```python\n" + str(HUMANEVAL_ROWS[0]["prompt"]).rstrip() + "\n```"
    )


def test_styles_change_the_wording_and_the_version_only(tmp_path: Path) -> None:
    """Another style asks the same problems in other words, under its own name."""
    a, b = task_of(tmp_path, "humaneval"), task_of(tmp_path, "humaneval", style="natural")
    assert question(b).startswith("Write this Python function:")
    assert (a.prompt_style, b.prompt_style) == ("concise", "natural")
    assert a.problems() == b.problems()


@pytest.mark.parametrize("name", ["humaneval", "mbpp", "repair"])
def test_people_paste_code_without_a_block(tmp_path: Path, name: str) -> None:
    """A block around the code is what makes larger models answer with a block alone."""
    for style, blocks in (("concise", True), ("natural", False)):
        task = task_of(tmp_path, name, style=style)
        asked = question(task)
        assert ("```" in asked) is blocks
        assert task.problems()[0].prompt.strip() in asked


def test_the_same_sentence_with_a_block(tmp_path: Path) -> None:
    """The style ``fenced`` differs from ``natural`` in the block alone."""
    natural, block = (
        question(task_of(tmp_path, "humaneval", style=s)) for s in ("natural", "fenced")
    )
    assert block.replace("```python\n", "").replace("\n```", "") == natural


def test_an_unknown_style_or_option_suggests_near_ones(tmp_path: Path) -> None:
    """A typing mistake is answered with what was probably meant."""
    with pytest.raises(ConfigError, match="did you mean 'natural'"):
        task_of(tmp_path, "humaneval", style="naturel")
    with pytest.raises(ConfigError, match="did you mean 'split'"):
        task_of(tmp_path, "mbpp", splt="test")
    with pytest.raises(ConfigError, match="did you mean 'validation'"):
        task_of(tmp_path, "mbpp", split="validatoin")
    with pytest.raises(ConfigError, match="has no options"):
        task_of(tmp_path, "repair", split="test")


def test_helpers_of_the_question_run_beside_the_test(tmp_path: Path) -> None:
    """A test may call helpers of the prompt even if the solution does not define them."""
    task = task_of(tmp_path, "humaneval")
    problem = task.problems()[1]
    candidate = Candidate(id="x", problem=problem, code="def mean(xs):\n    return sum(xs) / 2\n")
    assert dict(task.score([candidate]))["x"].solved


@pytest.mark.parametrize("name", ROWS)
def test_the_test_is_called_exactly_once(tmp_path: Path, name: str) -> None:
    """Whether or not the data set's test calls ``check``, the program does, once."""
    sandbox = InProcessSandbox()
    path = write_rows(tmp_path / "data.jsonl", ROWS[name])
    task = TASKS.get(name)(TaskContext(data_path=path, data_sha256="", sandbox=sandbox))
    list(task.score([Candidate(id=p.id, problem=p, code=p.reference) for p in task.problems()]))
    for trial in sandbox.trials:
        calls = [x for x in trial.check.split("\n") if x.startswith("check(")]
        assert calls == [f"check({trial.entry_point})"]


def test_a_broken_test_program_is_still_called() -> None:
    """A test that does not parse gets its call appended and fails in the sandbox."""
    assert checking_program("def check(", "f").endswith("check(f)\n")


def test_both_shapes_of_mbpp_load(tmp_path: Path) -> None:
    """The original rows and mxeval's stubs give the same kind of problems with the same ids."""
    original = task_of(tmp_path, "mbpp", MBPP_ORIGINAL_ROWS)
    stubs = task_of(tmp_path, "mbpp")
    assert [p.id for p in original.problems()] == ["MBPP/11", "MBPP/12"]
    assert [p.id for p in stubs.problems()] == ["MBPP/11"]
    assert [p.entry_point for p in original.problems()] == ["add", "first"]
    assert "assert add(2, 3) == 5" in question(original)
    assert "def add(x, y):" in question(stubs)


@pytest.mark.parametrize(
    ("code", "tests", "entry_point"),
    [
        ("f = lambda x: x", ["assert f(1) == 1"], "f"),
        ("def g(x):\n  return x\ndef f(x):\n  return g(x)", ["assert set(f(1)) == g(1)"], "f"),
        ("print 'python 2'", ["assert sorted(f([1])) == [1]"], "f"),
    ],
)
def test_the_entry_point_of_odd_rows_is_found(
    tmp_path: Path, code: str, tests: list[str], entry_point: str
) -> None:
    """One odd reference does not make the data set unusable: the tests name the function."""
    row = {**MBPP_ORIGINAL_ROWS[0], "code": code, "test_list": tests}
    assert task_of(tmp_path, "mbpp", [row]).problems()[0].entry_point == entry_point


def test_setup_code_may_use_the_reference(tmp_path: Path) -> None:
    """Inputs that the data set's setup builds from the reference's classes are there for tests."""
    row = {
        **MBPP_ORIGINAL_ROWS[1],
        "test_setup_code": "pair = Pair(7, 8)",
        "test_list": ["assert first(pair) == 7"],
    }
    task = task_of(tmp_path, "mbpp", [row])
    problem = task.problems()[0]
    score = dict(task.score([Candidate(id="x", problem=problem, code=problem.reference)]))["x"]
    assert score.solved


def test_mbpp_splits_follow_the_original_numbering(tmp_path: Path) -> None:
    """The test split is 11-510; others are chosen by name."""
    assert [p.id for p in task_of(tmp_path, "mbpp", split="train").problems()] == ["MBPP/601"]
    assert len(task_of(tmp_path, "mbpp", MBPP_ORIGINAL_ROWS, split="all").problems()) == 3


def test_mbpp_says_that_a_self_check_is_an_oracle() -> None:
    """The question shows the tests that decide, and the task's facts say so."""
    known = facts("mbpp")
    assert known is not None
    assert known.self_check_is_oracle


def test_repair_shows_the_bug_and_never_the_answer(tmp_path: Path) -> None:
    """Each style shows the buggy body; only the style ``tests`` shows the tests."""
    for style, shown in (("concise", False), ("natural", False), ("tests", True)):
        asked = question(task_of(tmp_path, "repair", style=style))
        assert "return x - y" in asked
        assert "return x + y" not in asked
        assert ("def check" in asked) is shown


def test_the_buggy_function_does_not_pass(tmp_path: Path) -> None:
    """Answering with the question's own code is a failure."""
    task = task_of(tmp_path, "repair")
    problem = task.problems()[0]
    score = dict(task.score([Candidate(id="x", problem=problem, code=problem.prompt)]))["x"]
    assert score.verdict is not None
    assert score.verdict.status is Status.FAILED


def test_a_completion_redefines_the_function_after_the_prompt(tmp_path: Path) -> None:
    """Prompt + completion + test, as the official scorer runs it, gives the candidate's verdict."""
    task = task_of(tmp_path, "humaneval")
    for problem in task.problems():
        future = "from __future__ import annotations\n" + problem.reference
        for candidate, passes in ((problem.reference, True), (future, True), ("x = 1\n", False)):
            program = (
                problem.prompt
                + to_official_completion(problem, candidate)
                + "\n"
                + checking_program(problem.fields["test"], problem.entry_point)
            )
            try:
                exec(compile(program, "official", "exec"), {})  # noqa: S102 (own text)
            except AssertionError:
                assert not passes
            else:
                assert passes


def test_rows_of_both_scorers_are_read_back(tmp_path: Path) -> None:
    """A solution is taken as it is; a completion follows the prompt."""
    problem = task_of(tmp_path, "humaneval").problems()[0]
    assert candidate_of_row(problem, evalplus_row(problem, problem.reference)) == problem.reference
    program = candidate_of_row(problem, human_eval_row(problem, problem.reference))
    assert program.startswith(problem.prompt)
    assert program.endswith(problem.reference)
    with pytest.raises(ConfigError, match="HumanEval/0"):
        candidate_of_row(problem, {"task_id": "HumanEval/0", "solution": 3})


def test_stored_samples_are_scored_without_extraction(tmp_path: Path) -> None:
    """pass@k, verdict counts and the references' pass rate come from the rows as they stand."""
    task = task_of(tmp_path, "humaneval")
    good, _ = task.problems()
    samples = write_rows(
        tmp_path / "samples.jsonl",
        [
            {"task_id": good.id, "completion": "    return x + y\n"},
            {"task_id": good.id, "solution": "def add(x, y):\n    return 0\n"},
            {"task_id": good.id, "solution": "```python\ndef add(x, y):\n    return x + y\n```"},
            {"task_id": good.id, "completion": ""},
        ],
    )
    judged: list[int] = []
    result = score_samples(task, samples, advance=judged.append)
    assert [s.verdict.passed for s in result.samples] == [True, False, False, False]
    assert [(k, v.value) for k, v in result.pass_at_k] == [(1, 0.25)]
    assert dict(result.verdicts) == {"passed": 1, "failed assertion": 2, "error syntax": 1}
    assert (result.problems, result.unanswered, sum(judged)) == (1, 1, 4)
    assert (result.oracle.passed, result.oracle.problems) == (1, 1)


def test_samples_of_no_problem_are_refused(tmp_path: Path) -> None:
    """A row of another data set is a ConfigError that names its line."""
    task = task_of(tmp_path, "humaneval")
    samples = write_rows(tmp_path / "s.jsonl", [{"task_id": "MBPP/11", "solution": ""}])
    with pytest.raises(ConfigError, match=r"s.jsonl:1: .*MBPP/11"):
        score_samples(task, samples)
    samples.write_text("")
    with pytest.raises(ConfigError, match="no samples"):
        score_samples(task, samples)
