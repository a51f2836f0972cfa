"""Solutions that ship with lichen: TOML files in this folder that fit any model.

A preset is a solution file without a model; ``lichen.compose.spec`` puts it beside the plain
solution of a model and validates it like any other file, so that what it saves is measured before
it is believed.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any, Final

from lichen.core.errors import UnknownNameError
from lichen.core.registry import unknown

PLAIN: Final = "plain"
"""Name of a model with every default: one request at a time, the whole answer. It has no file."""

PRESETS: Final = ("green",)


def text(name: str) -> str:
    """Return a preset's file as it is; an unknown name is an UnknownNameError."""
    if name not in PRESETS:
        raise UnknownNameError(unknown("preset", name, PRESETS))
    return files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def document(name: str) -> dict[str, Any]:
    """Return a preset as a fresh solution document, not yet validated."""
    return tomllib.loads(text(name))
