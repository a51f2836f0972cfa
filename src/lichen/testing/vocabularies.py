"""Small byte-level BPE vocabularies, models that have them, and a tokenizer without an engine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lichen.catalog.tensor_types import TENSOR_TYPES
from lichen.compression.file_rows import Raw
from lichen.compression.metadata import ARRAY, I32, U32, MetaValue
from lichen.compression.model_file import LazyTensor, ModelFile
from lichen.compression.vocabulary import BYTE_CHARACTERS, NORMAL, UNUSED, Vocabulary

CONTROL = 3
"""llama_token_type in llama.h."""
_WIDTH = 32
_Q8_0 = TENSOR_TYPES[8]


def learnt_vocabulary(text: str, merges: int, *, padding: int = 0) -> Vocabulary:
    """Learn ``merges`` merges from ``text``; bytes come first, two control tokens and padding last.

    Fewer merges are learnt where the text has no more pairs that occur twice.
    """
    words = [(list(word), times) for word, times in Counter(_words(text)).items()]
    pairs: list[tuple[str, str]] = []
    while len(pairs) < merges:
        seen: Counter[tuple[str, str]] = Counter()
        for symbols, times in words:
            for pair in pairwise(symbols):
                seen[pair] += times
        best = max(seen, key=lambda pair: (seen[pair], pair), default=None)
        if best is None or seen[best] < 2:  # noqa: PLR2004 (nothing occurs twice)
            break
        pairs.append(best)
        words = [(join_pair(symbols, best), times) for symbols, times in words]
    plain = list(dict.fromkeys([*BYTE_CHARACTERS, *("".join(pair) for pair in pairs)]))
    pads = [f"[PAD{i}]" for i in range(padding)]
    return Vocabulary(
        tokens=(*plain, "<|endoftext|>", "<|im_end|>", *pads),
        kinds=(*[NORMAL] * len(plain), CONTROL, CONTROL, *[UNUSED] * padding),
        merges=tuple(pairs),
    )


def join_pair(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Return ``symbols`` with each occurrence of ``pair`` joined, from the left."""
    joined: list[str] = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def model_with(vocabulary: Vocabulary, *, tied: bool = False) -> ModelFile:
    """Return a model of no layers whose rows are all different, stored as Q8_0."""
    end = vocabulary.ids["<|endoftext|>"]
    metadata = {
        "general.architecture": MetaValue.text("qwen2"),
        "qwen2.block_count": MetaValue.count(1),
        "qwen2.context_length": MetaValue.count(64),
        "qwen2.embedding_length": MetaValue.count(_WIDTH),
        "qwen2.feed_forward_length": MetaValue.count(_WIDTH),
        "qwen2.attention.head_count": MetaValue.count(1),
        "qwen2.attention.layer_norm_rms_epsilon": MetaValue.number(1e-6),
        "qwen2.vocab_size": MetaValue.count(vocabulary.size),
        "tokenizer.ggml.model": MetaValue.text("gpt2"),
        "tokenizer.ggml.pre": MetaValue.text("qwen2"),
        "tokenizer.ggml.tokens": MetaValue.texts(vocabulary.tokens),
        "tokenizer.ggml.token_type": MetaValue(ARRAY, I32, list(vocabulary.kinds)),
        "tokenizer.ggml.merges": MetaValue.texts(" ".join(pair) for pair in vocabulary.merges),
        "tokenizer.ggml.bos_token_id": MetaValue.count(end),
        "tokenizer.ggml.eos_token_id": MetaValue.count(end + 1),
        "tokenizer.ggml.eog_token_ids": MetaValue(ARRAY, U32, [end, end + 1]),
        "tokenizer.ggml.scores": MetaValue(ARRAY, I32, [-i for i in range(vocabulary.size)]),
    }
    matrices = ["token_embd.weight"] if tied else ["token_embd.weight", "output.weight"]
    return ModelFile(
        metadata,
        tuple(
            LazyTensor(name, (_WIDTH, vocabulary.size), _Q8_0, _Rows(seed, vocabulary.size))
            for seed, name in enumerate(matrices)
        ),
    )


@dataclass(frozen=True)
class PlainTokenizer:
    """Encodes by a vocabulary's merges, word by word as a simple pattern splits them."""

    vocabulary: Vocabulary
    _cache: dict[str, list[int]] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        """Return token ids; control tokens are plain text."""
        found: list[int] = []
        for word in _split(text):
            if word not in self._cache:
                self._cache[word] = self.vocabulary.encode_word(word.encode())
            found += self._cache[word]
        return found

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of tokens."""
        return b"".join(map(self.vocabulary.text_bytes, ids))


@dataclass(frozen=True)
class _Rows:
    """Rows of stored bytes that tell which row of which matrix they are."""

    seed: int
    rows: int

    def __call__(self, start: int, stop: int) -> Raw:
        numbers = np.arange(start, stop, dtype=np.int64)[:, None] * 131 + self.seed
        return ((numbers * np.arange(1, 35)) % 251).astype(np.uint8)


def _split(text: str) -> list[str]:
    """Split into words: letters or digits or signs with the blank before them, or white space."""
    return re.findall(r" ?[^\W\d_]+| ?\d| ?[^\s\w]+| ?_+|\s+|.", text, re.DOTALL)


def _words(text: str) -> list[str]:
    return ["".join(BYTE_CHARACTERS[b] for b in word.encode()) for word in _split(text)]
