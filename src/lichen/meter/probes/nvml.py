"""Energy of NVIDIA GPUs (extra ``nvidia``): the board's own counter, else sampled power.

``nvmlDeviceGetTotalEnergyConsumption`` counts mJ since the driver was loaded (Volta and newer).
Older boards only tell their power in mW; it is then integrated over the samples (trapezoid) and the
reading says SAMPLED. A GPU divided by MIG has one counter for all its instances, and the source
says so. All GPUs that CUDA_VISIBLE_DEVICES leaves visible are added; one that cannot be read makes
the sum ``Missing``, because a partial sum would understate.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Method, Missing, Quantity, Reading
from lichen.core.ports import ProbeStatus
from lichen.core.units import MJ_PER_J
from lichen.meter.nvidia import Device, find_gpus
from lichen.meter.setting import Setting

UPDATE_PERIOD_S: Final = 0.1
"""Counters move every 10 to 100 ms: Yang et al. 2024 (SC24, arXiv 2312.02741), Zeus issue 181."""

RELATIVE_ERROR: Final = 0.05
"""NVML's documentation of nvmlDeviceGetPowerUsage: within 5 % of the present draw."""

SAMPLED_ERROR: Final = 0.35
"""Naive power sampling errs by 35 % on average: Yang et al. 2024 (arXiv 2312.02741), abstract."""

MW_PER_W: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU at one moment: joules since some fixed moment, or the problem."""

    energy_j: float
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlSnapshot:
    """All GPUs at one moment."""

    time_s: float
    gpus: tuple[GpuReading, ...]


@dataclass(slots=True)
class _Gpu:
    device: Device
    counter: bool
    joules: float = 0.0
    watt: float = 0.0
    time_s: float | None = None
    problem: str = ""


class NvmlProbe:
    """Feeds ``energy_j`` of the gpu component."""

    name = "nvml"

    def __init__(self, setting: Setting) -> None:
        self._clock = setting.clock
        self._lock = threading.Lock()
        found = find_gpus(setting)
        self._nvml: Any = found.nvml
        self._reason, self._remedy = found.reason, found.remedy
        self._gpus = [_Gpu(d, counter=self._has_counter(d)) for d in found.devices]

    def status(self) -> ProbeStatus:
        """Say which GPUs are read and how."""
        problem = next((g.problem for g in self._looked() if g.problem), "")
        sampled = any(not g.counter for g in self._gpus)
        reason = self._reason or problem
        if not reason:
            labels = ", ".join(g.device.label for g in self._gpus)
            reason = f"{'sampled power' if sampled else 'energy counter'} of {labels}"
        return ProbeStatus(
            name=self.name,
            quantity="energy_j[gpu]",
            method=Method.SAMPLED if sampled else Method.COUNTER,
            available=bool(self._gpus) and not problem,
            reason=reason,
            remedy=self._remedy or ("check the GPU with nvidia-smi" if problem else ""),
        )

    def read(self) -> NvmlSnapshot:
        """Read every GPU."""
        gpus = self._looked()
        return NvmlSnapshot(
            time_s=self._clock(),
            gpus=tuple(GpuReading(energy_j=g.joules, problem=g.problem) for g in gpus),
        )

    def sample(self) -> None:
        """Integrate the power of GPUs without a counter; the others need no sampling."""
        if any(not g.counter for g in self._gpus):
            self._looked()

    def between(self, start: object, end: object) -> Sequence[tuple[str, Quantity]]:
        """Return the energy of all GPUs between two looks."""
        a, b = cast("NvmlSnapshot", start), cast("NvmlSnapshot", end)
        if not self._gpus:
            return (("energy_j", Missing(reason=self._reason, component=Component.GPU)),)
        elapsed = b.time_s - a.time_s
        parts = [
            _energy(gpu, x, y, elapsed)
            for gpu, x, y in zip(self._gpus, a.gpus, b.gpus, strict=True)
        ]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        return (("energy_j", whole),)

    def _looked(self) -> tuple[_Gpu, ...]:
        with self._lock:
            for gpu in self._gpus:
                self._look(gpu)
            return tuple(_copy(g) for g in self._gpus)

    def _look(self, gpu: _Gpu) -> None:
        nvml, handle, now = self._nvml, gpu.device.handle, self._clock()
        try:
            if gpu.counter:
                gpu.joules = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / MJ_PER_J
            else:
                watt = nvml.nvmlDeviceGetPowerUsage(handle) / MW_PER_W
                if gpu.time_s is not None:
                    gpu.joules += (gpu.watt + watt) / 2 * max(0.0, now - gpu.time_s)
                gpu.watt = watt
            gpu.problem = ""
        except nvml.NVMLError as exc:
            gpu.problem = f"NVML cannot read {gpu.device.label}: {exc}"
        gpu.time_s = now

    def _has_counter(self, device: Device) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetTotalEnergyConsumption(device.handle) >= 0)
        except self._nvml.NVMLError:
            return False


def _copy(gpu: _Gpu) -> _Gpu:
    return _Gpu(gpu.device, gpu.counter, gpu.joules, gpu.watt, gpu.time_s, gpu.problem)


def _energy(gpu: _Gpu, start: GpuReading, end: GpuReading, elapsed: float) -> Quantity:
    label = gpu.device.label
    used = end.energy_j - start.energy_j
    reason = start.problem or end.problem
    if not reason and used < 0:
        reason = f"the energy counter of {label} was reset during the window"
    if not reason and (used == 0 or elapsed < UPDATE_PERIOD_S):
        reason = (
            f"the window of {1000 * max(elapsed, 0.0):.3g} ms is too short for {label}, whose "
            "reading changes every 10 to 100 ms"
        )
    if reason:
        return Missing(reason=reason, component=Component.GPU)
    error = RELATIVE_ERROR if gpu.counter else SAMPLED_ERROR
    how = "energy counter" if gpu.counter else "sampled power"
    scope = ", whole GPU with all its MIG instances" if gpu.device.mig else ""
    return Reading(
        value=Interval.around(used, min(1.0, error + UPDATE_PERIOD_S / elapsed)),
        method=Method.COUNTER if gpu.counter else Method.SAMPLED,
        component=Component.GPU,
        source=f"NVML {how} ({label}{scope})",
    )
