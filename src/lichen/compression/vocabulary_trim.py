"""Drop tokens from a model: the order in which they go, and the model without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lichen.compression.chat_text import CHAT_TEXT
from lichen.compression.method import TextTokenizer
from lichen.compression.model_file import ModelFile
from lichen.compression.token_choice import (
    ASCII_RANKS,
    PRIOR,
    TokenOrder,
    order_tokens,
    required_tokens,
)
from lichen.compression.token_counts import Counts
from lichen.compression.vocabulary import NORMAL, UNUSED, Vocabulary
from lichen.compression.vocabulary_metadata import referenced_ids, trimmed_metadata
from lichen.core.errors import ConfigError

_MATRICES: Final = ("token_embd.weight", "output.weight")
_TEMPLATE_KEY: Final = "tokenizer.chat_template"


def token_order(
    model: ModelFile,
    vocabulary: Vocabulary,
    counts: Counts,
    tokenizer: TextTokenizer,
    *,
    ascii_ranks: int = ASCII_RANKS,
    prior: float = PRIOR,
) -> TokenOrder:
    """Return the order in which tokens are kept, given their ``counts`` in a corpus.

    Beside what ``required_tokens`` lists, the tokens of the chat template, of chat English and
    those that the metadata names are required.
    """
    template = model.value(_TEMPLATE_KEY, "")
    also = set(tokenizer.encode(CHAT_TEXT))
    also.update(tokenizer.encode(template if isinstance(template, str) else ""))
    also |= referenced_ids(model.metadata, vocabulary.size)
    required = required_tokens(vocabulary, also, ascii_ranks=ascii_ranks)
    return order_tokens(vocabulary, counts, required, prior=prior)


def trimmed(model: ModelFile, vocabulary: Vocabulary, kept: Sequence[int]) -> ModelFile:
    """Return the model with the tokens ``kept``, ids ascending. Reads no weights.

    Raises:
        ConfigError: rows and tokens do not match, or tokens are missing without which texts could
            not be written.
    """
    matrices = _matrices(model, vocabulary)
    _check(model, vocabulary, frozenset(kept))
    changed = [model.tensor(name).selected(kept) for name in matrices]
    return model.replaced(*changed).with_metadata(
        trimmed_metadata(model.metadata, vocabulary, kept)
    )


def vocabulary_only(model: ModelFile) -> ModelFile:
    """Return the model without weights: enough for a tokenizer, and quickly written."""
    return model.with_tensors(())


def _matrices(model: ModelFile, vocabulary: Vocabulary) -> list[str]:
    """Return the matrices that have a row for each token; padding rows may follow."""
    for tensor in model.tensors:
        rows = tensor.shape[-1] if tensor.shape else 0
        if tensor.name in _MATRICES and rows < vocabulary.size:
            raise ConfigError(
                f"{tensor.name!r} has {rows:,} rows for {vocabulary.size:,} tokens: the file is "
                "damaged"
            )
        if tensor.name not in _MATRICES and rows == vocabulary.size > _WIDEST:
            raise ConfigError(
                f"{tensor.name!r} seems to have a row for each token, which trim_vocabulary does "
                "not know how to cut; leave the vocabulary of this model whole"
            )
    return [name for name in _MATRICES if model.has(name)]


_WIDEST: Final = 1 << 14
"""Tensors of layers can be as long as a tiny vocabulary by chance; no layer is this wide."""


def _check(model: ModelFile, vocabulary: Vocabulary, kept: frozenset[int]) -> None:
    needed = vocabulary.byte_ids | referenced_ids(model.metadata, vocabulary.size)
    needed |= {i for i, kind in enumerate(vocabulary.kinds) if kind not in (NORMAL, UNUSED)}
    lacking = (needed | vocabulary.closure(kept)) - kept
    if lacking:
        token = vocabulary.tokens[min(lacking)][:40]
        raise ConfigError(
            f"{len(lacking):,} tokens that must stay would be dropped, {token!r} among them: "
            "bytes, control tokens, and the parts of tokens that are kept"
        )
