"""Replay stop_when_complete over stored answers: which verdicts does it change, what does it save?

    python benchmarks/stop_replay.py --from-run 20260101-120000-abcd1234
    python benchmarks/stop_replay.py --from-run 20260101-120000-abcd1234 --solution plain --write

The decision is a function of the text alone, so a model's whole answers, stored by any run of
``lichen bench``, show what the strategy would have kept of them: greedy decoding would have said
the same up to there. Whole and kept answers are judged now, side by side, in the sandbox; an answer
that was stopped by another rule, or that failed, is left out and counted. Nothing is generated.

``--write`` puts the result into the documentation.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import strategy_pages
from strategies import stored

from lichen.acceleration.completeness import CompleteCode, wanted_of
from lichen.acceleration.stop_rules import replay
from lichen.benchmark.summarise import StoredRun
from lichen.compose.build import make_catalog, make_task
from lichen.compose.spec import RunSpec
from lichen.core.errors import ConfigError, LichenError
from lichen.core.generation import Finish
from lichen.core.ports import Candidate, Task
from lichen.core.record import SampleRecord
from lichen.core.task import Problem
from lichen.sandbox import open_sandbox

SCRIPT = "stop_replay"
_WHOLE = (Finish.STOP, Finish.LENGTH)
"""How an answer ends that nothing cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """An answer, and what of it would have been kept.

    Attributes:
        problem: what was asked.
        whole: the model's whole answer.
        kept: its beginning that the strategy keeps, the whole if it never stops.
        read: characters that had been written when it stopped.
    """

    problem: Problem
    whole: str
    kept: str
    read: int


def answers_of(found: StoredRun, solution: str) -> list[SampleRecord]:
    """Return one solution's samples.

    Raises:
        ConfigError: the run has no such solution.
    """
    names = list(dict.fromkeys(s.solution for s in found.samples))
    if solution not in names:
        raise ConfigError(
            f"--solution: run {found.run.id} has no {solution!r}; it has "
            f"{', '.join(names) or 'none'}"
        )
    return [s for s in found.samples if s.solution == solution]


def replayed(task: Task, samples: Sequence[SampleRecord]) -> list[Replayed]:
    """Ask the rule about every whole answer."""
    problems = {p.id: p for p in task.problems()}
    found = []
    for sample in samples:
        if sample.finish not in _WHOLE:
            continue
        problem = problems[sample.problem_id]
        request = task.request(problem, sample=sample.sample, seed=sample.seed)
        cut = replay(CompleteCode(wanted_of(request)), sample.text)
        keep, read = (cut.keep, cut.read) if cut else (len(sample.text), len(sample.text))
        found.append(
            Replayed(problem=problem, whole=sample.text, kept=sample.text[:keep], read=read)
        )
    return found


def solved(task: Task, answers: Sequence[tuple[Problem, str]]) -> list[bool]:
    """Judge answers."""
    candidates = (
        Candidate(id=str(n), problem=problem, code=task.extract(problem, text))
        for n, (problem, text) in enumerate(answers)
    )
    scores = dict(task.score(candidates))
    return [scores[str(n)].solved for n in range(len(answers))]


def result(task: Task, found: Sequence[Replayed]) -> dict[str, Any]:
    """Return what the strategy changes and what it saves."""
    whole = solved(task, [(r.problem, r.whole) for r in found])
    kept = solved(task, [(r.problem, r.kept) for r in found])
    verdicts = list(zip(found, whole, kept, strict=True))
    written = sum(len(r.whole) for r in found)
    return {
        "answers": len(found),
        "stopped": sum(r.read < len(r.whole) for r in found),
        "characters": written,
        "characters_not_written": written - sum(r.read for r in found),
        "solved_whole": sum(whole),
        "solved_kept": sum(kept),
        "lost": [r.problem.id for r, was, now in verdicts if was and not now],
        "won": [r.problem.id for r, was, now in verdicts if now and not was],
    }


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--from-run", required=True, help="a stored run with whole answers")
    parser.add_argument("--solution", default="plain", help="whose answers (default: plain)")
    parser.add_argument("--write", action="store_true", help="also into the documentation")
    return parser.parse_args()


def main() -> int:
    """Replay, print JSON, fill the page if asked to."""
    given = arguments()
    try:
        found = stored(given.from_run)
        run, samples = found.run, answers_of(found, given.solution)
        spec = RunSpec.model_validate_json(run.spec)
        with open_sandbox(workers=spec.sandbox.workers, unsafe=spec.sandbox.unsafe) as sandbox:
            task = make_task(spec.task, make_catalog(), sandbox)
            answers = replayed(task, samples)
            shown = result(task, answers)
    except LichenError as exc:
        sys.stderr.write(f"{exc}\n")
        return exc.exit_code
    model = next(
        (s.model.name for s in run.solutions if s.name == given.solution and s.model), "unknown"
    )
    document = {
        "run": run.id,
        "date": run.created_at[:10],
        "command": shlex.join(["python", f"benchmarks/{SCRIPT}.py", *sys.argv[1:]]),
        "model": model,
        "task": run.task,
        "style": run.prompt_style,
        "half": spec.task.half,
        "not_whole": len(samples) - len(answers),
        **shown,
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    if given.write:
        key = f"{model}, {run.task}, {run.prompt_style}, {spec.task.half}"
        strategy_pages.write_result(SCRIPT, key, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
