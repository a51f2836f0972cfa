"""What every registered task promises, over tiny data: a new task is tested by its row alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lichen.benchmark.run import judge_references
from lichen.benchmark.tasks import DATA_SETS, TASKS, TaskContext, facts
from lichen.core.errors import ConfigError
from lichen.core.generation import Capability
from lichen.core.ports import AdaptsEngine, Candidate, Task
from lichen.testing.in_process_sandbox import InProcessSandbox
from lichen.testing.task_data import (
    HUMANEVAL_ROWS,
    MBPP_STUB_ROWS,
    REPAIR_ROWS,
    SHOP,
    make_repository,
    write_rows,
)

ROWS = {"humaneval": HUMANEVAL_ROWS, "mbpp": MBPP_STUB_ROWS, "repair": REPAIR_ROWS}
NEEDED = {
    "chat": Capability.CHAT,
    "raw": Capability.RAW,
    "infill": Capability.INFILL,
}
CASES = [
    pytest.param((name, style.name), id=f"{name}-{style.name}")
    for name, known in ((name, facts(name)) for name in TASKS)
    if known is not None
    for style in known.styles
]

Make = Callable[[], Task]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Build the task of a case, each time anew from the same data."""
    name, style = request.param
    if name in ROWS:
        data = write_rows(tmp_path / "data.jsonl", ROWS[name])
    else:
        data = make_repository(tmp_path / "repository", {"shop.py": SHOP})

    def build() -> Task:
        context = TaskContext(
            data_path=data, data_sha256="", sandbox=InProcessSandbox(), style=style
        )
        return TASKS.get(name)(context)

    return build


def each_case(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test for every task and style."""
    marked: Callable[..., None] = pytest.mark.parametrize("make", CASES, indirect=True)(test)
    return marked


def test_every_task_states_its_facts() -> None:
    """The list of tasks can be printed without data: metric, needs and styles are stated."""
    for name in TASKS:
        known = facts(name)
        assert known is not None
        assert known.styles
        assert known.metric
        assert known.needs


def test_data_sets_belong_to_tasks() -> None:
    """A data set is never listed for a task that does not exist."""
    assert set(DATA_SETS) <= set(TASKS)


@each_case
def test_a_task_is_what_the_port_says(make: Make) -> None:
    """Name, version, metric, style and hash are there, and the name is the registered one."""
    task = make()
    assert isinstance(task, Task)
    assert task.name in TASKS
    assert task.version
    assert len(task.data_sha256) == 64
    known = facts(task.name)
    assert known is not None
    assert task.metric == known.metric
    assert task.prompt_style in [s.name for s in known.styles]


@each_case
def test_problems_are_deterministic_and_unique(make: Make) -> None:
    """Built twice from the same data, a task has the same problems; ids are unique."""
    a, b = make(), make()
    assert a.problems() == b.problems()
    assert a.data_sha256 == b.data_sha256
    ids = [p.id for p in a.problems()]
    assert ids
    assert len(set(ids)) == len(ids)


@each_case
def test_requests_match_what_the_task_needs(make: Make) -> None:
    """The capabilities a task needs cover the requests it makes; ids tell samples apart."""
    task = make()
    for problem in task.problems():
        a = task.request(problem, sample=0, seed=1)
        b = task.request(problem, sample=1, seed=2)
        assert NEEDED[a.kind] in task.needs
        assert (a.seed, b.seed) == (1, 2)
        assert a.id != b.id


@each_case
def test_requests_never_hold_the_reference(make: Make) -> None:
    """The answer is not in the question."""
    task = make()
    for problem in task.problems():
        r = task.request(problem, sample=0, seed=0)
        asked = [m.content for m in r.messages or ()] + [r.prompt, r.prefix, r.suffix]
        answer = problem.reference.removeprefix(problem.fields.get("stub", ""))
        assert answer
        assert not any(answer.strip() in text for text in asked if text)


@each_case
def test_references_pass(make: Make) -> None:
    """The oracle, run first by every benchmark, solves the tiny data completely."""
    task = make()
    oracle = judge_references(task, task.problems())
    assert oracle.problems == len(task.problems())
    assert oracle.failures == ()


@each_case
def test_references_survive_extraction(make: Make) -> None:
    """A reference given as an answer, bare or fenced where answers are chats, still passes."""
    task = make()
    for problem in task.problems():
        texts = [problem.reference]
        if Capability.CHAT in task.needs:
            texts.append(f"Sure:\n\n```\n{problem.reference}\n```\nDone.")
        for i, text in enumerate(texts):
            code = task.extract(problem, text)
            candidate = Candidate(id=str(i), problem=problem, code=code)
            assert dict(task.score([candidate]))[str(i)].solved


@each_case
def test_empty_answers_fail(make: Make) -> None:
    """Saying nothing solves nothing, and is scored under the task's metric."""
    task = make()
    empty = [
        Candidate(id=p.id, problem=p, code=task.extract(p, text))
        for p, text in zip(task.problems(), ["", "\n", " "] * 100, strict=False)
    ]
    scores = dict(task.score(empty))
    assert set(scores) == {c.id for c in empty}
    assert not any(s.solved for s in scores.values())
    assert {s.metric for s in scores.values()} == {task.metric}


@each_case
def test_extraction_is_idempotent(make: Make) -> None:
    """A candidate read as an answer is itself."""
    task = make()
    for problem in task.problems():
        for text in (problem.reference, f"```python\n{problem.reference}\n```", "prose", ""):
            once = task.extract(problem, text)
            assert task.extract(problem, once) == once


@each_case
def test_unknown_styles_and_options_are_refused(make: Make, tmp_path: Path) -> None:
    """A misspelt setting never silently means the default."""
    name = make().name
    data = next(tmp_path.iterdir())
    for settings in ({"style": "no-such-style"}, {"options": {"no-such-option": "1"}}):
        context = TaskContext(
            data_path=data, data_sha256="", sandbox=InProcessSandbox(), **settings
        )
        with pytest.raises(ConfigError):
            TASKS.get(name)(context)


@each_case
def test_a_task_that_adapts_engines_says_what_it_takes(make: Make) -> None:
    """Only a task that wraps its engine may name alternative capabilities."""
    task = make()
    known = facts(task.name)
    assert known is not None
    assert isinstance(task, AdaptsEngine) is bool(known.either)
