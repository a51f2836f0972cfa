"""Where an answer fails the question's own examples: go back to its least certain token.

The answer is kept up to there, the runner-up is taken in place of the token, and the model goes on
greedily from it. This is limited discrepancy search (Harvey and Ginsberg, 1995) with one
discrepancy, over a model's tokens: where a good heuristic fails, it was most likely wrong where it
was least sure. An engine that keeps prompts (``prefix_cache``) has read all but one token of such a
second way already, so it costs the few tokens after the turn, and no sampling.

Examples are those that the question shows (``lichen.acceleration.self_check``), never hidden tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from lichen.acceleration.per_request import shut
from lichen.acceleration.second_ways import Case, SecondWays
from lichen.acceleration.self_check import SelfCheck
from lichen.acceleration.strategy import EngineAround, Layer, StrategyContext
from lichen.core.generation import Capability, Completion, Delta, Request, distinct
from lichen.core.ports import Engine
from lichen.engines.options import read_options

NAME: Final = "backtrack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be set.

    Args:
        tries: second ways per request at most, >= 1.
        cpu_s: CPU-seconds that one run of the examples may take, > 0.
    """

    tries: int = 2
    cpu_s: float = 2.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.tries < 1 or not self.cpu_s > 0:
            raise ValueError("tries must be at least 1, cpu_s above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtrack:
    """The strategy; see the module."""

    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.TEXT
    needs: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.LOGPROBS, Capability.ANSWER_PREFIX}
    )
    tries: int
    check: SelfCheck
    context: StrategyContext

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return the engine's options as they are."""
        return dict(options)

    def wrap(self, engine: Engine) -> Engine:
        """Return an engine that takes a second way where examples fail."""
        ways = SecondWays(NAME, self.check, self.tries, self.context.clock)
        return BacktrackEngine(engine, ways)


def make(options: Mapping[str, object], context: StrategyContext) -> Backtrack:
    """Build the strategy; for ``options`` see ``Options``.

    Raises:
        ConfigError: an unknown option, a value out of range, or no sandbox to run code in.
    """
    read = read_options(Options, options, who=f"the strategy {NAME}")
    check = SelfCheck(
        signal="examples",
        threshold=0.0,
        statistic="mean",
        calibration=None,
        sandbox=context.sandbox_for(NAME),
        cpu_s=context.cpu_s,
        limit_cpu_s=read.cpu_s,
    )
    return Backtrack(tries=read.tries, check=check, context=context)


class BacktrackEngine(EngineAround):
    """See the module.

    A second way is asked for before the next request is taken: an engine that keeps prompts then
    gives it the slot that still holds its beginning.

    Args:
        inner: the engine that is asked; closed with this one.
        ways: decides what becomes of an answer.
    """

    __slots__ = ("_ways",)

    def __init__(self, inner: Engine, ways: SecondWays) -> None:
        super().__init__(inner, NAME)
        self._ways = ways

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests; see ``lichen.core.ports.Engine``."""
        fresh = map(self._ways.case, distinct(requests))
        running: dict[str, Case] = {}
        again: list[Case] = []

        def asking() -> Iterator[Request]:
            while (case := again.pop() if again else next(fresh, None)) is not None:
                asked = case.asked()
                running[asked.id] = case
                yield asked

        while True:
            answers = self.inner.generate(asking())
            try:
                for item in answers:
                    if isinstance(item, Delta):
                        yield item
                        continue
                    case = running.pop(item.id)
                    if self._ways.ended(case, item):
                        again.append(case)
                    else:
                        yield from self._ways.answer(case)
            finally:
                shut(answers)
            # The inner engine does not ask again once there was nothing left to take.
            if not again:
                return
