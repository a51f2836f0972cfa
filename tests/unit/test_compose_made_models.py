"""A solution may name the recipe that makes its model: made once, kept, the same for all levels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from lichen.acceleration.candidates import Choice
from lichen.compose import made_models
from lichen.compose.acceleration import solution_of
from lichen.compose.build import make_catalog
from lichen.compose.made_models import model_of, place_of, recipe_of
from lichen.compose.making import methods_in
from lichen.compose.solution_file import solution_text
from lichen.compose.spec import SolutionSpec, load
from lichen.compression.recipe import parse_recipe
from lichen.core.errors import ConfigError
from lichen.testing.gguf_files import TinyModel

pytest.importorskip("gguf", reason="needs the extra [compress]")

STEPS = """
[[step]]
method = "retie"

[[step]]
method = "kv_cache"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a recipe beside a solution that names it, and a cache."""
    monkeypatch.setenv("LICHEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.gguf").write_bytes(TinyModel(output_kind="F16", layers=2).to_bytes())
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "less.toml").write_text(f'name = "less"\n{STEPS}', encoding="utf-8")
    return tmp_path


def solution(folder: Path, **changes: Any) -> SolutionSpec:
    """A solution with the tiny model."""
    fields = {"name": "s", "model": str(folder / "tiny.gguf"), "recipe": STEPS, **changes}
    return SolutionSpec.model_validate(fields)


def test_the_file_is_made_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The second solution finds it; the artifact knows its ancestor and its recipe."""
    catalog = make_catalog(offline=True)
    with caplog.at_level(logging.WARNING):
        first = model_of(solution(folder), catalog)
        said = len(caplog.messages)
        again = model_of(solution(folder), catalog)
    parent = catalog.model(str(folder / "tiny.gguf"))
    assert first.path == again.path
    assert first.size_bytes < parent.size_bytes
    assert first.lineage[0] == parent.sha256
    assert parse_recipe(first.recipe or "").steps == parse_recipe(STEPS).steps
    assert "this may take minutes, once" in caplog.messages[0]
    assert len(caplog.messages) == said


def test_without_a_recipe_the_model_is_as_it_is(folder: Path) -> None:
    """Nothing is made."""
    spec = solution(folder, recipe="")
    assert model_of(spec, make_catalog(offline=True)).path == spec.model
    assert not (folder / "cache" / made_models.FOLDER).exists()


def test_a_killed_making_leaves_nothing_that_would_be_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run makes the file anew."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    catalog = make_catalog(offline=True)
    with monkeypatch.context() as patch:
        patch.setattr(made_models, "made", killed)
        with pytest.raises(KeyboardInterrupt):
            model_of(solution(folder), catalog)
    assert model_of(solution(folder), catalog).lineage


def test_only_what_the_recipe_does_decides_where_it_is_kept(folder: Path) -> None:
    """Another name finds the same file; another step or another model does not."""
    source = make_catalog(offline=True).model(str(folder / "tiny.gguf"))
    place = place_of(source, parse_recipe(STEPS))
    assert place == place_of(source, parse_recipe(f'name = "renamed"\n{STEPS}'))
    assert place != place_of(source, parse_recipe('[[step]]\nmethod = "retie"\n'))


def test_a_recipe_file_is_found_beside_the_solution_that_names_it(folder: Path) -> None:
    """Its text becomes part of the spec, at every depth, so that its contents are in the hash."""
    (folder / "own" / "s.toml").write_text(
        'model = "m"\nrecipe = "less.toml"\n[[strategies]]\nname = "cascade"\n'
        '[[strategies.levels]]\nmodel = "m"\nrecipe = "less.toml"\n',
        encoding="utf-8",
    )
    (spec,) = load([folder / "own" / "s.toml"]).solutions
    (level,) = spec.strategies[0].options["levels"]
    assert recipe_of(spec).name == "less"
    assert level["recipe"] == spec.recipe
    (folder / "own" / "less.toml").unlink()
    with pytest.raises(ConfigError, match=r"less\.toml"):
        load([folder / "own" / "s.toml"])


@pytest.mark.parametrize("recipe", ["smal", "[[step]]\nmethod = 'tie'", "a = \n"])
def test_what_is_no_recipe_is_refused_in_a_sentence(folder: Path, recipe: str) -> None:
    """Unknown names and broken texts."""
    with pytest.raises(ConfigError):
        model_of(solution(folder, recipe=recipe), make_catalog(offline=True))
    assert recipe_of(solution(folder, recipe="small")).name == "small"


def test_a_cascade_found_by_a_search_keeps_each_level_its_recipe(folder: Path) -> None:
    """The small model asked first is as it is; the solution's own is made as before."""
    first = Choice(strategy="cascade", options=(("first", "small one"),))
    found = solution_of(solution(folder), (first,), "routed")
    (level,) = found.strategies[0].options["levels"]
    assert (found.model, found.recipe) == ("small one", "")
    assert (level["model"], level["recipe"]) == (str(folder / "tiny.gguf"), STEPS)
    (folder / "own" / "found.toml").write_text(solution_text(found), encoding="utf-8")
    assert load([folder / "own" / "found.toml"]).solutions == (found,)
    assert "recipe" not in solution_text(found).partition("[[strategies]]")[0]


def test_what_ignores_importance_does_not_have_it_measured() -> None:
    """Measuring takes minutes; a step that says it does not look is not asked twice."""
    steps = '[[step]]\nmethod = "requantise"\ntypes = { layers = "Q8_0" }\nimportance = "%s"\n'
    assert methods_in(parse_recipe(steps % "use")) == ["requantise"]
    assert methods_in(parse_recipe(steps % "ignore")) == []


def test_a_prediction_measures_no_importance_that_changes_no_size() -> None:
    """A dry run leaves out what would only write with importance, and keeps what decides by it."""
    step = '[[step]]\nmethod = "requantise"\ntypes = { layers = "Q4_K" }\n%s'
    plain, insisting = parse_recipe(step % ""), parse_recipe(step % 'importance = "require"\n')
    assert methods_in(plain, writing=False) == []
    assert methods_in(insisting, writing=False) == ["requantise"]
    mixed = parse_recipe('[[step]]\nmethod = "mixed_precision"\ncost = 0.8\n')
    assert methods_in(mixed, writing=False) == ["mixed_precision"]
