"""Read metadata values that may be of any type: the file is not trusted to be sensible."""

from __future__ import annotations

import re
from typing import Final

from lichen.compression.model_file import ModelFile

BLOCK: Final = re.compile(r"blk\.(\d{1,6})\.(.+)", re.DOTALL)
"""A layer's tensor: number and name within the layer."""

TOKENS: Final = "tokenizer.ggml.tokens"
MERGES: Final = "tokenizer.ggml.merges"
TOKEN_TYPES: Final = "tokenizer.ggml.token_type"  # noqa: S105 (a metadata key)
EMBEDDING: Final = "token_embd.weight"
OUTPUT: Final = "output.weight"


def whole(model: ModelFile, key: str) -> int | None:
    """Return a whole number >= 0, None where there is none of that name."""
    found = model.value(key)
    return found if type(found) is int and found >= 0 else None


def texts(model: ModelFile, key: str) -> list[str]:
    """Return an array of strings, empty where there is none."""
    found = model.value(key)
    if isinstance(found, list | tuple) and all(isinstance(v, str) for v in found):
        return list(found)
    return []


def numbers(model: ModelFile, key: str) -> list[int]:
    """Return a whole number or an array of them as a list, empty where there is none."""
    found = model.value(key)
    values = found if isinstance(found, list | tuple) else [found]
    return [v for v in values if type(v) is int]


def by_layer(model: ModelFile) -> dict[int, dict[str, str]]:
    """Return layer number -> {name within the layer: tensor name}."""
    layers: dict[int, dict[str, str]] = {}
    for tensor in model.tensors:
        if match := BLOCK.fullmatch(tensor.name):
            layers.setdefault(int(match[1]), {})[match[2]] = tensor.name
    return layers
