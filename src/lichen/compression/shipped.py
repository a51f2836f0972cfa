"""The recipes that come with lichen, by name."""

from __future__ import annotations

from importlib.resources import files

from lichen.compression.recipe import Recipe, parse_recipe
from lichen.core.errors import UnknownNameError
from lichen.core.registry import unknown

_FOLDER = "recipes"
_SUFFIX = ".toml"


def shipped_names() -> tuple[str, ...]:
    """Return the names, sorted."""
    found = files("lichen.compression").joinpath(_FOLDER).iterdir()
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in found if f.name.endswith(_SUFFIX)))


def shipped_recipe(name: str) -> Recipe:
    """Return a shipped recipe; raises UnknownNameError with near names if there is none."""
    if name not in shipped_names():
        raise UnknownNameError(unknown("recipe", name, shipped_names()))
    file = files("lichen.compression").joinpath(_FOLDER, name + _SUFFIX)
    return parse_recipe(file.read_text("utf-8"), where=f"the shipped recipe {name!r}")
