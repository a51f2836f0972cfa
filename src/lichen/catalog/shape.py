"""What a GGUF header says about cost: architecture numbers, and weights by group.

``active_parameters`` counts the weights one decoded token is multiplied with: all tensors but the
input embedding (a row is looked up), with the output matrix (the embedding itself where the two
are tied), and of a mixture's expert tensors the share ``expert_used_count / expert_count``.
``weight_bytes`` is the same sum in stored bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from lichen.catalog.gguf import ArrayInfo, GgufHeader, Tensor
from lichen.core.errors import ConfigError
from lichen.core.model import ModelShape

GROUPS: Final = ("embedding", "attention", "feed-forward", "output", "norms", "other")
_EMBEDDING: Final = "token_embd.weight"
_OUTPUT: Final = "output.weight"
_LOOKUPS: Final = (_EMBEDDING, "position_embd.weight", "token_types.weight")
"""Tensors of which a token reads one row."""
_EXPERT: Final = re.compile(r"\.ffn_\w+_(?:ch)?exps\.")
_BLOCK: Final = re.compile(r"blk\.(\d{1,6})\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSummary:
    """The tensors of one role: weights, bytes, and weights by storage type, largest first."""

    group: str
    tensors: int
    parameters: int
    size_bytes: int
    types: tuple[tuple[str, int], ...]

    @property
    def bits_per_weight(self) -> float:
        """Mean bits a weight takes, scales included."""
        return 8.0 * self.size_bytes / self.parameters


def shape_of(header: GgufHeader) -> ModelShape:
    """Return the architecture numbers of a language model's header.

    Values that differ by layer are reduced: key/value heads to their rounded mean (so that the
    bytes a position adds stay right), query heads and feed-forward widths to the largest.

    Raises:
        ConfigError: an adapter, one part of a split model, or a header without what is needed.
    """
    architecture = header.text("general.architecture")
    if not architecture or header.text("general.type", "model") != "model":
        raise ConfigError("the GGUF file is not a whole model (an adapter or projector?)")
    if _number(header, "split.count", default=1) > 1:
        raise ConfigError("the GGUF file is one part of a split model; merge the parts first")

    def number(key: str, *, default: int | None = None, pick: _Pick = max) -> int:
        return _number(header, f"{architecture}.{key}", default=default, pick=pick)

    layers, embedding = number("block_count"), number("embedding_length")
    heads = number("attention.head_count")
    active = _active(header, architecture)
    return ModelShape(
        architecture=architecture,
        parameters=sum(t.elements for t in header.tensors),
        active_parameters=int(sum(t.elements * share for t, share in active)),
        layers=layers,
        embedding=embedding,
        heads=heads,
        kv_heads=number("attention.head_count_kv", default=heads, pick=_mean),
        head_dim=number("attention.key_length", default=embedding // max(heads, 1)),
        feed_forward=number("feed_forward_length", default=0),
        vocabulary=_vocabulary(header, architecture),
        context=number("context_length"),
        weight_bytes=int(sum(t.size * share for t, share in active)),
    )


def tied_output(header: GgufHeader) -> bool:
    """Whether the input embedding is also the output matrix (a decoder without its own)."""
    causal = header.metadata.get(f"{header.text('general.architecture')}.attention.causal", True)
    return bool(causal) and all(t.name != _OUTPUT for t in header.tensors)


def groups_of(header: GgufHeader) -> tuple[GroupSummary, ...]:
    """Return the groups that have tensors, in the order of ``GROUPS``."""
    members: dict[str, list[Tensor]] = {group: [] for group in GROUPS}
    for tensor in header.tensors:
        members[_group(tensor.name)].append(tensor)
    return tuple(_summary(group, tensors) for group, tensors in members.items() if tensors)


def _summary(group: str, tensors: list[Tensor]) -> GroupSummary:
    types: dict[str, int] = {}
    for tensor in tensors:
        types[tensor.type.name] = types.get(tensor.type.name, 0) + tensor.elements
    return GroupSummary(
        group=group,
        tensors=len(tensors),
        parameters=sum(t.elements for t in tensors),
        size_bytes=sum(t.size for t in tensors),
        types=tuple(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
    )


def _group(name: str) -> str:
    if name in _LOOKUPS:
        return "embedding"
    if "norm" in name:
        return "norms"
    if name.startswith("output."):
        return "output"
    if ".attn_" in name:
        return "attention"
    return "feed-forward" if ".ffn_" in name else "other"


def _active(header: GgufHeader, architecture: str) -> list[tuple[Tensor, Fraction]]:
    """Return the tensors a decoded token uses, each with the share of it that is used."""
    experts = _number(header, f"{architecture}.expert_count", default=0)
    used = _number(header, f"{architecture}.expert_used_count", default=experts)
    share = Fraction(min(used, experts), experts) if experts > 0 else Fraction(1)
    layers = _number(header, f"{architecture}.block_count")
    # The last blocks may predict further tokens ahead; ordinary decoding does not run them.
    decoding = layers - _number(header, f"{architecture}.nextn_predict_layers", default=0)
    tied = tied_output(header)
    active = []
    for tensor in header.tensors:
        if tensor.name in _LOOKUPS and not (tied and tensor.name == _EMBEDDING):
            continue
        block = _BLOCK.match(tensor.name)
        if block is not None and int(block[1]) >= decoding:
            continue
        active.append((tensor, share if _EXPERT.search(tensor.name) else Fraction(1)))
    return active


def _vocabulary(header: GgufHeader, architecture: str) -> int:
    for tensor in header.tensors:
        if tensor.name == _EMBEDDING and len(tensor.shape) > 1:
            return tensor.shape[1]
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, ArrayInfo):
        return tokens.count
    return _number(header, f"{architecture}.vocab_size", default=0)


def _mean(values: list[int]) -> int:
    return max(1, round(sum(values) / len(values)))


_Pick = Callable[[list[int]], int]


def _number(header: GgufHeader, key: str, *, default: int | None = None, pick: _Pick = max) -> int:
    """Return a whole number >= 0, or what ``pick`` makes of one per layer."""
    value = header.metadata.get(key, default)
    values = list(value) if isinstance(value, tuple) else [value]
    whole = [v for v in values if type(v) is int and v >= 0]
    if not whole or len(whole) != len(values):
        raise ConfigError(f"the GGUF header has no usable {key!r}")
    return pick(whole)
