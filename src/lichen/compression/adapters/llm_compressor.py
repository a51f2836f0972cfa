"""llm-compressor (vLLM project, Apache-2.0): GPTQ, AWQ or plain rounding to a scheme.

The recipe goes to the tool as its own YAML, in which it looks modifiers up by name, so that the
adapter does not depend on where a version keeps them. Output: a folder in the compressed-tensors
format, which transformers and vLLM load.

Methods: GPTQ (Frantar et al. 2022, arXiv 2210.17323), AWQ (Lin et al. 2023, arXiv 2306.00978).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lichen.compression.adapters.external_tool import Adapter, Tool
from lichen.engines.options import read_options

_MODIFIERS: Final = {
    "gptq": "GPTQModifier",
    "awq": "AWQModifier",
    "round": "QuantizationModifier",
}
_WORD: Final = re.compile(r"[A-Za-z0-9_]{1,40}")
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:*$^\\\-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCompressorOptions:
    """How to compress.

    Args:
        python: interpreter of the environment that has ``llmcompressor``.
        algorithm: "gptq", "awq" or "round" (no calibration of the weights).
        scheme: preset of the tool, e.g. "W4A16", "W8A8", "FP8_DYNAMIC".
        ignore: layers that stay as they are; names or ``re:`` patterns.
        samples: calibration texts.
        sequence: tokens of each.
        timeout_s: after which the tool is ended.
    """

    python: str
    algorithm: str = "gptq"
    scheme: str = "W4A16"
    ignore: tuple[str, ...] = ("lm_head",)
    samples: int = 256
    sequence: int = 1024
    timeout_s: float = 7200.0

    def __post_init__(self) -> None:
        """Check ranges and that nothing but names goes into the recipe."""
        if self.algorithm not in _MODIFIERS:
            msg = f"algorithm must be one of {', '.join(_MODIFIERS)}, got {self.algorithm!r}"
            raise ValueError(msg)
        if not _WORD.fullmatch(self.scheme):
            msg = f"scheme is the name of a preset, got {self.scheme!r}"
            raise ValueError(msg)
        bad = [p for p in self.ignore if not _PATTERN.fullmatch(p)]
        if bad:
            msg = f"ignore holds names of layers, got {bad[0]!r}"
            raise ValueError(msg)
        if self.samples < 1 or self.sequence < 1 or not self.timeout_s > 0:
            msg = "samples, sequence and timeout_s are at least 1"
            raise ValueError(msg)

    @property
    def recipe(self) -> str:
        """The tool's recipe, as YAML."""
        ignored = ", ".join(f'"{p}"' for p in self.ignore).replace("\\", "\\\\")
        return (
            "compress_stage:\n"
            "  compress_modifiers:\n"
            f"    {_MODIFIERS[self.algorithm]}:\n"
            "      targets: [Linear]\n"
            f"      ignore: [{ignored}]\n"
            f"      scheme: {self.scheme}\n"
        )


def make(options: Mapping[str, object]) -> Adapter:
    """Return the adapter.

    Raises:
        ConfigError: an option that does not exist or cannot be used.
    """
    chosen = read_options(LlmCompressorOptions, options, who="compression tool llm_compressor")
    return Adapter(
        tool=Tool(
            name="llm-compressor",
            package="llmcompressor",
            key="llm_compressor",
            python=chosen.python,
            timeout_s=chosen.timeout_s,
        ),
        settings={"recipe": chosen.recipe, "sequence": chosen.sequence},
        samples=chosen.samples,
    )
