"""Leave whole layers out: depth pruning by measured block influence, or by an explicit list.

A transformer's layers each add to a hidden state that flows past them, so a layer that adds little
can be left out without breaking the file. What is left is renumbered. Every dropped layer saves its
share of time and memory at every token, keys and values included; no other method speeds up a
model for certain on any engine. It is also the coarsest: expect to pay quality for every layer, and
measure it (``layer_curve``).

Source: ShortGPT (arXiv 2403.03853). Does not train the rest to make up for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from lichen.compression.block_influence import least_influential
from lichen.compression.importance import Importance, measure_importance
from lichen.compression.metadata import ARRAY, MetaValue
from lichen.compression.method import MethodContext
from lichen.compression.model_file import LazyTensor, ModelFile
from lichen.core.errors import ConfigError
from lichen.engines.options import read_options

NAME: Final = "drop_layers"
_BLOCK: Final = re.compile(r"blk\.(\d{1,6})\.(.+)", re.DOTALL)
_POSITIONAL: Final = (
    "leading_dense_block_count",
    "nextn_predict_layers",
    "attention.sliding_window_pattern",
    "full_attention_interval",
    "interleave_moe_layer_step",
)
"""Metadata that, where it is no array, says what a layer is by its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropOptions:
    """Which layers go.

    Args:
        count: how many, those of least measured influence; 0 where ``layers`` says which.
        layers: exactly these, counted from 0.
    """

    count: int = 0
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check that there is one answer."""
        if (self.count > 0) == bool(self.layers) or self.count < 0:
            msg = "say either how many layers to drop (count) or which (layers)"
            raise ValueError(msg)
        if min(self.layers, default=0) < 0 or len(set(self.layers)) < len(self.layers):
            msg = f"layers are different numbers from 0 on, got {list(self.layers)}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLayers:
    """The method. With ``count`` it needs importance with block influence, or a corpus."""

    options: DropOptions
    name: ClassVar[str] = NAME

    def apply(self, model: ModelFile, context: MethodContext) -> ModelFile:
        """Return the model without some layers.

        Raises:
            ConfigError: a layer that does not exist, none left, an architecture whose layers depend
                on their numbers, or nothing to choose by.
        """
        layers = _layers(model)
        dropped = self.options.layers
        if not dropped:
            dropped = least_influential(_influence(context, layers), self.options.count)
        if max(dropped) >= layers or len(dropped) >= layers:
            raise ConfigError(
                f"{NAME}: cannot drop the layers {list(dropped)} of a model that has the layers "
                f"0 to {layers - 1} and needs one"
            )
        context.note(f"{NAME}: drops the layers {', '.join(map(str, dropped))} of {layers}")
        kept = [i for i in range(layers) if i not in dropped]
        return model.with_tensors(_renumbered(model, kept)).with_metadata(_described(model, kept))


def make(options: Mapping[str, object]) -> DropLayers:
    """Return the method.

    Raises:
        ConfigError: an option that does not exist or cannot be used.
    """
    return DropLayers(options=read_options(DropOptions, options, who=f"method {NAME}"))


def _layers(model: ModelFile) -> int:
    """Return the number of layers, having checked that they can be renumbered."""
    key = f"{model.architecture}.block_count"
    if model.value(key) != model.layers or model.layers == 0:
        raise ConfigError(
            f"{NAME}: the model says that it has {model.value(key)!r} layers, but has tensors of "
            f"{model.layers}: it is damaged, or its layers are no plain sequence"
        )
    for suffix in _POSITIONAL:
        entry = model.metadata.get(f"{model.architecture}.{suffix}")
        if entry is not None and entry.kind != ARRAY and entry.value:
            raise ConfigError(
                f"{NAME}: layers of this model differ by their number ({suffix} = {entry.value}), "
                "so they cannot be renumbered"
            )
    return model.layers


def _influence(context: MethodContext, layers: int) -> tuple[float, ...]:
    """Return every layer's influence: from the importance at hand, or measured on the source."""
    found = context.importance
    known = found.influence if isinstance(found, Importance) else ()
    if not known and context.corpus is not None:
        context.note(f"{NAME}: measures the layers' influence on the source model")
        known = measure_importance(context.source, context.corpus).influence
    if not known:
        raise ConfigError(
            f"{NAME} chooses layers by measured influence, so it needs importance with influence, "
            "a corpus to measure it on and an architecture that allows it, or the option 'layers'"
        )
    if len(known) != layers:
        raise ConfigError(
            f"{NAME}: influence was measured on {len(known)} layers, but here the model has "
            f"{layers}: put this step first, or name the layers"
        )
    return known


def _renumbered(model: ModelFile, kept: list[int]) -> list[LazyTensor]:
    numbers = {old: new for new, old in enumerate(kept)}
    tensors: list[LazyTensor] = []
    for tensor in model.tensors:
        match = _BLOCK.fullmatch(tensor.name)
        if match is None:
            tensors.append(tensor)
        elif (new := numbers.get(int(match[1]))) is not None:
            name = f"blk.{new}.{match[2]}"
            tensors.append(tensor if name == tensor.name else tensor.renamed(name))
    return tensors


def _described(model: ModelFile, kept: list[int]) -> dict[str, MetaValue | None]:
    """Return what changes in the metadata: the count, and every list with one entry per layer."""
    prefix = f"{model.architecture}."
    changes: dict[str, MetaValue | None] = {}
    for key, entry in model.metadata.items():
        values = entry.value
        if key == f"{prefix}block_count":
            changes[key] = entry.like(len(kept))
        elif key.startswith(prefix) and isinstance(values, list) and len(values) == model.layers:
            changes[key] = entry.like([values[i] for i in kept])
    return changes
