"""Find a model's own fill-in-the-middle tokens.

The prompt is built from token ids, so that source code which happens to contain ``<|fim_suffix|>``
or another control token stays text. llama.cpp's ``/infill`` endpoint is not used: it cuts long
prefixes and suffixes silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_MARKERS: Final = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder model card
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder model card; Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder model card
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder model card  # noqa: RUF001 (the tokens are spelt so)
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM-4.5 tokenizer
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama, arXiv 2308.12950, as SentencePiece spells them
)
"""Prefix, suffix and middle marker of the families in use, all in prefix-suffix-middle order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FimTokens:
    """Token ids around a hole; ``start`` is what the model wants first (its BOS), often nothing."""

    start: tuple[int, ...]
    prefix: int
    suffix: int
    middle: int

    def prompt(self, prefix: list[int], suffix: list[int]) -> list[int]:
        """Arrange prefix and suffix so that the model writes what lies between them."""
        return [*self.start, self.prefix, *prefix, self.suffix, *suffix, self.middle]


def find_fim_tokens(ids_of: Callable[[str], list[int]], start: list[int]) -> FimTokens | None:
    """Return the FIM tokens of a vocabulary, None if it has none.

    Args:
        ids_of: tokenises text with control tokens recognised; a marker that is one token is known.
        start: token ids that open every prompt of this model.
    """
    for markers in _MARKERS:
        found = [ids_of(m) for m in markers]
        if all(len(ids) == 1 for ids in found):
            prefix, suffix, middle = (ids[0] for ids in found)
            return FimTokens(start=tuple(start), prefix=prefix, suffix=suffix, middle=middle)
    return None
