"""A real model with a trimmed vocabulary, in the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lichen.compression.corpus import Corpus, Document
from lichen.compression.method import MethodContext
from lichen.compression.methods import METHODS
from lichen.compression.model_file import open_model, write_model
from lichen.compression.vocabulary import read_vocabulary
from lichen.engines.llama_cpp.native.logits import NativeLogits
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer
from lichen.testing.code_samples import CODE_SAMPLES

pytestmark = pytest.mark.model


def test_kept_tokens_have_the_scores_they_had(model_135m: Path, tmp_path: Path) -> None:
    """On a text of kept tokens the trimmed model gives each kept token its parent's logit."""
    pytest.importorskip("xllamacpp", reason="needs the extra [llama]")
    parent, tokenizer = open_model(model_135m), NativeTokenizer(model_135m)
    code = CODE_SAMPLES["c"]
    documents = (Document("sample.c", code),)
    context = MethodContext(
        quantiser=None,  # type: ignore[arg-type]  # never quantises
        source=model_135m,
        corpus=Corpus(documents, documents),
        tokenizer=tokenizer,
    )
    method = METHODS.get("trim_vocabulary")({"keep_tokens": 20_000, "ascii_ranks": 10_000})
    child = method.apply(parent, context)
    path = tmp_path / "child.gguf"
    write_model(child, path)
    vocabulary = read_vocabulary(parent.metadata)
    kept = [vocabulary.ids[token] for token in read_vocabulary(child.metadata).tokens]
    before, after = tokenizer.encode(code), NativeTokenizer(path).encode(code)
    assert [kept[i] for i in after] == before
    with NativeLogits(model_135m) as whole, NativeLogits(path) as trimmed:
        assert np.allclose(
            trimmed.logits(after), whole.logits(before)[:, kept], rtol=1e-3, atol=1e-2
        )
    assert path.stat().st_size < model_135m.stat().st_size - 15_000_000
