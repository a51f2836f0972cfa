"""Stop as soon as the code that was asked for is complete (after CodeFast, arXiv 2407.20042).

Code models write on after their answer: explanations, tests, a second version. The rule (see
``lichen.acceleration.completeness``) reads the text alone and cuts where the wanted definition and
the helpers it calls have ended. A rule that the request already has stays: the earliest cut wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from lichen.acceleration.completeness import CompleteCode, wanted_of
from lichen.acceleration.per_request import Follower, following, with_step
from lichen.acceleration.stop_rules import FirstOf
from lichen.acceleration.strategy import Layer, StrategyContext
from lichen.core.generation import Capability, Completion, Finish, Request, Step
from lichen.core.ports import Engine
from lichen.engines.options import read_options

NAME: Final = "stop_when_complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """There is nothing to set: thresholds that would have to be tuned are no use here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWhenComplete:
    """The strategy; see the module."""

    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.TEXT
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.CANCEL})

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return the engine's options as they are."""
        return dict(options)

    def wrap(self, engine: Engine) -> Engine:
        """Return an engine that stops each request when its code is complete."""
        return following(engine, NAME, _Stopping)


def make(options: Mapping[str, object], context: StrategyContext) -> StopWhenComplete:
    """Build the strategy; it has no options.

    Raises:
        ConfigError: an option was given.
    """
    del context
    read_options(Options, options, who=f"the strategy {NAME}")
    return StopWhenComplete()


class _Stopping(Follower):
    def __init__(self, request: Request) -> None:
        self._rule = CompleteCode(wanted_of(request))
        self._rules = FirstOf(self._rule, request.stop)
        super().__init__(replace(request, stop=self._rules))

    def ended(self, completion: Completion) -> tuple[Completion]:
        """Say in the ledger whether and why the answer was stopped."""
        stopped = completion.finish is Finish.RULE and self._rules.winner is self._rule
        action = f"stopped: {self._rule.reason}" if stopped else "let it run"
        waiting = ", ".join(sorted(self._rule.waits_for)[:_SHOWN])
        detail = f"waited for {waiting}" if waiting and not stopped else ""
        return (with_step(completion, Step(actor=NAME, action=action, detail=detail)),)


_SHOWN: Final = 5
"""Missing names that a ledger lists."""
