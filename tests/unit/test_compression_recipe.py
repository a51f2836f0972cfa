"""Recipes as text, and what applying one to a file leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.catalog import Catalog
from lichen.catalog.gguf import read_header
from lichen.catalog.lineage import read_lineage
from lichen.compression.applying import apply_recipe, compress_file
from lichen.compression.method import MethodContext, predict
from lichen.compression.model_file import open_model
from lichen.compression.recipe import Recipe, RecipeStep, parse_recipe, read_recipe
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.measurement import Measurement, exact
from lichen.engines.llama_cpp.native.quantise import Quantiser
from lichen.testing.gguf_files import TinyModel, gguf_bytes
from lichen.testing.meter import ScriptedMeter

TEXT = """name = "small"

[[step]]
method = "retie"

[[step]]
method = "requantise"
types = { layers = "Q4_0", attn_v = "Q8_0" }
rules = [{ layers = "0", types = { ffn_down = "Q5_0" } }]

[engine]
cache_type_k = "q8_0"
"""


A_SECOND = ScriptedMeter(lambda: Measurement(cpu_s=exact(1.0, source="scripted")))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "parent.gguf"
    path.write_bytes(TinyModel(output_kind="F32").to_bytes())
    return path


@pytest.fixture
def context(source: Path) -> MethodContext:
    return MethodContext(quantiser=Quantiser(workers=2), source=source)


def test_a_recipe_survives_writing_and_reading() -> None:
    """Text to recipe to text is the same text, so what is stored can be replayed."""
    recipe = parse_recipe(TEXT)
    assert recipe.steps[1].options["types"] == {"layers": "Q4_0", "attn_v": "Q8_0"}
    assert recipe.engine == {"cache_type_k": "q8_0"}
    assert parse_recipe(recipe.to_toml()) == recipe
    assert parse_recipe(recipe.to_toml()).to_toml() == recipe.to_toml()


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("[[step]\n", ConfigError, "not TOML"),
        ("[[steps]]\nmethod='retie'", UnknownNameError, "did you mean 'step'"),
        ("[[step]]\nmethod='reti'", UnknownNameError, "did you mean 'retie'"),
        ("[[step]]\nkeep='best'", ConfigError, "step 1 of the recipe lacks its 'method'"),
        ("step = 3", ConfigError, r"\[\[step\]\] tables"),
        ("name = 3", ConfigError, "'name' of the recipe is a text"),
        ("engine = 3", ConfigError, r"a table \[engine\]"),
        ("[engine]\ncache_typ_k = 'q8_0'", UnknownNameError, "did you mean 'cache_type_k'"),
        ("[engine]\ndraft = '/etc/passwd'", UnknownNameError, "no engine option"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_sentence(text: str, kind: type[Exception], said: str) -> None:
    """Whatever is wrong is named, with the nearest name that exists."""
    with pytest.raises(kind, match=said):
        parse_recipe(text)


def test_an_unknown_option_of_a_method_is_named_before_work(
    source: Path, context: MethodContext
) -> None:
    """A step's options are checked for all steps before the first is applied."""
    recipe = Recipe(steps=(RecipeStep("retie"), RecipeStep("requantise", {"typs": {}})))
    with pytest.raises(UnknownNameError, match="did you mean 'types'"):
        apply_recipe(open_model(source), recipe, context)


def test_a_recipe_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """A missing file is a sentence with its path."""
    with pytest.raises(ConfigError, match="absent"):
        read_recipe(tmp_path / "absent.toml")


def test_the_prediction_is_what_is_written(source: Path, context: MethodContext) -> None:
    """The dry run's bytes are the file's bytes, up to the metadata that names the ancestors."""
    pytest.importorskip("gguf")
    recipe = parse_recipe(TEXT)
    before = predict(open_model(source))
    after = predict(apply_recipe(open_model(source), recipe, context))
    assert after.bytes_per_decoded_token < before.bytes_per_decoded_token
    artifact = compress_file(source, recipe, source.with_name("out.gguf"), context)
    again = predict(open_model(source.with_name("out.gguf")))
    assert again.file_bytes == artifact.size_bytes
    assert 0 < again.file_bytes - after.file_bytes < 1024
    assert again.bytes_per_decoded_token == after.bytes_per_decoded_token


def test_the_same_recipe_gives_the_same_bytes(source: Path, context: MethodContext) -> None:
    """Replaying the recipe that a file carries makes the file again, bit for bit."""
    pytest.importorskip("gguf")
    first = compress_file(source, parse_recipe(TEXT), source.with_name("a.gguf"), context)
    replayed = parse_recipe(read_lineage(Path(first.path), read_header(Path(first.path))).recipe)
    second = compress_file(source, replayed, source.with_name("b.gguf"), context)
    assert first.sha256 == second.sha256
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes()


def test_an_artifact_knows_its_ancestors_and_its_cost(source: Path, context: MethodContext) -> None:
    """Hashes and recipes chain over two compressions; what was measured comes along."""
    pytest.importorskip("gguf")
    catalog = Catalog(cache_dir=source.parent / "cache", mirror_dirs=(), offline=True)
    parent = catalog.model(str(source))
    assert (parent.lineage, parent.recipe) == ((), "")
    first = compress_file(
        parent, parse_recipe(TEXT), source.with_name("a.gguf"), context, meter=A_SECOND
    )
    assert first.cost == Measurement(cpu_s=exact(1.0, source="scripted"))
    other = parse_recipe("[[step]]\nmethod = 'kv_cache'\n")
    second = compress_file(Path(first.path), other, source.with_name("b.gguf"), context)
    assert second.cost is None
    assert second.lineage == (first.sha256, parent.sha256)
    found = catalog.model(second.path)
    assert found.lineage == second.lineage
    assert found.recipe == second.recipe == other.to_toml()
    lineage = read_lineage(Path(second.path), read_header(Path(second.path)))
    assert lineage.earlier_recipes == (parse_recipe(TEXT).to_toml(),)
    assert lineage.engine["cache_type_k"] == "q8_0"
    assert lineage.engine["flash_attention"] == "on"


def test_the_model_itself_is_never_overwritten(source: Path, context: MethodContext) -> None:
    """Writing over the source, under any spelling of its name, is refused."""
    link = source.with_name("link.gguf")
    link.symlink_to(source)
    before = source.read_bytes()
    for out in (source, link):
        with pytest.raises(ConfigError, match="is the model itself"):
            compress_file(source, Recipe(steps=()), out, context)
    assert source.read_bytes() == before


def test_lineage_of_a_hostile_file_is_only_what_is_well_formed(tmp_path: Path) -> None:
    """Texts that are no hashes, control characters and options that open files are not taken."""
    path = tmp_path / "m.gguf"
    path.write_bytes(
        gguf_bytes(
            {
                "lichen.lineage": ["f" * 64, "F" * 64, "../../x", "f" * 65],
                "lichen.recipe": "a\x1b[31m\nb",
                "lichen.engine.draft": "/etc/passwd",
                "lichen.engine.context": 4096,
                "lichen.engine.cache_type_k": ["q8_0"],
                "lichen.requantised": 7,
            }
        )
    )
    lineage = read_lineage(path, read_header(path))
    assert lineage.ancestors == ("f" * 64,)
    assert lineage.recipe == "a[31m\nb"
    assert lineage.engine == {"context": 4096}
    assert lineage.requantised == ()
