"""Plant faults in a model file, on purpose: what a careless compression could leave behind.

Each function takes a model and returns the damaged one; ``write_model`` writes it. The files open
and, except where noted, run: nothing but a comparison with the parent shows what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lichen.compression.metadata import MetaValue
from lichen.compression.model_file import LazyTensor, ModelFile

Rows = Callable[[int, int], npt.NDArray[np.uint8]]


def swapped_tensors(model: ModelFile, first: str, second: str) -> ModelFile:
    """Exchange the contents of two tensors of the same shape and type."""
    a, b = model.tensor(first), model.tensor(second)
    return model.replaced(replace(a, read=b.read), replace(b, read=a.read))


def swapped_rows(model: ModelFile, name: str, first: int, second: int) -> ModelFile:
    """Exchange two rows of a matrix: two tokens remapped to each other's embedding."""
    tensor = model.tensor(name)
    order = np.arange(tensor.rows)
    order[[first, second]] = order[[second, first]]
    return model.replaced(tensor.selected(order))


def without_layer(model: ModelFile, layer: int, *, renumber: bool, count: bool) -> ModelFile:
    """Drop a layer; close the gap, and lower the count, or forget to."""
    tensors: list[LazyTensor] = []
    for tensor in model.tensors:
        prefix, _, rest = tensor.name.partition(".")
        number, _, inner = rest.partition(".")
        if prefix != "blk" or int(number) < layer:
            tensors.append(tensor)
        elif int(number) > layer:
            place = int(number) - renumber
            tensors.append(tensor.renamed(f"blk.{place}.{inner}"))
    changed = model.with_tensors(tensors)
    key = f"{model.architecture}.block_count"
    return changed.with_metadata({key: MetaValue.count(model.layers - 1)}) if count else changed


def repeated_layer(model: ModelFile, layer: int, over: int) -> ModelFile:
    """Store one layer's weights in another layer's place too."""
    changes = []
    for tensor in model.tensors:
        if tensor.name.startswith(f"blk.{over}."):
            inner = tensor.name.removeprefix(f"blk.{over}.")
            changes.append(replace(tensor, read=model.tensor(f"blk.{layer}.{inner}").read))
    return model.replaced(*changes)


def two_bit(model: ModelFile, name: str) -> ModelFile:
    """Round a matrix to four values per 32 weights, the scale being the largest of them.

    Kept in the type it has, so that no header shows it; types with few bits are no coarser.
    """
    from gguf import GGMLQuantizationType, quants

    tensor = model.tensor(name)
    kind = GGMLQuantizationType[tensor.type.name]

    def read(start: int, stop: int) -> npt.NDArray[np.uint8]:
        values = tensor.floats(start, stop)
        blocks = values.reshape(len(values), -1, 32)
        scale = np.abs(blocks).max(axis=2, keepdims=True) / 1.5
        level = np.clip(np.round(blocks / np.maximum(scale, 1e-12) - 0.5), -2, 1) + 0.5
        rounded = (level * scale).reshape(values.shape).astype(np.float32)
        stored: npt.NDArray[np.uint8] = quants.quantize(rounded, kind).view(np.uint8)
        return stored.reshape(stop - start, tensor.row_bytes)

    return model.replaced(replace(tensor, read=read))
