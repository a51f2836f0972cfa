"""A fake NVML: the functions of ``pynvml`` that lichen calls, over GPUs the test controls."""

from __future__ import annotations

from dataclasses import dataclass


class NVMLError(Exception):
    """Stands for ``pynvml.NVMLError``."""


@dataclass(slots=True)
class FakeGpu:
    """A GPU: None means that NVML does not support it; ``lost`` makes all reads fail."""

    name: str = "Fake GPU"
    uuid: str = "GPU-0"
    energy_mj: int | None = 0
    power_mw: int | None = None
    mig: int | None = None
    lost: bool = False


class FakeNvml:
    """Use as ``Setting(nvml=FakeNvml([...]))``; ``driver=False`` is a missing driver."""

    NVMLError = NVMLError

    def __init__(self, gpus: list[FakeGpu], *, driver: bool = True) -> None:
        self.gpus = gpus
        self.driver = driver

    def nvmlInit(self) -> None:  # noqa: N802 (NVML's name)
        """Fail without a driver."""
        if not self.driver:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 (NVML's name)
        """Count the GPUs."""
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802 (NVML's name)
        """Return the GPU itself as its handle."""
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802 (NVML's name)
        """Return a MIG instance's handle: its UUID, ``MIG-<GPU's UUID>``."""
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> FakeGpu:  # noqa: N802
        """Return the GPU that an instance belongs to."""
        return next(g for g in self.gpus if handle == f"MIG-{g.uuid}")

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:  # noqa: N802 (NVML's name)
        """Return the product name."""
        return handle.name

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> bytes:  # noqa: N802 (NVML's name)
        """Return the UUID, as bytes like old versions do."""
        return handle.uuid.encode()

    def nvmlDeviceGetMigMode(self, handle: FakeGpu) -> tuple[int, int]:  # noqa: N802 (NVML's name)
        """Return (current, pending); not supported if None."""
        mode = _supported(handle, handle.mig)
        return mode, mode

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: FakeGpu) -> int:  # noqa: N802
        """Return millijoules."""
        return _supported(handle, handle.energy_mj)

    def nvmlDeviceGetPowerUsage(self, handle: FakeGpu) -> int:  # noqa: N802 (NVML's name)
        """Return milliwatts."""
        return _supported(handle, handle.power_mw)


def _supported(gpu: FakeGpu, value: int | None) -> int:
    if gpu.lost:
        raise NVMLError("GPU is lost")
    if value is None:
        raise NVMLError("Not Supported")
    return value
