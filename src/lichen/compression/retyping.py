"""Store weights in other types: tensor by tensor, with importance weights, lazily.

What methods share that decide on types. They say which tensor gets which type; here types that do
not fit a tensor's rows are replaced and the user is told, importance weights are found, and the
metadata is brought up to date.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lichen.catalog.lineage import REQUANTISED
from lichen.catalog.tensor_types import TensorType
from lichen.compression.compensation import fits
from lichen.compression.method import (
    Compensates,
    Floats,
    ImportanceWeights,
    MethodContext,
    Quantises,
    Raw,
)
from lichen.compression.model_file import LazyTensor, MetaValue, ModelFile
from lichen.compression.types import PLAIN, fitting
from lichen.core.errors import ConfigError

ROLES: Final = (
    "token_embd",
    "output",
    *("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output"),
    *("ffn_gate", "ffn_up", "ffn_down"),
    *("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
    *("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
)
"""Weight matrices that may be stored in any type. All other tensors are left as they are: norms,
biases, and small matrices that llama.cpp wants in full precision (routers, state-space parts)."""

_NAME: Final = re.compile(r"(?:blk\.(\d{1,6})\.)?([a-z_]+)\.weight\Z")

_FILE_TYPES: Final = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q2_K": 10,
    "Q3_K": 12,
    "Q4_K": 15,
    "Q5_K": 17,
    "Q6_K": 18,
    "IQ2_XXS": 19,
    "IQ2_XS": 20,
    "IQ3_XXS": 23,
    "IQ1_S": 24,
    "IQ4_NL": 25,
    "IQ3_S": 26,
    "IQ2_S": 28,
    "IQ4_XS": 30,
    "IQ1_M": 31,
    "BF16": 32,
    "TQ1_0": 36,
    "TQ2_0": 37,
    "MXFP4": 38,
}
"""Type of most weights -> ``llama_ftype`` in include/llama.h, for ``general.file_type``."""
_QUANTIZATION_VERSION: Final = 2
"""GGML_QNT_VERSION in ggml/include/ggml.h."""


def role_of(name: str) -> str:
    """Return the role of a weight matrix (``"ffn_down"``), "" if it is none that may change."""
    match = _NAME.match(name)
    return match[2] if match and match[2] in ROLES else ""


def layer_of(name: str) -> int | None:
    """Return the number of the layer a tensor belongs to, None if it belongs to none."""
    match = re.match(r"blk\.(\d{1,6})\.", name)
    return int(match[1]) if match else None


def channel_weights(tensor: LazyTensor, importance: ImportanceWeights | None) -> Floats | None:
    """Return how much each input channel of ``tensor`` matters: (width,), or None if unknown.

    Raises:
        ConfigError: the weights belong to a matrix of another width.
    """
    if importance is None:
        return None
    known = importance.weights.get(tensor.origin or tensor.name)
    if known is None:
        known = importance.weights.get(tensor.name)
    if known is None:
        return None
    chosen = known if tensor.channels is None else known[tensor.channels]
    if chosen.shape != (tensor.width,):
        raise ConfigError(
            f"the importance weights of {tensor.name!r} are for rows of {len(chosen):,}, "
            f"but its rows have {tensor.width:,}: they come from another model"
        )
    return np.ascontiguousarray(chosen, np.float32)


def retyped(
    tensor: LazyTensor,
    kind: TensorType,
    quantiser: Quantises,
    weights: Floats | None = None,
    compensator: Compensates | None = None,
) -> LazyTensor:
    """Return ``tensor`` stored as ``kind``, computed when its rows are read.

    Args:
        tensor: a matrix whose rows fit ``kind``.
        kind: the new type.
        quantiser: what writes it.
        weights: (width,) importance of the input channels; None for all alike.
        compensator: makes up for rounding errors; None to round each weight by itself.
    """
    if tensor.type == kind:
        return tensor
    read = _Requantised(tensor, kind, quantiser, weights, compensator)
    return replace(tensor, type=kind, read=read)


@dataclass(frozen=True, slots=True, eq=False)
class _Requantised:
    """Reads rows of ``source`` and stores them anew."""

    source: LazyTensor
    kind: TensorType
    quantiser: Quantises
    weights: Floats | None
    compensator: Compensates | None

    def __call__(self, start: int, stop: int) -> Raw:
        rows = self.source.floats(start, stop)
        if self.compensator is not None:
            return self.compensator.quantise(self.source, rows, self.kind, self.weights)
        return self.quantiser.quantise(rows, self.kind, self.weights)


def retype_model(
    model: ModelFile,
    assignment: Mapping[str, TensorType],
    context: MethodContext,
    *,
    who: str,
    compensate: bool = False,
) -> ModelFile:
    """Store tensors in the types assigned to them, replacing types that do not fit.

    The user hears of types that were replaced, of matrices without importance weights where others
    have some, and the file says which weights were quantised a second time.

    Args:
        model: the model.
        assignment: tensor name -> type; tensors not named stay as they are.
        context: quantiser, importance, note.
        who: on whose behalf, for notes ("requantise").
        compensate: whether rounding errors are made up for, where that can be done.

    Raises:
        ConfigError: a tensor that does not exist or is no weight matrix, or compensation without
            texts.
    """
    if compensate and context.compensator is None:
        raise ConfigError(
            f"{who}: errors can be compensated only where the model can read texts: give a corpus"
        )
    changed: list[LazyTensor] = []
    misfits: Counter[tuple[str, int, str]] = Counter()
    unweighed: list[str] = []
    alone = 0
    for name, wanted in assignment.items():
        tensor = model.tensor(name)
        if not role_of(name) or len(tensor.shape) < 2:  # noqa: PLR2004 (a matrix)
            raise ConfigError(f"{who}: {name!r} is not a weight matrix, so it keeps its type")
        kind = fitting(wanted, tensor.width)
        if kind != wanted:
            misfits[wanted.name, tensor.width, kind.name] += 1
        if kind == tensor.type:
            continue
        weights = channel_weights(tensor, context.importance)
        if weights is None and kind.name not in PLAIN:
            unweighed.append(name)
        makes_up = context.compensator if compensate and fits(tensor, kind) else None
        alone += makes_up is None
        changed.append(retyped(tensor, kind, context.quantiser, weights, makes_up))
    if compensate and alone:
        context.note(
            f"{who}: {alone} of {len(changed)} tensors are stored without compensation: an "
            "embedding, or a type whose codes are not known"
        )
    for (wanted_name, width, kind_name), count in misfits.items():
        context.note(
            f"{who}: {_tensors(count)} with rows of {width:,} cannot be {wanted_name}, "
            f"which stores blocks of another width; stored as {kind_name}"
        )
    if context.importance is not None and unweighed:
        context.note(
            f"{who}: {_tensors(len(unweighed))} have no importance weights and were stored "
            f"without: {', '.join(unweighed[:4])}{' ...' if len(unweighed) > 4 else ''}"  # noqa: PLR2004 (as many as are shown)
        )
    return _described(model, model.replaced(*changed), changed)


def _described(before: ModelFile, after: ModelFile, changed: Sequence[LazyTensor]) -> ModelFile:
    """Bring the metadata up to date after tensors changed type."""
    if not changed:
        return before
    weights: Counter[str] = Counter()
    for tensor in after.tensors:
        weights[tensor.type.name] += tensor.elements
    commonest = weights.most_common(1)[0][0]
    entries: dict[str, MetaValue | None] = {
        "general.file_type": MetaValue.count(_FILE_TYPES[commonest])
        if commonest in _FILE_TYPES
        else None
    }
    if commonest not in PLAIN:
        entries["general.quantization_version"] = MetaValue.count(_QUANTIZATION_VERSION)
    twice = Counter(
        (before.tensor(t.name).type.name, t.type.name)
        for t in changed
        if before.tensor(t.name).type.name not in PLAIN
    )
    if twice:
        found = before.value(REQUANTISED)
        earlier = [str(mark) for mark in found] if isinstance(found, list) else []
        marks = [f"{a} to {b}: {_tensors(n)}" for (a, b), n in sorted(twice.items())]
        entries[REQUANTISED] = MetaValue.texts([*earlier, *marks])
    return after.with_metadata(entries)


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"
