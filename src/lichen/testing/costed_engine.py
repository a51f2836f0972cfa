"""An engine without a model whose costs are known, and a meter that sees them.

For tests of everything that compares costs: the CPU clock moves by what a cost function says, so
that the right answer of a search or a switch is known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

from lichen.core.errors import EngineError
from lichen.core.generation import Capability, Completion, Delta, Request
from lichen.core.measurement import Measurement, exact
from lichen.core.ports import Engine
from lichen.testing.clock import FakeClock
from lichen.testing.engine import Line, ScriptedEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """CPU-seconds per token, wall-clock seconds per decoded token of a request, and drafting.

    Of the tokens of an answer the share ``accepted`` was drafted and accepted; as many again as
    ``rejected`` says were drafted in vain.
    """

    prefill_s: float = 0.001
    decode_s: float = 0.01
    token_s: float = 0.01
    accepted: float = 0.0
    rejected: float = 0.0


Surface = Callable[[Mapping[str, object]], Costs]
"""What an engine with these options costs; may raise ``EngineError`` if it cannot be opened."""


TWELVE_WORDS: Final = "one two three four five six seven eight nine ten eleven twelve"


class CostedEngine:
    """An ``Engine`` that can be ``reopened`` with other options.

    Args:
        surface: costs by options.
        options: of this instance.
        cpu: moved by what work costs.
        text: every answer, or what to answer to a request; cut to its ``max_tokens``.
        noise: factor on the cost of each request, e.g. of a random generator.
    """

    name = "costed"

    def __init__(
        self,
        surface: Surface,
        options: Mapping[str, object] | None = None,
        *,
        cpu: FakeClock | None = None,
        text: str | Callable[[Request], str | Line] = TWELVE_WORDS,
        noise: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.options = dict(options or {})
        self.costs = surface(self.options)
        self.cpu = cpu or FakeClock()
        self.opened: list[CostedEngine] = []
        """Instances that ``reopened`` made, in order."""
        self._surface = surface
        self._text = text
        self._noise = noise
        slots = self.options.get("slots", 1)
        self.scripted = ScriptedEngine(
            (lambda _: text) if isinstance(text, str) else text,
            slots=slots if isinstance(slots, int) else 1,
        )

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What generating needs."""
        return self.scripted.capabilities - {Capability.EMBED}

    @property
    def stateless(self) -> bool:
        """As llama.cpp: unless a prompt cache is asked for."""
        return self.options.get("prompt_cache", "off") == "off"

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.scripted.closed

    def reopened(self, changes: Mapping[str, object]) -> Engine:
        """Open another instance with some options changed, on the same clock."""
        if self.closed:
            raise EngineError("the engine 'costed' has been closed; open it again to use it")
        other = CostedEngine(
            self._surface,
            {**self.options, **changes},
            cpu=self.cpu,
            text=self._text,
            noise=self._noise,
        )
        self.opened.append(other)
        return other

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests; the clock moves when one ends."""
        for item in self.scripted.generate(requests):
            yield self._charged(item) if isinstance(item, Completion) else item

    def close(self) -> None:
        """Refuse further work."""
        self.scripted.close()

    def _charged(self, completion: Completion) -> Completion:
        c, usage = self.costs, completion.usage
        spent = usage.prefilled * c.prefill_s + usage.completion * c.decode_s
        self.cpu.advance(spent * self._noise())
        accepted = round(usage.completion * c.accepted)
        return replace(
            completion,
            timings=replace(
                completion.timings,
                total_s=usage.completion * c.token_s,
                decode_s=usage.completion * c.token_s,
            ),
            draft_tokens=accepted + round(usage.completion * c.rejected),
            draft_accepted=accepted,
        )


class ClockMeter:
    """A ``Meter`` whose windows read a CPU clock and a wall clock."""

    def __init__(self, cpu: Callable[[], float], wall: Callable[[], float] | None = None) -> None:
        self._cpu = cpu
        self._wall = wall or cpu

    def window(self, label: str = "") -> _ClockWindow:  # noqa: ARG002 (the port's shape)
        """Open a window."""
        return _ClockWindow(self._cpu, self._wall)

    def close(self) -> None:
        """Nothing to stop."""


class _ClockWindow:
    def __init__(self, cpu: Callable[[], float], wall: Callable[[], float]) -> None:
        self._cpu, self._wall = cpu, wall
        self._start = (cpu(), wall())
        self._seen: Measurement | None = None

    def close(self) -> Measurement:
        if self._seen is None:
            self._seen = Measurement(
                cpu_s=exact(self._cpu() - self._start[0], source="fake clock"),
                wall_s=exact(self._wall() - self._start[1], source="fake clock"),
            )
        return self._seen

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
