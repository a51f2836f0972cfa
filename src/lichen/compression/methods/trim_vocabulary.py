"""Keep the tokens that code and its natural language need, and drop the others' rows.

Vocabularies are made for all the world's languages; in a small model their rows, in the embedding
and in the output matrix, are a large share of the file and of the bytes read for every token. Which
tokens are wanted is counted on a corpus (see ``token_choice``); bytes and control tokens always
stay, so any text can still be written. Rows are copied as stored: the weights that stay are the
parent's, bit for bit, and texts made of kept tokens mean the same to the model.

Does not change weights, merge order, or how text is split into words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lichen.compression.method import Method, MethodContext
from lichen.compression.model_file import ModelFile
from lichen.compression.token_choice import ASCII_RANKS, PRIOR
from lichen.compression.token_counts import count_tokens
from lichen.compression.vocabulary import Vocabulary, read_vocabulary
from lichen.compression.vocabulary_metadata import unpacked
from lichen.compression.vocabulary_trim import token_order, trimmed
from lichen.core.errors import ConfigError
from lichen.engines.options import read_options

_MULTIPLE: Final = 64
"""The number kept is rounded up to a multiple: kernels that repack rows work on 4, 8 or 16 at once
(ggml/src/ggml-cpu/repack.cpp)."""
_JUDGES: Final = 5
"""Every fifth calibration document judges how many tokens are enough, and does not choose them."""


@dataclass(frozen=True, slots=True)
class TrimOptions:
    """What to keep.

    Args:
        keep_tokens: how many tokens, rounded up to a multiple of 64; 0 for as many as ``inflation``
            asks for.
        inflation: share of tokens that texts like the corpus may need more, above 0, below 1.
        ascii_ranks: the ASCII tokens of that many first merges are kept whatever the corpus says.
        prior: weight of the merges' order beside the corpus counts, >= 0.
        kept: exactly these tokens, as ``lichen.trim_vocabulary.kept`` in a trimmed file's metadata
            names them; no corpus is asked, so the result is the same everywhere.
    """

    keep_tokens: int = 0
    inflation: float = 0.002
    ascii_ranks: int = ASCII_RANKS
    prior: float = PRIOR
    kept: str = ""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.keep_tokens < 0 or self.ascii_ranks < 0 or self.prior < 0:
            msg = "keep_tokens, ascii_ranks and prior are 0 or more"
            raise ValueError(msg)
        if not 0 < self.inflation < 1:
            msg = "inflation is a share between 0 and 1; 0.002 is 0.2 %"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class TrimVocabulary:
    """The method. Needs a corpus and the source's tokenizer, unless ``kept`` says what to keep."""

    options: TrimOptions
    name: str = "trim_vocabulary"

    def apply(self, model: ModelFile, context: MethodContext) -> ModelFile:
        """Return the model with fewer tokens.

        Raises:
            ConfigError: the vocabulary cannot be trimmed, what is asked for is impossible, or the
                context has no corpus or tokenizer.
        """
        vocabulary = read_vocabulary(model.metadata)
        if self.options.kept:
            kept = unpacked(self.options.kept, vocabulary.size)
        else:
            kept = self._chosen(model, vocabulary, context)
        context.note(f"keeps {len(kept):,} of {vocabulary.size:,} tokens")
        return trimmed(model, vocabulary, kept)

    def _chosen(
        self, model: ModelFile, vocabulary: Vocabulary, context: MethodContext
    ) -> tuple[int, ...]:
        corpus, tokenizer = context.corpus, context.tokenizer
        if corpus is None or tokenizer is None:
            raise ConfigError(
                "trim_vocabulary counts tokens, so it needs a corpus and the model's tokenizer"
            )
        judges = corpus.calibration[::_JUDGES]
        choosers = [d for i, d in enumerate(corpus.calibration) if i % _JUDGES]
        size = vocabulary.size
        judged = count_tokens(judges, tokenizer, size)
        order = token_order(
            model,
            vocabulary,
            count_tokens(choosers or judges, tokenizer, size),
            tokenizer,
            ascii_ranks=self.options.ascii_ranks,
            prior=self.options.prior,
        )
        wanted = self.options.keep_tokens or order.enough(self.options.inflation, judged)
        if wanted < order.required:
            raise ConfigError(
                f"trim_vocabulary cannot keep {wanted:,} tokens: {order.required:,} are needed for "
                "bytes, control, white space, chat and common ASCII; ask for more tokens or for "
                "fewer ascii_ranks"
            )
        count = min(-(-wanted // _MULTIPLE) * _MULTIPLE, len(order.order))
        expected = order.expected_inflation(count, count_tokens(corpus.held_out, tokenizer, size))
        context.note(f"held-out texts are expected to need {expected:.2%} more tokens")
        return order.kept(count)


def make(options: Mapping[str, object]) -> Method:
    """Build the method from plain options; see ``TrimOptions``."""
    return TrimVocabulary(read_options(TrimOptions, options, who="method trim_vocabulary"))
