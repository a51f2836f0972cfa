"""Walls: what a cell shuts out once, and what each trial shuts out again for itself.

A *cell* is one warm process; it owns PID and mount namespaces (and, without bubblewrap, also
network and IPC ones). Each *trial* is a fork of it in a PID namespace of its own, with a /tmp of
its own: when its first process ends the kernel ends all others, so nothing survives into the next.
Three walls: ``bubblewrap`` (the cell already lives in a read-only view of the system),
``landlock`` (the same view by Landlock rules) and ``none`` (limits only, no containment).
"""

from __future__ import annotations

import fcntl
import math
import os
import resource
import signal
import stat
from dataclasses import dataclass
from typing import Any

from . import kernel

NOBODY = 65534
_MAX_FILES = 256
_MAX_INODES = 4096
_STACK_BYTES = 8 << 20
_SHM = "/dev/shm"  # noqa: S108 (private where it is used)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
_RANDOM = ("/dev/urandom", "/dev/random")
_TMPFS_FILES = 4
"""A trial's private /tmp holds this many files of the permitted size."""


@dataclass(frozen=True, slots=True)
class Wall:
    """How a cell is shut in. ``uid`` is the identity a trial takes when the cell is root."""

    kind: str
    uid: int | None
    readable: tuple[str, ...]
    filter: bytes

    @property
    def contained(self) -> bool:
        """Whether there is containment beyond limits."""
        return self.kind != "none"


def enter_cell(wall: Wall) -> int:
    """Shut the cell in; returns, in the process that becomes the cell, its view of /proc.

    The view is a descriptor that trials do not get; the path is covered for everybody.
    """
    if not wall.contained:
        kernel.adopt_orphans()
        return os.open("/proc", os.O_RDONLY)
    flags = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
    if wall.kind == "landlock":
        flags |= kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    try:
        kernel.unshare(flags)
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(flags | kernel.CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{NOBODY} {uid} 1")
        _write("/proc/self/gid_map", f"{NOBODY} {gid} 1")
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    pid = os.fork()
    if pid:
        _wait_for(pid)
    kernel.die_with_parent()
    if wall.kind == "landlock" and wall.uid is not None:
        for path in wall.readable:
            _uncover(path)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    _write("/proc/self/oom_score_adj", "800")  # if the machine runs out of memory, trials go first
    processes = os.open("/proc", os.O_RDONLY)
    kernel.mount("tmpfs", "/proc", "tmpfs", kernel.MS_RDONLY, "size=4k,nr_inodes=1")
    return processes


def _wait_for(pid: int) -> None:
    """Live exactly as long as the cell: the launcher's whole life."""
    kernel.die_with_parent()
    os.closerange(0, 1 << 20)
    _pid, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 (pathlib is not worth loading)
        file.write(text)


def _uncover(path: str) -> None:
    """Make ``path`` reachable for other users by mounting it over its closed ancestor."""
    parts = path.strip("/").split("/")
    ancestors = ["/" + "/".join(parts[:n]) for n in range(1, len(parts))]
    closed = next((a for a in ancestors if not os.stat(a).st_mode & stat.S_IXOTH), None)
    if closed is None:
        return
    fd = os.open(path, os.O_PATH)
    try:
        kernel.mount("tmpfs", closed, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
        os.makedirs(path, mode=0o755)
        kernel.mount(f"/proc/self/fd/{fd}", path, "none", kernel.MS_BIND)
    finally:
        os.close(fd)


class Room:
    """A trial's own writable directory, there for the trial only: a small file system in memory.

    Mounted in the cell's private view and unmounted after the trial, whatever is in it then.
    Without containment it is a temporary directory.
    """

    def __init__(self, wall: Wall, file_bytes: int, *, shared_memory: bool) -> None:
        self._wall = wall
        self._mounted: list[str] = []
        if wall.contained:
            self.path = "/tmp"  # noqa: S108 (private to the cell)
            owner = NOBODY if wall.uid is None else wall.uid
            options = f"size={_TMPFS_FILES * file_bytes},nr_inodes={_MAX_INODES},mode=700"
            self._mount("tmpfs", self.path, 0, f"{options},uid={owner},gid={owner}")
            if shared_memory and os.path.isdir(_SHM):  # noqa: PTH112 (pathlib is not loaded here)
                self._mount(self.path, _SHM, kernel.MS_BIND, "")
        else:
            import tempfile

            self.path = tempfile.mkdtemp(prefix="lichen-trial-")
            if wall.uid is not None:
                os.chown(self.path, wall.uid, wall.uid)

    def _mount(self, source: str, target: str, flags: int, options: str) -> None:
        kind = "none" if flags else "tmpfs"
        kernel.mount(source, target, kind, flags | kernel.MS_NOSUID | kernel.MS_NODEV, options)
        self._mounted.append(target)

    def clear(self) -> None:
        """Remove the directory and all in it."""
        for target in self._mounted:
            kernel.unmount(target)
        if not self._wall.contained:
            import shutil

            shutil.rmtree(self.path, ignore_errors=True)


def enter_trial(wall: Wall, limits: dict[str, Any], directory: str) -> None:
    """Shut this fresh process in for one trial: limits, no rights. There is no way back.

    Order matters: rights are dropped before the filters, and the death signal is set last because
    a change of identity clears it.
    """
    set_limits(limits)
    if wall.uid is not None:
        os.setgroups([])
        os.setresgid(wall.uid, wall.uid, wall.uid)
        os.setresuid(wall.uid, wall.uid, wall.uid)
    os.chdir(directory)  # as its owner: a root without capabilities may not enter it
    if wall.contained:
        if not wall.filter:  # what the filter would forbid must not outlive the trial
            kernel.unshare(kernel.CLONE_NEWIPC)
        if wall.uid is None:
            kernel.drop_capabilities()
        kernel.no_new_privileges()
        if wall.kind == "landlock":
            kernel.landlock((*wall.readable, *_RANDOM), (directory, _SHM, *_DEVICES))
        kernel.forbid_system_calls(wall.filter)
        kernel.die_with_parent()


def set_limits(limits: dict[str, Any]) -> None:
    """Set resource limits. CPU is a backstop: the cell counts the whole group more finely."""
    cpu = math.ceil(limits["cpu_s"]) + 1
    wanted = [
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, int(limits["file_bytes"])),
        (resource.RLIMIT_NPROC, int(limits["processes"])),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
        (resource.RLIMIT_STACK, _STACK_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_AS, int(limits["memory_bytes"])),
    ]
    if hasattr(resource, "RLIMIT_MSGQUEUE"):
        wanted.append((resource.RLIMIT_MSGQUEUE, 0))
    for which, value in wanted:
        hard = resource.getrlimit(which)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(which, (bound, bound))
        except (OSError, ValueError):
            if which != resource.RLIMIT_AS:  # macOS has no working address-space limit
                raise


def arrange_descriptors(standard: tuple[int, int, int], kept: tuple[int, ...]) -> tuple[int, ...]:
    """Make ``standard`` the descriptors 0-2, move ``kept`` to 3 and up, close everything else."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in (*standard, *kept)]
    for target, fd in enumerate(high):
        os.dup2(fd, target)
    os.closerange(len(high), 1 << 20)
    return tuple(range(3, 3 + len(kept)))


def restore_signals() -> None:
    """Give a trial the signal dispositions of a fresh interpreter."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
