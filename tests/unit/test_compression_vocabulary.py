"""Byte-level BPE vocabularies: what tokens are made of, and which may go."""

from __future__ import annotations

import base64
import zlib

import pytest

from lichen.compression.metadata import ARRAY, I32, U32, MetaValue
from lichen.compression.vocabulary import BYTE_CHARACTERS, NORMAL, Vocabulary, read_vocabulary
from lichen.compression.vocabulary_metadata import (
    KEPT_KEY,
    packed,
    referenced_ids,
    trimmed_metadata,
    unpacked,
)
from lichen.core.errors import ConfigError
from lichen.testing.vocabularies import learnt_vocabulary, model_with

TEXT = "the cat sat on the mat and the dog ate the rat; return self.that\n" * 3


def _vocabulary(*merges: tuple[str, str]) -> Vocabulary:
    tokens = list(dict.fromkeys([*BYTE_CHARACTERS, *("".join(pair) for pair in merges)]))
    return Vocabulary(tuple(tokens), (NORMAL,) * len(tokens), merges)


def test_byte_characters_are_those_of_gpt2() -> None:
    """Every byte has one character of its own: printable ones themselves, the blank as G with dot."""
    assert len(set(BYTE_CHARACTERS)) == 256
    assert [BYTE_CHARACTERS[b] for b in (0x20, 0x0A, 0x41, 0xE9)] == ["Ġ", "Ċ", "A", "é"]


def test_closure_keeps_all_that_a_token_is_made_of() -> None:
    """Every ancestor on the way to a token is kept with it, down to the bytes."""
    vocabulary = _vocabulary(("t", "h"), ("th", "e"), ("Ġ", "the"))
    closed = vocabulary.closure([vocabulary.ids["Ġthe"]])
    assert {vocabulary.tokens[i] for i in closed} == {"Ġthe", "the", "th", "Ġ", "t", "h", "e"}


def test_the_merge_that_the_tokenizer_uses_decides_the_parts() -> None:
    """Where two merges make one token, its parts are those of the merge that comes to pass."""
    vocabulary = _vocabulary(("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc"))
    parts = vocabulary.parts[vocabulary.ids["abc"]]
    assert parts is not None
    assert [vocabulary.tokens[i] for i in parts] == ["a", "bc"]


def test_trimming_keeps_the_order_of_merges_and_drops_those_without_parts() -> None:
    """A merge stays only with both its parts and its result."""
    vocabulary = _vocabulary(("t", "h"), ("i", "n"), ("th", "e"), ("in", "g"))
    kept = [vocabulary.ids[t] for t in (*BYTE_CHARACTERS, "th", "the", "ing")]
    assert vocabulary.trimmed(kept).merges == (("t", "h"), ("th", "e"))


def test_words_are_encoded_earliest_merge_first() -> None:
    """The list's order decides, not the length or the place in the word."""
    vocabulary = _vocabulary(("b", "c"), ("a", "b"), ("a", "bc"))
    assert [vocabulary.tokens[i] for i in vocabulary.encode_word(b"abab bc")] == [
        *("ab", "ab", "Ġ", "bc")
    ]


def test_reading_gives_back_what_a_model_holds() -> None:
    """Tokens, kinds and merges come from the metadata unchanged."""
    vocabulary = learnt_vocabulary(TEXT, 40, padding=3)
    assert read_vocabulary(model_with(vocabulary).metadata) == vocabulary


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("tokenizer.ggml.model", MetaValue.text("llama"), "only byte-level BPE"),
        ("tokenizer.ggml.pre", MetaValue.text("llama-bpe"), "llama-bpe"),
        ("tokenizer.ggml.merges", None, "no list of texts"),
        ("tokenizer.ggml.merges", MetaValue.texts(["ab"]), "not a merge"),
        ("tokenizer.ggml.tokens", MetaValue(ARRAY, I32, [1, 2]), "no list of texts"),
        ("tokenizer.ggml.token_type", MetaValue(ARRAY, I32, [1]), "damaged"),
        ("tokenizer.ggml.token_type", MetaValue.text("normal"), "damaged"),
    ],
)
def test_other_and_damaged_vocabularies_are_refused(
    key: str, value: MetaValue | None, sentence: str
) -> None:
    """What cannot be trimmed exactly is one sentence, never a wrong vocabulary."""
    model = model_with(learnt_vocabulary(TEXT, 10)).with_metadata({key: value})
    with pytest.raises(ConfigError, match=sentence):
        read_vocabulary(model.metadata)


def test_equal_tokens_are_refused() -> None:
    """Ids could not be told apart."""
    model = model_with(learnt_vocabulary(TEXT, 10))
    tokens = model.value("tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    doubled = model.with_metadata(
        {"tokenizer.ggml.tokens": MetaValue.texts([tokens[0], tokens[0], *tokens[2:]])}
    )
    with pytest.raises(ConfigError, match="alike"):
        read_vocabulary(doubled.metadata)


def test_every_id_in_the_metadata_is_renumbered() -> None:
    """Single ids, lists of ids, suppressed tokens, sizes and arrays per token follow the tokens."""
    vocabulary = learnt_vocabulary(TEXT, 40, padding=5)
    end = vocabulary.ids["<|endoftext|>"]
    model = model_with(vocabulary).with_metadata(
        {
            "tokenizer.ggml.fim_pre_token_id": MetaValue.count(end + 1),
            "tokenizer.ggml.mask_token_id": MetaValue.count(0xFFFF_FFFF),
            "qwen2.decoder_start_token_id": MetaValue.count(end),
            "tokenizer.ggml.suppress_tokens": MetaValue(ARRAY, I32, [256, end, end + 3]),
            "tokenizer.ggml.token_type_count": MetaValue.count(vocabulary.size),
            "tokenizer.huggingface.json": MetaValue.text("{}"),
        }
    )
    kept = [*range(256), 258, end, end + 1]
    changes = trimmed_metadata(model.metadata, vocabulary, kept)
    after = model.with_metadata(changes)
    tokens = after.value("tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    for key in model.metadata:
        if key.endswith("_token_id") and model.value(key) != 0xFFFF_FFFF:
            old, new = model.value(key), after.value(key)
            assert isinstance(old, int)
            assert isinstance(new, int)
            assert tokens[new] == vocabulary.tokens[old], key
    assert after.value("tokenizer.ggml.mask_token_id") == 0xFFFF_FFFF
    assert after.value("tokenizer.ggml.suppress_tokens") == [257]
    assert after.value("tokenizer.ggml.eog_token_ids") == [257, 258]
    assert after.value("tokenizer.ggml.scores") == [-i for i in kept]
    assert after.value("tokenizer.ggml.token_type_count") == vocabulary.size
    assert after.value("qwen2.vocab_size") == 259
    assert "tokenizer.huggingface.json" not in after.metadata
    assert after.metadata["tokenizer.ggml.eog_token_ids"].element == U32
    assert unpacked(str(after.value(KEPT_KEY)), vocabulary.size) == tuple(kept)


def test_ids_that_the_metadata_names_cannot_be_dropped() -> None:
    """An end token that would vanish is an error, not a number that means something else."""
    vocabulary = learnt_vocabulary(TEXT, 10)
    model = model_with(vocabulary)
    with pytest.raises(ConfigError, match="os_token_id"):
        trimmed_metadata(model.metadata, vocabulary, list(range(256)))


def test_an_absent_end_token_keeps_the_engines_own() -> None:
    """Where the engine falls back to id 11, ids up to 11 stay what they are."""
    model = model_with(learnt_vocabulary(TEXT, 10))
    without = model.with_metadata({"tokenizer.ggml.eos_token_id": None})
    assert set(range(12)) <= referenced_ids(without.metadata, 300)
    assert not set(range(12)) & referenced_ids(model.metadata, 300)


def test_kept_ids_survive_being_written_as_text() -> None:
    """A packed set reads back exactly."""
    kept = (0, 1, 7, 8, 99, 100)
    assert unpacked(packed(kept, 101), 101) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100:",
        "101:" + base64.b64encode(zlib.compress(b"\xff" * 14)).decode(),
        "101:!!",
        "101:" + base64.b64encode(b"junk").decode(),
        "101:" + base64.b64encode(zlib.compress(b"")).decode(),
        "101:" + base64.b64encode(zlib.compress(bytes(1 << 24))).decode()[:-8],
    ],
)
def test_damaged_lists_of_kept_tokens_are_refused(text: str) -> None:
    """A list that was cut, changed or made for another model is one sentence."""
    with pytest.raises(ConfigError, match=r"another model|damaged"):
        unpacked(text, 101)
