"""Problems, candidates and verdicts: what tasks ask and how answers are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lichen.core.value import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One item of a task.

    ``fields`` holds the data set's own columns as text (hostile input: never evaluated outside
    the sandbox); ``reference`` is a solution that should pass, "" if the data set has none.
    """

    id: str
    prompt: str
    entry_point: str = ""
    reference: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a judged program may use. CPU-seconds decide; wall time is a generous backstop."""

    cpu_s: float = 10.0
    wall_s: float = 60.0
    memory_bytes: int = 1 << 30
    processes: int = 32
    file_bytes: int = 16 << 20
    output_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An untrusted solution and the trusted check to hold against it.

    The two run in different processes: the check calls the solution's ``entry_point`` through a
    pipe and sees plain values only, so a solution can neither read nor patch its own check.

    Args:
        id: unique within one ``judge`` call.
        solution: untrusted Python source that should define ``entry_point``.
        entry_point: name of the function under test.
        setup: trusted Python source run in the checking process first (helpers that the tests
            use, e.g. the reference program); may be "".
        check: trusted Python source run in the checking process with ``entry_point`` and
            ``candidate`` both bound to the proxy; raises when the solution is wrong.
    """

    id: str
    solution: str
    entry_point: str
    check: str
    setup: str = ""
    limits: Limits = Limits()


class Status(StrEnum):
    """The four possible verdicts."""

    PASSED = "passed"
    FAILED = "failed"
    """The program ran to an answer, and the answer is wrong."""
    ERROR = "error"
    """The program could not run: syntax error, exception, exit, memory, forbidden act."""
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Value):
    """How one candidate was judged.

    ``kind`` refines the status in a word: ``assertion``, ``exception``, ``syntax``, ``no-entry``,
    ``exit``, ``killed``, ``memory``, ``output``, ``protocol``, ``cpu``, ``wall``; "" when passed.
    ``attempts`` > 1 tells that a time-out was run again alone before it counted.
    """

    status: Status
    kind: str = ""
    message: str = ""
    cpu_s: float | None = None
    wall_s: float | None = None
    attempts: int = 1

    @property
    def passed(self) -> bool:
        """Whether the candidate solved its problem."""
        return self.status is Status.PASSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Value):
    """Quality of one sample: ``value`` in [0, 1] under the name of the task's ``metric``.

    Pass/fail tasks use 1 and 0; others (edit similarity, reciprocal rank) anything between.
    """

    metric: str
    value: float
    verdict: Verdict | None = None
    extra: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Check the range; NaN fails it too."""
        if not 0.0 <= self.value <= 1.0:
            msg = f"a score lies in [0, 1], got {self.metric} = {self.value}"
            raise ValueError(msg)

    @property
    def solved(self) -> bool:
        """Whether the sample counts as solved: passed, or a perfect score where none is run."""
        return self.verdict.passed if self.verdict is not None else self.value >= 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStyle:
    """How a task words its question; part of the task's version, recorded with every run."""

    name: str
    version: str
    description: str
