"""The levels of a cascade: engines that are brought up when first needed, or shared with level 0.

A level that is described by ``without = ["answer_prefix"]`` is level 0's own engine without those
strategies: another prompt form of the same loaded model, at no memory. It may put ``strategies`` of
its own in their place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final

from lichen.acceleration import STRATEGIES
from lichen.acceleration.strategy import EngineAround, Layer, StrategyContext
from lichen.core.errors import ConfigError, EngineError, LichenError
from lichen.core.ports import Engine, require

OpenEngine = Callable[[Mapping[str, object]], Engine]


class Level:
    """An engine that may not have been opened yet. A failure to open is remembered.

    Args:
        name: for ledgers and reports.
        opener: brings the engine up.
        shared: whether the engine belongs to another level, which closes it.
    """

    def __init__(self, name: str, opener: Callable[[], Engine], *, shared: bool = False) -> None:
        self.name: Final = name
        self.failure = ""
        self._opener = opener
        self._shared = shared
        self._engine: Engine | None = None
        self._closed = False

    def open(self) -> Engine:
        """Return the engine, opened if it was not.

        Raises:
            LichenError: it cannot be opened, or the level was closed.
        """
        if self._closed:
            raise EngineError(
                f"the cascade's level {self.name!r} has been closed; open it again to use it"
            )
        if self._engine is None:
            self._engine = self._opener()
        return self._engine

    def available(self) -> bool:
        """Open the engine if need be; return whether that worked, now or before."""
        if self.failure:
            return False
        if self._closed:
            return True  # ``open`` says so
        try:
            self.open()
        except LichenError as exc:
            self.failure = f"it cannot be opened: {exc}"
        return not self.failure

    def error(self) -> EngineError:
        """Return the failure as an error."""
        return EngineError(f"level {self.name!r}: {self.failure}")

    def close(self) -> None:
        """Close the engine if this level opened it (idempotent)."""
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None and not self._shared:
            engine.close()


def levels_of(
    base: Engine, descriptions: tuple[Mapping[str, object], ...], context: StrategyContext
) -> tuple[Level, ...]:
    """Return level 0 (``base``) and one level per description, none of which is opened.

    Args:
        base: the engine that the cascade wraps.
        descriptions: of solutions, as ``context.open_engine`` takes them; or ``without`` (titles
            of strategies around ``base`` to leave out), perhaps ``strategies`` (tables with a
            ``name`` and options) that take their place, and nothing else but a ``name``.
        context: its ``open_engine`` brings up a described solution; needed unless all levels
            share ``base``.

    Raises:
        ConfigError: a description that says nothing usable, or a name given twice.
    """
    levels = [Level("level 0", partial(_same, base))]
    for number, description in enumerate(descriptions, start=1):
        name = str(description.get("name") or description.get("model") or f"level {number}")
        if name in {level.name for level in levels}:
            raise ConfigError(f"two levels of the cascade are called {name!r}; name them apart")
        if "without" in description:
            engine = _other_form(base, description, name, context)
            levels.append(Level(name, partial(_same, engine), shared=True))
        elif context.open_engine is None:
            raise ConfigError(
                f"the cascade cannot open its level {name!r}: nothing here opens engines"
            )
        else:
            levels.append(Level(name, partial(context.open_engine, description)))
    return tuple(levels)


def _same(engine: Engine) -> Engine:
    return engine


def _other_form(
    base: Engine, description: Mapping[str, object], name: str, context: StrategyContext
) -> Engine:
    titles = description["without"]
    extra = sorted(set(description) - {"name", "without", "strategies"})
    if extra:
        raise ConfigError(
            f"level {name!r} of the cascade is level 0 in another form ('without') and cannot "
            f"have {', '.join(map(repr, extra))} of its own"
        )
    if not isinstance(titles, (list, tuple)) or not all(isinstance(t, str) for t in titles):
        raise ConfigError(f"'without' of level {name!r} must be a list of strategy names")
    for title in titles:
        if title not in titles_around(base):
            raise ConfigError(
                f"level {name!r} of the cascade leaves out {title!r}, but level 0 does not use it"
            )
    own = description.get("strategies", ())
    if not isinstance(own, (list, tuple)) or not all(isinstance(t, Mapping) for t in own):
        raise ConfigError(f"'strategies' of level {name!r} must be a list of tables")
    engine = without(base, titles)
    for table in own:
        engine = _around(engine, table, name, context)
    return engine


def _around(
    engine: Engine, table: Mapping[str, object], level: str, context: StrategyContext
) -> Engine:
    options = dict(table)
    title = str(options.pop("name", ""))
    strategy = STRATEGIES.get(title)(options, context)
    if strategy.layer is not Layer.TEXT:
        raise ConfigError(
            f"level {level!r} of the cascade shares level 0's engine and can have text strategies "
            f"of its own; {title!r} is none"
        )
    require(engine, strategy.needs, who=f"the strategy {title!r} of level {level!r}")
    return strategy.wrap(engine)


def titles_around(engine: Engine) -> tuple[str, ...]:
    """Return the titles of the strategies around an engine, the outermost first."""
    found: list[str] = []
    while isinstance(engine, EngineAround):
        found.append(engine.title)
        engine = engine.inner
    return tuple(found)


def without(engine: Engine, titles: Collection[str]) -> Engine:
    """Return the same engine without some strategies around it; state is shared, not copied."""
    if not isinstance(engine, EngineAround):
        return engine
    inner = without(engine.inner, titles)
    if engine.title in titles:
        return inner
    if inner is engine.inner:
        return engine
    other = copy.copy(engine)
    other.inner = inner
    return other
