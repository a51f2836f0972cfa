"""A cell: a warm interpreter in its walls that forks a fresh process for each trial and minds it.

The cell is trusted and runs no foreign code; the forks do. It watches each trial from outside:
CPU-seconds and memory of all its processes together, their number, wall time and output, and
ends all of them at the first excess. It ends itself when its control socket does.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from . import cage, census, judge, kernel, rehearsal, script, solution, wire

_TICK_S = 0.05
_LEAVE_S = 0.1
_MAX_REPORT = 1 << 16
_NO_WALL = 70
"""Exit status where a trial could not begin (EX_SOFTWARE of sysexits.h)."""

_OUT, _ERR, _REPORT, _PEER, _FIRST_OTHER = 1, 2, 3, 4, 5
"""Descriptors of a trial: standard ones, report, peer; a fork closes the others at one stroke."""

Body = Callable[[dict[str, Any], int, int], None]
_ROLES: dict[str, Body] = {"judge": judge.run, "solution": solution.run, "script": script.run}


def main(fd: int) -> None:
    """Serve one parent over the control socket ``fd`` until it closes."""
    null = os.open(os.devnull, os.O_RDWR)
    log = _high(_ERR)
    control = wire.Socket(fileno=_high(fd))
    os.close(fd)
    for target in range(_FIRST_OTHER):
        os.dup2(null, target)
    try:
        _serve(control, _high(null))
    except (wire.Closed, ConnectionError):
        return  # the parent is gone
    except BaseException:
        os.dup2(log, _ERR)  # where the parent looks for the reason
        raise


def _high(fd: int) -> int:
    """Return a copy of a descriptor out of the way of those a trial uses."""
    copies = [os.dup(fd)]
    while copies[-1] < _FIRST_OTHER:
        copies.append(os.dup(fd))
    for copy in copies[:-1]:
        os.close(copy)
    return copies[-1]


def _serve(control: wire.Socket, null: int) -> None:
    settings, _fds = wire.receive_control(control)
    own = cage.Cage(
        settings["wall"], settings["uid"], tuple(settings["readable"]), settings["limits"]
    )
    try:
        own.shut()
        for name in settings["preload"]:
            __import__(name)
        rehearsal.play()
    except (OSError, ImportError) as exc:
        wire.send_control(control, {"op": "failed", "why": str(exc)})
        return
    sys.path[:] = [p for p in sys.path if p != settings["home"]] + list(settings["path"])
    cell = _Cell(control, own, null)
    gc.collect()
    gc.freeze()  # so that a trial's collector does not touch, and so copy, the shared pages
    wire.send_control(control, {"op": "ready"})
    while True:
        message, fds = wire.receive_control(control)
        if message["op"] == "start":
            wire.send_control(control, cell.trial(message, fds))
        # A "stop" that arrives here is for a trial that has just ended by itself.


class _Cell:
    """Runs one trial at a time."""

    def __init__(self, control: wire.Socket, own: cage.Cage, null: int) -> None:
        self._control = control
        self._cage = own
        self._null = null
        self._self = os.pidfd_open(os.getpid()) if own.contained else -1

    def trial(self, ticket: dict[str, Any], fds: tuple[int, ...]) -> dict[str, Any]:
        """Run one trial to its end, with everything it started, and return what became of it."""
        started = time.monotonic()
        role = ticket["role"]
        if role == "judge":
            judge.prepare(ticket)
        room = self._cage.open_room()
        pipes = [os.pipe() for _ in range(2 if role == "script" else 1)]
        writers = [w for _, w in pipes]
        targets = (_OUT, _ERR) if role == "script" else (_REPORT, _PEER)
        for target, fd in zip(targets, (*writers, *fds), strict=True):
            os.dup2(fd, target)
        try:
            pid = self._fork(ticket, room)
        finally:
            for target in targets:
                os.dup2(self._null, target)
            for fd in (*fds, *writers):
                os.close(fd)
        group = census.Census(pid, self._cage.processes, contained=self._cage.contained)
        watch = _Watch(pid, ticket, [r for r, _ in pipes], group)
        try:
            watch.until_ended(self._control)
            code, cpu_s = watch.reap()
        finally:
            for read_end, _ in pipes:
                os.close(read_end)
            self._cage.clear_room(room)
        why = watch.why
        if not why and code < 0 and cpu_s >= ticket["limits"]["cpu_s"]:
            why = "cpu"
        wall_s = time.monotonic() - started
        done = {"op": "done", "seq": ticket["seq"], "code": code, "why": why}
        return done | {"cpu_s": cpu_s, "wall_s": wall_s, "output": watch.output}

    def _fork(self, ticket: dict[str, Any], room: str) -> int:
        if self._cage.contained:
            kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            try:
                self._child(ticket, room)
            finally:
                os._exit(_NO_WALL)  # the role ends the process itself
        if self._cage.contained:
            kernel.enter_pid_namespace_of(self._self)
        return pid

    def _child(self, ticket: dict[str, Any], room: str) -> None:
        os.setsid()
        os.closerange(_FIRST_OTHER, 1 << 20)
        try:
            self._cage.confine(ticket["limits"]["cpu_s"], room)
        except OSError as exc:
            os.write(_ERR, f"the wall cannot be put up: {exc}\n".encode())
            return
        _ROLES[ticket["role"]](ticket, _REPORT, _PEER)


class _Watch:
    """Minds one trial: its limits, its output, and that all of it ends."""

    def __init__(
        self, pid: int, ticket: dict[str, Any], outputs: list[int], group: census.Census
    ) -> None:
        self._pid = pid
        self._seq = ticket["seq"]
        self._limits = ticket["limits"]
        self._bound = ticket["limits"]["output_bytes"] if len(outputs) > 1 else _MAX_REPORT
        self._census = group
        self._buffers = {fd: bytearray() for fd in outputs}
        self.why = ""

    @property
    def output(self) -> list[bytes]:
        """What was written, per stream, up to the bound."""
        return [bytes(buffer[: self._bound]) for buffer in self._buffers.values()]

    def until_ended(self, control: wire.Socket) -> None:
        """Return when the trial's first process has ended; end it when it exceeds a limit."""
        pidfd = os.pidfd_open(self._pid)
        try:
            poll = select.poll()
            for fd in (pidfd, control.fileno(), *self._buffers):
                poll.register(fd, select.POLLIN)
            for fd in self._buffers:
                os.set_blocking(fd, False)
            deadline = time.monotonic() + self._limits["wall_s"]
            tick = time.monotonic() + _TICK_S
            while True:
                now = time.monotonic()
                wait = max(0.0, min(deadline, tick) - now)
                ready = {fd for fd, _ in poll.poll(1000 * wait + 1)}
                self._collect(ready, poll)
                if pidfd in ready:
                    break
                if control.fileno() in ready and self._told_to_stop(control):
                    # A process that is on its way out (its peer's end is what ended the check)
                    # is let go, so that how it ended is known.
                    if not select.select([pidfd], [], [], _LEAVE_S)[0]:
                        self._end("stopped")
                elif time.monotonic() >= deadline:
                    self._end("wall")
                elif time.monotonic() >= tick:
                    tick = time.monotonic() + _TICK_S
                    self._end(self._census.excess(self._limits))
            self._collect(set(self._buffers), None)
        finally:
            os.close(pidfd)

    def reap(self) -> tuple[int, float]:
        """Take the dead; return the exit code (negative: signal) and the group's CPU-seconds."""
        _pid, status, usage = os.wait4(self._pid, 0)
        self._census.sweep()
        cpu_s = max(usage.ru_utime + usage.ru_stime, self._census.cpu_s)
        return os.waitstatus_to_exitcode(status), cpu_s

    def _end(self, why: str) -> None:
        if why:
            self.why = self.why or why
            self._census.kill()

    def _told_to_stop(self, control: wire.Socket) -> bool:
        message, fds = wire.receive_control(control)
        for fd in fds:
            os.close(fd)
        return bool(message["op"] == "stop" and message["seq"] == self._seq)

    def _collect(self, ready: set[int], poll: select.poll | None) -> None:
        for fd in ready & self._buffers.keys():
            buffer = self._buffers[fd]
            try:
                part = os.read(fd, 1 << 16)
                while part and len(buffer) <= self._bound:
                    buffer += part
                    part = os.read(fd, 1 << 16)
            except OSError as exc:
                if exc.errno != errno.EAGAIN:
                    raise
                part = b"-"
            if len(buffer) > self._bound:
                self._end("output")
            if poll is not None and (not part or len(buffer) > self._bound):
                poll.unregister(fd)
