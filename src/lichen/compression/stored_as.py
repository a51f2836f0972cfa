"""A tensor in another storage type: computed row by row when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lichen.catalog.tensor_types import TensorType
from lichen.compression.method import Floats, ImportanceWeights, Quantises, Raw
from lichen.compression.model_file import LazyTensor


def stored_as(
    tensor: LazyTensor,
    kind: TensorType,
    quantiser: Quantises,
    importance: ImportanceWeights | None = None,
) -> LazyTensor:
    """Return ``tensor`` stored as ``kind``; itself if it is stored so already."""
    if tensor.type == kind:
        return tensor
    weights = weights_of(tensor, importance)
    return replace(tensor, type=kind, read=_Requantised(tensor, kind, quantiser, weights))


def weights_of(tensor: LazyTensor, importance: ImportanceWeights | None) -> Floats | None:
    """Return the importance of a tensor's input channels (width,), None if nothing is known."""
    if importance is None:
        return None
    found = importance.weights.get(tensor.origin or tensor.name)
    if found is not None and tensor.channels is not None:
        found = found[tensor.channels]
    return found if found is not None and found.shape == (tensor.width,) else None


@dataclass(frozen=True, slots=True)
class _Requantised:
    """Reads rows of the tensor, and stores them anew."""

    tensor: LazyTensor
    kind: TensorType
    quantiser: Quantises
    weights: Floats | None

    def __call__(self, start: int, stop: int) -> Raw:
        return self.quantiser.quantise(self.tensor.floats(start, stop), self.kind, self.weights)
