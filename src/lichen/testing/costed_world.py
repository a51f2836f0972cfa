"""The whole benchmark around engines whose costs are known; model, meter, data and walls are fake.

For tests of what searches over solutions: the store, the tasks' code, the run loop and the summary
are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from lichen.benchmark.tasks import TaskContext
from lichen.benchmark.tasks.humaneval import make as make_humaneval
from lichen.catalog import Catalog
from lichen.compose.spec import TaskSpec
from lichen.core.generation import Request
from lichen.core.model import ModelArtifact
from lichen.core.ports import Sandbox, Task
from lichen.testing.clock import FakeClock
from lichen.testing.costed_engine import TWELVE_WORDS, ClockMeter, CostedEngine, Surface
from lichen.testing.engine import Line
from lichen.testing.in_process_sandbox import InProcessSandbox
from lichen.testing.task_data import HUMANEVAL_ROWS, write_rows

ENGINE: Final = "costed"
"""Name of the engine in solution files."""


Answers = Callable[[Mapping[str, object], Request], str | Line]
"""What an engine with these options answers to a request."""


@dataclass(frozen=True, slots=True)
class _FakeTree:
    """A process tree whose CPU time is the fake clock's."""

    cpu: FakeClock

    @property
    def cpu_s(self) -> float:
        return self.cpu()

    def read(self) -> _FakeTree:
        return self


def install(
    replace: Callable[[str, object], None],
    surface: Surface,
    folder: Path,
    *,
    problems: int = 12,
    text: str | Answers = TWELVE_WORDS,
) -> FakeClock:
    """Put the fakes in place and return the CPU clock that all work moves.

    Args:
        replace: sets a dotted name to a value for the time of a test (``monkeypatch.setattr``).
        surface: costs by engine options.
        folder: for the data file.
        problems: of the task, alike but for their names.
        text: every answer, or what an engine with these options answers.
    """
    cpu = FakeClock()
    rows = [{**HUMANEVAL_ROWS[0], "task_id": f"HumanEval/{i}"} for i in range(problems)]
    data = write_rows(folder / "data.jsonl", rows)

    def engine(_model: ModelArtifact | None, options: Mapping[str, object]) -> CostedEngine:
        says = text if isinstance(text, str) else partial(text, options)
        return CostedEngine(surface, options, cpu=cpu, text=says)

    def task(_spec: TaskSpec, _catalog: Catalog, sandbox: Sandbox) -> Task:
        return make_humaneval(TaskContext(data_path=data, data_sha256="0" * 64, sandbox=sandbox))

    def sandbox(**_settings: object) -> InProcessSandbox:
        return InProcessSandbox()

    replace("lichen.compose.build.MODEL_FREE_ENGINES", frozenset({ENGINE}))
    replace("lichen.compose.build.ENGINES", {ENGINE: engine})
    replace("lichen.compose.build.open_meter", lambda: ClockMeter(cpu))
    replace("lichen.compose.build.ProcessTree", lambda: _FakeTree(cpu))
    replace("lichen.compose.candidates.free_cpus", lambda _meter, usable: usable)
    for module in ("lichen.compose.build", "lichen.compose.acceleration"):
        replace(f"{module}.open_sandbox", sandbox)
        replace(f"{module}.make_task", task)
    return cpu
