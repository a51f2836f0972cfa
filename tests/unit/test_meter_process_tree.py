from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from lichen.meter.process_tree import (
    ProcessTimes,
    ProcessTree,
    ProcReader,
    PsutilReader,
    TreeReader,
    lost_between,
)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
BURN = "import time\nwhile time.process_time() < {s}: pass\n"


def proc(
    pid: int, own: float, reaped: float = 0.0, *, parent: int = 1, started: float = 1.0
) -> ProcessTimes:
    return ProcessTimes(pid, started, parent, 0, own, reaped, 0)


def tree(*processes: ProcessTimes) -> dict[int, ProcessTimes]:
    return {p.pid: p for p in processes}


def burnt(program: str, *, during: ProcessTree) -> float:
    """Run a Python program to its end; return what the tree saw it use."""
    before = during.read().cpu_s
    mine = os.times().user + os.times().system
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
    mine = os.times().user + os.times().system - mine
    return during.read().cpu_s - before - mine


def test_a_reaped_child_is_lost_to_nobody() -> None:
    """What a child used and its parent was credited with is not counted as lost."""
    before = tree(proc(10, 1.0), proc(11, 2.0, parent=10))
    assert lost_between(before, tree(proc(10, 1.0, 2.5)), 0.02) == 0.0


def test_a_child_that_nobody_waited_for_is_remembered() -> None:
    """A vanished child whose time no ancestor was credited with stays in the sum."""
    before = tree(proc(10, 1.0), proc(11, 2.0, 0.5, parent=10))
    assert lost_between(before, tree(proc(10, 9.0)), 0.02) == 2.5


def test_credit_of_another_family_does_not_hide_a_loss() -> None:
    """A sibling that waited for its own children pays no debt of a process elsewhere."""
    before = tree(
        proc(10, 0), proc(11, 0, parent=10), proc(12, 0, parent=10), proc(13, 3, parent=11)
    )
    after = tree(proc(10, 0), proc(11, 0, parent=10), proc(12, 0, 8.0, parent=10))
    assert lost_between(before, after, 0.02) == 3.0


def test_an_orphan_adopted_further_up_is_not_doubled() -> None:
    """Time that went past the dead parent to an ancestor counts once."""
    before = tree(
        proc(10, 0), proc(11, 0, parent=10), proc(12, 1, parent=11), proc(13, 4, parent=12)
    )
    after = tree(proc(10, 0, 4.0), proc(11, 0, 1.0, parent=10))
    assert lost_between(before, after, 0.02) == 0.0


def test_a_whole_vanished_branch_is_owed_by_its_living_ancestor() -> None:
    """Parent and grandchild that vanish together are settled by the nearest survivor."""
    before = tree(proc(10, 0), proc(11, 1.0, parent=10), proc(12, 4.0, parent=11))
    assert lost_between(before, tree(proc(10, 0, 1.0)), 0.02) == 4.0


def test_a_reused_pid_is_another_process() -> None:
    """A pid that now belongs to a later process does not stand for the one that ended."""
    before = tree(proc(10, 0), proc(11, 2.0, parent=10, started=5))
    after = tree(proc(10, 0), proc(11, 0.1, parent=10, started=9))
    assert lost_between(before, after, 0.02) == 2.0


def test_rounding_is_no_loss() -> None:
    """A deficit within the kernel's clock ticks is not booked as lost time."""
    before = tree(proc(10, 0), proc(11, 0.305, parent=10))
    assert lost_between(before, tree(proc(10, 0, 0.30)), 0.02) == 0.0


def test_a_child_of_a_detached_process_ends_the_walk() -> None:
    """A circle of parents, which a reused pid can produce, ends instead of looping."""
    before = tree(proc(11, 1.0, parent=12), proc(12, 1.0, parent=11))
    assert lost_between(before, {}, 0.02) == 2.0


@LINUX
def test_children_and_grandchildren_are_counted_after_they_ended() -> None:
    """CPU time of a child and of its child is in the sum once both are gone."""
    program = f"""
    import subprocess, sys
    subprocess.run([sys.executable, "-c", {BURN.format(s=0.15)!r}], check=True)
    {BURN.format(s=0.1).replace(chr(10), chr(10) + "    ")}
    """
    used = burnt(program, during=ProcessTree(max_age_s=0))
    assert 0.24 < used < 5.0


@LINUX
def test_a_detached_daemon_stays_ours() -> None:
    """A process in a new session whose parents are gone is still in the tree, with its time."""
    looked = ProcessTree(max_age_s=0)
    before = looked.read()
    read, write = os.pipe()
    held, hold = os.pipe()
    # A child leads a new session; its own child outlives it, burns, says so and waits for us.
    program = f"""
import os, sys
os.setsid()
if os.fork() == 0:
    os.read({held}, 1)
    {BURN.format(s=0.2).strip().replace(chr(10), chr(10) + "    ")}
    os.write({write}, b"x")
    os.read({held}, 1)
    os._exit(0)
os.write({write}, b"x")
sys.stdin.read(1)
"""
    leader = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, pass_fds=(write, held)
    )
    os.read(read, 1)
    looked.read()  # the leader is alive: its session is known to be ours
    leader.communicate(b"x")
    os.write(hold, b"x")
    os.read(read, 1)
    with_orphan = looked.read()
    os.close(hold)  # the orphan ends
    for fd in (read, write, held):
        os.close(fd)
    assert with_orphan.processes == before.processes + 1
    assert with_orphan.cpu_s - before.cpu_s > 0.19
    assert looked.read().cpu_s >= with_orphan.cpu_s


@LINUX
def test_looks_amid_dying_processes_double_nothing() -> None:
    """Looking without pause while children end gives the kernel's own total in the end."""
    looked, stop = ProcessTree(max_age_s=0), threading.Event()

    def look() -> None:
        while not stop.is_set():
            looked.read()

    def truth() -> float:
        t = os.times()
        return time.process_time() + t.children_user + t.children_system

    before, true_before = looked.read().cpu_s, truth()
    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(8):
        subprocess.run([sys.executable, "-c", BURN.format(s=0.05)], check=True)
    stop.set()
    watcher.join()
    used, true = looked.read().cpu_s - before, truth() - true_before
    assert used == pytest.approx(true, abs=0.03)


@LINUX
def test_a_child_that_ended_during_a_look_is_credited_once(tmp_path: Path) -> None:
    """A look in which a process ends is repeated, so that its parent's credit is seen."""
    me, worker, child = os.getpid(), 4_000_001, 4_000_002

    def stat(pid: int, parent: int, own: int, reaped: int) -> None:
        (tmp_path / str(pid)).mkdir(exist_ok=True)
        times = [str(own), "0", str(reaped), "0"]
        tail = ["S", str(parent), "1", "1", *["0"] * 7, *times, *["0"] * 4, "77", "0", "5", "0"]
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (x) {' '.join(tail)}")

    class Racing(ProcReader):
        """The child ends, and is waited for, after its parent was read."""

        racing = False

        def _read(self, pid: int) -> ProcessTimes:
            if self.racing and pid == child:
                self.racing = False
                (tmp_path / str(child) / "stat").unlink()
                stat(worker, me, 0, 100)
            return super()._read(pid)

    stat(me, 1, 0, 0)
    stat(worker, me, 0, 0)
    stat(child, worker, 100, 0)
    reader = Racing(tmp_path)
    looked = ProcessTree(reader, max_age_s=0)
    before = looked.read()
    reader.racing = True
    after = looked.read()
    assert (before.processes, after.processes) == (3, 2)
    assert after.cpu_s - before.cpu_s < 0.5  # the 1.00 s of the child once, and our own time


@LINUX
def test_a_child_that_ends_unwaited_for_keeps_its_time() -> None:
    """Where SIGCHLD is ignored the kernel drops a child's time; the ledger keeps what it saw."""
    program = f"""
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork() == 0:
    {BURN.format(s=0.3).strip().replace(chr(10), chr(10) + "    ")}
    sys.stdout.write("b"); sys.stdout.flush()
    sys.stdin.read(1)
    os._exit(0)
sys.stdin.read(2)
"""
    looked = ProcessTree(max_age_s=0)
    before = looked.read().cpu_s
    middle = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert middle.stdin is not None
    assert middle.stdout is not None
    middle.stdout.read(1)
    alive = looked.read().cpu_s
    middle.communicate(b"xyz")
    assert alive - before > 0.29
    assert looked.read().cpu_s >= alive


@LINUX
def test_a_command_name_cannot_break_the_parser(tmp_path: Path) -> None:
    """A process called ``) Z 1 (`` is read like any other."""
    me = os.getpid()
    fields = ["S", "1", "2", "3", *["0"] * 7, "7", "8", "9", "10", *["0"] * 4, "77", "0", "5", "0"]
    for pid, parent in ((me, "1"), (4_000_001, str(me))):
        fields[1] = parent
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} () Z 1 () {' '.join(fields)}")
    found = ProcReader(tmp_path).read({})
    assert found[4_000_001].own_s == pytest.approx(0.15)
    assert found[4_000_001].reaped_s == pytest.approx(0.19)


@LINUX
def test_foreign_processes_are_not_ours(tmp_path: Path) -> None:
    """Processes of other families, and files that are no processes, are left out."""
    me = os.getpid()
    tail = ["0"] * 7 + ["7", "8", "9", "10"] + ["0"] * 4 + ["77", "0", "5", "0"]
    for pid, parent in ((me, 1), (1, 0), (4_000_002, 1), (4_000_003, 4_000_002)):
        (tmp_path / str(pid)).mkdir()
        text = f"{pid} (x) S {parent} 1 1 {' '.join(tail)}"
        (tmp_path / str(pid) / "stat").write_text(text)
    (tmp_path / "4000004").mkdir()
    (tmp_path / "4000004" / "stat").write_text("garbage")
    (tmp_path / "cpuinfo").write_text("")
    reader = ProcReader(tmp_path)
    assert set(reader.read({})) == {me}
    assert set(reader.read(reader.read({}))) == {me}


class Once:
    """A reader that counts its looks."""

    rounding_s = 0.0

    def __init__(self) -> None:
        self.looks = 0

    def read(self, known: object) -> dict[int, ProcessTimes]:
        self.looks += 1
        return {os.getpid(): proc(os.getpid(), float(-self.looks))}


def test_looks_that_follow_closely_are_one() -> None:
    """Probes that read at the same moment share one look at the tree."""
    reader: TreeReader = Once()
    shared = ProcessTree(reader, clock=lambda: 5.0)
    assert shared.read() is shared.read()


def test_the_sum_never_falls() -> None:
    """Even a reader whose times fall gives no negative use."""
    falling = ProcessTree(Once(), max_age_s=0)
    assert falling.read().cpu_s <= falling.read().cpu_s


@LINUX
def test_psutil_agrees_with_proc() -> None:
    """The portable reader sees the same processes and times as the fast one."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    fast, portable = ProcReader().read({}), PsutilReader().read({})
    child.communicate(b"\n")
    assert set(fast) == set(portable)
    me = os.getpid()
    assert portable[me].own_s == pytest.approx(fast[me].own_s, abs=0.5)
    assert portable[me].rss_bytes == pytest.approx(fast[me].rss_bytes, rel=0.2)
