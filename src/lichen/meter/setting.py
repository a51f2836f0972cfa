"""What the probes of one meter share: clock, power model, process tree, and where to look.

A registered probe is a factory ``Setting -> Probe``. Building one is cheap and never raises: what
cannot be measured is said by ``status`` and by ``Missing``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lichen.core.ports import Probe
from lichen.meter.power import PowerModel
from lichen.meter.process_tree import ProcessTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The surroundings of a probe.

    ``nvml`` is a module with NVML's functions (None: import pynvml); ``visible_devices`` the value
    of CUDA_VISIBLE_DEVICES, None if unset.
    """

    clock: Callable[[], float] = time.monotonic
    power_model: PowerModel = field(default_factory=PowerModel)
    tree: ProcessTree = field(default_factory=ProcessTree)
    proc: Path = Path("/proc")
    powercap: Path = Path("/sys/class/powercap")
    dev: Path = Path("/dev")
    nvml: Any = None
    visible_devices: str | None = None

    @classmethod
    def here(
        cls,
        *,
        clock: Callable[[], float] = time.monotonic,
        power_model: PowerModel | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Setting:
        """Return the setting of this machine."""
        environ = os.environ if environ is None else environ
        return cls(
            clock=clock,
            power_model=power_model or PowerModel(),
            tree=ProcessTree(clock=clock),
            visible_devices=environ.get("CUDA_VISIBLE_DEVICES"),
        )


@runtime_checkable
class SampledProbe(Protocol):
    """A probe that must also be looked at while a window is open (peaks, sampled power, wraps)."""

    def sample(self) -> None:
        """Take note of the present state; cheap, called once per sampling interval."""


ProbeFactory = Callable[[Setting], Probe]
