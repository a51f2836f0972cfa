"""Make the feed-forward part narrower: drop the inner neurons that matter least, in every layer.

A feed-forward layer computes ``down @ (act(gate @ x) * (up @ x))``. Neuron j is row j of gate and
up and column j of down, so dropping it takes three vectors out and leaves everything else as it is.
Its score is what it is expected to add to the output:

    score_j = sqrt(E[h_j^2]) * ||down[:, j]||

with ``h`` the inner activations: the activation and weight norm of Wanda (arXiv 2306.11695), for
whole columns; either factor alone can be asked for.

Rows of quantised matrices are selected as they are. Columns lie inside blocks of 32 or 256, so down
is either dequantised and quantised again (``neurons``), or loses whole blocks of neighbours
(``blocks``), which changes no weight but has little to choose by: neighbours are unrelated.

Does not train the rest to make up for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from lichen.catalog.tensor_types import TensorType
from lichen.compression.metadata import ARRAY
from lichen.compression.method import Floats, MethodContext, Quantises, Raw
from lichen.compression.model_file import LazyTensor, ModelFile
from lichen.compression.retyping import channel_weights
from lichen.compression.types import type_named
from lichen.core.errors import ConfigError
from lichen.engines.options import read_options

NAME: Final = "narrow_ffn"
_LEAST_MULTIPLE: Final = 32
"""Neurons are kept in multiples of this, whatever down's type: block of the small types, and what
kernels that repack rows work on (ggml/src/ggml-cpu/repack.cpp)."""
_CHUNK_ROWS: Final = 256
_SCORES: Final = ("both", "activation", "weight")
_PICKS: Final = ("neurons", "blocks")

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowOptions:
    """What to keep.

    Args:
        keep: share of the inner neurons, above 0, below 1; rounded to down's block.
        score: "both" factors, "activation" alone or "weight" alone.
        pick: "neurons" one by one, or whole "blocks" of neighbours.
        down_type: how down is stored after picking neurons; "" as before. "F16" spares a second
            loss where a later step stores it anew anyway.
    """

    keep: float
    score: str = "both"
    pick: str = "neurons"
    down_type: str = ""

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0.0 < self.keep < 1.0:
            msg = f"keep is the share of neurons that stay, between 0 and 1, got {self.keep}"
            raise ValueError(msg)
        if self.score not in _SCORES or self.pick not in _PICKS:
            msg = f"score is one of {', '.join(_SCORES)} and pick one of {', '.join(_PICKS)}"
            raise ValueError(msg)
        if self.down_type:
            type_named(self.down_type)
            if self.pick == "blocks":
                msg = "down_type goes with pick = 'neurons': whole blocks are kept as stored"
                raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowFfn:
    """The method. Needs importance unless ``score`` is "weight"."""

    options: NarrowOptions
    name: ClassVar[str] = NAME

    def apply(self, model: ModelFile, context: MethodContext) -> ModelFile:
        """Return the model with narrower layers. Reads all of down, to score its columns.

        Raises:
            ConfigError: layers without a plain feed-forward part, nothing to score by, or no neuron
                to drop at this block size.
        """
        key = f"{model.architecture}.feed_forward_length"
        length = model.metadata.get(key)
        if length is None or length.kind == ARRAY or not isinstance(length.value, int):
            raise ConfigError(f"{NAME}: the model's layers have no common feed-forward width")
        kept = self._kept(model, length.value)
        changed: list[LazyTensor] = []
        for layer in range(model.layers):
            changed += self._layer(model, layer, kept, context)
        anew = sum(isinstance(t.read, _StoredAnew) for t in changed)
        context.note(
            f"{NAME}: keeps {kept:,} of {length.value:,} neurons in each of {model.layers} layers, "
            f"gate and up as stored; down is dequantised and quantised again in {anew} layers"
        )
        return model.replaced(*changed).with_metadata({key: length.like(kept)})

    def _kept(self, model: ModelFile, width: int) -> int:
        """Return how many neurons stay: the nearest multiple of every down's block."""
        multiple = _LEAST_MULTIPLE
        for layer in range(model.layers):
            down = _matrix(model, layer, "down", width)
            multiple = max(multiple, self._down_type(down).block)
        kept = max(1, round(width * self.options.keep / multiple)) * multiple
        if kept >= width:
            raise ConfigError(
                f"{NAME}: nothing to drop: {self.options.keep:.0%} of {width:,} neurons, rounded "
                f"to blocks of {multiple}, is all of them; keep less"
            )
        return kept

    def _layer(
        self, model: ModelFile, layer: int, kept: int, context: MethodContext
    ) -> list[LazyTensor]:
        down = model.tensor(f"blk.{layer}.ffn_down.weight")
        scores = self._scores(down, context)
        if self.options.pick == "blocks":
            block = max(down.type.block, _LEAST_MULTIPLE)
            best = np.sort(_largest(scores.reshape(-1, block).sum(axis=1), kept // block))
            chosen = (best[:, None] * block + np.arange(block)).reshape(-1)
        else:
            chosen = np.sort(_largest(scores, kept))
        changed = [self._narrowed_down(down, chosen, context)]
        for part in ("gate", "up"):
            name = f"blk.{layer}.ffn_{part}"
            if part == "up" or model.has(f"{name}.weight"):
                changed.append(_matrix(model, layer, part, down.rows).selected(chosen))
            if model.has(f"{name}.bias"):
                changed.append(_columns(model.tensor(f"{name}.bias"), chosen))
        return changed

    def _scores(self, down: LazyTensor, context: MethodContext) -> npt.NDArray[np.float64]:
        score = np.ones(down.width, np.float64)
        if self.options.score != "weight":
            flow = channel_weights(down, context.importance)
            if flow is None:
                raise ConfigError(
                    f"{NAME} scores neurons by activations, so it needs importance with "
                    f"{down.name!r}: measure it, or choose score = 'weight'"
                )
            score *= flow
        if self.options.score != "activation":
            score *= _column_squares(down)
        return np.sqrt(score)

    def _narrowed_down(
        self, down: LazyTensor, chosen: Indices, context: MethodContext
    ) -> LazyTensor:
        kind = self._down_type(down)
        if kind == down.type and (self.options.pick == "blocks" or kind.block == 1):
            return _columns(down, chosen)
        bare = replace(_columns(down, chosen), type=kind)
        weights = channel_weights(bare, context.importance)
        return replace(bare, read=_StoredAnew(down, kind, chosen, context.quantiser, weights))

    def _down_type(self, down: LazyTensor) -> TensorType:
        return type_named(self.options.down_type) if self.options.down_type else down.type


def make(options: Mapping[str, object]) -> NarrowFfn:
    """Return the method.

    Raises:
        ConfigError: an option that does not exist or cannot be used.
    """
    return NarrowFfn(options=read_options(NarrowOptions, options, who=f"method {NAME}"))


def _matrix(model: ModelFile, layer: int, part: str, width: int) -> LazyTensor:
    """Return a layer's matrix, whose rows must be ``width`` wide."""
    name = f"blk.{layer}.ffn_{part}.weight"
    if not model.has(name) or model.tensor(name).width != width:
        raise ConfigError(
            f"{NAME}: layer {layer} has no {name!r} with rows of {width:,}: only models whose "
            "layers all have one plain feed-forward part can be narrowed"
        )
    return model.tensor(name)


def _largest(scores: npt.NDArray[np.float64], count: int) -> Indices:
    """Return the places of the largest scores; of equal ones the first."""
    return np.argsort(-scores, kind="stable")[:count].astype(np.intp)


def _column_squares(down: LazyTensor) -> npt.NDArray[np.float64]:
    """Return the squared length of every column: (width,)."""
    total = np.zeros(down.width, np.float64)
    for start in range(0, down.rows, _CHUNK_ROWS):
        rows = down.floats(start, min(start + _CHUNK_ROWS, down.rows))
        total += np.einsum("ij,ij->j", rows, rows)
    return total


def _columns(tensor: LazyTensor, chosen: Indices) -> LazyTensor:
    """Return some columns of a tensor as stored; they must be whole blocks of its type."""
    blocks = chosen[:: tensor.type.block] // tensor.type.block
    channels = chosen if tensor.channels is None else tensor.channels[chosen]
    return replace(
        tensor,
        shape=(len(chosen), *tensor.shape[1:]),
        read=_Blocks(tensor, blocks),
        channels=channels,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """Reads some of the blocks of each row."""

    source: LazyTensor
    blocks: Indices

    def __call__(self, start: int, stop: int) -> Raw:
        raw = self.source.read(start, stop)
        parts = raw.reshape(stop - start, -1, self.source.type.block_bytes)[:, self.blocks]
        return np.ascontiguousarray(parts).reshape(stop - start, -1)


@dataclass(frozen=True, slots=True, eq=False)
class _StoredAnew:
    """Reads rows as numbers, takes some columns and stores them again."""

    source: LazyTensor
    kind: TensorType
    chosen: Indices
    quantiser: Quantises
    weights: Floats | None

    def __call__(self, start: int, stop: int) -> Raw:
        rows = np.ascontiguousarray(self.source.floats(start, stop)[:, self.chosen])
        return self.quantiser.quantise(rows, self.kind, self.weights)
