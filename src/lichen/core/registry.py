"""A registry maps names to lazily imported objects, built in or from installed plug-ins.

Built-ins are strings (``"module:attribute"``), so naming them imports nothing and creates no import
edge. Plug-ins are entry points of the registry's group. Every extensible package owns one instance.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from lichen.core.errors import ConfigError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind of thing.

    Args:
        kind: what the names are, for messages ("engine").
        group: entry point group that plug-ins use ("lichen.engines").
        builtin: name -> ``"module:attribute"``.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._targets: dict[str, str] = dict(builtin)
        self._loaded: dict[str, T] = {}
        self._discovered = False

    def names(self) -> tuple[str, ...]:
        """All names, plug-ins included, sorted."""
        self._discover()
        return tuple(sorted(self._targets))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        """Whether the name is registered."""
        return name in self.names()

    def get(self, name: str) -> T:
        """Import and return what ``name`` stands for.

        Raises:
            UnknownNameError: no such name; near ones are suggested.
            ConfigError: the target cannot be resolved.
        """
        if name in self._loaded:
            return self._loaded[name]
        self._discover()
        if name not in self._targets:
            raise UnknownNameError(unknown(self.kind, name, self.names()))
        target = self._targets[name]
        module_name, _, attribute = target.partition(":")
        try:
            loaded = cast("T", getattr(importlib.import_module(module_name), attribute))
        except AttributeError as exc:
            msg = f"the {self.kind} {name!r} points to {target!r}, which does not exist"
            raise ConfigError(msg) from exc
        self._loaded[name] = loaded
        return loaded

    def add(self, name: str, target: str) -> None:
        """Register ``name``; a collision with another target is a ConfigError."""
        known = self._targets.get(name)
        if known is not None and known != target:
            msg = f"two {self.kind}s are called {name!r}: {known!r} and {target!r}"
            raise ConfigError(msg)
        self._targets[name] = target

    def _discover(self) -> None:
        if not self._discovered:
            self._discovered = True
            for point in entry_points(group=self.group):
                self.add(point.name, point.value)


def unknown(kind: str, name: str, names: tuple[str, ...] | list[str]) -> str:
    """Build the sentence for an unknown name: near matches first, else all the names."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(names)}"
    return f"no {kind} is called {name!r}; {hint}"
