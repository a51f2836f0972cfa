"""``lichen tasks`` from the outside, and the tasks behind the real sandbox and real data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lichen.benchmark.answers.export import evalplus_row, human_eval_row
from lichen.benchmark.run import judge_references
from lichen.benchmark.stored import score_samples
from lichen.benchmark.tasks import TASKS, TaskContext
from lichen.core.errors import SandboxError
from lichen.core.ports import Candidate, Sandbox
from lichen.core.task import Status
from lichen.sandbox import open_sandbox
from lichen.testing.task_data import (
    HUMANEVAL_ROWS,
    MBPP_ORIGINAL_ROWS,
    MBPP_STUB_ROWS,
    REPAIR_ROWS,
    write_rows,
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """The real sandbox, or a skip where nothing can contain programs."""
    try:
        box = open_sandbox(workers=2)
    except SandboxError as exc:
        pytest.skip(str(exc))
    yield box
    box.close()


def lichen(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "lichen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tasks_are_listed_with_what_they_need() -> None:
    """Every task is listed with data set, licence, metric and needs, as a table and as JSON."""
    rows = json.loads(lichen("tasks", "list", "--json").stdout)
    assert {r["task"] for r in rows} == set(TASKS)
    by_name = {r["task"]: r for r in rows}
    assert by_name["humaneval"]["licence"] == "MIT"
    assert by_name["search"]["needs"] == "embed or rank"
    assert by_name["infill"]["data"] == "git repository"
    assert "humaneval" in lichen("tasks", "list").stdout


def test_stored_samples_are_scored_from_the_command_line(tmp_path: Path, sandbox: Sandbox) -> None:
    """pass@k, the verdicts and the references' pass rate are printed; ``--json`` has each row."""
    data = write_rows(tmp_path / "data.jsonl", HUMANEVAL_ROWS)
    samples = write_rows(
        tmp_path / "samples.jsonl",
        [
            {"task_id": "HumanEval/0", "completion": "    return x + y\n"},
            {"task_id": "HumanEval/1", "solution": "def mean(xs):\n    return 0\n"},
        ],
    )
    arguments = ("tasks", "score", str(samples), "--data", str(data), "--workers", "1")
    done = lichen(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [s["verdict"]["status"] for s in result["samples"]] == ["passed", "failed"]
    assert result["pass_at_k"][0][1]["value"] == 0.5
    assert result["oracle"]["passed"] == 2
    text = lichen(*arguments).stdout
    assert "0.500" in text
    assert "2 of 2 pass" in text


def test_wrong_samples_are_one_sentence(tmp_path: Path, sandbox: Sandbox) -> None:
    """A broken file or a task without programs ends with one sentence and its exit code."""
    data = write_rows(tmp_path / "data.jsonl", HUMANEVAL_ROWS)
    samples = write_rows(tmp_path / "samples.jsonl", [{"task_id": "Other/1", "solution": ""}])
    done = lichen("tasks", "score", str(samples), "--data", str(data))
    assert done.returncode == 2
    assert "samples.jsonl:1" in done.stderr
    assert "Traceback" not in done.stderr
    assert lichen("tasks", "score", str(samples), "--task", "infill").returncode == 2


@pytest.mark.parametrize(
    ("name", "rows", "problems"),
    [
        ("humaneval", HUMANEVAL_ROWS, 2),
        ("mbpp", MBPP_STUB_ROWS, 2),
        ("mbpp", [MBPP_ORIGINAL_ROWS[0], MBPP_ORIGINAL_ROWS[2]], 2),
        ("repair", REPAIR_ROWS, 1),
    ],
    ids=["humaneval", "mbpp-stubs", "mbpp-original", "repair"],
)
def test_references_pass_in_the_real_sandbox(
    tmp_path: Path, sandbox: Sandbox, name: str, rows: list[dict[str, object]], problems: int
) -> None:
    """What passes in the in-process fake passes where solution and check run apart."""
    options = {"split": "all"} if name == "mbpp" else {}
    data = write_rows(tmp_path / "data.jsonl", rows)
    context = TaskContext(data_path=data, data_sha256="", sandbox=sandbox, options=options)
    task = TASKS.get(name)(context)
    oracle = judge_references(task, task.problems())
    assert (oracle.problems, oracle.failures) == (problems, ())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data"), [("humaneval", "humaneval"), ("repair", "humanevalpack-python")]
)
def test_published_references_pass(
    sandbox: Sandbox, data_file: Callable[[str], Path], name: str, data: str
) -> None:
    """All 164 references of the published data pass, bare and fenced without their preamble."""
    context = TaskContext(data_path=data_file(data), data_sha256="", sandbox=sandbox)
    task = TASKS.get(name)(context)
    assert len(task.problems()) == 164
    fenced = [
        Candidate(
            id=p.id,
            problem=p,
            code=task.extract(
                p, f"```python\n{p.reference[p.reference.rindex('def ' + p.entry_point) :]}\n```"
            ),
        )
        for p in task.problems()
    ]
    assert judge_references(task, task.problems()).failures == ()
    assert [k for k, s in task.score(fenced) if not s.solved] == []


@pytest.mark.slow
def test_published_references_pass_as_exported_samples(
    tmp_path: Path, sandbox: Sandbox, data_file: Callable[[str], Path]
) -> None:
    """Exported in either scorer's form and read back, every reference still passes."""
    context = TaskContext(data_path=data_file("humaneval"), data_sha256="", sandbox=sandbox)
    task = TASKS.get("humaneval")(context)
    for row in (human_eval_row, evalplus_row):
        samples = write_rows(
            tmp_path / "samples.jsonl", [row(p, p.reference) for p in task.problems()]
        )
        result = score_samples(task, samples)
        assert {s.verdict.status for s in result.samples} == {Status.PASSED}
        assert [(k, v.value) for k, v in result.pass_at_k] == [(1, 1.0)]
