"""What every check is given: the two files, opened once, the thresholds and the ports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lichen.compression.gate.levels import Thresholds
from lichen.compression.gate.ports import GatePorts, TaskValue
from lichen.compression.gate.report import Check
from lichen.compression.model_file import ModelFile, open_model
from lichen.core.errors import LichenError
from lichen.core.measurement import Missing


@dataclass(slots=True, kw_only=True)
class Subject:
    """A child and its parent under examination.

    Files are opened, and the task is run, when a check first asks; later checks get the same.
    """

    parent: Path
    child: Path
    thresholds: Thresholds
    ports: GatePorts
    _models: dict[Path, ModelFile] = field(default_factory=dict)
    _task: list[TaskValue | LichenError] = field(default_factory=list)

    def model(self, path: Path) -> ModelFile:
        """Return one of the two as a model file.

        Raises:
            LichenError: it cannot be opened.
        """
        if path not in self._models:
            self._models[path] = open_model(path)
        return self._models[path]

    @property
    def is_folder(self) -> bool:
        """Whether the child is a model folder in hub layout rather than a GGUF file."""
        return self.child.is_dir()

    def task(self) -> TaskValue | Missing:
        """Return what the one run of the task says; two checks read it.

        Raises:
            LichenError: the run failed; the same error each time.
        """
        measure = self.ports.task
        if isinstance(measure, Missing):
            return measure
        if not self._task:
            try:
                self._task.append(measure(self.parent, self.child))
            except LichenError as exc:
                self._task.append(exc)
        (found,) = self._task
        if isinstance(found, LichenError):
            raise found
        return found


def not_run(name: str, why: str) -> Check:
    """Return the entry of a check that was not made."""
    return Check(name=name, passed=None, what=f"not run: {why}")
