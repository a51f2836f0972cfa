"""Check: does the child's verdict hang on how a question is worded more than the parent's does?

Questions are rewritten without changing what they ask (identifiers renamed, independent parts
reordered, layout changed). A model that understood the question keeps its verdict; each change is a
flip. Small models flip too, so the parent's flips on the same pairs are the yardstick (metamorphic
testing: Chen et al. 1998; for code models ReCode, Wang et al. 2022, arXiv 2212.10264).
"""

from __future__ import annotations

from typing import Final

from lichen.compression.gate.report import Check
from lichen.compression.gate.subject import Subject, not_run
from lichen.core.measurement import Missing

NAME: Final = "metamorphic"


def check(subject: Subject) -> Check:
    """Judge the child's flips against the parent's, pair by pair."""
    measure, limits = subject.ports.flips, subject.thresholds
    if isinstance(measure, Missing):
        return not_run(NAME, measure.reason)
    found = measure(subject.parent, subject.child)
    if not found.pairs:
        return not_run(NAME, "no problem of the task could be rewritten")
    missed = []
    if limits.above(found.excess, limits.flip_excess):
        missed.append(f"more than {100 * limits.flip_excess:g} points beyond the parent")
    if found.mcnemar_p < limits.alpha and found.only_child > found.only_parent:
        missed.append("McNemar's test shows more flips")
    what = (
        f"{found.child_flips} of {found.pairs} verdicts flip against the parent's "
        f"{found.parent_flips} ({', '.join(found.rewrites)}), excess "
        f"{100 * found.excess.value:+.1f} points ({100 * found.excess.low:+.1f} to "
        f"{100 * found.excess.high:+.1f})"
    )
    return Check(
        name=NAME,
        passed=not missed,
        what="; ".join([what, *missed]),
        numbers={
            "pairs": found.pairs,
            "parent_flips": found.parent_flips,
            "child_flips": found.child_flips,
            "excess": found.excess.value,
            "excess_low": found.excess.low,
            "excess_high": found.excess.high,
            "mcnemar_p": found.mcnemar_p,
        },
    )
