"""Keep keys and values of attention in 8 bits instead of 16: half the memory and memory traffic.

Block-wise 8-bit quantisation (llama.cpp's Q8_0: 32 values share one scale) is safe for keys and
values. Fewer bits are not, and least of all for keys, whose errors pass through the softmax: K4V8
costs 6.1 % perplexity where K8V4 costs 0.9 % (KVSplit's table; the asymmetry is also the subject of
KIVI, Liu et al., 2024, arXiv:2402.02750), and a 0.5B model's output turned to garbage with 4-bit
keys and values in our trials. Settings known to do that are refused unless forced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from lichen.acceleration.strategy import Layer, StrategyContext
from lichen.acceleration.watching import watched
from lichen.core.errors import ConfigError
from lichen.core.generation import Capability, Completion, Step
from lichen.core.ports import Engine
from lichen.engines.options import read_options

NAME: Final = "kv_cache_type"

SAFE: Final = ("q8_0", "f16", "bf16", "f32")
FIVE_BITS: Final = ("q5_1", "q5_0")
FOUR_BITS: Final = ("q4_1", "q4_0", "iq4_nl")
PLAIN: Final = ("f16", "bf16", "f32")

SMALL_MODEL: Final = 3_000_000_000
"""Parameters below which nothing under 8 bits is accepted: what broke in our trials was 0.5B, and
published tables of harmless 4- or 5-bit values are of 7B and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCacheTypeOptions:
    """Which element types to use.

    Args:
        keys, values: "q8_0", "f16", "bf16", "f32", or fewer bits where that is not refused.
        parameters: of the model, 0 if unknown; an unknown model counts as a small one.
        force: take settings that are known to break models.
    """

    keys: str = "q8_0"
    values: str = "q8_0"
    parameters: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown types, and those that spoil the model's answers."""
        for what, kind in (("keys", self.keys), ("values", self.values)):
            if kind not in (*SAFE, *FIVE_BITS, *FOUR_BITS):
                known = ", ".join((*SAFE, *FIVE_BITS, *FOUR_BITS))
                msg = f"{what} cannot be {kind!r}; known: {known}"
                raise ValueError(msg)
        if self.parameters < 0:
            msg = f"parameters cannot be negative, got {self.parameters}"
            raise ValueError(msg)
        if not self.force and (reason := self._harm()):
            msg = f"{reason}; use 'q8_0', or set force = true if you have measured that it holds"
            raise ValueError(msg)

    def _harm(self) -> str:
        """Return why these settings are refused, "" if they are not."""
        if self.keys in FOUR_BITS:
            return f"4-bit keys ({self.keys!r}) break answers, of large models too"
        below = [
            f"{what} {kind!r}"
            for what, kind in (("keys", self.keys), ("values", self.values))
            if kind not in SAFE
        ]
        if not below or self.parameters >= SMALL_MODEL:
            return ""
        which = f"a model of {self.parameters / 1e9:.2g}B" if self.parameters else "a model"
        unknown = "" if self.parameters else " of unknown size (option 'parameters')"
        return (
            f"{which}{unknown} is too small for {' and '.join(below)}: below 3B they lose quality"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCacheType:
    """Sets the types of keys and values and, where values need it, flash attention."""

    options: KvCacheTypeOptions
    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.ENGINE
    needs: ClassVar[frozenset[Capability]] = frozenset()

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Set the types.

        Raises:
            ConfigError: values are to be quantised and flash attention is off.
        """
        result = {
            **options,
            "cache_type_k": self.options.keys,
            "cache_type_v": self.options.values,
        }
        if self.options.values not in PLAIN:
            # llama.cpp refuses a quantised V cache without it; "auto" may choose without.
            if options.get("flash_attention") == "off":
                raise ConfigError(
                    f"strategy {NAME}: values of type {self.options.values!r} need flash "
                    "attention, but the engine's option flash_attention is 'off': leave it out, "
                    "or keep values in 'f16'"
                )
            result["flash_attention"] = "on"
        return result

    def wrap(self, engine: Engine) -> Engine:
        """Write the types into each ledger."""
        return watched(engine, NAME, self._note)

    def _note(self, completion: Completion) -> Step:
        held = completion.usage.prompt + completion.usage.completion
        return Step(
            actor=NAME,
            action=f"keys {self.options.keys}, values {self.options.values}",
            detail=f"of {held} tokens",
        )


def make(options: Mapping[str, object], context: StrategyContext) -> KvCacheType:  # noqa: ARG001 (a factory's shape)
    """Return the strategy.

    Raises:
        ConfigError: an unknown type, or one that breaks models of this size.
    """
    return KvCacheType(options=read_options(KvCacheTypeOptions, options, who=f"strategy {NAME}"))
