"""A solution's model, made by a compression recipe where the solution names one.

A file is made once per model and recipe and kept in the cache; two runs that want the same file do
not make it twice. What making it cost is said when it is made, and is no part of any run.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lichen.catalog import Catalog
from lichen.catalog.locking import locked
from lichen.compose import settings
from lichen.compose.making import Wanted, importance_from, made
from lichen.compose.spec import SolutionSpec
from lichen.compression.recipe import Recipe, parse_recipe
from lichen.compression.shipped import shipped_recipe
from lichen.core.errors import ConfigError
from lichen.core.measurement import Missing
from lichen.core.model import ModelArtifact

_log: Final = logging.getLogger(__name__)

FOLDER: Final = "compressed"
"""Below the cache."""


def model_of(spec: SolutionSpec, catalog: Catalog) -> ModelArtifact:
    """Return the model that a solution runs, made first if it is not there yet.

    Raises:
        ConfigError: no model; a recipe that cannot be used or does not fit the model.
        LichenError: as ``Catalog.model``.
    """
    if spec.model is None:
        raise ConfigError(
            f'the solution {spec.name!r} names no model: add  model = "NAME"  '
            "(see  lichen models list)"
        )
    if not spec.recipe:
        return catalog.model(spec.model)
    recipe = recipe_of(spec)
    source = catalog.model(spec.model)
    path = place_of(source, recipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(settings.cache_dir() / "locks", path):
        if not path.is_file():
            _make(source, recipe, path)
    return catalog.model(str(path))


def recipe_of(spec: SolutionSpec) -> Recipe:
    """Return the recipe that a solution names or holds.

    Raises:
        ConfigError: it is neither the name of a shipped recipe nor one itself.
    """
    if "\n" in spec.recipe or "=" in spec.recipe:
        return parse_recipe(spec.recipe, where=f"the recipe of the solution {spec.name!r}")
    return shipped_recipe(spec.recipe)


def place_of(source: ModelArtifact, recipe: Recipe) -> Path:
    """Return where the file that a recipe makes of a model is kept.

    Names and descriptions of recipes do not matter, so that a renamed recipe makes nothing anew.
    """
    steps = Recipe(steps=recipe.steps, engine=recipe.engine).to_toml()
    key = hashlib.sha256(f"{source.sha256}\n{steps}".encode()).hexdigest()
    return settings.cache_dir() / FOLDER / f"{Path(source.path).stem}-{key[:16]}.gguf"


def _make(source: ModelArtifact, recipe: Recipe, path: Path) -> None:
    called = recipe.name or "a recipe without a name"
    _log.warning("making %s by %s; this may take minutes, once", ascii(source.name), ascii(called))
    wanted = Wanted(
        importance=importance_from("measure", _quarters("importance")),
        reading=_quarters("how inputs vary together"),
        note=lambda text: _log.warning("%s", text),
    )
    artifact, _ = made(source, recipe, path, wanted, _quarters("written"))
    cpu = None if artifact.cost is None else artifact.cost.cpu_s
    spent = "" if cpu is None or isinstance(cpu, Missing) else f", {cpu.value.value:,.0f} CPU-s"
    _log.warning("made: %s, %.0f MB%s", path, artifact.size_bytes / 1e6, spent)


def _quarters(what: str) -> Callable[[int, int], None]:
    """Return a progress callback that logs each quarter once."""
    said = [0]

    def report(done: int, total: int) -> None:
        quarter = 4 * done // total if total else 0
        if quarter > said[0]:
            said[0] = quarter
            _log.warning("%s: %d %%", what, 25 * quarter)

    return report
