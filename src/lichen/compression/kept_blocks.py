"""Quantised blocks kept in a folder: a search stores the same matrix in the same type many times.

A block's name is the hash of the numbers, their importance and the type, so nothing else can make
it stale. The folder belongs to one search and goes with it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lichen.catalog.tensor_types import TensorType
from lichen.compression.method import Compensates, Floats, Quantises, Raw
from lichen.compression.model_file import LazyTensor
from lichen.compression.types import row_bytes


@dataclass(frozen=True, slots=True)
class KeptBlocks:
    """A quantiser that computes nothing twice.

    Args:
        inner: computes what is not kept.
        folder: where blocks are kept; made when needed.
        least: weights below which keeping costs more than computing.
    """

    inner: Quantises
    folder: Path
    least: int = 1 << 16

    def quantise(self, rows: Floats, kind: TensorType, weights: Floats | None = None) -> Raw:
        """Return ``rows`` stored as ``kind``; see ``Quantises``."""
        if rows.size < self.least:
            return self.inner.quantise(rows, kind, weights)
        path = self.folder / _name(rows, kind, weights)
        return _once(path, rows, kind, lambda: self.inner.quantise(rows, kind, weights))


@dataclass(frozen=True, slots=True)
class KeptRows:
    """A compensator that computes nothing twice: see ``KeptBlocks``, for one model and one corpus.

    Args:
        inner: computes what is not kept.
        folder: where blocks are kept; made when needed.
    """

    inner: Compensates
    folder: Path

    def quantise(
        self, tensor: LazyTensor, rows: Floats, kind: TensorType, weights: Floats | None
    ) -> Raw:
        """Return ``rows`` of ``tensor`` stored as ``kind``; see ``Compensates``."""
        # Equal rows of two matrices have other errors to make up for: the input is part of the key.
        about = f"compensated {tensor.origin or tensor.name}"
        if tensor.channels is not None:
            about += f" {hashlib.blake2b(tensor.channels.tobytes()).hexdigest()}"
        path = self.folder / _name(rows, kind, weights, about)
        return _once(path, rows, kind, lambda: self.inner.quantise(tensor, rows, kind, weights))


def _once(path: Path, rows: Floats, kind: TensorType, compute: Callable[[], Raw]) -> Raw:
    """Return the blocks kept at ``path``, or compute and keep them."""
    kept = _read(path, (len(rows), row_bytes(rows.shape[1], kind)))
    if kept is not None:
        return kept
    blocks = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(np.ascontiguousarray(blocks).tobytes())
    part.replace(path)
    return blocks


def _read(path: Path, shape: tuple[int, int]) -> Raw | None:
    try:
        kept = np.fromfile(path, np.uint8)
    except OSError:
        return None
    return kept.reshape(shape) if kept.size == shape[0] * shape[1] else None


def _name(rows: Floats, kind: TensorType, weights: Floats | None, about: str = "") -> str:
    digest = hashlib.blake2b(f"{kind.name} {rows.shape}{about}".encode(), digest_size=20)
    for part in (rows, weights):
        if part is not None:
            digest.update(np.ascontiguousarray(part).view(np.uint8).data)
    return digest.hexdigest()
