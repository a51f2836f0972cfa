"""One file per family of counters, independent of each other; plug-ins use ``lichen.probes``."""

from __future__ import annotations

from lichen.core.registry import Registry
from lichen.meter.setting import ProbeFactory

PROBES: Registry[ProbeFactory] = Registry(
    "probe",
    "lichen.probes",
    {
        "process": "lichen.meter.probes.process:ProcessProbe",
        "memory": "lichen.meter.probes.memory:MemoryProbe",
        "rapl": "lichen.meter.probes.rapl:RaplProbe",
        "nvml": "lichen.meter.probes.nvml:NvmlProbe",
        "power_model": "lichen.meter.probes.power_model:PowerModelProbe",
        "system": "lichen.meter.probes.system:SystemProbe",
    },
)
