"""Which containment this machine can give, how a cell is started behind it, and a proof by trial.

A wall counts as available only after a cell behind it has run a script that tries to look and
talk outside and fails. No policy beyond that: the order of preference is bubblewrap, then
Landlock with namespaces of our own, and nothing else without the user's explicit consent.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lichen.core.errors import SandboxError
from lichen.core.measurement import Method
from lichen.core.ports import ProbeStatus
from lichen.core.task import Limits

KINDS = ("bubblewrap", "landlock")
UNCONTAINED = "none"
_SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/lib32")
_SYSTEM_FILES = ("/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime")
_INSIDE = Path(__file__).parent / "inside"
_ROOT_NEEDS = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL")
_FIRST_UID, _UIDS = 61184, 4336
"""systemd's range for identities that no account owns (systemd.io/UIDS-GIDS): 61184 to 65519."""

PRELOAD = (
    "bisect", "collections", "collections.abc", "copy", "functools", "heapq", "itertools", "math",
    "operator", "re", "string", "typing",
)  # fmt: skip
"""What solutions and checks import most; loaded once per cell instead of once per trial.

Each further module makes every fork dearer, so this is not a list of everything that is useful.
"""

_REMEDY = {
    "bubblewrap": "install bubblewrap (Debian, Ubuntu: apt install bubblewrap) and allow user "
    "namespaces",
    "landlock": "use a Linux kernel of 5.13 or later with Landlock in its list of security "
    "modules, and allow user namespaces",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a cell: the command, its environment, and the first message it gets."""

    command: tuple[str, ...]
    environment: dict[str, str]
    settings: dict[str, object]


def launch(
    kind: str, *, control_fd: int, index: int, limits: Limits, packages: Sequence[Path] = ()
) -> Launch:
    """Build the start of a cell behind the wall ``kind``.

    ``index`` numbers the cells of this process, so that as root each gets an identity of its own
    and its process limit counts its processes only. ``limits`` are those of all its
    trials as to memory, processes and files. ``packages`` are further import directories.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxError(f"the sandbox needs Linux, this is {sys.platform}: use a container")
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    readable = [*_python_paths(python), *(str(p.resolve()) for p in packages)]
    home = "/lichen" if kind == "bubblewrap" else str(_INSIDE.parent)
    code = (
        f"import sys; sys.path.append({home!r}); from inside.cell import main; main({control_fd})"
    )
    command = [python, "-s", "-S", "-P", "-B", "-c", code]
    if kind == "bubblewrap":
        command = [*_bubblewrap(readable), *command]
    settings: dict[str, object] = {
        "wall": kind,
        "uid": _identity(index) if os.geteuid() == 0 and _may_drop(kind, readable) else None,
        "readable": (*readable, *_SYSTEM, *_SYSTEM_FILES),
        "limits": asdict(limits),
        "preload": PRELOAD,
        "home": home,
        "path": [str(p.resolve()) for p in packages],
    }
    return Launch(command=tuple(command), environment=_environment(), settings=settings)


def _environment() -> dict[str, str]:
    return {
        "HOME": "/tmp",  # noqa: S108 (private inside)
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "PYTHONHASHSEED": "0",
        "MALLOC_ARENA_MAX": "2",  # else each thread reserves 64 MiB of the address-space limit
        "LD_BIND_NOW": "1",  # a symbol bound after the fork would be bound, and paid, in each trial
    }


def _python_paths(python: str) -> list[str]:
    """Return what the interpreter needs beyond the system libraries."""
    prefix = sys.base_prefix
    return [python] if prefix in ("/", "/usr") else [prefix]


def _identity(index: int) -> int:
    return _FIRST_UID + (os.getpid() * 64 + index) % _UIDS


def _may_drop(kind: str, readable: Sequence[str]) -> bool:
    """Whether another identity could still read the interpreter (walls arrange it, else ask)."""
    if kind != UNCONTAINED:
        return True
    return all(p.stat().st_mode & 0o001 for r in readable for p in Path(r).parents)


def _bubblewrap(readable: Sequence[str]) -> list[str]:
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError("the command bwrap is not installed")
    words = [found, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv"]
    if os.geteuid() == 0:
        # Trials take an unprivileged identity themselves; a user namespace would map them to root
        # outside, whom the process limit does not bind.
        words += ["--cap-drop", "ALL"]
        words += [w for name in _ROOT_NEEDS for w in ("--cap-add", f"CAP_{name}")]
    else:
        words += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for name, value in _environment().items():
        words += ["--setenv", name, value]
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            words += ["--ro-bind", name, name]
    for name in _SYSTEM_FILES:
        words += ["--ro-bind-try", name, name]
    for name in readable:
        # Without this bwrap makes the directories above for the owner only, who is not the trial.
        above = [str(p) for p in reversed(Path(name).parents) if str(p) not in ("/", "/usr")]
        words += [w for p in above for w in ("--perms", "0711", "--dir", p)]
        words += ["--ro-bind", name, name]
    words += ["--ro-bind", str(_INSIDE), "/lichen/inside", "--dir", "/tmp", "--proc", "/proc"]  # noqa: S108 (inside)
    return [*words, "--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/", "--"]


def describe(kind: str, reason: str) -> ProbeStatus:
    """Return a wall's line for ``lichen doctor``; ``reason`` is why it does not hold, or ""."""
    what = {
        "bubblewrap": "untrusted code runs in bubblewrap: no network, a read-only minimal system",
        "landlock": "untrusted code runs in namespaces of its own with Landlock: no network, "
        "a read-only minimal system",
    }
    return ProbeStatus(
        name=kind,
        quantity="containment",
        method=Method.COUNTER,
        available=not reason,
        reason=reason or what[kind],
        remedy=_REMEDY[kind] if reason else "",
    )


PROOF = """\
import os, socket
assert os.getpid() == 1, "no PID namespace"
for path in ("/etc/passwd", "/proc/self/status", "/root", "/home", "/sys"):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).close()
    except OSError:
        continue
    raise SystemExit("can read " + path)
for path in ("/usr/lib", "/dev", "/"):
    try:
        open(path + "/lichen-proof", "w").close()
    except OSError:
        continue
    raise SystemExit("can write to " + path)
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))
except OSError:
    pass
else:
    raise SystemExit("can reach the network")
open("own", "w").close()
"""
"""A script that ends with status 0 only behind a wall that holds (192.0.2.1 is RFC 5737's)."""
