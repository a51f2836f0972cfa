"""Counts what all processes of a trial use together, and ends them together.

In a contained trial the group is every process in the cell's PID namespace but the cell. Without
containment it is the trial's session and descendants, as far as the process table shows them.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SIGKILL = 9  # the enumeration in the signal module is dear to load
_SWEEPS = 100


class Census:
    """The processes of one trial; ``processes`` is a descriptor of /proc.

    ``cpu_s`` never falls, even when processes vanish uncounted.
    """

    def __init__(self, leader: int, processes: int, *, contained: bool) -> None:
        self._processes = processes
        self._leader = leader
        self._contained = contained
        self._live_s = 0.0
        self._lost_s = 0.0

    @property
    def cpu_s(self) -> float:
        """CPU-seconds seen so far."""
        return self._live_s + self._lost_s

    def excess(self, limits: dict[str, Any]) -> str:
        """Count; return the limit that is exceeded (``cpu``, ``memory``, ``processes``) or ""."""
        members = self._members()
        live = sum(int(f[11]) + int(f[12]) + int(f[13]) + int(f[14]) for _, f in members)
        live_s = live / _TICKS_PER_S
        # A child whose parent ignores SIGCHLD takes its count with it: keep what was seen of it.
        self._lost_s += max(0.0, self._live_s - live_s)
        self._live_s = live_s
        if self.cpu_s >= limits["cpu_s"]:
            return "cpu"
        if sum(int(f[21]) for _, f in members) * _PAGE_BYTES > limits["memory_bytes"]:
            return "memory"
        return "processes" if len(members) > limits["processes"] else ""

    def kill(self) -> None:
        """End the group: the kernel does it where the leader is its namespace's first process."""
        if not self._contained:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._leader, _SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._leader, _SIGKILL)

    def sweep(self) -> None:
        """Without containment: end orphans that came to the cell, until none comes any more."""
        if self._contained:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, _SIGKILL)
        for _ in range(_SWEEPS):
            for pid, _fields in self._members():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, _SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return

    def _members(self) -> list[tuple[int, list[str]]]:
        """Return (pid, fields of /proc/PID/stat after the name) of every member."""
        table: dict[int, list[str]] = {}
        me = os.getpid()
        for name in os.listdir(self._processes):  # noqa: PTH208 (a descriptor, not a path)
            if name.isdigit() and int(name) != me:
                fields = self._stat(name)
                if fields:
                    table[int(name)] = fields
        if self._contained:
            return list(table.items())
        return [(pid, fields) for pid, fields in table.items() if _descends(pid, me, table)]

    def _stat(self, pid: str) -> list[str]:
        try:
            fd = os.open(f"{pid}/stat", os.O_RDONLY, dir_fd=self._processes)
        except OSError:
            return []  # ended meanwhile
        try:
            return os.read(fd, 4096).decode("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            return []
        finally:
            os.close(fd)


def _descends(pid: int, ancestor: int, table: dict[int, list[str]]) -> bool:
    for _ in range(len(table)):
        if pid == ancestor:
            return True
        if pid not in table:
            return False
        pid = int(table[pid][1])
    return False
