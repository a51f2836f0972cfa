from __future__ import annotations

from pathlib import Path

import pytest

from lichen.meter.environment import capture
from lichen.meter.setting import Setting
from lichen.testing.nvml import FakeGpu, FakeNvml

GIB = 1024**3


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


LAPTOP = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Fast CPU 3000\nflags\t\t: fpu sse\n",
    "proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n",
    "proc/self/cgroup": "0::/user.slice\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
}


def test_a_laptop_is_described(tmp_path: Path) -> None:
    """Processor, memory, governor and bare metal are read from the system's files."""
    e = capture(root=files(tmp_path, LAPTOP))
    assert (e.cpu_model, e.memory_bytes, e.governor) == ("Fast CPU 3000", 16 * GIB, "powersave")
    assert e.virtualisation == "none seen"
    assert 1 <= e.usable_cpus <= e.logical_cpus


@pytest.mark.parametrize(
    "limits",
    [
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n",
        },
        {
            "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n",
            "sys/fs/cgroup/memory/x/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
        },
    ],
    ids=["cgroup v2", "cgroup v1"],
)
def test_a_containers_limits_count(tmp_path: Path, limits: dict[str, str]) -> None:
    """Half a CPU of quota is one usable CPU, and the tightest memory limit above us holds."""
    e = capture(root=files(tmp_path, LAPTOP | limits))
    assert (e.usable_cpus, e.memory_bytes) == (1, 2 * GIB)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {
                "proc/cpuinfo": "flags\t: fpu hypervisor\n",
                "sys/class/dmi/id/sys_vendor": "QEMU\n",
                ".dockerenv": "",
            },
            "virtual machine (QEMU), container (Docker)",
        ),
        ({"proc/version": "Linux 5.15 Microsoft-standard-WSL2"}, "virtual machine (WSL)"),
        ({"run/.containerenv": ""}, "container (Podman)"),
        ({"proc/self/cgroup": "0::/kubepods/x\n"}, "container (Kubernetes)"),
    ],
)
def test_virtualisation_is_named(tmp_path: Path, more: dict[str, str], expected: str) -> None:
    """Virtual machines and containers are recognised by what they leave in files."""
    assert capture(root=files(tmp_path, LAPTOP | more)).virtualisation == expected


def test_nothing_known_is_unknown(tmp_path: Path) -> None:
    """An empty system gives "unknown" where nothing is known, and real numbers elsewhere."""
    e = capture(root=tmp_path)
    assert (e.governor, e.virtualisation) == ("unknown", "unknown")
    assert e.cpu_model
    assert e.memory_bytes > 0


def test_versions_and_gpus_are_recorded(tmp_path: Path) -> None:
    """Asked packages get their version or "not installed"; GPUs their names."""
    setting = Setting(nvml=FakeNvml([FakeGpu(name="Fake H200")]))
    e = capture(["pytest", "no-such-package-x"], root=tmp_path, setting=setting)
    versions = dict(e.versions)
    assert versions["pytest"] == pytest.__version__
    assert versions["no-such-package-x"] == "not installed"
    assert e.gpus == ("Fake H200",)
