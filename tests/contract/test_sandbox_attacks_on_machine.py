"""Solutions that try to break out, use up or outlive: each ends in a verdict, the pool goes on."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lichen.core.errors import SandboxError
from lichen.core.task import Limits, Status, Trial, Verdict
from lichen.sandbox import Pool, open_sandbox

LIMITS = Limits(cpu_s=0.4, wall_s=2.0, memory_bytes=256 << 20, processes=8, file_bytes=1 << 20)
# Filling memory costs CPU too, on a busy host more than 0.4 s: here only memory may decide.
MEMORY_FIRST = replace(LIMITS, cpu_s=20.0, wall_s=40.0)


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def box(request: pytest.FixtureRequest) -> Iterator[Pool]:
    try:
        pool = open_sandbox(wall=request.param, workers=1)
    except SandboxError as exc:
        pytest.skip(str(exc))
    with pool:
        yield pool


def attack(
    box: Pool, solution: str, check: str = "assert f(2) == 4", limits: Limits = LIMITS
) -> Verdict:
    """Judge an attack, then an honest trial on the same worker, which must still pass."""
    honest = "def f(x):\n    return x * x\n"
    verdicts = dict(
        box.judge(
            Trial(id=name, solution=source, entry_point="f", check=held, limits=given)
            for name, source, held, given in (
                ("attack", solution, check, limits),
                ("honest", honest, "assert f(2) == 4", LIMITS),
            )
        )
    )
    assert verdicts["honest"].passed, verdicts["honest"]
    return verdicts["attack"]


def succeeds_inside(box: Pool, body: str) -> bool:
    """Whether ``body`` (which should raise) runs through inside a solution."""
    lines = "\n        ".join(body.strip().splitlines())
    source = f"""
import os, socket, ctypes
def f(x):
    try:
        {lines}
    except BaseException:
        return "refused"
    return "succeeded"
"""
    verdict = attack(box, source, "assert f(2) == 'refused'")
    assert verdict.passed or verdict.kind == "assertion", verdict
    return not verdict.passed


def helpers() -> int:
    """Count the living processes below this one."""
    return sum(
        child.status() != psutil.STATUS_ZOMBIE
        for child in psutil.Process().children(recursive=True)
    )


# --- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "return 10 ** 10 ** 10",
        "return sum(1 for _ in __import__('itertools').product(range(99), repeat=9))",
        "return __import__('re').match('(a+)+$', 'a' * 64 + 'b')",
    ],
)
def test_endless_computation_times_out_by_cpu(box, body):
    """Loops in Python and in C end by CPU-seconds, after a second attempt alone."""
    verdict = attack(box, f"def f(x):\n    {body}\n")
    assert (verdict.status, verdict.kind, verdict.attempts) == (Status.TIMEOUT, "cpu", 2)


def test_endless_import_times_out_by_cpu(box):
    """A loop at import time counts like one in the call."""
    assert attack(box, "while True: pass\ndef f(x): return 4\n").kind == "cpu"


def test_sleeping_times_out_by_wall(box):
    """Waiting uses no CPU; the wall-clock backstop ends it."""
    verdict = attack(box, "import time\ndef f(x): time.sleep(1e6)\n")
    assert (verdict.status, verdict.kind, verdict.attempts) == (Status.TIMEOUT, "wall", 2)


def test_ignored_signals_do_not_extend_the_limit(box):
    """Ignoring every signal, SIGXCPU and SIGTERM included, does not help."""
    source = """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
def f(x):
    while True: pass
"""
    assert attack(box, source).kind == "cpu"


def test_forks_do_not_multiply_cpu_seconds(box):
    """Children whose parent ignores their end share the one limit of their group."""
    source = """
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def f(x):
    for _ in range(4):
        if os.fork() == 0:
            while True: pass
    while True: pass
"""
    verdict = attack(box, source)
    assert verdict.kind == "cpu"
    assert verdict.cpu_s is not None
    assert verdict.cpu_s < 4 * LIMITS.cpu_s


# --- memory, processes, files, output ---------------------------------------------------------


def test_memory_bomb_is_an_error(box):
    """Allocating without end is an error of kind memory."""
    source = "def f(x):\n    v = []\n    while True: v.append(bytearray(1 << 20))\n"
    verdict = attack(box, source, limits=MEMORY_FIRST)
    assert (verdict.status, verdict.kind) == (Status.ERROR, "memory")


def test_memory_of_all_processes_counts_together(box):
    """Many processes that stay below the limit each are ended for their sum."""
    source = """
import os, time
def f(x):
    for _ in range(5):
        if os.fork() == 0: break
    v = bytearray(os.urandom(1 << 20) * 100)
    time.sleep(60)
"""
    verdict = attack(box, source, limits=MEMORY_FIRST)
    assert (verdict.status, verdict.kind) == (Status.ERROR, "memory")


@pytest.mark.parametrize("name", ["memfd_create", "shmget"])
def test_memory_that_no_limit_counts_is_refused(box, name):
    """Anonymous files and System V segments, which limits do not see, cannot be made."""
    call = {"memfd_create": "os.memfd_create('m')", "shmget": "assert libc.shmget(0, 1, 950) >= 0"}
    assert not succeeds_inside(box, f"libc = ctypes.CDLL(None)\n{call[name]}")


def test_fork_bomb_ends_in_a_verdict(box):
    """A fork bomb is stopped by the process limit and leaves nothing behind."""
    before = helpers()
    source = "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass\n"
    assert not attack(box, source).passed
    assert helpers() <= before


def test_thread_bomb_ends_in_a_verdict(box):
    """Threads count like processes."""
    source = """
import threading, time
def f(x):
    for _ in range(100):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return 4
"""
    verdict = attack(box, source)
    assert verdict.status is Status.ERROR


def test_filling_the_disk_ends_in_a_verdict(box):
    """Files end at the size limit, and all files together at the private file system's size."""
    source = """
def f(x):
    written = 0
    for n in range(100):
        try:
            with open(f"fill{n}", "wb") as file:
                for _ in range(64):
                    written += file.write(b"x" * (1 << 16))
        except OSError:
            pass
    return written
"""
    check = f"assert 0 < f(2) <= {4 * LIMITS.file_bytes}"
    assert attack(box, source, check).passed


def test_a_billion_lines_do_not_fill_memory(box):
    """Output that nobody asked for is discarded; only its CPU-seconds count."""
    source = "def f(x):\n    for _ in range(10 ** 9): print('line')\n"
    assert attack(box, source).kind == "cpu"


def test_printing_does_not_change_a_right_answer(box):
    """A solution that prints and is right passes."""
    source = "import sys\ndef f(x):\n    print('x' * 100000)\n    sys.stderr.write('y')\n    return x * x\n"
    assert attack(box, source).passed


def test_huge_recursion_ends_in_a_verdict(box):
    """Overflowing the C stack kills the solution only."""
    source = """
import sys
sys.setrecursionlimit(10 ** 9)
class A:
    def __getattr__(self, name): return getattr(self, name + "a")
def f(x): return f(x) + 1 if x else A().b
"""
    assert attack(box, source).status in (Status.ERROR, Status.TIMEOUT)


# --- other processes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "os.kill(-1, 9)",
        "os.killpg(0, 9)",
        "os.kill(os.getppid(), 9)",
        "[os.kill(pid, 9) for pid in range(2, 400)]",
    ],
)
def test_killing_reaches_nobody_else(box, call):
    """Signals reach the trial's own processes at most."""
    source = f"import os\ndef f(x):\n    try: {call}\n    except OSError: pass\n    return 5\n"
    assert not attack(box, source).passed


def test_daemons_do_not_outlive_their_trial(box):
    """A double-forked process in a session of its own is gone when the verdict is."""
    before = helpers()
    source = """
import os, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True: time.sleep(0.01)
        os._exit(0)
    return x * x
"""
    assert attack(box, source).passed
    assert helpers() <= before


def test_files_do_not_outlive_their_trial(box):
    """Neither entries, modes nor attributes of the working directory reach the next trial."""
    source = """
import os
os.chmod(".", 0o700)
open("left", "w").close()
os.mkdir("deep")
def f(x): return x * x
"""
    assert attack(box, source).passed
    look = "import os\ndef f(x): return os.listdir('.'), oct(os.stat('.').st_mode), os.getcwd()\n"
    assert attack(box, look, "assert f(2) == ([], '0o40755', '/tmp')").passed


def test_state_of_the_interpreter_does_not_outlive_its_trial(box):
    """Modules, environment, working directory and recursion limit start afresh."""
    source = """
import os, sys
sys.modules["left"] = os.environ["LEFT"] = "behind"
os.chdir("/")
sys.setrecursionlimit(5000)
def f(x): return x * x
"""
    assert attack(box, source).passed
    look = """
import os, sys
def f(x): return "left" in sys.modules, "LEFT" in os.environ, os.getcwd(), sys.getrecursionlimit()
"""
    assert attack(box, look, "assert f(2) == (False, False, '/tmp', 1000)").passed


def test_closing_every_descriptor_ends_in_a_verdict(box):
    """A solution that cuts its own line is an error, at once."""
    source = "import os\ndef f(x):\n    os.closerange(0, 1 << 16)\n    while True: pass\n"
    verdict = attack(box, source)
    assert verdict.status is Status.ERROR


def test_no_other_process_can_be_seen(box):
    """The solution is alone in its world: it is process 1 and its parent does not exist."""
    source = "import os\ndef f(x): return os.getpid(), os.getppid(), os.path.exists('/proc/1')\n"
    assert attack(box, source, "assert f(2) == (1, 0, False)").passed


# --- the rest of the machine ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/passwd", "/proc/self/environ"])
def test_system_files_cannot_be_read(box, path):
    """What is not part of the interpreter is not there."""
    assert not succeeds_inside(box, f"open({path!r}).read()")


def test_the_users_files_cannot_be_read(box, tmp_path):
    """A file of the user who runs the sandbox is not there, by its path or by listing."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert not succeeds_inside(box, f"open({str(secret)!r}).read()")
    assert not succeeds_inside(box, f"assert os.listdir({str(Path.home())!r})")


@pytest.mark.parametrize(
    "path", ["/", "/usr/lib", "/dev", "/lichen", str(Path(os.__file__).parent)]
)
def test_the_system_cannot_be_written(box, path):
    """Only the trial's own directory takes files."""
    assert not succeeds_inside(box, f"open({path!r} + '/planted.py', 'w')")


def test_file_modes_cannot_be_changed(box):
    """Modes of what the user owns cannot be changed either."""
    assert not succeeds_inside(box, f"os.chmod({os.__file__!r}, 0o777)")


def test_loopback_services_cannot_be_reached(box):
    """A service on the machine's loopback interface is out of reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        body = f"socket.create_connection(('127.0.0.1', {port}), timeout=1)"
        assert not succeeds_inside(box, body)


def test_the_network_cannot_be_reached(box):
    """No route leads out, for TCP or UDP."""
    body = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))"
    assert not succeeds_inside(box, body)


def test_abstract_sockets_cannot_be_reached(box):
    """Abstract Unix sockets, which no file protects, are out of reach."""
    name = f"\0lichen-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        assert not succeeds_inside(box, f"socket.socket(socket.AF_UNIX).connect({name!r})")


@pytest.mark.parametrize(
    "call",
    [
        "assert libc.unshare(0x10000000) == 0",
        "assert libc.ptrace(0, 0, 0, 0) == 0",
        "assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
        "assert libc.setuid(0) == 0 and os.geteuid() == 0",
        "assert libc.syscall(425, 1, None) >= 0",
    ],
)
def test_doors_of_the_kernel_are_shut(box, call):
    """New namespaces, tracing, mounting, becoming root and io_uring are refused."""
    assert not succeeds_inside(box, f"libc = ctypes.CDLL(None)\n{call}")


def test_standard_input_is_empty(box):
    """Reading standard input ends at once instead of waiting for a person."""
    source = "import sys\ndef f(x): return sys.stdin.read()\n"
    assert attack(box, source, "assert f(2) == ''").passed
