"""Write candidates the way the official scorers read them, and read them back.

* ``human-eval`` rows are ``{task_id, completion}`` and are run as
  ``prompt + completion + test + check(entry_point)``. A candidate is a whole program, so its
  completion first ends the function that the prompt has opened (``pass`` after the docstring) and
  then defines it again. The prompt's imports and helpers run before it, as they do here.
* ``evalplus`` rows are ``{task_id, solution}``; the solution is run as it stands. A row with
  ``completion`` is read there, too, as prompt plus completion.

``from __future__`` imports cannot follow a prompt, so a completion leaves them out; in Python 3.11
and later only ``annotations`` still has an effect, and only on annotations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from lichen.core.errors import ConfigError
from lichen.core.task import Problem

_FUTURE: Final = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+[\w, \t]+$", re.MULTILINE)


def to_official_completion(problem: Problem, candidate: str) -> str:
    """Return the human-eval ``completion`` that stands for a candidate; "" stays ""."""
    if not candidate.strip():
        return ""
    stub = problem.fields.get("stub", problem.prompt)
    indent = re.match(r"[ \t]*", stub.rstrip().rpartition("\n")[2])
    body = (indent[0] if indent else "") or "    "
    return f"\n{body}pass\n\n\n" + _FUTURE.sub("", candidate)


def human_eval_row(problem: Problem, candidate: str) -> dict[str, str]:
    """Return the row that the human-eval scorer reads."""
    return {"task_id": problem.id, "completion": to_official_completion(problem, candidate)}


def evalplus_row(problem: Problem, candidate: str) -> dict[str, str]:
    """Return the row that evalplus reads."""
    return {"task_id": problem.id, "solution": candidate}


def candidate_of_row(problem: Problem, row: Mapping[str, object]) -> str:
    """Return the program that a stored sample stands for, exactly as its scorer would run it.

    Raises:
        ConfigError: the row has neither a text ``solution`` nor a text ``completion``.
    """
    solution, completion = row.get("solution"), row.get("completion")
    if isinstance(solution, str):
        return solution
    if isinstance(completion, str):
        return problem.fields.get("stub", problem.prompt) + completion
    raise ConfigError(
        f"a sample of {problem.id} needs a text 'solution' (evalplus) or 'completion' (human-eval)"
    )
