"""Apply a recipe to a model and write the result, which knows its ancestors and its cost."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

from lichen.catalog.gguf import read_header
from lichen.catalog.lineage import Lineage, read_lineage
from lichen.compression.atomic_file import Progress
from lichen.compression.lineage import artifact_of, with_engine_defaults, with_lineage
from lichen.compression.method import Method, MethodContext
from lichen.compression.methods import METHODS
from lichen.compression.model_file import ModelFile, open_model, write_model
from lichen.compression.recipe import Recipe
from lichen.core.errors import ConfigError
from lichen.core.measurement import Measurement
from lichen.core.model import ModelArtifact
from lichen.core.ports import Meter


def methods_of(recipe: Recipe) -> tuple[Method, ...]:
    """Return the recipe's methods, their options checked; nothing is read or computed.

    Raises:
        ConfigError: a method or an option that does not exist or cannot be used.
    """
    return tuple(METHODS.get(step.method)(step.options) for step in recipe.steps)


def apply_recipe(model: ModelFile, recipe: Recipe, context: MethodContext) -> ModelFile:
    """Return the model that the recipe makes, lazily: ``predict`` says what it will cost.

    Raises:
        ConfigError: an option that cannot be used, or a step that this model does not allow.
    """
    for method in methods_of(recipe):
        model = method.apply(model, context)
    return with_engine_defaults(model, recipe.engine)


def compress_file(
    source: Path | ModelArtifact,
    recipe: Recipe,
    out: Path,
    context: MethodContext,
    *,
    meter: Meter | None = None,
    progress: Progress | None = None,
) -> ModelArtifact:
    """Apply a recipe to a file and write the result to ``out`` in one step.

    The same source, recipe and context give the same bytes.

    Args:
        source: the model, as a path or an artifact (whose hash is then taken as known).
        recipe: what to do.
        out: where the result goes; a file that is there is replaced.
        context: what the methods may use.
        meter: measures what making the result cost.
        progress: told (bytes written, bytes in all).

    Raises:
        ConfigError: the recipe does not fit the model, or a file cannot be read or written.
        IntegrityError: the source is damaged.
    """
    path = source if isinstance(source, Path) else Path(source.path)
    if out.exists() and out.samefile(path):
        raise ConfigError(f"{str(out)!r} is the model itself; choose another name for the result")
    cost: Measurement | None = None
    with ExitStack() as stack:
        window = None if meter is None else stack.enter_context(meter.window("compress"))
        parent = read_lineage(path, read_header(path))
        parent_sha256 = _sha256(path) if isinstance(source, Path) else source.sha256
        text = recipe.to_toml()
        made = with_lineage(
            apply_recipe(open_model(path), recipe, context),
            parent_sha256=parent_sha256,
            parent=parent,
            recipe=text,
        )
        sha256 = write_model(made, out, progress=progress)
        cost = None if window is None else window.close()
    lineage = Lineage(ancestors=(parent_sha256, *parent.ancestors), recipe=text)
    return artifact_of(out, made, sha256=sha256, lineage=lineage, cost=cost)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise ConfigError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
