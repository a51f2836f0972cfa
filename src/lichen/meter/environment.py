"""The machine and software a run happened on, as the record keeps it.

Reads files and asks no network. Everything is best effort: what cannot be found is "unknown".
Limits of a container count, not the host's size: the CPUs and memory that this process may use.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from lichen.core.record import Environment
from lichen.core.units import BYTES_PER_KIB
from lichen.meter.nvidia import find_gpus
from lichen.meter.setting import Setting

UNKNOWN = "unknown"
_HYPERVISORS = {  # DMI vendor or product -> its name
    "kvm": "KVM",
    "qemu": "QEMU",
    "vmware": "VMware",
    "virtualbox": "VirtualBox",
    "microsoft corporation": "Hyper-V",
    "xen": "Xen",
    "amazon ec2": "Amazon EC2",
    "google": "Google Compute Engine",
    "openstack": "OpenStack",
    "firecracker": "Firecracker",
    "parallels": "Parallels",
}
_UNLIMITED = 1 << 60
"""cgroup v1 writes a number near 2**63 for "no limit": kernel documentation, memory.txt."""


def capture(
    packages: Iterable[str] = (), *, root: Path = Path("/"), setting: Setting | None = None
) -> Environment:
    """Describe this machine.

    Args:
        packages: distribution names whose versions belong to the record.
        root: where ``proc``, ``sys`` and ``run`` are, for tests.
        setting: where to look for GPUs.
    """
    cgroups = _cgroup_folders(root)
    return Environment(
        lichen_version=_version("lichen"),
        python_version=platform.python_version(),
        os=platform.platform(),
        machine=platform.machine() or UNKNOWN,
        cpu_model=_cpu_model(root),
        logical_cpus=os.cpu_count() or 1,
        usable_cpus=_usable_cpus(cgroups),
        memory_bytes=_memory_bytes(root, cgroups),
        virtualisation=_virtualisation(root),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or UNKNOWN,
        load_average=_load_average(),
        gpus=tuple(d.label for d in find_gpus(setting or Setting.here()).devices),
        versions=tuple((name, _version(name)) for name in packages),
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model(root: Path) -> str:
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or UNKNOWN
    text = _text(root / "proc/cpuinfo")
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or UNKNOWN


def _usable_cpus(cgroups: list[Path]) -> int:
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        allowed = os.cpu_count() or 1
    quotas = [q for q in (_quota(folder) for folder in cgroups) if q is not None]
    return max(1, min([allowed, *(math.ceil(q) for q in quotas)]))


def _quota(folder: Path) -> float | None:
    """Return the CPUs that a cgroup may use, None if it is not limited."""
    words = _text(folder / "cpu.max").split() or [
        _text(folder / "cpu.cfs_quota_us"),
        _text(folder / "cpu.cfs_period_us"),
    ]
    try:
        quota, period = (int(w) for w in words)
    except ValueError:  # "max", or files that are not there
        return None
    return quota / period if quota > 0 and period > 0 else None


def _memory_bytes(root: Path, cgroups: list[Path]) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    total = int(found[1]) * BYTES_PER_KIB if found else _system_memory()
    limits = [
        int(text)
        for folder in cgroups
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _text(folder / name)).isdigit() and 0 < int(text) < _UNLIMITED
    ]
    return min([total, *limits])


def _system_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_folders(root: Path) -> list[Path]:
    """Return the folders of this process's cgroups and of all above them (v1 and v2)."""
    mount = root / "sys/fs/cgroup"
    folders: list[Path] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        top = mount / controllers if controllers else mount
        folder = top / path.lstrip("/")
        while folder not in (top, mount) and folder.is_relative_to(top):
            folders.append(folder)
            folder = folder.parent
        folders.append(top)
    return list(dict.fromkeys([*folders, mount]))


def _virtualisation(root: Path) -> str:
    found = [*_virtual_machine(root), *_container(root)]
    if found:
        return ", ".join(found)
    return "none seen" if _text(root / "proc/cpuinfo") else UNKNOWN


def _virtual_machine(root: Path) -> list[str]:
    if "microsoft" in _text(root / "proc/version").lower():
        return ["virtual machine (WSL)"]
    flags = re.search(r"^flags\s*:(.*)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    vendor = " ".join(
        _text(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name")
    ).lower()
    name = next((label for key, label in _HYPERVISORS.items() if key in vendor), "")
    if flags and "hypervisor" in flags[1].split():
        return [f"virtual machine ({name})" if name else "virtual machine"]
    return []


def _container(root: Path) -> list[str]:
    if (root / ".dockerenv").exists():
        return ["container (Docker)"]
    if (root / "run/.containerenv").exists():
        return ["container (Podman)"]
    groups = _text(root / "proc/self/cgroup")
    named = (("kubepods", "Kubernetes"), ("docker", "Docker"), ("lxc", "LXC"))
    return [f"container ({name})" for key, name in named if key in groups][:1]


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _sysctl(
    name: str, run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> str:
    try:
        done = run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
