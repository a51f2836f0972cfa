"""What callers and checks may rely on, behind every wall that holds on this machine."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lichen.core.errors import ConfigError, SandboxError
from lichen.core.ports import Execution, Program, Sandbox
from lichen.core.task import Limits, Status, Trial, Verdict
from lichen.sandbox import Pool, open_sandbox, status
from lichen.sandbox import pool as pool_module

LIMITS = Limits(cpu_s=1.0, wall_s=20.0, memory_bytes=256 << 20, processes=16, output_bytes=1 << 16)
HONEST = "def f(x):\n    return x * x\n"


@pytest.fixture(scope="module", params=["bubblewrap", "landlock", "none"])
def box(request: pytest.FixtureRequest) -> Iterator[Pool]:
    try:
        pool = open_sandbox(wall=request.param, unsafe=request.param == "none", workers=2)
    except SandboxError as exc:
        pytest.skip(str(exc))
    with pool:
        yield pool


def trial(
    solution: str, check: str = "assert f(2) == 4", *, name: str = "t", setup: str = ""
) -> Trial:
    return Trial(
        id=name, solution=solution, entry_point="f", check=check, setup=setup, limits=LIMITS
    )


def judge(box: Pool, solution: str, check: str = "assert f(2) == 4", setup: str = "") -> Verdict:
    ((_, verdict),) = box.judge([trial(solution, check, setup=setup)])
    return verdict


def execute(box: Pool, source: str, stdin: str = "", **changed: int) -> Execution:
    limits = Limits(**{"cpu_s": 1.0, "output_bytes": 1 << 16, **changed})
    (done,) = box.run([Program(id="p", source=source, stdin=stdin, limits=limits)])
    return done


def test_pool_is_a_sandbox(box):
    """The pool implements the port."""
    assert isinstance(box, Sandbox)


def test_right_solution_passes_with_its_cost(box):
    """A pass has no kind, one attempt, and the CPU and wall seconds of both processes."""
    verdict = judge(box, HONEST)
    assert verdict.passed
    assert (verdict.kind, verdict.message, verdict.attempts) == ("", "", 1)
    assert verdict.cpu_s is not None
    assert 0 < verdict.cpu_s < 1
    assert verdict.wall_s is not None
    assert verdict.wall_s > 0


@pytest.mark.parametrize(
    ("solution", "status_", "kind"),
    [
        ("def f(x): return 5", Status.FAILED, "assertion"),
        ("def f(x): return None.x", Status.ERROR, "exception"),
        ("1 / 0", Status.ERROR, "exception"),
        ("def f(x) return", Status.ERROR, "syntax"),
        ("def f(x):\n\treturn 1\n        return 2", Status.ERROR, "syntax"),
        ("x = '\0'", Status.ERROR, "syntax"),
        ("x = '\ud800'", Status.ERROR, "syntax"),
        ("(" * 1000, Status.ERROR, "syntax"),
        ("", Status.ERROR, "no-entry"),
        ("def g(x): return 4", Status.ERROR, "no-entry"),
        ("f = 4", Status.ERROR, "no-entry"),
        ("import sys; sys.exit(3)", Status.ERROR, "exit"),
        ("def f(x): raise MemoryError", Status.ERROR, "memory"),
        ("def f(x): __import__('ctypes').string_at(0)", Status.ERROR, "killed"),
    ],
)
def test_each_way_to_fail_has_its_name(box, solution, status_, kind):
    """Status and kind say how a solution failed."""
    verdict = judge(box, solution)
    assert (verdict.status, verdict.kind) == (status_, kind)


def test_check_that_stumbles_over_an_answer_is_a_failure(box):
    """An exception of the check itself means that the answer was not what it must be."""
    verdict = judge(box, "def f(x): return None", "assert f(2) + 1 == 5")
    assert (verdict.status, verdict.kind) == (Status.FAILED, "exception")
    assert "TypeError" in verdict.message


def test_class_can_be_the_entry_point(box):
    """Calling a class gives an object that is opaque, and equal to nothing."""
    source = "class f:\n    def __init__(self, x): self.x = x\n"
    assert judge(box, source, "assert f(2) is not None").passed
    assert judge(box, source, "assert f(2) == f(2)").kind == "assertion"


@pytest.mark.parametrize(
    "value",
    [
        "None", "True", "-(10 ** 400)", "1.5", "float('inf')", "2j", "'\\ud800 é'", "b'\\x00'",
        "bytearray(b'a')", "[1, (2, {3: [4]})]", "{(1, 2): {3}}", "frozenset({1})", "range(1, 9, 2)",
        "__import__('decimal').Decimal('1.10')", "__import__('fractions').Fraction(1, 3)",
        "{1: 2}.keys()", "{1: 2}.items()",
    ],
)  # fmt: skip
def test_plain_values_arrive_unchanged_both_ways(box, value):
    """What goes in and out compares equal to the original, and has its type."""
    check = f"v = {value}\nr = f(v)\nassert r == v and type(r) is type(v), r"
    assert judge(box, "def f(x): return x", check).passed


def test_nan_and_negative_zero_arrive(box):
    """Floats that equality cannot tell keep their bits."""
    check = "import math\na, b = f(0)\nassert math.isnan(a) and math.copysign(1, b) == -1"
    assert judge(box, "def f(x): return float('nan'), -0.0", check).passed


def test_subclasses_arrive_as_their_base(box):
    """Counter, defaultdict, OrderedDict, named tuples and IntEnum equal what they hold."""
    source = """
import collections, enum
P = collections.namedtuple("P", "a b")
class E(enum.IntEnum): one = 1
def f(x):
    d = collections.defaultdict(list); d[1].append(2)
    return collections.Counter("aab"), d, collections.OrderedDict(a=1), P(1, 2), E.one
"""
    check = "assert f(0) == ({'a': 2, 'b': 1}, {1: [2]}, {'a': 1}, (1, 2), 1)"
    assert judge(box, source, check).passed


@pytest.mark.parametrize(
    "made", ["(i for i in [1, 2])", "map(int, '12')", "zip([1], [2])", "filter(None, [1, 2])"]
)
def test_iterators_arrive_as_iterators(box, made):
    """They are unequal to lists as in plain Python, yield their items once, and then are empty."""
    check = f"want = list({made})\nassert f(0) != want\nr = f(0)\nassert list(r) == want\nassert list(r) == []"
    assert judge(box, f"def f(x): return {made}", check).passed


def test_iterators_as_arguments_reach_the_solution_unconsumed(box):
    """A generator beside a list as an argument still yields everything."""
    check = "a = []\nassert f(a, (i for i in [1, 2])) == [1, 2] and a == [1, 2]"
    assert judge(box, "def f(a, g):\n    a.extend(g)\n    return list(a)\n", check).passed


def test_iterator_as_answer_beside_a_changed_argument_is_complete(box):
    """The answer's items arrive even when making them changed an argument."""
    check = "a = [1, 2, 3]\nassert list(f(a)) == [3, 2, 1] and a == []"
    assert judge(box, "def f(a):\n    while a: yield a.pop()\n", check).passed


def test_iterator_that_raises_raises_on_the_other_side(box):
    """Items before the exception arrive, then the exception."""
    source = "def f(x):\n    yield 1\n    raise ValueError('late')\n"
    check = """
items = []
try:
    for item in f(0): items.append(item)
except ValueError as exc:
    items.append(str(exc))
assert items == [1, "late"]
"""
    assert judge(box, source, check).passed


def test_exceptions_arrive_as_the_nearest_builtin(box):
    """A check can expect an exception, with its text; a subclass arrives as its built-in base."""
    source = "class Mine(KeyError): pass\ndef f(x): raise Mine('why')\n"
    check = """
try:
    f(2)
except KeyError as exc:
    assert exc.args == ("why",)
else:
    assert False
"""
    assert judge(box, source, check).passed


def test_arguments_changed_in_place_change_for_the_check(box):
    """Lists, dicts, sets and what they contain keep their identity and get the new content."""
    source = """
def f(a, *, k):
    a[0].append(9); a.append(1); k["new"] = {1}; k["s"].add(2); del k["old"]
"""
    check = """
inner, s = [0], set()
a, k = [inner], {"old": 1, "s": s}
assert f(a, k=k) is None
assert a == [[0, 9], 1] and a[0] is inner and inner == [0, 9]
assert k == {"s": {2}, "new": {1}} and k["s"] is s
"""
    assert judge(box, source, check).passed


def test_arguments_changed_before_an_exception_change_too(box):
    """In-place changes survive an exception, as in one process."""
    check = "a = [1]\ntry:\n    f(a)\nexcept ValueError:\n    pass\nassert a == []"
    assert judge(box, "def f(a):\n    a.clear()\n    raise ValueError\n", check).passed


def test_objects_of_the_checks_classes_reach_the_solutions_class(box):
    """A check may build its arguments from a class that both sides define."""
    both = "class Node:\n    def __init__(self, v, next=None): self.v, self.next = v, next\n"
    source = both + "def f(n): return n.v + (f(n.next) if n.next else 0)\n"
    assert judge(box, source, "assert f(Node(1, Node(2))) == 3", setup=both).passed


def test_functions_as_arguments_are_refused_by_name(box):
    """A function cannot cross; the verdict says so instead of blaming the solution."""
    verdict = judge(box, "def f(g): return g(2)", "assert f(lambda x: x) == 2")
    assert (verdict.status, verdict.kind) == (Status.ERROR, "protocol")
    assert "function" in verdict.message


def test_setup_helpers_serve_the_check_and_the_entry_point_is_the_solutions(box):
    """Setup may define helpers and a reference of the same name; the proxy replaces the latter."""
    setup = "def helper(x): return x + 2\ndef f(x): return -1\n"
    check = "assert f(2) == helper(2)\nassert candidate is f and f.__name__ == 'f'"
    assert judge(box, HONEST, check, setup).passed


def test_hashes_are_the_same_in_every_process(box):
    """The hash seed is fixed, so that sets print in the same order in every run."""
    runs = [execute(box, "print(hash('lichen'))").stdout for _ in range(2)]
    assert runs[0] == runs[1] != ""


def test_each_trial_gets_one_verdict_under_its_id(box):
    """Many trials, more than workers: each id comes once, in any order."""
    trials = [trial(HONEST if n % 3 else "def f(x): return 0", name=f"t{n}") for n in range(20)]
    verdicts = list(box.judge(trials))
    assert sorted(name for name, _ in verdicts) == sorted(t.id for t in trials)
    assert {name for name, v in verdicts if not v.passed} == {f"t{n}" for n in range(0, 20, 3)}


def test_trials_are_pulled_as_workers_become_free(box):
    """The first verdict comes before the last trial was asked for."""
    pulled = 0

    def many() -> Iterator[Trial]:
        nonlocal pulled
        for pulled in range(1, 101):
            yield trial(HONEST, name=str(pulled))

    verdicts = box.judge(many())
    next(verdicts)
    assert pulled <= 4
    verdicts.close()


def test_leaving_early_leaves_a_usable_pool(box):
    """An abandoned iterator ends what runs; the next call starts afresh."""
    verdicts = box.judge([trial(HONEST), trial("def f(x):\n    while True: pass\n", name="loop")])
    assert next(verdicts)[0] == "t"
    verdicts.close()
    assert judge(box, HONEST).passed


def test_second_iterator_of_a_thread_is_refused(box):
    """Two interleaved calls of one thread would wait for each other for ever."""
    first = box.judge([trial(HONEST), trial(HONEST, name="u"), trial(HONEST, name="v")])
    next(first)
    with pytest.raises(SandboxError, match="previous iterator"):
        next(box.judge([trial(HONEST)]))
    first.close()


def test_calls_of_several_threads_take_turns(box):
    """Each thread gets its own verdicts."""
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(judge(box, HONEST).passed)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_killed_cells_are_replaced(box):
    """Cells that die between or during trials cost no verdict."""
    assert judge(box, HONEST).passed
    for child in psutil.Process().children():
        child.kill()
    assert judge(box, HONEST).passed


def test_trial_that_cannot_be_handed_over_is_an_error(box, monkeypatch):
    """A program beyond the bound of a message gets a verdict, too."""
    monkeypatch.setattr("lichen.sandbox.inside.wire._MAX_CONTROL", 1 << 16)
    verdict = judge(box, HONEST + "#" * (1 << 17))
    assert (verdict.status, verdict.kind) == (Status.ERROR, "protocol")
    assert judge(box, HONEST).passed


def test_time_out_counts_only_when_it_repeats_alone(box, monkeypatch):
    """A first time-out is run again after all others, alone; the second result is the verdict."""
    decide, seen = pool_module._judge_verdict, []

    def unlucky(job: object) -> Verdict:
        seen.append((job.id, job.attempt))
        if job.id == "slow" and job.attempt == 1:
            return Verdict(status=Status.TIMEOUT, kind="cpu")
        return decide(job)

    monkeypatch.setattr(pool_module, "_judge_verdict", unlucky)
    names = ["slow", "a", "b", "c"]
    verdicts = list(box.judge([trial(HONEST, name=name) for name in names]))
    assert seen[-1] == ("slow", 2)
    assert verdicts[-1][0] == "slow"
    assert verdicts[-1][1].passed
    assert verdicts[-1][1].attempts == 2


def test_slow_program_gets_its_whole_limit_in_the_second_attempt(box):
    """The first attempt may use a part of the limit only; what needs more passes alone."""
    slow = "import time\ndef f(x):\n    while time.process_time() < 3: pass\n    return 4\n"
    limits = Limits(cpu_s=5.0)
    ((_, verdict),) = box.judge(
        [Trial(id="s", solution=slow, entry_point="f", check="assert f(2) == 4", limits=limits)]
    )
    assert (verdict.passed, verdict.attempts) == (True, 2)


def test_twins_share_the_second_attempt(box, monkeypatch):
    """Identical trials that timed out are run again once, not each."""
    decide, seen = pool_module._judge_verdict, []

    def watched(job: object) -> Verdict:
        seen.append((job.id, job.attempt))
        return decide(job)

    monkeypatch.setattr(pool_module, "_judge_verdict", watched)
    limits = Limits(cpu_s=0.2)
    loop = "def f(x):\n    while True: pass\n"
    trials = [
        Trial(id=name, solution=loop, entry_point="f", check="f(2)", limits=limits)
        for name in ("a", "b")
    ]
    verdicts = dict(box.judge(trials))
    assert {(v.kind, v.attempts) for v in verdicts.values()} == {("cpu", 2)}
    assert [attempt for _, attempt in seen].count(2) == 1


def test_script_output_and_status_are_captured(box):
    """A script that ends with status 0 passes, with what it printed."""
    done = execute(box, "import sys\nprint('out é')\nsys.stderr.write('err')")
    assert (done.verdict.passed, done.stdout, done.stderr) == (True, "out é\n", "err")


def test_script_reads_its_input(box):
    """Standard input is what the program came with."""
    assert execute(box, "print(sum(map(int, open(0))))", stdin="1\n2\n").stdout == "3\n"


def test_script_runs_as_main_with_its_exit_handlers(box):
    """__name__, threads and atexit behave as in an interpreter of its own."""
    source = """
import atexit, threading, time
if __name__ == "__main__":
    atexit.register(print, "third")
    threading.Thread(target=lambda: (time.sleep(0.05), print("second"))).start()
    print("first")
"""
    assert execute(box, source).stdout == "first\nsecond\nthird\n"


@pytest.mark.parametrize(
    ("source", "kind", "text"),
    [
        ("raise SystemExit(3)", "exit", ""),
        ("raise SystemExit('why')", "exit", "why"),
        ("1 / 0", "exit", "ZeroDivisionError"),
        ("def", "exit", "SyntaxError"),
        ("import os; os.kill(os.getpid(), 11); __import__('ctypes').string_at(0)", "killed", ""),
    ],
)
def test_script_that_fails_says_how(box, source, kind, text):
    """A status other than 0 is an error; the traceback is on its standard error."""
    done = execute(box, source)
    assert (done.verdict.status, done.verdict.kind) == (Status.ERROR, kind)
    assert text in done.stderr


def test_script_output_is_bounded(box):
    """Printing without end is ended at the limit, with what came before it."""
    done = execute(box, "while True: print('line')", output_bytes=1000)
    assert (done.verdict.status, done.verdict.kind) == (Status.ERROR, "output")
    assert done.stdout == ("line\n" * 200)


def test_closing_ends_all_processes(box):
    """After close nothing of the pool lives, and using it is an error."""
    with open_sandbox(wall=box.wall, unsafe=True, workers=1) as pool:
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        assert judge(pool, HONEST).passed
        mine = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
        assert mine
    pool.close()
    _gone, alive = psutil.wait_procs(mine, timeout=5)
    assert alive == []
    with pytest.raises(SandboxError, match="closed"):
        judge(pool, HONEST)


def test_dying_parent_takes_its_cells_along(box):
    """A kill -9 of the process that opened the sandbox leaves no process behind."""
    source = f"""
import os, psutil
from lichen.core.task import Trial
from lichen.sandbox import open_sandbox
pool = open_sandbox(wall={box.wall!r}, unsafe=True, workers=1)
list(pool.judge([Trial(id="t", solution={HONEST!r}, entry_point="f", check="")]))
print(*(c.pid for c in psutil.Process().children(recursive=True)), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, check=False
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) >= 2
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _gone, alive = psutil.wait_procs(left, timeout=5)
    assert alive == []


def test_reference_solutions_of_humaneval_pass(box, data_file: Callable[[str], Path]):
    """All 164 canonical solutions pass their checks."""
    path = data_file("humaneval")
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    limits = Limits(cpu_s=10.0)
    trials = [
        Trial(
            id=row["task_id"],
            solution=row["prompt"] + row["canonical_solution"],
            entry_point=row["entry_point"],
            setup=row["prompt"] + row["canonical_solution"],
            check=row["test"] + "\ncheck(candidate)\n",
            limits=limits,
        )
        for row in rows
    ]
    verdicts = dict(box.judge(trials))
    assert len(verdicts) == 164
    assert {name: v for name, v in verdicts.items() if not v.passed} == {}


def test_unsafe_is_never_chosen_silently():
    """Asking for no wall without consent is refused, and an unknown wall is named."""
    with pytest.raises(SandboxError, match="unsafe"):
        open_sandbox(wall="none")
    with pytest.raises(ConfigError, match="moat"):
        open_sandbox(wall="moat")
    with pytest.raises(ConfigError, match="at least one"):
        open_sandbox(workers=0)


def test_refusal_names_what_was_tried_and_consent_is_logged(monkeypatch, caplog):
    """Where no wall holds, the error says why; with consent a warning is logged instead."""
    monkeypatch.setattr("lichen.sandbox._weakness", lambda kind: f"{kind} is broken")
    with pytest.raises(SandboxError, match=r"bubblewrap is broken.*landlock is broken"):
        open_sandbox()
    with open_sandbox(unsafe=True, workers=1) as pool:
        assert not pool.contained
        assert judge(pool, HONEST).passed
    assert "WITHOUT containment" in caplog.text


def test_status_says_of_each_wall_whether_it_holds():
    """One line per wall; what does not hold comes with a reason and a remedy."""
    found = {line.name: line for line in status()}
    assert set(found) == {"bubblewrap", "landlock"}
    assert all(line.reason for line in found.values())
    assert all(line.available or line.remedy for line in found.values())


def test_missing_bubblewrap_is_a_reason(monkeypatch):
    """Without the command, the wall is unavailable for exactly that reason."""
    from lichen.sandbox import _weakness

    monkeypatch.setattr("lichen.sandbox.walls.shutil.which", lambda _name: None)
    assert "bwrap is not installed" in _weakness.__wrapped__("bubblewrap")
