"""A recipe: the steps that made a model, as TOML that can be replayed bit for bit.

::

    name = "fast"

    [[step]]
    method = "retie"

    [[step]]
    method = "requantise"
    types = { ffn_up = "IQ4_NL" }

    [engine]
    cache_type_k = "q8_0"

Everything in a step beside ``method`` is an option of the method, which checks it when the recipe
is applied (``lichen.compression.applying``). ``[engine]`` holds engine options that are recommended
with the result; they travel in the file's metadata.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lichen.catalog.lineage import RECOMMENDABLE
from lichen.compression.methods import METHODS
from lichen.compression.toml_text import toml_text
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.registry import unknown

_KEYS = ("name", "description", "step", "engine")


@dataclass(frozen=True, slots=True)
class RecipeStep:
    """One method and its options, plain values as in TOML."""

    method: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps in order, and engine options that go with the result."""

    steps: tuple[RecipeStep, ...]
    engine: Mapping[str, object] = field(default_factory=dict)
    name: str = ""
    description: str = ""

    def to_toml(self) -> str:
        """Return the recipe as text; reading it back gives an equal recipe."""
        document: dict[str, object] = {}
        if self.name:
            document["name"] = self.name
        if self.description:
            document["description"] = self.description
        document["step"] = [{"method": s.method, **s.options} for s in self.steps]
        if self.engine:
            document["engine"] = dict(self.engine)
        return toml_text(document)


def parse_recipe(text: str, *, where: str = "the recipe") -> Recipe:
    """Read a recipe.

    Raises:
        UnknownNameError: a key or method that does not exist; near ones are suggested.
        ConfigError: not TOML, or a value of the wrong kind.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{where} is not TOML: {exc}") from exc
    for key in document:
        if key not in _KEYS:
            raise UnknownNameError(unknown(f"key of {where}", key, _KEYS))
    steps = document.get("step", [])
    if not isinstance(steps, list) or not all(isinstance(s, dict) for s in steps):
        raise ConfigError(f"{where} lists its steps as [[step]] tables")
    engine = document.get("engine", {})
    if not isinstance(engine, dict):
        raise ConfigError(f"{where} gives engine options as a table [engine]")
    for option in engine:
        if option not in RECOMMENDABLE:
            raise UnknownNameError(unknown(f"engine option of {where}", option, RECOMMENDABLE))
    return Recipe(
        steps=tuple(_step(s, i, where) for i, s in enumerate(steps, 1)),
        engine=engine,
        name=_text(document, "name", where),
        description=_text(document, "description", where),
    )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; see ``parse_recipe``."""
    return parse_recipe(recipe_text(path), where=f"the recipe {str(path)!r}")


def recipe_held(named: str, folder: Path = Path()) -> str:
    """Return what a solution holds of its recipe: the text of a ``.toml`` file, or the name."""
    return recipe_text(folder / named) if named.endswith(".toml") else named


def recipe_text(path: Path) -> str:
    """Return what a recipe file says.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the recipe {str(path)!r} cannot be read: {exc}") from exc


def _step(table: Mapping[str, object], number: int, where: str) -> RecipeStep:
    method = table.get("method")
    if not isinstance(method, str):
        raise ConfigError(f"step {number} of {where} lacks its 'method'")
    if method not in METHODS:
        raise UnknownNameError(
            unknown(f"method (step {number} of {where})", method, METHODS.names())
        )
    return RecipeStep(method, {k: v for k, v in table.items() if k != "method"})


def _text(document: Mapping[str, object], key: str, where: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"{key!r} of {where} is a text")
    return value
