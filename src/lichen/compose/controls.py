"""Rows that a comparison needs to be understood, and that nobody should have to think of.

A controller that leaves layers out costs something by itself, and saves something by leaving.
Beside a solution that exits early runs one that tests as often and never exits, so that every
report tells the two apart.
"""

from __future__ import annotations

from lichen.acceleration.strategies import early_exit
from lichen.compose.spec import RunSpec, SolutionSpec, StrategySpec


def with_controls(spec: RunSpec) -> RunSpec:
    """Return the spec with the control of each solution that exits early, unless it has it."""
    found = list(spec.solutions)
    known = {_content(s) for s in found}
    for solution in spec.solutions:
        control = _control(solution)
        if control is not None and _content(control) not in known:
            known.add(_content(control))
            found.insert(found.index(solution) + 1, control)
    return spec.model_copy(update={"solutions": tuple(found)})


def _control(solution: SolutionSpec) -> SolutionSpec | None:
    """Return the solution with its controller on and never exiting; None if it has none."""
    exits = [s for s in solution.strategies if s.name == early_exit.NAME]
    if not any(early_exit.can_exit(s.options) for s in exits):
        return None
    strategies = tuple(_never(s) if s in exits else s for s in solution.strategies)
    name = f"{solution.name}, never exits"
    return solution.model_copy(update={"name": name, "strategies": strategies})


def _never(strategy: StrategySpec) -> StrategySpec:
    return StrategySpec(name=strategy.name, **early_exit.never(strategy.options))


def _content(solution: SolutionSpec) -> str:
    return solution.model_dump_json(exclude={"name"})
