"""Compressed files in the real engine: they load, run, and are what they claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.catalog import Catalog
from lichen.compression.applying import compress_file
from lichen.compression.method import MethodContext
from lichen.compression.model_file import open_model, write_model
from lichen.compression.recipe import Recipe, RecipeStep, parse_recipe
from lichen.core.generation import Completion, Finish, Request
from lichen.engines.llama_cpp.native.quantise import Quantiser
from lichen.testing.gguf_files import TinyModel

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


def answered(path: Path, prompt: str, tokens: int) -> Completion:
    """Return what the engine says with the model at ``path``."""
    from lichen.engines.llama_cpp import open_engine

    catalog = Catalog(cache_dir=path.parent / "cache", mirror_dirs=(), offline=True)
    engine = open_engine(catalog.model(str(path)), {"context": 256, "threads": 1})
    try:
        (found,) = engine.generate([Request(id="1", prompt=prompt, max_tokens=tokens)])
    finally:
        engine.close()
    assert isinstance(found, Completion)
    return found


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_retied_and_requantised_tiny_model_runs(tmp_path: Path, architecture: str) -> None:
    """What retie and requantise write is a model to llama.cpp, stand-in types included."""
    source, out = tmp_path / "parent.gguf", tmp_path / "child.gguf"
    tiny = TinyModel(
        architecture=architecture, output_kind="Q8_0", embedding_kind="Q5_0", padding=3
    )
    source.write_bytes(tiny.to_bytes())
    recipe = parse_recipe(
        """
        [[step]]
        method = "retie"
        [[step]]
        method = "requantise"
        types = { layers = "IQ4_NL", attn_v = "Q6_K", ffn_down = "MXFP4", token_embd = "Q4_0" }
        """
    )
    context = MethodContext(quantiser=Quantiser(), source=source)
    compress_file(source, recipe, out, context)
    found = answered(out, "def f(x):", 8)
    assert found.finish is not Finish.ERROR
    assert found.usage.completion > 0


@pytest.mark.model
def test_the_135m_is_rewritten_bit_for_bit(model_135m: Path, tmp_path: Path) -> None:
    """A real file, read and written without a change, is the same file."""
    out = tmp_path / "copy.gguf"
    write_model(open_model(model_135m), out)
    assert out.read_bytes() == model_135m.read_bytes()


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "layers", "tensors"), [("Q4_0", "0-29", 210), ("IQ4_NL", "0-2", 21)]
)
def test_the_135m_still_writes_code_with_layers_stored_anew(
    model_135m: Path, tmp_path: Path, kind: str, layers: str, tensors: int
) -> None:
    """Retie is a no-op on a tied model; with layers in a fast 4-bit type it still writes code."""
    out, notes = tmp_path / "small.gguf", []
    step = RecipeStep("requantise", {"rules": [{"layers": layers, "types": {"layers": kind}}]})
    recipe = Recipe(steps=(RecipeStep("retie"), step))
    context = MethodContext(quantiser=Quantiser(), source=model_135m, note=notes.append)
    artifact = compress_file(model_135m, recipe, out, context)
    assert artifact.size_bytes < model_135m.stat().st_size
    assert any("tied to the embedding already" in note for note in notes)
    assert open_model(out).value("lichen.requantised") == [f"Q4_1 to {kind}: {tensors} tensors"]
    assert "return" in answered(out, "def add(a, b):\n", 24).text
