"""Records: what a run was, enough to redo it, re-price it and report it without running again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lichen.core.generation import Confidence, Finish, Step, Timings
from lichen.core.measurement import Measurement, Usage
from lichen.core.model import ModelArtifact
from lichen.core.task import Score
from lichen.core.value import Value

RECORD_VERSION = 1
"""Version of the record layout; a reader refuses newer ones and migrates older ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment(Value):
    """The machine and software of a run. Text where unknown is "unknown", never "".

    ``versions`` are (package, version) pairs; ``load_average`` is the 1-minute one at the start.
    """

    lichen_version: str
    python_version: str
    os: str
    machine: str
    cpu_model: str
    logical_cpus: int
    usable_cpus: int
    memory_bytes: int
    virtualisation: str
    governor: str
    load_average: float | None
    gpus: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionRecord(Value):
    """One solution of a run, resolved: which model, engine, settings and strategies.

    ``settings`` are (dotted name, value as text) pairs of everything that could change a result.
    ``load`` is the cost of bringing the solution up, outside the samples' costs.
    """

    name: str
    model: ModelArtifact | None
    engine: str
    settings: tuple[tuple[str, str], ...]
    load: Measurement | None = None


class RunState(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleRecord(Value):
    """What the reference solutions scored before any model ran."""

    problems: int
    passed: int
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(Value):
    """The head of a run. ``spec`` is the resolved spec as JSON text; ``spec_hash`` its SHA-256.

    ``task_version`` covers prompting and extraction; ``data_sha256`` is the data file's hash.
    ``created_at`` is ISO 8601 in UTC. ``idle`` is the machine's idle baseline window, if taken.
    """

    id: str
    created_at: str
    task: str
    task_version: str
    prompt_style: str
    metric: str
    data_sha256: str
    problem_ids: tuple[str, ...]
    samples_per_problem: int
    seed: int
    spec: str
    spec_hash: str
    environment: Environment
    solutions: tuple[SolutionRecord, ...]
    oracle: OracleRecord | None = None
    idle: Measurement | None = None
    state: RunState = RunState.RUNNING
    notes: tuple[str, ...] = ()
    record_version: int = RECORD_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord(Value):
    """One attempt of one solution at one problem. Identity: (run_id, solution, problem_id, sample).

    ``generation`` and ``judging`` are this sample's share of its block's windows (``block`` says
    which); shares are by modelled work, so sums over a block are measured and single samples are
    allocated. ``candidate`` is the code that was extracted and judged, ``text`` the raw answer.
    """

    run_id: str
    solution: str
    problem_id: str
    sample: int
    block: int
    seed: int
    prompt_sha256: str
    text: str
    candidate: str
    finish: Finish
    usage: Usage
    timings: Timings
    score: Score
    generation: Measurement
    judging: Measurement | None = None
    confidence: Confidence | None = None
    ledger: tuple[Step, ...] = ()
    draft_tokens: int = 0
    draft_accepted: int = 0
    error: str = ""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The identity that a store keeps unique."""
        return (self.run_id, self.solution, self.problem_id, self.sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRecord(Value):
    """One window in which one solution answered a batch of problems: the unit of resumption.

    A block's samples are stored in one transaction with it, so that a killed run never leaves
    half a block, and a resumed run repeats whole blocks with the same batch composition.
    """

    run_id: str
    index: int
    solution: str
    generation: Measurement
    judging: Measurement | None
    started_at: str
