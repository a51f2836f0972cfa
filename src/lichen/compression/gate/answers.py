"""Check: are the child's answers as long as its parent's, and do they end the same way?

A damaged model rambles: it may still solve the problem, but each answer costs more tokens, and more
of them run into the token limit. Read from the same run as ``quality``.
"""

from __future__ import annotations

from typing import Final

from lichen.compression.gate.report import Check
from lichen.compression.gate.subject import Subject, not_run
from lichen.core.measurement import Missing

NAME: Final = "answers"


def check(subject: Subject) -> Check:
    """Judge length and finish reasons, paired."""
    run, limits = subject.task(), subject.thresholds
    if isinstance(run, Missing):
        return not_run(NAME, run.reason)
    found = run.answers
    missed = []
    if limits.above(found.length_ratio, limits.answer_length_ratio):
        missed.append(f"longer than {limits.answer_length_ratio:g} times the parent's")
    if limits.above(found.truncated_excess, limits.truncated_excess):
        missed.append(f"cut more often by over {100 * limits.truncated_excess:g} points")
    ends = ", ".join(f"{how} {parent} -> {child}" for how, parent, child in found.finishes)
    what = (
        f"{found.answers} answers {found.length_ratio.value:.3f} times as long "
        f"({found.length_ratio.low:.3f} to {found.length_ratio.high:.3f}); ended by {ends}"
    )
    return Check(
        name=NAME,
        passed=not missed,
        what="; ".join([what, *missed]),
        numbers={
            "answers": found.answers,
            "length_ratio": found.length_ratio.value,
            "length_ratio_high": found.length_ratio.high,
            "parent_truncated": found.parent_truncated,
            "child_truncated": found.child_truncated,
        },
    )
