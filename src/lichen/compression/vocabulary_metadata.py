"""The metadata of a model whose vocabulary was trimmed: arrays selected, token ids renumbered.

An id is found by its key: ``..._token_id`` holds one, ``..._token_ids`` and ``suppress_tokens``
several, whatever the prefix (tokenizer, architecture). Arrays of the tokenizer with one entry per
token are cut like the tokens. A Hugging Face tokenizer stored beside is removed, because it
describes the whole vocabulary. Everything else stays.

Source: the keys of src/llama-arch.cpp and how src/llama-vocab.cpp reads them (llama.cpp).
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from lichen.compression.metadata import MetaValue
from lichen.compression.vocabulary import (
    MERGES_KEY,
    TOKENS_KEY,
    TYPES_KEY,
    Vocabulary,
)
from lichen.core.errors import ConfigError

KEPT_KEY: Final = "lichen.trim_vocabulary.kept"
"""Which tokens of the parent's vocabulary were kept; see ``packed``."""

_ONE_ID: Final = re.compile(r"_token_id\Z")
_MANY_IDS: Final = re.compile(r"(_token_ids|\.suppress_tokens)\Z")
_FOREIGN: Final = "tokenizer.huggingface.json"
_DEFAULTS: Final = ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id")
_DEFAULT_ID: Final = 11
"""llama_vocab::impl::load in llama-vocab.cpp: a 'gpt2' vocabulary without such a key uses id 11."""


def referenced_ids(metadata: Mapping[str, MetaValue], size: int) -> frozenset[int]:
    """Return the ids below ``size`` that single-id keys name; ids beyond mean "none".

    Where the engine would fall back to an id of its own, that one and all before it are named too,
    so that it stays the same token.
    """
    named = [value.value for key, value in metadata.items() if _ONE_ID.search(key)]
    if any(key not in metadata for key in _DEFAULTS):
        named += range(_DEFAULT_ID + 1)
    return frozenset(i for i in named if isinstance(i, int) and 0 <= i < size)


def trimmed_metadata(
    metadata: Mapping[str, MetaValue], vocabulary: Vocabulary, kept: Sequence[int]
) -> dict[str, MetaValue | None]:
    """Return the entries that change (None: removed) when ``kept`` are the tokens, in that order.

    Raises:
        ConfigError: a key names a token that is not kept.
    """
    trimmed = vocabulary.trimmed(kept)
    new_ids = {old: new for new, old in enumerate(kept)}
    changes: dict[str, MetaValue | None] = {}
    for key, value in metadata.items():
        if key == _FOREIGN:
            changes[key] = None
        elif key == TOKENS_KEY:
            changes[key] = value.like(list(trimmed.tokens))
        elif key == TYPES_KEY:
            changes[key] = value.like(list(trimmed.kinds))
        elif key == MERGES_KEY:
            changes[key] = value.like([" ".join(pair) for pair in trimmed.merges])
        elif key.endswith(".vocab_size") and value.value == vocabulary.size:
            changes[key] = value.like(len(kept))
        else:
            changes |= _renumbered(key, value, new_ids, vocabulary.size)
    changes[KEPT_KEY] = MetaValue.text(packed(kept, vocabulary.size))
    return changes


def _renumbered(
    key: str, value: MetaValue, new_ids: Mapping[int, int], size: int
) -> dict[str, MetaValue | None]:
    """Return the change of one entry, if it changes."""
    held = value.value
    if _ONE_ID.search(key) and isinstance(held, int) and 0 <= held < size:
        if held not in new_ids:
            raise ConfigError(f"{key!r} names the token {held:,}, which would be dropped")
        return {key: value.like(new_ids[held])}
    if _MANY_IDS.search(key) and isinstance(held, list):
        return {key: value.like([new_ids.get(i, i) for i in held if i in new_ids or i >= size])}
    if key.startswith("tokenizer.ggml.") and isinstance(held, list) and len(held) == size:
        return {key: value.like([held[old] for old in new_ids])}
    return {}


def packed(kept: Sequence[int], size: int) -> str:
    """Return a set of ids below ``size`` as text: the size, then a compressed bit for each id."""
    bits = np.zeros(size, dtype=np.uint8)
    bits[list(kept)] = 1
    raw = zlib.compress(np.packbits(bits).tobytes(), 9)
    return f"{size}:{base64.b64encode(raw).decode('ascii')}"


def unpacked(text: str, size: int) -> tuple[int, ...]:
    """Return the ids that ``packed`` wrote, ascending.

    Raises:
        ConfigError: not such a text, or one for a vocabulary of another size.
    """
    head, _, body = text.partition(":")
    if head != str(size):
        raise ConfigError(
            f"the kept tokens are those of a vocabulary of {head[:20]!r} tokens, not {size:,}: "
            "they belong to another model"
        )
    try:
        inflater = zlib.decompressobj()
        # One byte more than expected is enough to see that a list is too long.
        raw = inflater.decompress(base64.b64decode(body, validate=True), -(-size // 8) + 1)
    except (zlib.error, binascii.Error, ValueError) as exc:
        raise ConfigError("the list of kept tokens is damaged; copy it again") from exc
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8))
    if len(raw) != -(-size // 8) or bits[size:].any():
        raise ConfigError("the list of kept tokens is damaged; copy it again")
    return tuple(np.flatnonzero(bits[:size]).tolist())
