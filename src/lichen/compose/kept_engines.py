"""Engines that stay loaded between uses, as many as fit: loading costs seconds and CPU-seconds.

Whoever asks for the same engine (name, model, options) gets the same instance, also while another
one holds it: solutions take turns, and their strategies wrap it each for themselves. Only engines
that say they are ``stateless`` are kept; one that remembers prompts would make the next solution
look cheap. What is idle longest is closed first when memory is short or there are too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from lichen.acceleration.free_memory import engine_bytes, free_bytes, give_back_freed
from lichen.acceleration.strategy import EngineAround
from lichen.compose.build import Load, load_engine
from lichen.core.errors import EngineError, LichenError
from lichen.core.generation import Capability, Completion, Delta, Request
from lichen.core.model import ModelArtifact
from lichen.core.ports import Engine, Reusable

MOST_IDLE: Final = 6
"""Idle engines kept at most: plain and the settings that a search compares at one time."""

_OTHER_PORTS: Final = frozenset({Capability.EMBED, Capability.RANK})

Key = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class _Held:
    engine: Engine
    users: int = 0
    broken: bool = False


@dataclass(slots=True)
class KeptEngines:
    """Opens engines as ``compose.build.Load`` does, and keeps them; closed as a whole at the end.

    Args:
        load: opens an engine that is not held.
        free: bytes that are free now; None if unknown.
        most_idle: see ``MOST_IDLE``.
    """

    load: Load = load_engine
    free: Callable[[], float | None] = free_bytes
    most_idle: int = MOST_IDLE
    loaded: int = 0
    """How many engines were loaded so far."""
    _held: dict[Key, _Held] = field(default_factory=dict)

    def open(self, name: str, model: ModelArtifact | None, options: Mapping[str, object]) -> Engine:
        """Return the engine, loaded if it was not; closing it gives it back.

        Raises the same errors as ``load``.
        """
        key = _key(name, model, options)
        held = self._held.pop(key, None)
        if held is not None and held.broken:
            held = None  # whoever holds it still may go on; it is closed when given back
        warm = held is not None
        if held is None:
            engine = self._loaded(name, model, options)
            if not _may_be_kept(engine):
                return engine
            held = _Held(engine)
        self._held[key] = held  # at the end: used last
        held.users += 1
        give_back = partial(self._given_back, key, held)
        return _Lent(inner=held.engine, held=held, give_back=give_back, warm=warm)

    def close(self) -> None:
        """Close all engines, held ones too (idempotent), and give back what they leave."""
        while self._held:
            _, held = self._held.popitem()
            held.engine.close()
        give_back_freed()

    def _loaded(
        self, name: str, model: ModelArtifact | None, options: Mapping[str, object]
    ) -> Engine:
        needed = engine_bytes(
            model, slots=_number(options, "slots", 1), context=_number(options, "context", 4096)
        )
        while (free := self.free()) is not None and free < needed and self._close_one():
            pass
        try:
            engine = self.load(name, model, options)
        except EngineError:
            enough = free is not None and free > 2 * needed
            if enough or not self._close_one():
                raise
            while self._close_one():  # the estimate may have been too low
                pass
            engine = self.load(name, model, options)
        self.loaded += 1
        return engine

    def _given_back(self, key: Key, held: _Held) -> None:
        held.users -= 1
        if held.broken and not held.users:
            if self._held.get(key) is held:
                del self._held[key]
            held.engine.close()
        while sum(h.users == 0 for h in self._held.values()) > self.most_idle:
            self._close_one()

    def _close_one(self) -> bool:
        """Close what is idle longest; returns whether anything was."""
        idle = next((key for key, held in self._held.items() if held.users == 0), None)
        if idle is None:
            return False
        self._held.pop(idle).engine.close()
        return True


@dataclass(slots=True, kw_only=True)
class _Lent(EngineAround):
    """A held engine in use. ``warm``: it was in use before, so it needs no warming up."""

    held: _Held
    give_back: Callable[[], None]
    warm: bool

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Pass requests on; an engine that breaks is not lent again."""
        try:
            yield from self.inner.generate(requests)
        except LichenError:
            self.held.broken = True
            raise

    def close(self) -> None:
        """Give it back, once."""
        give_back, self.give_back = self.give_back, _nothing
        give_back()


def _nothing() -> None:
    """Closed already."""


def _may_be_kept(engine: Engine) -> bool:
    # Engines that also embed or rank are looked at from outside for that, so they are not wrapped.
    reusable = isinstance(engine, Reusable) and engine.stateless
    return reusable and not engine.capabilities & _OTHER_PORTS


def _key(name: str, model: ModelArtifact | None, options: Mapping[str, object]) -> Key:
    which = f"{model.sha256} {model.path}" if model is not None else ""
    return name, which, tuple(sorted((k, repr(v)) for k, v in options.items()))


def _number(options: Mapping[str, object], name: str, default: int) -> int:
    found = options.get(name, default)
    return found if isinstance(found, int) and found > 0 else default
