"""The Linux calls that containment needs and Python does not offer, by ctypes.

Namespaces (unshare, setns, mount), capabilities, no_new_privs, Landlock and a small seccomp
filter. Numbers are the kernel's user-space interface (include/uapi/linux), which never changes.
Every function raises OSError when the kernel says no; nothing here decides policy.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_CLONE_ANY_NAMESPACE = 0x7E020000  # every CLONE_NEW* flag of clone(2)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_NOATIME = 0x400
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_CHILD_SUBREAPER = 38, 47, 36
_CAP_LAST = 63

# Landlock has the same numbers on every architecture (include/uapi/asm-generic/unistd.h).
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_FS_RIGHTS_BY_ABI = ((1, 13), (2, 14), (3, 15), (5, 16))  # (ABI, number of access bits it knows)
_FS_READ = 0b1101  # execute, read file, read directory
_FS_FILE = 0b100_0000_0000_0111 | 1 << 15  # what may be granted on a file: x, w, r, truncate, ioctl

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def unshare(flags: int) -> None:
    """Leave the given namespaces for new ones."""
    _check(_libc.unshare(flags), "unshare")


def enter_pid_namespace_of(pidfd: int) -> None:
    """Let future children be born in the PID namespace of ``pidfd``'s process."""
    _check(_libc.setns(pidfd, CLONE_NEWPID), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a file system."""
    texts = [t.encode() for t in (source, target, kind)]
    data = options.encode() or None
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), data), f"mount {kind} on {target}")


def unmount(target: str) -> None:
    """Take a mount away now; what still uses it keeps it until it ends."""
    _check(_libc.umount2(target.encode(), 2), f"unmount {target}")  # MNT_DETACH


def make_read_only(target: str) -> None:
    """Make a mount and all below it read-only (mount_setattr, Linux 5.12)."""
    attributes = struct.pack("=QQQQ", 1, 0, 0, 0)  # MOUNT_ATTR_RDONLY
    here, recursive = -100, 0x8000  # AT_FDCWD, AT_RECURSIVE
    size = ctypes.c_size_t(len(attributes))
    result = _libc.syscall(442, here, target.encode(), recursive, attributes, size)
    _check(result, f"mount_setattr {target}")


def pivot_root_here() -> None:
    """Make the current directory, a mount, the root; the old root lies over it until unmounted."""
    _check(_libc.syscall(_PIVOT_ROOT[machine()], b".", b"."), "pivot_root")


def _prctl(option: int, *values: int) -> int:
    filled = (*values, 0, 0, 0, 0)[:4]
    return int(_libc.prctl(option, *filled))


def die_with_parent() -> None:
    """Ask for SIGKILL when the parent process ends."""
    _check(_prctl(_PR_SET_PDEATHSIG, 9), "prctl")


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants (a child subreaper)."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1), "prctl")


def no_new_privileges() -> None:
    """Make set-user-id programs powerless for this process and its children."""
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "prctl")


def drop_bounding_set() -> None:
    """Let no later ``exec`` gain a capability; those held now stay."""
    for capability in range(_CAP_LAST + 1):
        if _prctl(_PR_CAPBSET_DROP, capability) < 0:
            break  # beyond the last one this kernel knows
    _prctl(_PR_CAP_AMBIENT, 4)  # PR_CAP_AMBIENT_CLEAR_ALL


def drop_capabilities() -> None:
    """Give up every capability held now."""
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _check(_libc.capset(header, bytes(24)), "capset")


def landlock_abi() -> int:
    """Return the Landlock version of this kernel; raises OSError where there is none."""
    return _check(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1), "Landlock")


def landlock(read: Iterable[str], write: Iterable[str]) -> None:
    """Confine this process to the given paths, without TCP.

    From ABI 6 on it can send no signal and reach no abstract socket across the border either.
    Needs ``no_new_privileges`` first. Paths that do not exist are left out.
    """
    abi = landlock_abi()
    bits = max(n for version, n in _FS_RIGHTS_BY_ABI if abi >= version)
    every = (1 << bits) - 1
    attributes = struct.pack("=QQQ", every, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)  # noqa: PLR2004 (ABI versions)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8  # noqa: PLR2004 (ABI versions)
    ruleset = _check(
        _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0), "Landlock"
    )
    try:
        for path in read:
            _allow(ruleset, path, _FS_READ)
        for path in write:
            _allow(ruleset, path, every)
        _check(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "Landlock")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112 (pathlib is not worth loading in a cell)
            rights &= _FS_FILE
        rule = struct.pack("=Qi", rights, fd)
        _check(_libc.syscall(_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0), f"Landlock {path}")
    finally:
        os.close(fd)


# What contained programs have no business with: memory that no limit counts (memfd, SysV and
# POSIX queues), doors into other processes, new namespaces, and kernel surface of no use here.
_FORBIDDEN = {
    "x86_64": (
        319, 447, 425, 426, 427, 323, 321, 298, 101, 310, 311, 272, 308, 165, 166, 155, 250, 248,
        249, 29, 64, 68, 240, 428, 429, 430, 431, 432, 433, 442, 438, 312, 135, 246, 320, 175, 313,
        304,
    ),
    "aarch64": (
        279, 447, 425, 426, 427, 282, 280, 241, 117, 270, 271, 97, 268, 40, 39, 41, 219, 217,
        218, 194, 190, 186, 180, 428, 429, 430, 431, 432, 433, 442, 438, 272, 92, 104, 294, 105,
        273, 265,
    ),
}  # fmt: skip
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_EPERM, _ENOSYS = 1, 38
_X32_BIT = 0x40000000


def seccomp_filter(machine: str) -> bytes:
    """Return the filter program for a machine; b"" where its system call numbers are not known.

    Forbidden calls fail with EPERM, ``clone3`` with ENOSYS (so that libc falls back to ``clone``,
    whose flags can be inspected), and a foreign architecture's calls with ENOSYS. Forbidden
    numbers are searched by halves: the kernel tries the program on every call number when it is
    installed, which each trial pays for.
    """
    if machine not in _FORBIDDEN:
        return b""
    load, equal, at_least, any_set, stop = 0x20, 0x15, 0x35, 0x45, 0x06
    forbid, absent, allow = 0x00050000 | _EPERM, 0x00050000 | _ENOSYS, 0x7FFF0000

    def op(code: int, value: int, when: int = 0, unless: int = 0) -> bytes:
        return struct.pack("=HBBI", code, when, unless, value)

    program = [
        op(load, 4), op(equal, _AUDIT_ARCH[machine], 1, 0), op(stop, absent),
        op(load, 0), op(at_least, _X32_BIT, 0, 1), op(stop, absent),
        op(equal, _CLONE3, 0, 1), op(stop, absent),
        op(equal, _CLONE[machine], 0, 4),
        op(load, 16), op(any_set, _CLONE_ANY_NAMESPACE, 0, 1), op(stop, forbid), op(stop, allow),
    ]  # fmt: skip

    def search(numbers: list[int]) -> list[bytes]:
        if len(numbers) <= 3:  # noqa: PLR2004 (below, comparing costs less than halving)
            tests = [(op(equal, number, 0, 1), op(stop, forbid)) for number in numbers]
            return [*(part for test in tests for part in test), op(stop, allow)]
        low, high = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        below = search(low)
        return [op(at_least, high[0], len(below), 0), *below, *search(high)]

    return b"".join((*program, *search(sorted(_FORBIDDEN[machine]))))


class SystemCallFilter:
    """A filter, prepared so that installing it touches little memory."""

    def __init__(self, machine: str) -> None:
        program = seccomp_filter(machine)
        self._program = ctypes.create_string_buffer(program, len(program))
        address = ctypes.addressof(self._program)
        self._header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, address))
        self._address = ctypes.addressof(self._header) if program else 0
        self._flags = CLONE_NEWIPC

    def install(self) -> None:
        """Filter this process for good; needs ``no_new_privileges`` first.

        Where the machine's numbers are not known, leave the IPC namespace instead, so that at
        least nothing that the filter would forbid outlives the trial.
        """
        if self._address:
            _check(_libc.prctl(_PR_SET_SECCOMP, 2, self._address, 0, 0), "seccomp")
        else:
            unshare(self._flags)


def machine() -> str:
    """Return the machine name that the tables here use."""
    return os.uname().machine
