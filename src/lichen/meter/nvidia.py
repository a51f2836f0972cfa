"""Finding NVIDIA GPUs through NVML, with every failure as a reason and a remedy."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from lichen.meter.setting import Setting

NO_DRIVER = "no NVIDIA driver on this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU: NVML handle, name, UUID, and whether it is divided into MIG instances."""

    handle: Any
    label: str
    uuid: str
    mig: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """The GPUs that count here, or why there are none and what to do about it."""

    nvml: Any = None
    devices: tuple[Device, ...] = ()
    reason: str = ""
    remedy: str = ""


def find_gpus(setting: Setting) -> Gpus:
    """Load NVML and list the GPUs that CUDA_VISIBLE_DEVICES leaves visible (all if it is unset)."""
    nvml = setting.nvml
    if nvml is None:
        if not (setting.dev / "nvidiactl").exists():
            return Gpus(reason=NO_DRIVER)
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return Gpus(
                reason="an NVIDIA GPU is here, but the package nvidia-ml-py is not installed",
                remedy='pip install "lichen[nvidia]"',
            )
    try:
        nvml.nvmlInit()
        handles = _visible(nvml, setting.visible_devices)
        devices = {d.uuid: d for d in (_device(nvml, handle) for handle in handles)}
    except nvml.NVMLError as exc:
        return Gpus(
            reason=f"NVML does not answer: {exc}", remedy="check the driver with nvidia-smi"
        )
    if not devices:
        hidden = setting.visible_devices is not None
        return Gpus(reason="CUDA_VISIBLE_DEVICES hides all GPUs" if hidden else "NVML lists no GPU")
    return Gpus(nvml=nvml, devices=tuple(devices.values()))


def _visible(nvml: Any, visible: str | None) -> list[Any]:
    everything = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    if visible is None:
        return everything
    chosen: list[Any] = []
    for word in (w.strip() for w in visible.split(",")):
        if word.isdigit() and int(word) < len(everything):
            # CUDA's own order may differ from NVML's unless CUDA_DEVICE_ORDER=PCI_BUS_ID.
            chosen.append(everything[int(word)])
        elif word.startswith("MIG-"):
            instance = nvml.nvmlDeviceGetHandleByUUID(word)
            chosen.append(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance))
        elif word.startswith("GPU-"):
            chosen += [
                h for h in everything if _as_text(nvml.nvmlDeviceGetUUID(h)).startswith(word)
            ]
        else:
            break  # CUDA ignores everything from the first invalid entry on ("-1" hides all)
    return chosen


def _device(nvml: Any, handle: Any) -> Device:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        current = 0  # GPUs before Ampere have no MIG mode
    return Device(
        handle=handle,
        label=_as_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_as_text(nvml.nvmlDeviceGetUUID(handle)),
        mig=current == 1,
    )


def _as_text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
