"""Judge the answers that strategies set aside.

A cascade asks a small model, doubts its answer and asks a larger one. Whether the doubt was right
no strategy can know; a report on its threshold has to. So a benchmark judges these answers too,
outside all measuring windows: nobody would pay for that in earnest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lichen.core.generation import Completion
from lichen.core.ports import Candidate, Task
from lichen.core.task import Problem


def judged(
    task: Task, problems: Sequence[Problem], completions: Sequence[Completion]
) -> list[Completion]:
    """Return the completions with ``solved`` filled in where their ledgers hold answers.

    Args:
        task: reads and scores answers.
        problems: what each completion answers, in the same order.
        completions: with their ledgers.
    """
    candidates = {
        (i, k): Candidate(id=f"{i}.{k}", problem=problem, code=task.extract(problem, step.answer))
        for i, (problem, completion) in enumerate(zip(problems, completions, strict=True))
        for k, step in enumerate(completion.ledger)
        if step.answer
    }
    if not candidates:
        return list(completions)
    scores = dict(task.score(candidates.values()))
    solved = {place: scores[c.id].solved for place, c in candidates.items()}
    return [
        replace(
            completion,
            ledger=tuple(
                replace(step, solved=solved.get((i, k))) for k, step in enumerate(completion.ledger)
            ),
        )
        for i, completion in enumerate(completions)
    ]
