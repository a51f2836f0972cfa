"""What a strategy is, and how strategies compose.

A solution lists its strategies from the engine outwards: the first one listed sits next to the
engine, the last one meets the caller. Every strategy belongs to a ``Layer``; layers may not go
back inwards, because some orders mean nothing (a cache inside a cascade level is fine, a cascade
that wraps only the cache's misses is not what anybody asked for). A refused order says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

from lichen.core.errors import ConfigError
from lichen.core.generation import Capability, Completion, Delta, Request
from lichen.core.ports import Engine, Sandbox, require


class Layer(IntEnum):
    """Where a strategy sits, from the engine outwards."""

    ENGINE = 0
    """Changes how the model is loaded; wraps nothing, or only watches."""
    TEXT = 1
    """Changes what is asked or where the answer ends."""
    ROUTE = 2
    """Chooses between engines."""
    CACHE = 3
    """Answers without any engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyContext:
    """What strategies may use of the world; everything is passed in.

    Args:
        sandbox: for strategies that run code; None where there is none.
        open_engine: brings up a further solution from its description (a cascade's next level).
        data_dir: where a strategy may keep files.
        cpu_s: CPU-seconds of this process tree so far, to charge work done outside the engine.
        clock: monotonic seconds.
    """

    sandbox: Sandbox | None = None
    open_engine: Callable[[Mapping[str, object]], Engine] | None = None
    data_dir: Path = Path()
    cpu_s: Callable[[], float] = time.process_time
    clock: Callable[[], float] = time.monotonic

    def sandbox_for(self, strategy: str) -> Sandbox:
        """Return the sandbox.

        Raises:
            ConfigError: there is none; says which strategy needs it.
        """
        if self.sandbox is None:
            raise ConfigError(
                f"the strategy {strategy!r} runs code and needs a sandbox, but there is none"
            )
        return self.sandbox


@runtime_checkable
class Strategy(Protocol):
    """One way to spend less. Frozen: its settings never change after it is made."""

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def layer(self) -> Layer:
        """Where it sits."""

    @property
    def needs(self) -> frozenset[Capability]:
        """Capabilities that the engine below must have."""

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return the engine's options as this strategy wants them (a changed copy).

        Raises:
            ConfigError: the options contradict what the strategy needs.
        """

    def wrap(self, engine: Engine) -> Engine:
        """Return an engine that answers through ``engine``; itself if nothing is wrapped."""


@runtime_checkable
class Gathers(Protocol):
    """A strategy that works on several requests before it gives the next part of it work."""

    @property
    def in_hand(self) -> int:
        """Requests that it gathers."""


_OTHER_PORTS = frozenset({Capability.EMBED, Capability.RANK, Capability.TOKENIZE})


@dataclass(slots=True)
class EngineAround:
    """An engine that holds an engine and passes everything on; strategies override ``generate``.

    ``close`` closes the inner engine. Capabilities are the inner one's, save those of further ports
    (embedding, ranking, tokenizing): strategies are about generation and do not pass these on.
    """

    inner: Engine
    title: str = field(default="")

    @property
    def name(self) -> str:
        """The inner engine's name, with this strategy's title in front."""
        return f"{self.title}({self.inner.name})" if self.title else self.inner.name

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The inner engine's capabilities to generate."""
        return self.inner.capabilities - _OTHER_PORTS

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Pass requests on."""
        return self.inner.generate(requests)

    def close(self) -> None:
        """Close the inner engine."""
        self.inner.close()


def configured(strategies: Sequence[Strategy], options: Mapping[str, object]) -> dict[str, object]:
    """Return the engine options after every strategy has had its say, in order."""
    check_order(strategies)
    result = dict(options)
    for strategy in strategies:
        result = strategy.configure(result)
    return result


def wrapped(strategies: Sequence[Strategy], engine: Engine) -> Engine:
    """Return ``engine`` inside all strategies, the first one innermost.

    Raises:
        ConfigError: the order makes no sense.
        CapabilityError: the engine lacks something that a strategy needs; it is closed then.
    """
    try:
        check_order(strategies)
        for strategy in strategies:
            require(engine, strategy.needs, who=f"the strategy {strategy.name!r}")
            engine = strategy.wrap(engine)
    except BaseException:
        engine.close()
        raise
    return engine


def check_order(strategies: Sequence[Strategy]) -> None:
    """Raise ConfigError for a strategy given twice, or one that belongs further in."""
    names = [s.name for s in strategies]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the strategy {name!r} is listed twice; keep one of them")
    for inner, outer in pairwise(strategies):
        if outer.layer < inner.layer:
            raise ConfigError(
                f"the strategy {outer.name!r} ({outer.layer.name.lower()}) belongs nearer to the "
                f"engine than {inner.name!r} ({inner.layer.name.lower()}): list it first"
            )
