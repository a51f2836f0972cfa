"""Is the child's tokenizer the parent's, or a consistent part of it?

A trimmed vocabulary keeps some tokens, in the parent's order, and the merges among them. Lists
must have one entry per token, every special id must point at the same text as before, no control
token or byte may be gone, and a merge must find both its parts and its result.
"""

from __future__ import annotations

import re
from typing import Final

from lichen.compression.gate.findings import Findings
from lichen.compression.gate.stored import (
    EMBEDDING,
    MERGES,
    TOKEN_TYPES,
    TOKENS,
    numbers,
    texts,
    whole,
)
from lichen.compression.model_file import ModelFile

_TOKEN_ID: Final = re.compile(r"tokenizer\.ggml\.\w+_token_ids?")
_PER_TOKEN: Final = (TOKEN_TYPES, "tokenizer.ggml.scores")
_OWN_CHECK: Final = "tokenizer.chat_template"
_CONTROL: Final = 3
_BYTE: Final = 6
"""LLAMA_TOKEN_TYPE_CONTROL and _BYTE in llama.h."""


def byte_alphabet() -> frozenset[str]:
    """Return the 256 characters that stand for bytes in byte-level BPE (GPT-2, encoder.py).

    Printable Latin-1 stands for itself; the 68 others are moved to U+0100 and up.
    """
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    return frozenset({chr(b) for b in plain} | {chr(256 + n) for n in range(256 - len(plain))})


def check_vocabulary(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    """Add what is wrong with the child's tokenizer metadata."""
    before, after = texts(parent, TOKENS), texts(child, TOKENS)
    if not after and before:
        findings.add("tokens", "the list of tokens is gone")
    if not after:
        return
    _counts(parent, child, findings)
    _kept(parent, child, findings)
    _special_ids(parent, child, findings)
    _merges(parent, child, findings)
    _settings(parent, child, findings)


def _counts(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    size = len(texts(child, TOKENS))
    for key in _PER_TOKEN:
        if key not in parent.metadata:
            continue
        value = child.value(key)
        found = len(value) if isinstance(value, list | tuple) else None
        if found != size:
            findings.add("lists", f"{key!r} has {found} entries for {size:,} tokens")
    stated = whole(child, f"{child.architecture}.vocab_size")
    if stated is not None and stated != size:
        findings.add("lists", f"vocab_size is {stated:,} for {size:,} tokens")
    if child.has(EMBEDDING) and child.tensor(EMBEDDING).rows < size:
        rows = child.tensor(EMBEDDING).rows
        findings.add("lists", f"the embedding has {rows:,} rows for {size:,} tokens")


def _kept(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    before, after = texts(parent, TOKENS), texts(child, TOKENS)
    if before == after:
        if parent.value(TOKEN_TYPES) != child.value(TOKEN_TYPES):
            findings.add("token types", "the types of some tokens changed")
        return
    place: dict[str, int] = {}
    for index, token in enumerate(before):
        place.setdefault(token, index)
    types, now = numbers(parent, TOKEN_TYPES), numbers(child, TOKEN_TYPES)
    last = -1
    for index, token in enumerate(after):
        at = place.get(token)
        if at is None:
            findings.add("unknown token", f"the token {token[:40]!r} was not there before")
            continue
        if at <= last:
            findings.add("token order", f"the token {token[:40]!r} left its place in the order")
        last = at
        if index < len(now) and at < len(types) and now[index] != types[at]:
            findings.add("token types", f"the token {token[:40]!r} changed its type")
    kept = set(after)
    alphabet = byte_alphabet()
    for index, token in enumerate(before):
        kind = types[index] if index < len(types) else 0
        if token not in kept and (kind in {_CONTROL, _BYTE} or token in alphabet):
            findings.add("lost token", f"the control or byte token {token[:40]!r} is gone")


def _special_ids(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    before, after = texts(parent, TOKENS), texts(child, TOKENS)
    for key in parent.metadata:
        if not _TOKEN_ID.fullmatch(key):
            continue
        was = [_token(before, i) for i in numbers(parent, key)]
        now = [_token(after, i) for i in numbers(child, key)]
        if was != now:
            findings.add("special id", f"{key!r} meant {_shown(was)} and now means {_shown(now)}")


def _token(tokens: list[str], index: int) -> str | None:
    return tokens[index] if 0 <= index < len(tokens) else None


def _shown(tokens: list[str | None]) -> str:
    return ", ".join("no token" if t is None else repr(t[:30]) for t in tokens[:3]) or "nothing"


def _merges(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    before, after = texts(parent, MERGES), texts(child, MERGES)
    if before == after and texts(parent, TOKENS) == texts(child, TOKENS):
        return
    rank = {merge: i for i, merge in enumerate(before)}
    tokens, last = set(texts(child, TOKENS)), -1
    for merge in after:
        at = rank.get(merge)
        if at is None or at <= last:
            findings.add("merge order", f"the merge {merge[:40]!r} is new or out of order")
        last = at if at is not None else last
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= tokens:
            findings.add("merge", f"the merge {merge[:40]!r} has parts that are no tokens")


def _settings(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    """Compare the tokenizer's scalars: its kind, its splitting rule, what it puts in front."""
    for key, value in parent.metadata.items():
        if not key.startswith("tokenizer.") or key == _OWN_CHECK or _TOKEN_ID.fullmatch(key):
            continue
        if isinstance(value.value, str | bool) and child.value(key) != value.value:
            findings.add("tokenizer", f"{key!r} is {child.value(key)!r}, not {value.value!r}")
