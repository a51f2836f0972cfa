"""Importance, agreement and pruning on a real model in the real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.compression.agreement import Comparing, measure_agreement
from lichen.compression.corpus import Corpus, Document
from lichen.compression.importance import Importance, Measuring, measure_importance
from lichen.compression.method import MethodContext
from lichen.compression.methods import METHODS
from lichen.compression.model_file import open_model, write_model
from lichen.compression.vocabulary import read_vocabulary
from lichen.compression.vocabulary_trim import trimmed
from lichen.engines.llama_cpp.native.quantise import Quantiser
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer
from lichen.testing.code_samples import CODE_SAMPLES

pytestmark = pytest.mark.model
pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

CODE = tuple(Document(f"a.{language}.py", text) for language, text in CODE_SAMPLES.items())


@pytest.fixture(scope="module")
def found(model_135m: Path) -> Importance:
    """Importance of the small model, measured on a few short programs."""
    return measure_importance(model_135m, Corpus(CODE, ()), Measuring(tokens=512))


def child_of(source: Path, found: Importance, out: Path, method: str, **options: object) -> Path:
    context = MethodContext(quantiser=Quantiser(), source=source, importance=found)
    write_model(METHODS.get(method)(options).apply(open_model(source), context), out)
    return out


def test_every_matrix_has_importance_and_the_ends_matter_most(
    model_135m: Path, found: Importance
) -> None:
    """All matrices are seen; the first and the last layer turn the hidden state most."""
    matrices = [t for t in open_model(model_135m).tensors if len(t.shape) == 2]
    assert {t.name: (t.width,) for t in matrices} == {n: w.shape for n, w in found.weights.items()}
    order = sorted(range(len(found.influence)), key=lambda i: -found.influence[i])
    assert set(order[:2]) == {0, 29}


def test_agreement_is_perfect_with_itself_and_worse_the_more_is_missing(
    model_135m: Path, found: Importance, tmp_path: Path
) -> None:
    """The same file agrees exactly; fewer neurons cost something, a layer that matters much more."""
    narrow = child_of(model_135m, found, tmp_path / "n.gguf", "narrow_ffn", keep=0.95)
    broken = child_of(model_135m, found, tmp_path / "d.gguf", "drop_layers", layers=[0])
    how = Comparing(tokens=256)
    same, less, wrong = (
        measure_agreement(model_135m, path, CODE, how) for path in (model_135m, narrow, broken)
    )
    assert same.kl_nats.value == same.flips.value == 0
    assert 1.5 < same.parent_perplexity == same.child_perplexity < 50
    assert 0 < less.kl_nats.value < 1 < wrong.kl_nats.value
    assert less.flips.value < wrong.flips.value


@pytest.mark.parametrize("all_of_the_text", [True, False])
def test_a_trimmed_vocabulary_agrees_where_the_text_is_cut_alike(
    model_135m: Path, tmp_path: Path, all_of_the_text: bool
) -> None:
    """Trimming changes no weight: where all tokens of a text stayed, nothing has changed."""
    model, child = open_model(model_135m), tmp_path / "child.gguf"
    vocabulary = read_vocabulary(model.metadata)
    used = {i for d in CODE for i in NativeTokenizer(model_135m).encode(d.text)}
    kept = vocabulary.closure({*range(20_000), *(used if all_of_the_text else ())})
    write_model(trimmed(model, vocabulary, sorted(kept)), child)
    seen = measure_agreement(model_135m, child, CODE, Comparing(tokens=256))
    assert "tokens both have" in seen.note
    if all_of_the_text:
        assert seen.kl_nats.value < 1e-5
        assert seen.flips.value == 0
    else:
        assert 0.01 < seen.kl_nats.value < 1
