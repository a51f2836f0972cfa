"""Check: does the child solve as many of the user's problems as its parent?

Both answer the same problems in one interleaved run. Judged are the difference with its interval
against a margin set beforehand (non-inferiority) and McNemar's test on the problems that only one
of the two solved.
"""

from __future__ import annotations

from typing import Final

from lichen.compression.gate.report import Check
from lichen.compression.gate.subject import Subject, not_run
from lichen.core.measurement import Missing

NAME: Final = "quality"


def check(subject: Subject) -> Check:
    """Judge the paired difference."""
    run, limits = subject.task(), subject.thresholds
    if isinstance(run, Missing):
        return not_run(NAME, run.reason)
    found = run.quality
    missed = []
    if limits.below(found.difference, -limits.margin):
        missed.append(f"not within {100 * limits.margin:g} points of the parent")
    if found.mcnemar_p < limits.alpha and found.only_parent > found.only_child:
        missed.append("McNemar's test shows a loss")
    what = (
        f"{found.metric}: {found.child_solved} of {found.problems} against "
        f"{found.parent_solved}, difference {100 * found.difference.value:+.1f} points "
        f"({100 * found.difference.low:+.1f} to {100 * found.difference.high:+.1f}), "
        f"only parent {found.only_parent}, only child {found.only_child}, "
        f"McNemar p = {found.mcnemar_p:.3f}"
    )
    if not missed and found.difference.low <= -limits.margin:
        what += f"; too few problems to prove it within {100 * limits.margin:g} points"
    return Check(
        name=NAME,
        passed=not missed,
        what="; ".join([what, *missed]),
        numbers={
            "problems": found.problems,
            "parent_solved": found.parent_solved,
            "child_solved": found.child_solved,
            "only_parent": found.only_parent,
            "only_child": found.only_child,
            "difference": found.difference.value,
            "difference_low": found.difference.low,
            "difference_high": found.difference.high,
            "mcnemar_p": found.mcnemar_p,
        },
    )
