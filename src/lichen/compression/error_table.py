"""How much each tensor loses in each storage type, from samples of its own rows.

For a tensor with rows ``x``, its quantised copy ``q(x)`` and the importance ``w_j`` of input
channel ``j`` (its mean squared activation), the error is the power of the output's noise over the
power of the output, both under the assumption that channels are uncorrelated::

    e = sum_rows sum_j w_j (x_j - q(x)_j)^2 / sum_rows sum_j w_j x_j^2

Dividing by the tensor's own output power makes errors of different tensors comparable: to first
order the loss grows by ``sum_t a_t e_t`` with one factor per tensor (Malinovskii et al. 2024, arXiv
2411.17525, the linearity theorem, there without ``w``). The factors ``a_t`` are taken as 1 unless
sensitivities are given per group.

Rows are sampled in short runs spread evenly over the tensor, the same ones every time, so that a
table is a function of the model, the types and the importance alone, and entries can be kept: an
entry's key is the hash of the sampled bytes, the weights and the type.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from lichen.catalog.tensor_types import TensorType
from lichen.compression.method import Floats, ImportanceWeights, Quantises
from lichen.compression.model_file import LazyTensor
from lichen.compression.retyping import channel_weights, role_of
from lichen.compression.types import dequantised, row_bytes

SAMPLE_ROWS: Final = 96
"""Rows looked at per tensor: the relative error of a 1,000-column tensor is then known to about a
percent, since it is a mean over 96,000 weights."""

_RUN: Final = 4
"""Sampled rows lie in runs of this length, so that reading stays sequential."""

_VERSION: Final = 1
"""Of the computation; part of every kept entry's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeChoice:
    """One storage type for one tensor: what it would take and lose."""

    kind: str
    size_bytes: int
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorErrors:
    """One tensor's choices; the type it has now is among them, with error 0.

    Args:
        name: of the tensor.
        weights: how many it has.
        sampled_rows: how many rows the errors come from.
        weighted: whether importance weights were known for it.
        choices: in the order of the candidates, the present type first.
    """

    name: str
    weights: int
    sampled_rows: int
    weighted: bool
    choices: tuple[TypeChoice, ...]


@dataclass(slots=True)
class ErrorCache:
    """Kept entries: a JSON file of hash -> error; None keeps them for this process only."""

    path: Path | None = None
    _entries: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what was kept; a damaged file is as good as none."""
        if self.path is None or not self.path.is_file():
            return
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(found, dict):
            self._entries = {
                k: float(v) for k, v in found.items() if isinstance(v, int | float) and v >= 0
            }

    def get(self, key: str, compute: Callable[[], float]) -> float:
        """Return the kept error, or compute and keep it."""
        if key not in self._entries:
            self._entries[key] = compute()
        return self._entries[key]

    def save(self) -> None:
        """Write the file atomically, if there is one to write."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps(self._entries, sort_keys=True), "utf-8")
        part.replace(self.path)


def is_matrix(tensor: LazyTensor) -> bool:
    """Whether a tensor may be stored in any type: a weight matrix, or a stack of them."""
    return bool(role_of(tensor.name)) and len(tensor.shape) > 1


def measure_errors(
    tensors: Sequence[LazyTensor],
    candidates: Sequence[TensorType],
    *,
    quantiser: Quantises,
    importance: ImportanceWeights | None = None,
    sample_rows: int = SAMPLE_ROWS,
    cache: ErrorCache | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[TensorErrors, ...]:
    """Return what each tensor would lose in each candidate type that its rows can be stored in.

    Args:
        tensors: see ``is_matrix`` for which make sense.
        candidates: types that the quantiser can write.
        quantiser: makes the quantised copies.
        importance: weights by the tensors' original names; tensors without count all channels
            alike.
        sample_rows: per tensor, >= 1.
        cache: keeps entries.
        progress: told (tensors done, tensors in all).

    Raises:
        ConfigError: a type that cannot be written here.
    """
    cache = cache or ErrorCache()
    found = []
    for done, tensor in enumerate(tensors):
        progress(done, len(tensors))
        found.append(_errors_of(tensor, candidates, quantiser, importance, sample_rows, cache))
    progress(len(tensors), len(tensors))
    cache.save()
    return tuple(found)


def _errors_of(
    tensor: LazyTensor,
    candidates: Sequence[TensorType],
    quantiser: Quantises,
    importance: ImportanceWeights | None,
    sample_rows: int,
    cache: ErrorCache,
) -> TensorErrors:
    weights = channel_weights(tensor, importance)
    runs = _runs(tensor.rows, sample_rows)
    raw = np.concatenate([tensor.read(start, stop) for start, stop in runs])
    rows = dequantised(raw, tensor.type)
    seal = hashlib.sha256(f"{_VERSION} {tensor.type.name} {tensor.width} ".encode())
    seal.update(raw.tobytes())
    seal.update(weights.tobytes() if weights is not None else b"-")
    choices = [TypeChoice(kind=tensor.type.name, size_bytes=tensor.size_bytes, error=0.0)]
    for kind in candidates:
        if tensor.width % kind.block or kind == tensor.type:
            continue
        error = cache.get(
            f"{seal.hexdigest()}:{kind.name}",
            lambda kind=kind: relative_error(rows, kind, weights, quantiser),  # type: ignore[misc]
        )
        size = tensor.rows * row_bytes(tensor.width, kind)
        choices.append(TypeChoice(kind=kind.name, size_bytes=size, error=error))
    return TensorErrors(
        name=tensor.name,
        weights=tensor.elements,
        sampled_rows=len(rows),
        weighted=weights is not None,
        choices=tuple(choices),
    )


def relative_error(
    rows: Floats, kind: TensorType, weights: Floats | None, quantiser: Quantises
) -> float:
    """Return ``e`` of the module's equation for ``rows`` (n, width) stored as ``kind``."""
    blocks = quantiser.quantise(rows, kind, weights)
    exact = rows.astype(np.float64)
    scale = np.ones(rows.shape[1]) if weights is None else weights.astype(np.float64)
    lost = float(np.sum(np.square(dequantised(blocks, kind) - exact) @ scale))
    power = float(np.sum(np.square(exact) @ scale))
    return lost / power if power > 0 else 0.0


def _runs(rows: int, wanted: int) -> list[tuple[int, int]]:
    """Return runs of rows spread evenly over ``rows``, about ``wanted`` rows in all."""
    if rows <= wanted:
        return [(0, rows)]
    count = max(wanted // _RUN, 1)
    length = min(_RUN, wanted)
    starts = (round(k * (rows - length) / max(count - 1, 1)) for k in range(count))
    return [(start, start + length) for start in starts]
