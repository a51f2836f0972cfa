"""CPU-seconds and resident memory of this process and everything it started.

The kernel keeps two numbers per process: the CPU time it used itself (``own``) and that of the
children it has waited for, with theirs (``reaped``). The sum of both over the living tree is the
CPU time of the tree, with one hole: a process that nobody in the tree waits for (its parent died
first, or ignores SIGCHLD) takes its time away when it ends. ``ProcessTree`` closes the hole with a
ledger: what a vanished process had used is owed by its nearest living ancestor, and whatever the
growth of ``reaped`` up the line does not pay is remembered as ``lost`` and stays in the sum. So the
sum never falls, and nothing is counted twice.

Not seen: a process that was started *and* detached (new session, parents gone) *and* ended between
two looks; while a window is open the meter looks once per sampling interval.

Sums of resident memory count a page that two processes share twice.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

CLOCK_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
"""Resolution of the times in ``/proc/PID/stat``; proc_pid_stat(5)."""

MAX_AGE_S = 0.0005
"""Probes that read within this time share one look at the tree: 0.5 ms of a window's edge."""

MAX_PASSES = 8
"""A pass takes under a millisecond: processes would have to end thousands of times a second."""


class ProcessTimes(NamedTuple):
    """One process: times in s, memory in bytes. ``started`` tells a reused pid from the old one.

    A named tuple because hundreds are built at each look, at a third of a dataclass's cost.
    """

    pid: int
    started: float
    parent: int
    session: int
    own_s: float
    reaped_s: float
    rss_bytes: int

    @property
    def total_s(self) -> float:
        """CPU-seconds of the process and of the children it has waited for."""
        return self.own_s + self.reaped_s


Members = Mapping[int, ProcessTimes]


class TreeReader(Protocol):
    """Looks at the living processes of the tree, the root among them.

    ``rounding_s`` is how far a ``reaped`` of another process may be off.
    """

    rounding_s: float

    def read(self, known: Members) -> dict[int, ProcessTimes]:
        """Return the tree by pid; ``known`` is the previous answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeReading:
    """The tree at one moment. ``cpu_s`` never falls; ``error_s`` is its rounding (either way)."""

    time_s: float
    cpu_s: float
    error_s: float
    rss_bytes: int
    own_rss_bytes: int
    processes: int


class ProcessTree:
    """The ledger over a reader; thread-safe, shared by the probes of one meter.

    Args:
        reader: how to look; by default ``/proc`` on Linux and psutil elsewhere.
        clock: monotonic seconds.
        max_age_s: looks closer together than this are one look.
    """

    def __init__(
        self,
        reader: TreeReader | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._reader = reader or default_reader()
        self._clock = clock
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._members: Members = {}
        self._lost_s = 0.0
        self._last: TreeReading | None = None
        self._done_s = 0.0

    def read(self) -> TreeReading:
        """Look at the tree, or return the last look if it is fresh."""
        with self._lock:
            now = self._clock()
            if self._last is not None and 0 <= now - self._done_s < self._max_age_s:
                return self._last
            members = self._reader.read(self._members)
            # Times of others are cut to whole ticks, so a deficit within the rounding is none.
            self._lost_s += lost_between(self._members, members, self._reader.rounding_s)
            self._members = members
            self._last = self._summed(now)
            self._done_s = self._clock()
            return self._last

    def _summed(self, now: float) -> TreeReading:
        root = os.getpid()
        members = self._members.values()
        cpu_s = sum(p.total_s for p in members) + self._lost_s
        rounded = sum(1 for p in members if p.reaped_s and p.pid != root)
        own = self._members.get(root)
        return TreeReading(
            time_s=now,
            cpu_s=cpu_s if self._last is None else max(cpu_s, self._last.cpu_s),
            error_s=rounded * self._reader.rounding_s,
            rss_bytes=sum(p.rss_bytes for p in members),
            own_rss_bytes=own.rss_bytes if own else 0,
            processes=len(self._members),
        )


def lost_between(before: Members, now: Members, rounding_s: float) -> float:
    """Return the CPU-seconds of processes that vanished and that no ancestor was credited with.

    A vanished process owes its last known total to its nearest ancestor that still lives. That
    ancestor's growth of ``reaped`` pays; what is left moves up the line, because an orphan may
    have been adopted further up. What reaches the top unpaid, if more than ``rounding_s``, is lost.
    """
    owed: dict[int | None, float] = {}
    for pid, process in before.items():
        if not _lives(pid, before, now):
            heir = _living_ancestor(process, before, now)
            owed[heir] = owed.get(heir, 0.0) + process.total_s
    if not owed:
        return 0.0
    credit = {
        pid: max(0.0, now[pid].reaped_s - old.reaped_s)
        for pid, old in before.items()
        if _lives(pid, before, now)
    }
    lost = 0.0
    for heir, debt in owed.items():
        holder, left = heir, debt
        while holder is not None and left > 0:
            paid = min(left, credit[holder])
            credit[holder] -= paid
            left -= paid
            holder = _living_ancestor(before[holder], before, now)
        lost += left if left > rounding_s else 0.0
    return lost


def _lives(pid: int, before: Members, now: Members) -> bool:
    return pid in now and now[pid].started == before[pid].started


def _living_ancestor(process: ProcessTimes, before: Members, now: Members) -> int | None:
    seen: set[int] = set()
    parent = process.parent
    while parent in before and parent not in seen:
        if _lives(parent, before, now):
            return parent
        seen.add(parent)
        parent = before[parent].parent
    return None


class ProcReader:
    """Reads ``/proc``: one listing, one CPU clock per process of ours, ``stat`` where it moved.

    A process is ours if its parent is, or if its session was begun by one of ours (a session holds
    only descendants of its leader), so a daemon that lost its parents stays ours. A process whose
    CPU clock stands still has not run (but for the last tick), so it has waited for no child and
    its last ``stat`` holds: that makes a look at a hundred sleeping workers ten times cheaper.
    """

    rounding_s = 2 * CLOCK_TICK_S  # user and system time are cut to ticks separately

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._foreign: set[str] = set()
        self._page = os.sysconf("SC_PAGE_SIZE")

    def read(self, known: Members) -> dict[int, ProcessTimes]:
        """Return the tree by pid."""
        root = os.getpid()
        names = set(os.listdir(self._proc))  # noqa: PTH208 (names, not paths: twice as fast)
        self._foreign &= names
        expected: Members = known
        found = self._pass(known, root)
        for _ in range(MAX_PASSES):
            # If one ended meanwhile, an ancestor may have been read before or after it was
            # credited: only a pass in which nobody ends counts everybody once. Clocks of running
            # processes may be a tick late, so they are not trusted to say who has just waited.
            if found.keys() >= expected.keys():
                break
            expected, found = found, self._pass(found, root, trust_clocks=False)
        fresh = self._fresh(names.difference(self._foreign, map(str, known)))
        self._adopt(found, fresh, _own_sessions(root, known, found))
        return found

    def _pass(
        self, known: Members, root: int, *, trust_clocks: bool = True
    ) -> dict[int, ProcessTimes]:
        """Read those of ``known`` that live, in their order: parents before their children."""
        found = {root: self._read(root)}
        for pid, old in known.items():
            if pid == root:
                continue
            # Without memory it is a zombie, whose clock stands still while it is waited for.
            asleep = trust_clocks and old.rss_bytes > 0 and _cpu_clock(pid) == old.own_s
            try:
                process = old if asleep else self._read(pid)
            except (OSError, IndexError, ValueError):
                continue
            if process.started == old.started:
                found[pid] = process
        return found

    def _fresh(self, names: Iterable[str]) -> dict[int, ProcessTimes]:
        fresh: dict[int, ProcessTimes] = {}
        pids = [int(name) for name in names if name.isdigit()]
        for pid in sorted(pids):  # parents before their children
            # It may have ended since the listing, or be hidden from us.
            with contextlib.suppress(OSError, IndexError, ValueError):
                fresh[pid] = self._read(pid)
        return fresh

    def _adopt(
        self, found: dict[int, ProcessTimes], fresh: dict[int, ProcessTimes], sessions: set[int]
    ) -> None:
        """Move what is ours from ``fresh`` to ``found``; remember what certainly is not."""
        fresh.pop(os.getpid(), None)
        ours = True
        while ours:
            adopted = [p for p in fresh.values() if p.parent in found or p.session in sessions]
            for process in adopted:
                found[process.pid] = fresh.pop(process.pid)
            ours = bool(adopted)
        # A parent that was not listed yet may turn out to be ours: such a process is asked again.
        strangers = True
        while strangers:
            known = [p for p in fresh.values() if not p.parent or str(p.parent) in self._foreign]
            for process in known:
                self._foreign.add(str(process.pid))
                del fresh[process.pid]
            strangers = bool(known)

    def _read(self, pid: int) -> ProcessTimes:
        fd = os.open(f"{self._proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 1024)
        finally:
            os.close(fd)
        # The command name is in parentheses and may hold anything, ")" and spaces included.
        f = text[text.rfind(b")") + 2 :].split(None, 22)
        if f[:1] == [b"X"]:  # its parent has been credited, the kernel is about to remove it
            raise ProcessLookupError(pid)
        reaped_s = (int(f[13]) + int(f[14])) * CLOCK_TICK_S
        if pid == os.getpid():
            own_s, reaped_s = time.process_time(), _own_reaped_s()
        else:
            clock = _cpu_clock(pid)
            own_s = (int(f[11]) + int(f[12])) * CLOCK_TICK_S if clock is None else clock
        rss = max(int(f[21]), 0) * self._page
        return ProcessTimes(pid, float(f[19]), int(f[1]), int(f[3]), own_s, reaped_s, rss)


class PsutilReader:
    """Reads through psutil, for systems without ``/proc``.

    macOS and Windows do not tell how much CPU other processes' ended children used: what a
    grandchild used is then kept by the ledger as of the last look.
    """

    rounding_s = CLOCK_TICK_S

    def read(self, known: Members) -> dict[int, ProcessTimes]:
        """Return the tree by pid."""
        import psutil  # type: ignore[import-untyped]  # its stubs are no dependency of ours

        root = psutil.Process()
        candidates = {p.pid: p for p in (root, *root.children(recursive=True))}
        for pid, old in known.items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if pid not in candidates and process.create_time() == old.started:
                    candidates[pid] = process
        found: dict[int, ProcessTimes] = {}
        for pid, process in candidates.items():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    own = (times.user + times.system, _reaped(times))
                    found[pid] = ProcessTimes(
                        pid=pid,
                        started=process.create_time(),
                        parent=process.ppid(),
                        session=0,
                        own_s=time.process_time() if pid == root.pid else own[0],
                        reaped_s=_own_reaped_s() if pid == root.pid else own[1],
                        rss_bytes=process.memory_info().rss,
                    )
            except psutil.ZombieProcess:
                if pid in known:  # ended, not yet waited for: its time is not its parent's yet
                    found[pid] = known[pid]
            except psutil.Error:
                continue
        return found


def default_reader() -> TreeReader:
    """Return the reader for this system."""
    return ProcReader() if sys.platform == "linux" else PsutilReader()


def _own_sessions(root: int, *trees: Members) -> set[int]:
    """Return the sessions that the root or a descendant began."""
    inherited = {
        p.session for t in trees for p in t.values() if p.pid == root and p.session != root
    }
    used = {p.session for p in itertools.chain.from_iterable(t.values() for t in trees)}
    return used - inherited - {0}


def _own_reaped_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reaped(times: object) -> float:
    children = (getattr(times, "children_user", 0.0), getattr(times, "children_system", 0.0))
    return float(sum(children))


def _cpu_clock(pid: int) -> float | None:
    """Read another process's CPU-time clock, exact to ns; None where it cannot be read."""
    try:
        # What clock_getcpuclockid(3) computes; 2 is CPUCLOCK_SCHED of posix-timers_types.h.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None
