"""Score samples that were generated elsewhere: human-eval and evalplus JSON Lines, no model.

Each row is run exactly as its own scorer would (see ``lichen.benchmark.answers.export``): nothing
is extracted or repaired. Problems without a sample are counted, not scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lichen.benchmark.answers.export import candidate_of_row
from lichen.benchmark.corpus.rows import Row, read_rows
from lichen.benchmark.passk import mean_in_unit_range, pass_at_k_all
from lichen.benchmark.run import judge_references
from lichen.core.errors import ConfigError
from lichen.core.interval import Interval
from lichen.core.ports import Candidate, Task
from lichen.core.record import OracleRecord
from lichen.core.task import Problem, Verdict

CONFIDENCE: Final = 0.95
KS: Final = (1, 10, 100)
"""The k that papers report (Chen et al. 2021); those above the samples per problem are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleVerdict:
    """What became of one row: its line in the file, its problem and the verdict."""

    line: int
    problem_id: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScores:
    """The result of scoring a file of samples, in the file's order.

    ``pass_at_k`` holds (k, mean over the problems with samples, 95 % interval over problems);
    ``verdicts`` counts "status kind"; ``unanswered`` are problems of the task without a sample.
    """

    task: str
    task_version: str
    data_sha256: str
    problems: int
    unanswered: int
    samples: tuple[SampleVerdict, ...]
    pass_at_k: tuple[tuple[int, Interval], ...]
    verdicts: tuple[tuple[str, int], ...]
    oracle: OracleRecord


def score_samples(
    task: Task, path: Path, *, advance: Callable[[int], None] = lambda _: None
) -> StoredScores:
    """Judge every row of a samples file, references first.

    Args:
        task: a task whose candidates are programs.
        path: JSON Lines, plain or gzipped, of ``{task_id, solution}`` or ``{task_id, completion}``.
        advance: told how many more samples were judged.

    Raises:
        ConfigError: a row names no problem of the task or holds no program; no rows at all.
    """
    problems = {p.id: p for p in task.problems()}
    rows = list(read_rows(path))
    if not rows:
        raise ConfigError(f"{path} holds no samples")
    candidates = {str(row.line): _candidate(row, problems) for row in rows}
    asked = {c.problem.id for c in candidates.values()}
    oracle = judge_references(task, [p for p in problems.values() if p.id in asked])
    verdicts: dict[str, Verdict] = {}
    for name, score in task.score(candidates.values()):
        if score.verdict is None:
            raise ConfigError(f"the task {task.name!r} does not run programs")
        verdicts[name] = score.verdict
        advance(1)
    samples = tuple(
        SampleVerdict(line=row.line, problem_id=c.problem.id, verdict=verdicts[c.id])
        for row, c in zip(rows, candidates.values(), strict=True)
    )
    counts = Counter(f"{s.verdict.status} {s.verdict.kind}".strip() for s in samples)
    attempts = Counter(s.problem_id for s in samples)
    return StoredScores(
        task=task.name,
        task_version=task.version,
        data_sha256=task.data_sha256,
        problems=len(attempts),
        unanswered=len(problems) - len(attempts),
        samples=samples,
        pass_at_k=_pass_at_k(attempts, samples),
        verdicts=tuple(counts.most_common()),
        oracle=oracle,
    )


def _candidate(row: Row, problems: dict[str, Problem]) -> Candidate:
    name = row.text("task_id")
    if name not in problems:
        known = next(iter(problems), "none")
        raise row.error(f"the task has no problem {name[:80]!r}; its problems are like {known!r}")
    try:
        code = candidate_of_row(problems[name], row.values)
    except ConfigError as exc:
        raise row.error(str(exc)) from exc
    return Candidate(id=str(row.line), problem=problems[name], code=code)


def _pass_at_k(
    attempts: Counter[str], samples: tuple[SampleVerdict, ...]
) -> tuple[tuple[int, Interval], ...]:
    passed = Counter(s.problem_id for s in samples if s.verdict.passed)
    names = list(attempts)
    totals, hits = [attempts[n] for n in names], [passed[n] for n in names]
    fewest = min(totals)
    return tuple(
        (k, mean_in_unit_range(pass_at_k_all(totals, hits, k), confidence=CONFIDENCE))
        for k in KS
        if k <= fewest
    )
