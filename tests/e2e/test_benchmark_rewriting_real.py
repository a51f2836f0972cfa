"""Rewrites on the real data set, each proven by running its reference in the real sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lichen.benchmark.rewritten import rewritten
from lichen.benchmark.tasks import TASKS, TaskContext
from lichen.sandbox import open_sandbox

EXPECTED = {"rename": 164, "reformat": 163, "reorder": 52}


@pytest.mark.slow
@pytest.mark.parametrize("rewrite", EXPECTED)
def test_humaneval_is_rewritten_and_proven(data_file: Callable[[str], Path], rewrite: str) -> None:
    """As many problems as the documentation says, none of which keeps its wording."""
    sandbox = open_sandbox(workers=1)
    try:
        context = TaskContext(data_path=data_file("humaneval"), data_sha256="", sandbox=sandbox)
        task = TASKS.get("humaneval")(context)
        problems = rewritten(task, rewrite).problems()
    finally:
        sandbox.close()
    plain = {p.id: p.prompt for p in task.problems()}
    assert len(problems) == EXPECTED[rewrite]
    assert all(p.prompt != plain[p.id] for p in problems)
