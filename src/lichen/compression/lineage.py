"""Write into a model where it comes from, and say it of a written file.

The keys, and reading them, are in ``lichen.catalog.lineage``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lichen.catalog.lineage import (
    ANCESTORS,
    EARLIER_RECIPES,
    ENGINE,
    RECIPE,
    RECOMMENDABLE,
    Lineage,
)
from lichen.compression.metadata import MetaValue
from lichen.compression.model_file import ModelFile
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.measurement import Measurement
from lichen.core.model import ModelArtifact, ModelShape
from lichen.core.registry import unknown

_LICENCE: Final = "general.license"


def with_lineage(
    model: ModelFile, *, parent_sha256: str, parent: Lineage, recipe: str
) -> ModelFile:
    """Return the model with its ancestry: the parent, the parent's own, and the recipe."""
    earlier = (parent.recipe, *parent.earlier_recipes) if parent.recipe else ()
    return model.with_metadata(
        {
            ANCESTORS: MetaValue.texts([parent_sha256, *parent.ancestors]),
            RECIPE: MetaValue.text(recipe),
            EARLIER_RECIPES: MetaValue.texts(earlier) if earlier else None,
        }
    )


def with_engine_defaults(model: ModelFile, options: Mapping[str, object]) -> ModelFile:
    """Return the model with recommended engine options.

    Raises:
        UnknownNameError: an option that a file may not recommend.
        ConfigError: a value that is no plain number, flag or text.
    """
    entries = {}
    for name, value in options.items():
        if name not in RECOMMENDABLE:
            raise UnknownNameError(
                unknown("engine option that a model may recommend", name, RECOMMENDABLE)
            )
        entries[ENGINE + name] = _plain(name, value)
    return model.with_metadata(entries)


def artifact_of(
    path: Path, model: ModelFile, *, sha256: str, lineage: Lineage, cost: Measurement | None
) -> ModelArtifact:
    """Return a written file as a value.

    Args:
        path: the file.
        model: what was written to it.
        sha256: its hash.
        lineage: what it says of itself.
        cost: what making it measured, None where nothing was measured.
    """
    claimed = model.value(_LICENCE)
    licence = "".join(c for c in claimed if c.isprintable()) if isinstance(claimed, str) else ""
    return ModelArtifact(
        name=path.stem,
        path=str(path),
        format="gguf",
        sha256=sha256,
        size_bytes=path.stat().st_size,
        shape=_shape(model),
        licence=licence or "unknown",
        lineage=lineage.ancestors,
        recipe=lineage.recipe,
        cost=cost,
    )


def _shape(model: ModelFile) -> ModelShape | None:
    try:
        return model.shape()
    except ConfigError:
        # Not a language model, or only a part of one: it has a lineage all the same.
        return None


def _plain(name: str, value: object) -> MetaValue:
    match value:
        case bool():
            return MetaValue.flag(value)
        case int() if value >= 0:
            return MetaValue.count(value)
        case float():
            return MetaValue.number(value)
        case str():
            return MetaValue.text(value)
        case _:
            raise ConfigError(
                f"the engine option {name!r} is a number, a flag or a text, got {value!r}"
            )
