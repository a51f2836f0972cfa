"""Engine options that a model file recommends for itself, where nobody said otherwise."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lichen.catalog.gguf import Scalar, read_header
from lichen.catalog.lineage import recommended
from lichen.core.errors import ConfigError
from lichen.core.model import ModelArtifact

ENGINE: Final = "llama_cpp"
"""The engine whose options the recommendations are."""

_log = logging.getLogger(__name__)


def recommendations(
    engine: str, model: ModelArtifact | None, options: Mapping[str, object], *, say: bool = True
) -> dict[str, Scalar]:
    """Return what the model's file recommends beyond ``options``.

    Args:
        engine: name of the engine that is to load the model.
        model: what is to be loaded.
        options: those of the user and the strategies; they always win.
        say: whether the log tells the user about them.
    """
    if engine != ENGINE or model is None or model.format != "gguf":
        return {}
    try:
        found = recommended(read_header(Path(model.path)).metadata)
    except ConfigError:
        # Whatever is wrong with the file, loading it will say it better.
        return {}
    fresh = {name: value for name, value in found.items() if name not in options}
    if fresh and say:
        shown = ", ".join(f"{name} = {value}" for name, value in fresh.items())
        _log.warning(
            "the model %s recommends the engine options %s: they are used; "
            "set engine.NAME to decide otherwise",
            ascii(model.name),
            shown,
        )
    return fresh
