"""Walls: what a cell shuts out once, and what each trial gives up for itself.

A *cell* is one warm process; it owns PID and mount namespaces (and, without bubblewrap, also
network and IPC ones). Each *trial* is a fork of it in a PID namespace of its own, with a /tmp of
its own: when its first process ends the kernel ends all others, so nothing survives into the next.
Three walls: ``bubblewrap`` (the cell already lives in a read-only view of the system),
``landlock`` (the cell builds that view itself, and Landlock rules hold it a second time) and
``none`` (limits only, no containment).

What can be done in the cell is done there: in a fresh fork every page that is touched is copied
first, and those copies, not the system calls, are what a trial costs.
"""

from __future__ import annotations

import math
import os
import resource
from typing import Any

from . import kernel

NOBODY = 65534
_MAX_FILES = 256
_MAX_INODES = 4096
_STACK_BYTES = 8 << 20
_ROOM = "/tmp"  # noqa: S108 (private where it is used)
_SHM = "/dev/shm"  # noqa: S108 (private where it is used)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
_RANDOM = ("/dev/urandom", "/dev/random")
_ROOM_FILES = 4
"""A trial's /tmp holds this many files of the permitted size."""


class Cage:
    """How one cell is shut in.

    Args:
        wall: ``bubblewrap``, ``landlock`` or ``none``.
        uid: the identity a trial takes, where the cell is root.
        readable: paths that a Landlock rule lets trials read.
        limits: fields of ``core.task.Limits``; all of the cell's trials share those of memory,
            processes and files.
    """

    def __init__(
        self, wall: str, uid: int | None, readable: tuple[str, ...], limits: dict[str, Any]
    ) -> None:
        self.contained = wall != "none"
        self.processes = -1
        self._landlocked = wall == "landlock"
        self._uid = uid
        self._readable = readable
        self._limits = limits
        self._filter = kernel.SystemCallFilter(kernel.machine())
        self._unused: tuple[object, ...] = ()
        self._shm = False
        owner = NOBODY if uid is None else uid
        size = _ROOM_FILES * int(limits["file_bytes"])
        self._room_options = f"size={size},nr_inodes={_MAX_INODES},mode=755,uid={owner},gid={owner}"

    def shut(self) -> None:
        """Shut the cell in; returns in the process that becomes the cell.

        Leaves in ``processes`` a descriptor of /proc, which trials do not get; the path is covered.
        """
        if self.contained:
            self._leave_namespaces()
            quiet = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount("proc", "/proc", "proc", quiet)
            # If the machine runs out of memory, trials go first.
            _write("/proc/self/oom_score_adj", "800")
            self.processes = os.open("/proc", os.O_RDONLY)
            if self._landlocked:
                _build_view(self._readable)
            else:
                kernel.mount("tmpfs", "/proc", "tmpfs", kernel.MS_RDONLY, "size=4k,nr_inodes=1")
            kernel.drop_bounding_set()
            kernel.no_new_privileges()
            self._set_common_limits()
        else:
            kernel.adopt_orphans()
            self.processes = os.open("/proc", os.O_RDONLY)
        if self._uid is not None:
            os.setgroups([])
            os.setresgid(self._uid, self._uid, self._uid)

    def _leave_namespaces(self) -> None:
        flags = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
        if self._landlocked:
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
        kernel.die_with_parent()
        if pid:
            _wait_for(pid)

    def open_room(self) -> str:
        """Give the next trial a directory of its own to write to, and return its path.

        It is a small file system in the cell's private view; without containment, a temporary
        directory.
        """
        if not self.contained:
            import tempfile

            room = tempfile.mkdtemp(prefix="lichen-trial-")
            if self._uid is not None:
                os.chown(room, self._uid, self._uid)
            return room
        if not self._unused:
            quiet = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOATIME
            kernel.mount("tmpfs", _ROOM, "tmpfs", quiet, self._room_options)
            if os.path.isdir(_SHM):  # noqa: PTH112 (pathlib is not loaded here)
                kernel.mount(_ROOM, _SHM, "none", kernel.MS_BIND)
                self._shm = True
            os.chdir(_ROOM)
            self._unused = _trace(_ROOM)
        return _ROOM

    def clear_room(self, room: str) -> None:
        """Take the trial's directory away with all in it.

        One that bears no trace of use serves again, since a mount costs more than a look.
        """
        if not self.contained:
            import shutil

            shutil.rmtree(room, ignore_errors=True)
        elif _trace(room) != self._unused:
            os.chdir("/")
            for path in (_SHM, _ROOM) if self._shm else (_ROOM,):
                kernel.unmount(path)
            self._unused = ()

    def confine(self, cpu_s: float, room: str) -> None:
        """Give up, in a trial's fresh process, every right that is left. There is no way back."""
        cpu = math.ceil(cpu_s) + 1  # a backstop: the cell counts the whole group, more finely
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        if self._uid is not None:
            os.setresuid(self._uid, self._uid, self._uid)
        _limit(resource.RLIMIT_NPROC, int(self._limits["processes"]))
        if not self.contained:
            os.chdir(room)
            self._set_common_limits()
            return
        if self._uid is None:
            kernel.drop_capabilities()
        if self._landlocked:
            kernel.landlock((*self._readable, *_RANDOM), (room, _SHM, *_DEVICES))
        self._filter.install()

    def _set_common_limits(self) -> None:
        _limit(resource.RLIMIT_FSIZE, int(self._limits["file_bytes"]))
        _limit(resource.RLIMIT_AS, int(self._limits["memory_bytes"]))
        _limit(resource.RLIMIT_NOFILE, _MAX_FILES)
        _limit(resource.RLIMIT_STACK, _STACK_BYTES)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_MEMLOCK, 0)
        _limit(resource.RLIMIT_MSGQUEUE, 0)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bound, bound))


def _trace(room: str) -> tuple[object, ...]:
    """Return all that using a directory can leave on it; nothing where it was shut to us."""
    found = os.stat(room)  # noqa: PTH116 (pathlib is not loaded here)
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    rights = (found.st_mode, found.st_uid, found.st_gid)
    try:
        return (*times, *rights, *os.listdir(room), *os.listxattr(room))  # noqa: PTH208 (as above)
    except PermissionError:
        return ()


def _wait_for(pid: int) -> None:
    """Live exactly as long as the cell: the launcher's whole life."""
    os.closerange(0, 1 << 20)
    _pid, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 (pathlib is not loaded here)
        file.write(text)


def _build_view(paths: tuple[str, ...]) -> None:
    """Make ``paths``, read-only, and a few devices all there is; the rest of the system is gone.

    What ``bwrap`` does, for where it is not installed. A path given is a link, a directory or a
    file; what does not exist is left out.
    """
    new = _ROOM
    kernel.mount("tmpfs", new, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=711")
    os.umask(0o022)
    for path in (*paths, *_DEVICES, *_RANDOM):
        _bring(path, new + path)
    for path in ("/proc", _ROOM, _SHM):
        os.makedirs(new + path, exist_ok=True)  # noqa: PTH103 (pathlib is not loaded here)
    kernel.make_read_only(new)
    os.chdir(new)
    kernel.pivot_root_here()
    kernel.unmount(".")
    os.chdir("/")


def _bring(path: str, target: str) -> None:
    """Bind one path into the view; parents can be passed through but not listed."""
    if not os.path.lexists(path):  # noqa: PTH118, RUF100 (as above)
        return
    os.makedirs(os.path.dirname(target), mode=0o711, exist_ok=True)  # noqa: PTH103, PTH120 (as above)
    if os.path.islink(path):  # noqa: PTH114 (as above)
        os.symlink(os.readlink(path), target)  # noqa: PTH115, PTH211 (as above)
        return
    if os.path.isdir(path):  # noqa: PTH112 (as above)
        os.makedirs(target, exist_ok=True)  # noqa: PTH103 (as above)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    kernel.mount(path, target, "none", kernel.MS_BIND | kernel.MS_REC)
