"""Recommend how to store keys and values while the model runs; the weights stay as they are.

The types travel in the file's metadata and are taken, with a note, by whoever runs it. Smaller keys
and values save memory and traffic over long contexts; below 8 bits they cost quality, keys first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from lichen.compression.lineage import with_engine_defaults
from lichen.compression.method import MethodContext
from lichen.compression.model_file import ModelFile
from lichen.engines.llama_cpp.options import KV_TYPES
from lichen.engines.options import read_options

NAME: Final = "kv_cache"
_SAFE: Final = ("f32", "f16", "bf16", "q8_0")
_PLAIN: Final = ("f32", "f16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCacheOptions:
    """Element types of the cache: ``keys`` and ``values``, as the engine calls them."""

    keys: str = "q8_0"
    values: str = "q8_0"

    def __post_init__(self) -> None:
        """Check the types."""
        for kind in (self.keys, self.values):
            if kind not in KV_TYPES:
                msg = f"keys and values are one of {', '.join(KV_TYPES)}, got {kind!r}"
                raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """Writes the recommendation."""

    options: KvCacheOptions
    name: ClassVar[str] = NAME

    def apply(self, model: ModelFile, context: MethodContext) -> ModelFile:
        """Add recommended engine options to the metadata."""
        keys, values = self.options.keys, self.options.values
        if keys not in _SAFE or values not in _SAFE:
            context.note(
                f"{NAME}: keys {keys} and values {values} are below 8 bits, which small models "
                "do not stand; let the gate tell"
            )
        defaults: dict[str, object] = {"cache_type_k": keys, "cache_type_v": values}
        if values not in _PLAIN:
            # llama.cpp refuses quantised values without it, and "auto" may choose without.
            defaults["flash_attention"] = "on"
        return with_engine_defaults(model, defaults)


def make(options: Mapping[str, object]) -> KvCache:
    """Return the method.

    Raises:
        ConfigError: an option that does not exist or cannot be used.
    """
    return KvCache(options=read_options(KvCacheOptions, options, who=f"method {NAME}"))
