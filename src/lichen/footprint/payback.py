"""When does a preparation (training, distilling, quantising) repay itself?

``N* = E_prepare / (E_base - E_new)``: the number of tasks after which the saving per task has
paid for the preparation. Works for any dimension as long as all three have one unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lichen.core.footprint import Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """The number of tasks to break even. Infinite means never; ``saving`` is per task."""

    tasks: Interval
    saving: Interval

    @property
    def never(self) -> bool:
        """Whether the best estimate saves nothing, so that no volume repays the preparation."""
        return math.isinf(self.tasks.value)

    def verdict(self, expected_tasks: float | None = None) -> str:
        """Say it in a sentence; with ``expected_tasks``, whether to do it."""
        if self.never:
            return "never: it does not save anything per task"
        sure = "" if math.isfinite(self.tasks.high) else ", and perhaps never"
        text = f"after {self.tasks.value:,.0f} tasks (at best {self.tasks.low:,.0f}{sure})"
        if expected_tasks is None:
            return text
        if self.tasks.high <= expected_tasks:
            return f"do: repaid {text}"
        return f"don't: repaid {text}" if self.tasks.value > expected_tasks else f"unsure: {text}"


def break_even(prepare: Priced, base: Priced, new: Priced) -> BreakEven | Missing:
    """Compute N*.

    Args:
        prepare: cost of the preparation, >= 0, in any unit.
        base: cost per task without it, in the same unit.
        new: cost per task with it.

    Returns:
        The break-even; where the saving's interval reaches 0 the high end is infinite; Missing
        if one of the three is.
    """
    for quantity in (prepare, base, new):
        if isinstance(quantity, Missing):
            return quantity
    assert not isinstance(prepare, Missing)  # noqa: S101 (narrows for mypy; checked above)
    assert not isinstance(base, Missing)  # noqa: S101 (the same)
    assert not isinstance(new, Missing)  # noqa: S101 (the same)
    saving = base - new
    tasks = Interval(
        low=_ratio(prepare.low, saving.high),
        value=_ratio(prepare.value, saving.value),
        high=_ratio(prepare.high, saving.low),
    )
    return BreakEven(tasks=tasks, saving=saving)


def _ratio(cost: float, saving: float) -> float:
    return cost / saving if saving > 0 else math.inf
