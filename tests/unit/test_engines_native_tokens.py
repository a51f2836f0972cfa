"""The engine's tokenizer, from a vocabulary alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lichen.compression.model_file import write_model
from lichen.compression.vocabulary_trim import vocabulary_only
from lichen.core.errors import ConfigError, EngineError
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer
from lichen.testing.code_samples import CODE_SAMPLES
from lichen.testing.vocabularies import learnt_vocabulary, model_with

CODE = "\n".join(CODE_SAMPLES.values())

pytest.importorskip("xllamacpp", reason="needs the extra [llama]")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a vocabulary and no weights."""
    path = tmp_path_factory.mktemp("tokens") / "vocabulary.gguf"
    write_model(vocabulary_only(model_with(learnt_vocabulary(CODE * 2, 200))), path)
    return path


def test_text_comes_back(path: Path) -> None:
    """Encoding and decoding gives the text's bytes, NUL and beyond-ASCII included."""
    tokenizer = NativeTokenizer(path)
    for text in ("", "a\0b", "ünïcödé 🎉\n", *CODE_SAMPLES.values()):
        assert tokenizer.decode(tokenizer.encode(text)) == text.encode()


def test_lone_surrogates_are_no_text(path: Path) -> None:
    """They become question marks instead of an exception."""
    tokenizer = NativeTokenizer(path)
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == b"a?b"


def test_control_tokens_are_text_unless_asked_for(path: Path) -> None:
    """A corpus that mentions a control token does not contain one; a prompt may."""
    plain, special = NativeTokenizer(path), NativeTokenizer(path, special=True)
    assert len(special.encode("<|im_end|>")) == 1
    assert len(plain.encode("<|im_end|>")) > 1
    assert special.decode(special.encode("<|im_end|>")) == b"<|im_end|>"


def test_threads_share_one_tokenizer(path: Path) -> None:
    """Encoding from several threads gives what one thread gives."""
    tokenizer = NativeTokenizer(path)
    expected = tokenizer.encode(CODE)
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: found.append(tokenizer.encode(CODE))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_ids_that_do_not_exist_are_refused(path: Path) -> None:
    """An id outside the vocabulary is an error, never a read beyond it."""
    tokenizer = NativeTokenizer(path)
    for number in (-1, tokenizer.size, 2**31):
        with pytest.raises(EngineError, match="no token"):
            tokenizer.decode([number])


def test_a_closed_tokenizer_says_so(path: Path) -> None:
    """Use after closing is an error, and closing twice is not."""
    tokenizer = NativeTokenizer(path)
    tokenizer.close()
    tokenizer.close()
    with pytest.raises(EngineError, match="closed"):
        tokenizer.encode("x")


def test_other_files_are_refused(tmp_path: Path) -> None:
    """No file, a file that is no GGUF, and one without a vocabulary are one sentence each."""
    with pytest.raises(ConfigError, match="absent"):
        NativeTokenizer(tmp_path / "absent.gguf")
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"junk" * 100)
    with pytest.raises(ConfigError, match="not a GGUF"):
        NativeTokenizer(junk)
    bare = tmp_path / "bare.gguf"
    model = model_with(learnt_vocabulary(CODE, 5))
    write_model(vocabulary_only(model).with_metadata({"tokenizer.ggml.tokens": None}), bare)
    with pytest.raises(EngineError, match="cannot load the vocabulary"):
        NativeTokenizer(bare)
