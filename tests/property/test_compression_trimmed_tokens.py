"""Laws of trimmed vocabularies: every text can be written, and kept tokens mean what they meant."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.compression.corpus import Corpus, Document
from lichen.compression.method import MethodContext
from lichen.compression.methods import METHODS
from lichen.compression.model_file import ModelFile, open_model, write_model
from lichen.compression.script_samples import SCRIPT_SAMPLES
from lichen.compression.vocabulary import NORMAL, Vocabulary, read_vocabulary
from lichen.compression.vocabulary_trim import trimmed, vocabulary_only
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer
from lichen.testing.code_samples import CODE_SAMPLES
from lichen.testing.vocabularies import PlainTokenizer, learnt_vocabulary, model_with

CODE = "\n".join(CODE_SAMPLES.values())
SCRIPTS = "\n".join(sample.text for sample in SCRIPT_SAMPLES)

ODDITIES = ("👩‍👩‍👧‍👦", "🇪🇺🏳️‍🌈", "e\u0301", "\ufeff", "\t\t  \n\r\n   ", "0x1F600", "<|im_end|>")

PIECES = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "replace")),
    st.sampled_from(sorted(CODE_SAMPLES.values())),
    st.sampled_from([sample.text for sample in SCRIPT_SAMPLES]),
    st.sampled_from(ODDITIES),
    st.text(alphabet=" \t\n\r_(){}=:.0123456789selfreturn", max_size=40),
)
TEXTS = st.lists(PIECES, max_size=4).map("".join)


@cache
def whole() -> Vocabulary:
    """A vocabulary that knows code and ten languages."""
    return learnt_vocabulary(CODE * 2 + SCRIPTS * 2, 600, padding=5)


@cache
def small() -> Vocabulary:
    """What is left of it when half of its tokens are dropped, bytes and control tokens kept."""
    vocabulary = whole()
    kept = set(range(0, vocabulary.size, 4)) | vocabulary.byte_ids
    kept |= {i for i, kind in enumerate(vocabulary.kinds) if kind != NORMAL}
    return vocabulary.trimmed(sorted(vocabulary.closure(kept)))


@given(TEXTS)
def test_any_text_survives_a_trimmed_vocabulary(text: str) -> None:
    """Whatever was dropped, encoding and decoding gives the same bytes: by the merges alone."""
    assert small().size < whole().size * 0.8
    tokenizer = PlainTokenizer(small())
    assert tokenizer.decode(tokenizer.encode(text)) == text.encode("utf-8", "replace")


@given(TEXTS)
def test_texts_of_kept_tokens_are_encoded_as_before(text: str) -> None:
    """If a text's tokens are kept, with what they are made of, its ids map one to one."""
    vocabulary = whole()
    before = PlainTokenizer(vocabulary).encode(text)
    kept = sorted(vocabulary.closure(before) | vocabulary.byte_ids)
    after = PlainTokenizer(vocabulary.trimmed(kept)).encode(text)
    assert [kept[i] for i in after] == before


@given(st.binary(max_size=60))
def test_one_long_word_is_encoded_as_before(word: bytes) -> None:
    """The same holds where nothing is split into words first, down to bytes that are no text."""
    vocabulary = whole()
    before = vocabulary.encode_word(word)
    kept = sorted(vocabulary.closure(before) | vocabulary.byte_ids)
    assert [kept[i] for i in vocabulary.trimmed(kept).encode_word(word)] == before


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30))
def test_every_kept_token_can_still_be_produced(numbers: list[int]) -> None:
    """In a closed vocabulary each token that a merge makes encodes to itself."""
    vocabulary = whole()
    made = [i for i, parts in enumerate(vocabulary.parts) if parts is not None]
    chosen = {made[n % len(made)] for n in numbers}
    kept = sorted(vocabulary.closure(chosen) | vocabulary.byte_ids)
    after = vocabulary.trimmed(kept)
    for number in chosen:
        raw = vocabulary.text_bytes(number)
        if vocabulary.encode_word(raw) == [number]:
            assert after.tokens[after.encode_word(raw)[0]] == vocabulary.tokens[number]
            assert len(after.encode_word(raw)) == 1


def _native(model: ModelFile, folder: Path) -> NativeTokenizer:
    path = folder / "vocabulary.gguf"
    write_model(vocabulary_only(model), path)
    return NativeTokenizer(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where vocabularies are written."""
    pytest.importorskip("xllamacpp", reason="needs the extra [llama]")
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture(scope="module")
def engine_small(folder: Path) -> Iterator[NativeTokenizer]:
    """The engine's tokenizer with the trimmed vocabulary."""
    tokenizer = _native(model_with(small()), folder)
    yield tokenizer
    tokenizer.close()


@given(TEXTS)
def test_any_text_survives_in_the_engine(engine_small: NativeTokenizer, text: str) -> None:
    """The engine itself writes any text with the trimmed vocabulary and reads it back."""
    assert engine_small.size == small().size
    assert engine_small.decode(engine_small.encode(text)) == text.encode("utf-8", "replace")


@given(TEXTS)
@settings(max_examples=15)
def test_the_engine_maps_kept_tokens_one_to_one(folder: Path, text: str) -> None:
    """The engine encodes a text of kept tokens as it did with the whole vocabulary."""
    vocabulary, model = whole(), model_with(whole())
    with tempfile.TemporaryDirectory(dir=folder) as place:
        before = _native(model, Path(place)).encode(text)
        needed = {i for i, kind in enumerate(vocabulary.kinds) if kind not in (NORMAL, 5)}
        kept = sorted(vocabulary.closure(before) | vocabulary.byte_ids | needed)
        after = _native(trimmed(model, vocabulary, kept), Path(place)).encode(text)
    assert [kept[i] for i in after] == before


Halved = tuple[NativeTokenizer, NativeTokenizer, tuple[int, ...]]
"""A model's whole tokenizer, the trimmed one, and which ids were kept."""


@pytest.fixture(scope="module")
def halved(model_135m: Path, folder: Path) -> Iterator[Halved]:
    """A real model's vocabulary, cut to less than half by the method itself."""
    model = open_model(model_135m)
    parent = NativeTokenizer(model_135m)
    documents = tuple(Document(f"{k}.txt", v) for k, v in CODE_SAMPLES.items())
    context = MethodContext(
        quantiser=None,  # type: ignore[arg-type]  # never quantises
        source=model_135m,
        corpus=Corpus(documents, documents),
        tokenizer=parent,
    )
    method = METHODS.get("trim_vocabulary")({"keep_tokens": 20_000, "ascii_ranks": 10_000})
    child_model = method.apply(model, context)
    vocabulary = read_vocabulary(model.metadata)
    kept = tuple(vocabulary.ids[t] for t in read_vocabulary(child_model.metadata).tokens)
    child = _native(child_model, folder)
    yield parent, child, kept
    parent.close()
    child.close()


@pytest.mark.model
@given(TEXTS)
def test_any_text_means_the_same_bytes_to_a_real_model(halved: Halved, text: str) -> None:
    """Any text decodes to what it decodes to with the parent (which lacks a few bytes)."""
    parent, child, kept = halved
    assert child.size == len(kept) == 20_032
    assert child.decode(child.encode(text)) == parent.decode(parent.encode(text))


@pytest.mark.model
def test_kept_tokens_of_a_real_model_map_one_to_one(halved: Halved) -> None:
    """Code whose tokens were all counted is encoded as before, token by token."""
    parent, child, kept = halved
    compared = 0
    for text in CODE_SAMPLES.values():
        before = parent.encode(text)
        if set(before) <= set(kept):
            compared += 1
            assert [kept[i] for i in child.encode(text)] == before
    assert compared >= 4
