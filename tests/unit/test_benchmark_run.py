"""Running a benchmark: schedule, blocks, resumption, failures as data."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lichen.benchmark.plan import Plan, attempt_seed, schedule, select
from lichen.benchmark.run import Generation, Solution, run
from lichen.benchmark.tasks import TASKS, TaskContext
from lichen.core.errors import CapabilityError, ConfigError, StoreError
from lichen.core.generation import Capability, Completion, Delta, Finish, Request
from lichen.core.measurement import Reading
from lichen.core.ports import Sandbox, Task
from lichen.core.record import BlockRecord, RunRecord, RunState, SampleRecord, SolutionRecord
from lichen.core.task import Problem
from lichen.meter import open_meter
from lichen.store import Store, open_store
from lichen.testing.engine import ScriptedEngine
from lichen.testing.in_process_sandbox import InProcessSandbox
from lichen.testing.records import fake_run


def rows(count: int) -> list[dict[str, str]]:
    return [
        {
            "task_id": f"Toy/{i}",
            "prompt": f'def f{i}(x):\n    """Add {i}.\n\n    >>> f{i}(1)\n    {i + 1}\n    """\n',
            "entry_point": f"f{i}",
            "canonical_solution": f"    return x + {i}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {i + 1}\n",
        }
        for i in range(count)
    ]


def toy_task(folder: Path, count: int, sandbox: Sandbox | None = None) -> Task:
    """A HumanEval-shaped task of ``count`` problems."""
    path = folder / "toy.jsonl.gz"
    data = "".join(json.dumps(r) + "\n" for r in rows(count)).encode()
    path.write_bytes(gzip.compress(data, mtime=0))
    context = TaskContext(
        data_path=path,
        data_sha256=hashlib.sha256(data).hexdigest(),
        sandbox=sandbox or InProcessSandbox(),
    )
    return TASKS.get("humaneval")(context)


def answer(request: Request) -> str:
    """Solve the problems with an even number, get the others wrong."""
    number = int(request.id.split("/")[1].split("#")[0]) if "/" in request.id else 0
    body = f"x + {number}" if number % 2 == 0 else "None"
    return f"Sure:\n```python\ndef f{number}(x):\n    return {body}\n```\n"


def solution(name: str, script: Callable[[Request], str] = answer) -> Solution:
    record = SolutionRecord(name=name, model=None, engine="scripted", settings=())
    return Solution(record=record, open=lambda: ScriptedEngine(script, slots=3))


def head_for(task: Task, solutions: Sequence[Solution], samples: int = 1) -> RunRecord:
    return replace(
        fake_run(problems=2).run,
        id="r1",
        task=task.name,
        problem_ids=tuple(p.id for p in task.problems()),
        samples_per_problem=samples,
        solutions=tuple(s.record for s in solutions),
        state=RunState.RUNNING,
        oracle=None,
        idle=None,
    )


def essence(sample: SampleRecord) -> tuple[object, ...]:
    """Everything of a sample that must not depend on when or how often a run was interrupted."""
    return (
        *sample.key,
        sample.block,
        sample.seed,
        sample.prompt_sha256,
        sample.text,
        sample.candidate,
        sample.finish,
        sample.usage,
        sample.score.value,
        sample.score.verdict and sample.score.verdict.status,
    )


def do(
    folder: Path,
    store: Store,
    names: Sequence[str] = ("a", "b"),
    *,
    plan: Plan | None = None,
    resume: bool = False,
) -> list[SampleRecord]:
    task = toy_task(folder, 7)
    solutions = [solution(n) for n in names]
    plan = plan or Plan(samples=2, block_size=4, idle_s=0)
    with open_meter() as meter:
        run(
            head_for(task, solutions, plan.samples),
            solutions,
            task,
            plan=plan,
            meter=meter,
            sink=store,
            resume=resume,
        )
    return store.samples("r1")


@pytest.fixture
def store() -> Store:
    return open_store("sqlite://")


def test_every_attempt_is_judged_measured_and_stored(tmp_path: Path, store: Store) -> None:
    """Each solution, problem and sample gives one record with verdict, tokens and CPU time."""
    samples = do(tmp_path, store)
    assert len({s.key for s in samples}) == len(samples) == 2 * 7 * 2
    assert sum(s.score.solved for s in samples) == 2 * 4 * 2
    assert all(isinstance(s.generation.cpu_s, Reading) for s in samples)
    assert all(s.usage.completion > 0 for s in samples)
    final = store.run("r1")
    assert final.state is RunState.FINISHED
    assert final.oracle is not None
    assert (final.oracle.passed, final.oracle.problems) == (7, 7)
    assert all(s.load is not None for s in final.solutions)


def test_shares_of_a_block_sum_to_its_window(tmp_path: Path, store: Store) -> None:
    """What is allocated to samples is exactly what the block measured."""
    samples = do(tmp_path, store)
    for block in store.blocks("r1"):
        mine = [s for s in samples if s.block == block.index]
        cpu = [s.generation.cpu_s for s in mine]
        assert isinstance(block.generation.cpu_s, Reading)
        allocated = sum(c.value.value for c in cpu if isinstance(c, Reading))
        assert allocated == pytest.approx(block.generation.cpu_s.value.value)


MIB = 2**20


class Heavy(ScriptedEngine):
    """An engine that holds memory from its loading on, and takes more for its first answers."""

    def __init__(self, mib: int, later: int = 0) -> None:
        super().__init__(lambda _: "no code")
        self.held = [b"\1" * (mib * MIB)]
        self.later = later

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Answer."""
        if self.later:
            self.held.append(b"\1" * (self.later * MIB))
            self.later = 0
        yield from super().generate(requests)


@pytest.mark.parametrize("order", [("small", "large"), ("large", "small")])
def test_a_small_solution_beside_a_large_one(
    tmp_path: Path, store: Store, order: tuple[str, str]
) -> None:
    """A run of two shows the memory that each of them has alone, whoever was loaded first."""
    sizes = {"small": (40, 0), "large": (200, 100)}
    solutions = [
        Solution(
            record=SolutionRecord(name=n, model=None, engine="scripted", settings=()),
            open=partial(Heavy, *sizes[n]),
        )
        for n in order
    ]
    task = toy_task(tmp_path, 6)
    with open_meter() as meter:
        with meter.window() as window:
            before = window.close().peak_memory_bytes
        run(
            head_for(task, solutions),
            solutions,
            task,
            plan=Plan(block_size=2, idle_s=0),
            meter=meter,
            sink=store,
        )
    assert isinstance(before, Reading)
    for block in store.blocks("r1"):
        peak = block.generation.peak_memory_bytes
        assert isinstance(peak, Reading)
        own = (peak.value.value - before.value.value) / MIB
        expected = {"small": 40, "large": 300}[block.solution]
        assert expected - 15 < own < expected + 25, block.solution


class Killed(BaseException):
    """Stands for the end of the process."""


class FragileStore:
    """A store that dies before its n-th block."""

    def __init__(self, store: Store, lives: int) -> None:
        self._store, self._lives = store, lives

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def add_block(self, block: BlockRecord, samples: Sequence[SampleRecord]) -> None:
        if self._lives == 0:
            raise Killed
        self._lives -= 1
        self._store.add_block(block, samples)


@pytest.mark.parametrize("deaths", [[0], [3], [1, 1, 2], [2, 0, 0, 5]])
def test_interrupted_runs_resume_to_identical_records(
    tmp_path: Path, store: Store, deaths: list[int]
) -> None:
    """Dying before any block, any number of times, changes no record and doubles none."""
    whole = do(tmp_path, open_store("sqlite://"))
    for turn, lives in enumerate(deaths):
        with pytest.raises(Killed):
            do(tmp_path, FragileStore(store, lives), resume=turn > 0)  # type: ignore[arg-type]
    resumed = do(tmp_path, store, resume=True)
    assert [essence(s) for s in resumed] == [essence(s) for s in whole]


_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_benchmark_run import do
from lichen.store import open_store
store = open_store(sys.argv[3])
known = bool(store.runs())
samples = do(Path(sys.argv[2]), store, resume=known)
print("done", len(samples))
"""


@pytest.mark.slow
def test_kill_9_at_random_points_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """A process killed at random moments, started again each time, ends with the same records."""
    whole = do(tmp_path, open_store("sqlite://"))
    url = f"sqlite:///{tmp_path}/killed.sqlite"
    command = [sys.executable, "-c", _PROCESS, str(Path(__file__).parent), str(tmp_path), url]
    rng = random.Random(7)
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            process.communicate(timeout=rng.uniform(0.9, 2.2))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    last = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert last.returncode == 0, last.stderr
    store = open_store(url)
    assert [essence(s) for s in store.samples("r1")] == [essence(s) for s in whole]
    store.close()


def test_a_failed_request_is_a_sample_not_an_end(tmp_path: Path, store: Store) -> None:
    """When the engine fails one request, that sample says so and the others go on."""

    def moody(request: Request) -> object:
        from lichen.testing.engine import Line

        return Line(error="out of luck") if request.id == "Toy/2#0" else answer(request)

    task = toy_task(tmp_path, 4)
    mine = [solution("moody", moody)]  # type: ignore[arg-type]
    with open_meter() as meter:
        run(head_for(task, mine), mine, task, plan=Plan(idle_s=0), meter=meter, sink=store)
    by_id = {s.problem_id: s for s in store.samples("r1")}
    failed = by_id["Toy/2"]
    assert failed.finish is Finish.ERROR
    assert "out of luck" in failed.error
    assert failed.score.verdict is not None
    assert failed.score.verdict.kind == "engine"
    assert by_id["Toy/0"].score.solved


def test_an_engine_without_the_capability_is_refused_by_name(tmp_path: Path, store: Store) -> None:
    """A solution that cannot do what the task needs ends the run before anything is stored."""
    record = SolutionRecord(name="mute", model=None, engine="scripted", settings=())
    mute = Solution(record=record, open=lambda: ScriptedEngine(answer, capabilities=frozenset()))
    task = toy_task(tmp_path, 2)
    with open_meter() as meter, pytest.raises(CapabilityError, match="chat"):
        run(head_for(task, [mute]), [mute], task, plan=Plan(idle_s=0), meter=meter, sink=store)
    assert store.runs() == []


def test_two_solutions_cannot_share_a_name(tmp_path: Path, store: Store) -> None:
    """Names identify records, so they must differ."""
    with pytest.raises(ConfigError, match="different names"):
        do(tmp_path, store, ("same", "same"))


def test_a_known_id_cannot_start_anew(tmp_path: Path, store: Store) -> None:
    """Without ``resume`` an id that the store knows is refused, not overwritten."""
    do(tmp_path, store)
    with pytest.raises(StoreError, match="already"):
        do(tmp_path, store)


def test_data_that_changed_since_is_noticed(tmp_path: Path, store: Store) -> None:
    """A run whose problem is gone from the data says so."""
    task = toy_task(tmp_path, 2)
    mine = [solution("a")]
    head = replace(head_for(task, mine), problem_ids=("Toy/0", "Toy/99"))
    with open_meter() as meter, pytest.raises(ConfigError, match="Toy/99"):
        run(head, mine, task, plan=Plan(idle_s=0), meter=meter, sink=store)


def problems(count: int) -> list[Problem]:
    return [Problem(id=str(i), prompt="p") for i in range(count)]


def test_the_schedule_pairs_solutions_in_shuffled_turns() -> None:
    """Every group is answered by every solution, next to each other, in an order that varies."""
    blocks = schedule(Plan(samples=2, block_size=4), problems(20), ["a", "b"])
    assert [b.index for b in blocks] == list(range(20))
    orders = set()
    for first, second in zip(blocks[::2], blocks[1::2], strict=True):
        assert first.attempts == second.attempts
        orders.add((first.solution, second.solution))
    assert orders == {("a", "b"), ("b", "a")}
    attempts = [a.id for b in blocks if b.solution == "a" for a in b.attempts]
    assert sorted(attempts) == sorted(f"{i}#{s}" for i in range(20) for s in range(2))


def test_groups_are_balanced() -> None:
    """20 attempts in blocks of at most 16 are 10 and 10, not 16 and 4."""
    sizes = [len(b.attempts) for b in schedule(Plan(block_size=16), problems(20), ["a"])]
    assert sizes == [10, 10]


def test_seeds_depend_on_problem_and_sample_only() -> None:
    """An attempt's seed is the same in any order, and differs between samples and problems."""
    assert attempt_seed(0, "p", 0) == attempt_seed(0, "p", 0)
    assert len({attempt_seed(s, p, n) for s in (0, 1) for p in "pq" for n in (0, 1)}) == 8


def test_selection_spreads_halves_and_names() -> None:
    """A limit spreads evenly; halves split by position; ids are taken as given, unknown refused."""
    ps = problems(10)
    assert [p.id for p in select(ps, limit=5, half="all", ids=[])] == ["0", "2", "4", "6", "8"]
    even, odd = (select(ps, limit=None, half=h, ids=[]) for h in ("even", "odd"))
    assert {p.id for p in even} | {p.id for p in odd} == {p.id for p in ps}
    assert not {p.id for p in even} & {p.id for p in odd}
    assert [p.id for p in select(ps, limit=None, half="all", ids=["3", "1"])] == ["3", "1"]
    for broken in ({"ids": ["x"]}, {"half": "left"}, {"limit": 0}):
        with pytest.raises(ConfigError):
            select(ps, **({"limit": None, "half": "all", "ids": []} | broken))  # type: ignore[arg-type]


def test_plans_and_settings_are_checked() -> None:
    """A plan with impossible numbers is refused; defaults are greedy."""
    for broken in ({"samples": 0}, {"block_size": 0}, {"seed": -1}, {"idle_s": -1.0}):
        with pytest.raises(ConfigError, match="plan"):
            Plan(**broken)  # type: ignore[arg-type]
    assert Generation().temperature == 0
    assert Capability.CHAT in ScriptedEngine(answer).capabilities
