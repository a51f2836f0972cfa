"""A note for runs in which a solution may look the result up: it runs the tests that decide."""

from __future__ import annotations

from collections.abc import Sequence

from lichen.acceleration.candidates import RUN_EXAMPLES
from lichen.benchmark.tasks import facts
from lichen.compose.spec import RunSpec, StrategySpec

_BLIND = ("cascade", "confidence")
"""A cascade that asks the model how sure it is, and runs nothing."""


def oracle_notes(spec: RunSpec, names: Sequence[str]) -> tuple[str, ...]:
    """Return, of each solution that runs the tests that decide, a sentence that says so.

    Args:
        spec: the run; of tasks whose questions do not show such tests there is nothing to say.
        names: of its solutions, in order.
    """
    known = facts(spec.task.name)
    if known is None or not known.self_check_is_oracle:
        return ()
    notes = []
    for name, solution in zip(names, spec.solutions, strict=True):
        ran = sorted({s.name for s in solution.strategies if _runs_examples(s)})
        if ran:
            notes.append(
                f"the questions of {spec.task.name} show the tests that decide, and {name} runs "
                f"them ({', '.join(ran)}): its quality is better than on questions that do not"
            )
    return tuple(notes)


def _runs_examples(strategy: StrategySpec) -> bool:
    signal = strategy.options.get("signal", "")
    return strategy.name in RUN_EXAMPLES and (strategy.name, signal) != _BLIND
