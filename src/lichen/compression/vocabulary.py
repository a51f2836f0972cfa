"""A byte-level BPE vocabulary as a model file stores it, and which tokens can exist without others.

The tokenizer splits text into words, writes each byte as one character (``BYTE_CHARACTERS``) and
joins neighbours by the list of merges, earliest merge first, until none applies (Sennrich et al.
2016, arXiv 1508.07909; over bytes: Radford et al. 2019). Two facts make trimming exact:

* While a token comes about, no merge ever crosses its ends, so it is built by the very merges that
  build it when it stands alone. Its *parts* are the two tokens of the last of these merges.
* If a vocabulary is closed (with a token, its parts are kept) and the merges between kept tokens
  keep their order, then a text whose tokens are all kept is encoded as before: at each step the
  earliest merge that applies is the one that applied before.

A token whose parts are gone could never be produced again, so ``closure`` adds them.

Sentence-piece vocabularies work by other rules and are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

from lichen.compression.metadata import MetaValue
from lichen.core.errors import ConfigError

TOKENS_KEY: Final = "tokenizer.ggml.tokens"
TYPES_KEY: Final = "tokenizer.ggml.token_type"
MERGES_KEY: Final = "tokenizer.ggml.merges"
MODEL_KEY: Final = "tokenizer.ggml.model"
SPLIT_KEY: Final = "tokenizer.ggml.pre"

_SPLITS: Final = frozenset({"", "default", "gpt-2", "gpt2", "qwen2", "smollm"})
"""Ways of splitting text into words for which all this was checked; others may skip the merges."""

NORMAL: Final = 1
UNUSED: Final = 5
"""llama_token_type in llama.h; the others (unknown, control, user defined, byte) always stay."""


def _byte_characters() -> tuple[str, ...]:
    """Return the character that stands for each byte: printable ones themselves, others from 256.

    The table of GPT-2 (``bytes_to_unicode``), which every byte-level BPE vocabulary uses.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return tuple(chr(b) if b in printable else chr(next(others)) for b in range(256))


BYTE_CHARACTERS: Final = _byte_characters()
"""Byte -> the character that stands for it in tokens and merges."""
_BYTES: Final = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, their kinds, and the merges in order."""

    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """How many ids there are."""
        return len(self.tokens)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Token -> id."""
        return {token: number for number, token in enumerate(self.tokens)}

    @cached_property
    def ranks(self) -> Mapping[tuple[str, str], int]:
        """Merge -> its place in the list; of equal merges the first."""
        return {pair: rank for rank, pair in reversed(tuple(enumerate(self.merges)))}

    @cached_property
    def ranks_by_id(self) -> tuple[int | None, ...]:
        """Id -> the place of the earliest merge that makes the token; None for one without."""
        first: dict[str, int] = {}
        for rank, (left, right) in enumerate(self.merges):
            first.setdefault(left + right, rank)
        return tuple(
            first.get(token) if kind == NORMAL else None
            for token, kind in zip(self.tokens, self.kinds, strict=True)
        )

    def text_bytes(self, number: int) -> bytes:
        """Return the bytes that a token stands for in text."""
        token = self.tokens[number]
        if self.kinds[number] == NORMAL and all(c in _BYTES for c in token):
            return bytes(_BYTES[c] for c in token)
        return token.encode("utf-8", "surrogateescape")

    @cached_property
    def byte_ids(self) -> frozenset[int]:
        """The tokens of single bytes: with these any text can be written."""
        return frozenset(self.ids[c] for c in BYTE_CHARACTERS if c in self.ids)

    @cached_property
    def parts(self) -> tuple[tuple[int, int] | None, ...]:
        """Id -> the two tokens it is made of; None for tokens that no merge makes."""
        makers: dict[str, list[tuple[str, str]]] = {}
        for left, right in self.merges:
            if left in self.ids and right in self.ids:
                makers.setdefault(left + right, []).append((left, right))
        return tuple(
            self._parts_of(token, makers.get(token, ())) if kind == NORMAL else None
            for token, kind in zip(self.tokens, self.kinds, strict=True)
        )

    def _parts_of(self, token: str, makers: Sequence[tuple[str, str]]) -> tuple[int, int] | None:
        if not makers:
            return None
        left, right = makers[0]
        if len(makers) > 1:
            # Several merges make the same token: the tokenizer decides which one it uses.
            symbols, used = join(token, self.ranks)
            if symbols == [token]:
                left, right = used[-1]
        return self.ids[left], self.ids[right]

    def closure(self, chosen: Iterable[int]) -> frozenset[int]:
        """Return ``chosen`` with all the tokens that they are made of."""
        found: set[int] = set()
        waiting = list(chosen)
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                waiting.extend(self.parts[number] or ())
        return frozenset(found)

    def encode_word(self, word: bytes) -> list[int]:
        """Encode bytes as one word, by the merges alone: what the engine does with each word.

        Bytes without a token are left out, as the engine does.
        """
        symbols, _ = join("".join(BYTE_CHARACTERS[b] for b in word), self.ranks)
        found: list[int] = []
        for symbol in symbols:
            pieces = (symbol,) if symbol in self.ids else tuple(symbol)
            found += [self.ids[piece] for piece in pieces if piece in self.ids]
        return found

    def trimmed(self, kept: Sequence[int]) -> Vocabulary:
        """Return the vocabulary of the tokens ``kept``, in that order, with the merges among them.

        A merge stays if both its parts and its result do; the order of merges stays.
        """
        tokens = tuple(self.tokens[number] for number in kept)
        alive = {token for token, number in zip(tokens, kept, strict=True) if self._plain(number)}
        return Vocabulary(
            tokens=tokens,
            kinds=tuple(self.kinds[number] for number in kept),
            merges=tuple(
                pair
                for pair in self.merges
                if pair[0] in alive and pair[1] in alive and pair[0] + pair[1] in alive
            ),
        )

    def _plain(self, number: int) -> bool:
        return self.kinds[number] == NORMAL


def join(
    word: str, ranks: Mapping[tuple[str, str], int]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Join the characters of ``word`` by merges; return the symbols, and the merges in order."""
    symbols = list(word)
    used: list[tuple[str, str]] = []
    while len(symbols) > 1:
        rank, at = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(pairwise(symbols)))
        if rank == len(ranks):
            break
        used.append((symbols[at], symbols[at + 1]))
        symbols[at : at + 2] = ["".join(used[-1])]
    return symbols, used


def read_vocabulary(metadata: Mapping[str, MetaValue]) -> Vocabulary:
    """Return the vocabulary of a model file.

    Raises:
        ConfigError: none, of a kind that cannot be trimmed, or one that contradicts itself.
    """
    model = _value(metadata, MODEL_KEY)
    if model != "gpt2":
        raise ConfigError(
            f"the vocabulary is of the kind {model!r}; only byte-level BPE ('gpt2') can be trimmed"
        )
    split = _value(metadata, SPLIT_KEY) or ""
    if split not in _SPLITS:
        raise ConfigError(
            f"the vocabulary splits text into words by {split!r}; trimming is exact for "
            + ", ".join(sorted(filter(None, _SPLITS)))
        )
    tokens = _texts(metadata, TOKENS_KEY)
    merges = tuple(_pair(text) for text in _texts(metadata, MERGES_KEY))
    kinds = _value(metadata, TYPES_KEY)
    if kinds is None:
        kinds = [NORMAL] * len(tokens)
    if not isinstance(kinds, list) or not all(type(kind) is int for kind in kinds):
        raise ConfigError(f"{TYPES_KEY!r} is not a list of numbers: the file is damaged")
    if len(kinds) != len(tokens):
        raise ConfigError(
            f"the file has {len(tokens):,} tokens but {len(kinds):,} token types: it is damaged"
        )
    if len(set(tokens)) != len(tokens):
        raise ConfigError("the file has two tokens that are alike: it is damaged")
    return Vocabulary(tokens=tokens, kinds=tuple(kinds), merges=merges)


def _pair(text: str) -> tuple[str, str]:
    """Split a merge at its space, which is never the first character."""
    at = text.find(" ", 1)
    if at < 0:
        raise ConfigError(f"{text[:80]!r} is not a merge of two tokens: the file is damaged")
    return text[:at], text[at + 1 :]


def _texts(metadata: Mapping[str, MetaValue], key: str) -> tuple[str, ...]:
    value = _value(metadata, key)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ConfigError(
            f"the model has no list of texts {key!r}, so it has no vocabulary to trim"
        )
    return tuple(value)


def _value(metadata: Mapping[str, MetaValue], key: str) -> object:
    found = metadata.get(key)
    return None if found is None else found.value
