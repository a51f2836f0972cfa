"""Remember tunings: one JSON file each, with every measurement that led to it.

The key is what the answer depends on: the machine, the model file, the engine's version, the
latency bound and the CPUs that were free. A file that cannot be read is treated as absent, with a
log message, and written anew by the next tuning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from lichen.acceleration.engine_cost import CostSample, EngineSetting, Phase, setting_from
from lichen.acceleration.tuned import Outcome, Race, Tuning
from lichen.core.errors import ConfigError
from lichen.core.interval import Interval
from lichen.core.record import Environment

FORMAT: Final = 1
"""Version of the files; others are ignored."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningKey:
    """What a tuning holds for.

    Args:
        machine: see ``machine_id``.
        model_sha256: of the model file.
        engine: adapter and version, e.g. "llama_cpp 2026.10.11549".
        cpus_free: CPUs that were free.
        latency_bound_s: seconds per token, None for no bound.
    """

    machine: str
    model_sha256: str
    engine: str
    cpus_free: int
    latency_bound_s: float | None = None


def machine_id(environment: Environment) -> str:
    """Return a fingerprint of what decides how fast an engine is: processor, CPUs, memory, GPUs."""
    e = environment
    parts = (e.machine, e.cpu_model, e.usable_cpus, e.logical_cpus, e.memory_bytes, *e.gpus)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


class TuningCache:
    """Tunings in a folder, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: TuningKey) -> Tuning | None:
        """Return what was stored under exactly this key."""
        found = self._read(self._path(key))
        return found[1] if found is not None and found[0] == key else None

    def nearest(self, key: TuningKey) -> Tuning | None:
        """Return the tuning for this key, or else for the most CPUs that are not more than its.

        A tuning for more CPUs than are free now would let threads spin on busy cores.
        """
        fitting = [
            (other.cpus_free, tuning)
            for other, tuning in self._all()
            if other.cpus_free <= key.cpus_free
            and (other.machine, other.model_sha256, other.engine, other.latency_bound_s)
            == (key.machine, key.model_sha256, key.engine, key.latency_bound_s)
        ]
        return max(fitting, key=lambda entry: entry[0])[1] if fitting else None

    def put(self, key: TuningKey, tuning: Tuning) -> Path:
        """Store a tuning, replacing what was there; returns the file.

        Raises:
            ConfigError: the folder cannot be written.
        """
        document = {"format": FORMAT, "key": asdict(key), "tuning": asdict(tuning)}
        path = self._path(key)
        part = path.with_name(f"{path.name}.{uuid4().hex}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(_plain(document), indent=1) + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as exc:
            raise ConfigError(
                f"the tuning cannot be written to {self.folder}: {exc.strerror}; "
                "name a folder that can be written"
            ) from exc
        return path

    def _path(self, key: TuningKey) -> Path:
        text = json.dumps(asdict(key), sort_keys=True)
        return self.folder / f"tuning-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def _all(self) -> Iterator[tuple[TuningKey, Tuning]]:
        for path in sorted(self.folder.glob("tuning-*.json")):
            found = self._read(path)
            if found is not None:
                yield found

    def _read(self, path: Path) -> tuple[TuningKey, Tuning] | None:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                return None
            return TuningKey(**document["key"]), _tuning(document["tuning"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as exc:
            _log.warning("the stored tuning %s cannot be used and is ignored: %r", path, exc)
            return None


def _plain(value: Any) -> Any:
    """Write infinite bounds as texts: JSON has no infinity."""
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _tuning(data: Mapping[str, Any]) -> Tuning:
    return Tuning(
        **{
            **data,
            "setting": setting_from(data["setting"]),
            "races": tuple(_race(r) for r in data["races"]),
            "samples": tuple(_sample(s) for s in data["samples"]),
        }
    )


def _race(data: Mapping[str, Any]) -> Race:
    ratio = data["ratio"]
    return Race(
        **{
            **data,
            "incumbent": setting_from(data["incumbent"]),
            "challenger": setting_from(data["challenger"]),
            "outcome": Outcome(data["outcome"]),
            "ratio": None if ratio is None else Interval(**{k: float(v) for k, v in ratio.items()}),
        }
    )


def _sample(data: Mapping[str, Any]) -> CostSample:
    setting: EngineSetting = setting_from(data["setting"])
    return CostSample(**{**data, "setting": setting, "phase": Phase(data["phase"])})
