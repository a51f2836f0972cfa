"""The method trim_vocabulary: what is kept, what is copied, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lichen.compression.corpus import Corpus, Document
from lichen.compression.method import MethodContext
from lichen.compression.methods import METHODS
from lichen.compression.model_file import ModelFile
from lichen.compression.script_samples import SCRIPT_SAMPLES
from lichen.compression.token_choice import order_tokens, required_tokens
from lichen.compression.token_counts import count_tokens, measure_inflation
from lichen.compression.vocabulary import Vocabulary, read_vocabulary
from lichen.compression.vocabulary_curve import judged_texts, trim_curve
from lichen.compression.vocabulary_metadata import KEPT_KEY
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.testing.code_samples import CODE_SAMPLES
from lichen.testing.vocabularies import PlainTokenizer, learnt_vocabulary, model_with

FOREIGN = "".join(sample.text for sample in SCRIPT_SAMPLES[1:])
CODE = "\n".join(CODE_SAMPLES.values())


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    """A vocabulary learnt from code and from other scripts, with padding."""
    return learnt_vocabulary(CODE * 2 + FOREIGN * 2, 900, padding=6)


def _context(vocabulary: Vocabulary, heard: list[str] | None = None) -> MethodContext:
    documents = tuple(Document(f"{name}.py", text) for name, text in CODE_SAMPLES.items())
    return MethodContext(
        quantiser=None,  # type: ignore[arg-type]  # never quantises
        source=Path(),
        corpus=Corpus(documents, documents[:2]),
        tokenizer=PlainTokenizer(vocabulary),
        note=(heard if heard is not None else []).append,
    )


def _apply(model: ModelFile, context: MethodContext, **options: object) -> ModelFile:
    return METHODS.get("trim_vocabulary")({"ascii_ranks": 10, **options}).apply(model, context)


def test_rows_follow_their_tokens_bit_for_bit(vocabulary: Vocabulary) -> None:
    """Each kept token has the stored rows it had, in both matrices, and nothing was dequantised."""
    model = model_with(vocabulary)
    after = _apply(model, _context(vocabulary), keep_tokens=896)
    small = read_vocabulary(after.metadata)
    assert small.size == 896
    old = [vocabulary.ids[token] for token in small.tokens]
    for name in ("token_embd.weight", "output.weight"):
        assert after.tensor(name).shape == (32, 896)
        whole = model.tensor(name).read(0, vocabulary.size)
        assert np.array_equal(after.tensor(name).read(0, 896), whole[old])
        assert np.array_equal(after.tensor(name).read(17, 40), whole[old[17:40]])


def test_a_tied_model_stays_tied(vocabulary: Vocabulary) -> None:
    """Where there is one matrix, one is cut and none appears."""
    after = _apply(model_with(vocabulary, tied=True), _context(vocabulary), keep_tokens=896)
    assert [t.name for t in after.tensors] == ["token_embd.weight"]


def test_what_must_stay_stays_and_padding_goes(vocabulary: Vocabulary) -> None:
    """Bytes, control tokens and white space are kept, padding is not; ids keep their order."""
    after = _apply(model_with(vocabulary), _context(vocabulary), keep_tokens=896)
    tokens = read_vocabulary(after.metadata).tokens
    assert set(vocabulary.tokens[:256]) <= set(tokens)
    assert {"<|endoftext|>", "<|im_end|>"} <= set(tokens)
    assert not any(token.startswith("[PAD") for token in tokens)
    assert {t for t in vocabulary.tokens if set(t) <= {"Ġ", "Ċ", "ĉ", "č"}} <= set(tokens)
    assert [vocabulary.ids[t] for t in tokens] == sorted(vocabulary.ids[t] for t in tokens)


def test_tokens_of_the_corpus_go_last(vocabulary: Vocabulary) -> None:
    """Code keeps its encoding where other scripts lose theirs."""
    after = _apply(model_with(vocabulary), _context(vocabulary), inflation=0.001)
    small = PlainTokenizer(read_vocabulary(after.metadata))
    whole = PlainTokenizer(vocabulary)
    code = measure_inflation("code", [Document("code", CODE)], whole, small)
    foreign = measure_inflation("foreign", [Document("foreign", FOREIGN)], whole, small)
    assert code.share < 0.02
    assert foreign.share > 0.2


def test_less_inflation_keeps_more_tokens(vocabulary: Vocabulary) -> None:
    """The target decides the number; a loose one needs no more than what is required."""
    sizes = [
        read_vocabulary(
            _apply(model_with(vocabulary), _context(vocabulary), inflation=share).metadata
        ).size
        for share in (0.9, 0.05, 0.0001)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_the_expected_inflation_is_close_to_the_real_one(vocabulary: Vocabulary) -> None:
    """What the choice is made by never falls short of what the tokenizer then does, nor far off."""
    whole = PlainTokenizer(vocabulary)
    documents = [Document("code", CODE)]
    counts = count_tokens(documents, whole, vocabulary.size)
    required = required_tokens(vocabulary, (), ascii_ranks=0)
    order = order_tokens(vocabulary, counts * 0, required, prior=1.0)
    for size in (order.required, 700, 900):
        small = PlainTokenizer(vocabulary.trimmed(order.kept(size)))
        real = measure_inflation("code", documents, whole, small).share
        expected = order.expected_inflation(size, counts)
        assert real <= expected <= real * 1.25 + 0.001


def test_every_prefix_of_the_order_is_closed(vocabulary: Vocabulary) -> None:
    """Whatever the number kept, no token is without its parts, even where nothing was counted."""
    counts = np.arange(vocabulary.size) % 7
    required = required_tokens(vocabulary, (), ascii_ranks=0)
    for prior in (0.0, 0.5):
        order = order_tokens(vocabulary, counts, required, prior=prior)
        for size in range(order.required, len(order.order), 9):
            kept = order.kept(size)
            assert vocabulary.closure(kept) == frozenset(kept)


def test_the_dry_run_knows_the_saving(vocabulary: Vocabulary) -> None:
    """Bytes of the smaller file are known without reading a row."""
    model = model_with(vocabulary)
    after = _apply(model, _context(vocabulary), keep_tokens=896)
    saved = 2 * 34 * (vocabulary.size - 896)
    assert model.file_bytes - after.file_bytes > saved - 2 * 4096
    assert _weight_bytes(after) < _weight_bytes(model)


def _weight_bytes(model: ModelFile) -> int:
    """Return the weights' bytes."""
    return sum(t.size_bytes for t in model.tensors)


def test_the_same_choice_can_be_replayed_without_a_corpus(vocabulary: Vocabulary) -> None:
    """The text in the result's metadata gives the same model on a machine with other packages."""
    model = model_with(vocabulary)
    first = _apply(model, _context(vocabulary), keep_tokens=896)
    bare = replace(_context(vocabulary), corpus=None, tokenizer=None)
    again = _apply(model, bare, kept=first.value(KEPT_KEY))
    assert again.metadata == first.metadata
    assert [t.shape for t in again.tensors] == [t.shape for t in first.tensors]


def test_trimming_twice_works(vocabulary: Vocabulary) -> None:
    """A trimmed model is a model like any other."""
    once = _apply(model_with(vocabulary), _context(vocabulary), keep_tokens=960)
    smaller = read_vocabulary(once.metadata)
    twice = _apply(once, _context(smaller), keep_tokens=896)
    assert read_vocabulary(twice.metadata).size == 896


def test_what_was_kept_is_said(vocabulary: Vocabulary) -> None:
    """The user hears how many tokens stay and what held-out texts are expected to cost."""
    heard: list[str] = []
    _apply(model_with(vocabulary), _context(vocabulary, heard), keep_tokens=896)
    assert any("896 of" in line for line in heard)
    assert any("%" in line for line in heard)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep_tokens": 5}, "are needed for bytes"),
        ({"keep_tokens": -1}, "0 or more"),
        ({"inflation": 0.0}, "between 0 and 1"),
        ({"kept": "12:abc"}, "another model"),
    ],
)
def test_impossible_wishes_are_refused(
    vocabulary: Vocabulary, options: dict[str, object], sentence: str
) -> None:
    """Each is one sentence that says what to change."""
    with pytest.raises(ConfigError, match=sentence):
        _apply(model_with(vocabulary), _context(vocabulary), **options)


def test_an_unknown_option_is_refused_with_the_nearest(vocabulary: Vocabulary) -> None:
    """Typing errors do not pass silently."""
    with pytest.raises(UnknownNameError, match="keep_tokens"):
        _apply(model_with(vocabulary), _context(vocabulary), keep_token=3)


def test_without_a_corpus_it_says_what_it_needs(vocabulary: Vocabulary) -> None:
    """Nothing is guessed where nothing can be counted."""
    context = replace(_context(vocabulary), corpus=None)
    with pytest.raises(ConfigError, match="corpus"):
        _apply(model_with(vocabulary), context)


def test_a_tokenizer_of_another_model_is_refused(vocabulary: Vocabulary) -> None:
    """Counts of other ids would choose at random."""
    smaller = read_vocabulary(
        _apply(model_with(vocabulary), _context(vocabulary), keep_tokens=896).metadata
    )
    with pytest.raises(ConfigError, match="another vocabulary"):
        _apply(model_with(smaller), _context(vocabulary))


def test_kept_lists_that_drop_bytes_are_refused(vocabulary: Vocabulary) -> None:
    """A list that would make some text impossible to write is not applied."""
    from lichen.compression.vocabulary_metadata import packed

    kept = packed(range(1, vocabulary.size), vocabulary.size)
    with pytest.raises(ConfigError, match="must stay"):
        _apply(model_with(vocabulary), _context(vocabulary), kept=kept)


def test_a_matrix_with_too_few_rows_is_damage(vocabulary: Vocabulary) -> None:
    """Tokens without rows are never read from beyond the matrix; padding rows are dropped."""
    model = model_with(vocabulary)
    short = model.replaced(model.tensor("output.weight").selected(range(600)))
    with pytest.raises(ConfigError, match="600 rows"):
        _apply(short, _context(vocabulary), keep_tokens=896)


def test_the_curve_falls_with_size(vocabulary: Vocabulary) -> None:
    """More tokens never cost more inflation here, and always more bytes; sizes are as asked."""
    context = _context(vocabulary)
    assert context.corpus is not None
    corpus = context.corpus
    points = trim_curve(
        model_with(vocabulary),
        corpus,
        (850, 900, 1000),
        ascii_ranks=0,
        open_tokenizer=_plain_tokenizer,
    )
    assert [p.tokens for p in points] == sorted({p.tokens for p in points})
    assert [p.file_bytes for p in points] == sorted(p.file_bytes for p in points)
    python = [next(i.share for i in p.inflation if i.texts == "python") for p in points]
    assert python == sorted(python, reverse=True)
    assert {i.texts for i in points[0].inflation} == set(judged_texts(corpus))


def _plain_tokenizer(path: Path) -> PlainTokenizer:
    from lichen.compression.model_file import open_model

    return PlainTokenizer(read_vocabulary(open_model(path).metadata))
