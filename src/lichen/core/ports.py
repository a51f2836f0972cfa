"""Every port of lichen on one page: what the layers promise each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from lichen.core.errors import CapabilityError
from lichen.core.generation import Capability, Completion, Delta, Request
from lichen.core.task import Limits

if TYPE_CHECKING:
    from lichen.core.measurement import Measurement, Method, Quantity
    from lichen.core.record import BlockRecord, RunRecord, RunState, SampleRecord
    from lichen.core.task import Problem, Score, Trial, Verdict


@runtime_checkable
class Engine(Protocol):
    """Runs a model. Batch first: requests given together run concurrently.

    ``generate`` yields ``Delta`` items for requests with ``stream=True`` as they come, and exactly
    one ``Completion`` per request, in completion order. A request that fails gives a completion
    with ``finish=ERROR``; only a broken engine raises ``EngineError``. Requests are taken from the
    iterable as slots become free. Closing the iterator early cancels what still runs. ``close``
    is idempotent and frees the model.
    """

    @property
    def name(self) -> str:
        """Registry name of the adapter."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this engine, as loaded, can do."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests; see the class."""

    def close(self) -> None:
        """Free the model."""


@runtime_checkable
class Reusable(Protocol):
    """An engine that says whether one solution after the other may use it."""

    @property
    def stateless(self) -> bool:
        """Whether an answer, and its cost, depend on its own request alone."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of one length."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text, in order, each of the same length."""


@runtime_checkable
class Ranker(Protocol):
    """Orders documents by how well they answer a query, without vectors (BM25, a re-ranker)."""

    def rank(self, queries: Sequence[str], documents: Sequence[str]) -> list[list[int]]:
        """Return, per query, all document indices from best to worst."""


@runtime_checkable
class Tokenizer(Protocol):
    """Counts and cuts text the way the model does."""

    def tokenize(self, text: str) -> list[int]:
        """Return token ids, without special tokens added."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; invalid UTF-8 becomes U+FFFD."""


@runtime_checkable
class Window(Protocol):
    """An open measuring window; also a context manager that closes itself."""

    def close(self) -> Measurement:
        """End the window (idempotent) and return what it saw."""

    def __enter__(self) -> Self:
        """Return the window itself; it is already open."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the window."""


@runtime_checkable
class Meter(Protocol):
    """Opens windows, which may nest and overlap."""

    def window(self, label: str = "") -> Window:
        """Open a window now."""

    def close(self) -> None:
        """Stop sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeStatus:
    """What ``lichen doctor`` says of one probe on this machine.

    ``quantity`` is the ``Measurement`` field (and component) it feeds. When not ``available``,
    ``reason`` says why and ``remedy`` what a person can do about it ("" if nothing).
    """

    name: str
    quantity: str
    method: Method
    available: bool
    reason: str
    remedy: str = ""


@runtime_checkable
class Probe(Protocol):
    """Reads one family of counters. Never yields 0 for "cannot".

    ``read`` is cheap (well under a millisecond) and returns an opaque snapshot; ``between`` turns
    two snapshots into (measurement field, quantity) pairs.
    """

    @property
    def name(self) -> str:
        """Registry name."""

    def status(self) -> ProbeStatus:
        """Say whether and how this probe can measure here."""

    def read(self) -> object:
        """Take a snapshot."""

    def between(self, start: object, end: object) -> Sequence[tuple[str, Quantity]]:
        """Return what happened between two snapshots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An untrusted script for ``Sandbox.run``: its source, standard input and limits come along."""

    id: str
    source: str
    stdin: str = ""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What became of a program: how it ended and what it printed (truncated to the limit)."""

    id: str
    verdict: Verdict
    stdout: str
    stderr: str


@runtime_checkable
class Sandbox(Protocol):
    """Contains untrusted programs. Results come in completion order, one per input, always.

    Whatever a program does, the call ends and yields a verdict; nothing is raised for it.
    """

    def judge(self, trials: Iterable[Trial]) -> Iterator[tuple[str, Verdict]]:
        """Hold solutions against checks; yields (trial id, verdict)."""

    def run(self, programs: Iterable[Program]) -> Iterator[Execution]:
        """Run scripts."""

    def close(self) -> None:
        """End the worker processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An extracted answer, ready to be scored."""

    id: str
    problem: Problem
    code: str


@runtime_checkable
class Task(Protocol):
    """One kind of software-engineering work: problems, how to ask, how to read and score answers.

    Prompting and extraction are part of ``version``: change them and the version changes.
    """

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def version(self) -> str:
        """Version of prompting, extraction and scoring together."""

    @property
    def metric(self) -> str:
        """Name of what ``score`` measures, e.g. ``pass@1``."""

    @property
    def prompt_style(self) -> str:
        """Which wording is in use."""

    @property
    def data_sha256(self) -> str:
        """Hash of the data file the problems came from."""

    @property
    def needs(self) -> frozenset[Capability]:
        """Capabilities that a solution must have."""

    def problems(self) -> Sequence[Problem]:
        """All problems, in the data set's order."""

    def request(self, problem: Problem, *, sample: int, seed: int) -> Request:
        """Ask: build the request of one attempt (token limit and temperature come later)."""

    def extract(self, problem: Problem, text: str) -> str:
        """Read the answer: return the candidate in a completion's text, "" if there is none."""

    def score(self, candidates: Iterable[Candidate]) -> Iterator[tuple[str, Score]]:
        """Score candidates; yields (candidate id, score) in any order, one per candidate."""


@runtime_checkable
class AdaptsEngine(Protocol):
    """A task that asks through something around the engine (search: rank with its embeddings)."""

    def adapt(self, engine: Engine) -> Engine:
        """Return an engine that answers this task's requests by means of ``engine``."""


@runtime_checkable
class Sink(Protocol):
    """Where a run's records go. Append-only; ``add_block`` is all or nothing."""

    def add_run(self, run: RunRecord) -> None:
        """Store the head of a new run; an id that exists is a StoreError."""

    def add_block(self, block: BlockRecord, samples: Sequence[SampleRecord]) -> None:
        """Store a block with all its samples in one transaction; a repeat is a StoreError."""

    def finish_run(self, run_id: str, state: RunState, notes: Sequence[str] = ()) -> None:
        """Record how a run ended (or that it goes on again); ``notes`` are appended."""

    def blocks(self, run_id: str) -> Sequence[BlockRecord]:
        """Return the blocks stored so far, by index."""

    def samples(self, run_id: str) -> Sequence[SampleRecord]:
        """Return the samples stored so far, ordered by (solution, problem order, sample)."""

    def run(self, run_id: str) -> RunRecord:
        """Return the head of a run in its present state; an unknown id is a StoreError."""


def require(engine: Engine, needs: Iterable[Capability], *, who: str) -> None:
    """Raise CapabilityError unless ``engine`` has all of ``needs``; ``who`` wants them."""
    lacking = sorted(str(c) for c in frozenset(needs) - engine.capabilities)
    if lacking:
        msg = f"{who} needs {', '.join(lacking)}, which the engine {engine.name!r} does not have"
        raise CapabilityError(msg)
