"""Drop an output matrix that duplicates the embedding.

Many small models share one matrix between input and output, and some converters store it twice, in
two types. llama.cpp takes the embedding for the output where there is no ``output.weight``, so the
file shrinks by one matrix, and where the smaller copy is kept every decoded token reads less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from lichen.compression.method import Floats, MethodContext
from lichen.compression.model_file import LazyTensor, ModelFile
from lichen.core.errors import ConfigError
from lichen.engines.options import read_options

NAME: Final = "retie"
EMBEDDING: Final = "token_embd.weight"
OUTPUT: Final = "output.weight"
_KEEP: Final = ("best", "embedding", "output")
_CHUNK_ROWS: Final = 2048
_KNOWN: Final = frozenset(
    {"gemma", "gemma2", "gemma3", "llama", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2"}
)
"""Architectures that llama.cpp runs without an output matrix (src/models/*.cpp, b10605)."""
_MOST_SCALING: Final = 0.02
"""Quantising moves the mean length of rows by far less; a scaled copy is another matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetieOptions:
    """How to decide.

    Args:
        keep: which copy stays: "embedding", "output", or "best", the one with more bits a weight.
        agree: least mean cosine of a row of one copy with the same row of the other, 0..1. Two
            quantisations of one matrix reach 0.99 and more from 4 bits on; different matrices
            stay far below.
        sample: rows compared, evenly spread; 0 for all.
    """

    keep: str = "best"
    agree: float = 0.99
    sample: int = 0

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.keep not in _KEEP:
            msg = f"keep must be one of {', '.join(map(repr, _KEEP))}, got {self.keep!r}"
            raise ValueError(msg)
        if not 0.0 <= self.agree <= 1.0 or self.sample < 0:
            msg = f"agree is a cosine from 0 to 1 and sample a count, got {self}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class RowAgreement:
    """How alike two matrices are, row by row: cosines, the ratio of mean lengths, rows compared."""

    mean: float
    least: float
    scale: float
    rows: int

    def __str__(self) -> str:
        """Say it to people."""
        return (
            f"cosine {self.mean:.4f} on average and {self.least:.4f} at worst "
            f"over {self.rows:,} rows"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retie:
    """Ties the output to the embedding."""

    options: RetieOptions
    name: ClassVar[str] = NAME

    def apply(self, model: ModelFile, context: MethodContext) -> ModelFile:
        """Drop ``output.weight`` if it is the embedding; no change if there is none.

        Raises:
            ConfigError: the two are different matrices.
        """
        if not model.has(OUTPUT):
            context.note(f"{NAME}: the output is tied to the embedding already")
            return model
        embedding, output = model.tensor(EMBEDDING), model.tensor(OUTPUT)
        if embedding.shape != output.shape or model.has("output.bias"):
            raise ConfigError(
                f"{NAME}: the output matrix is not a copy of the embedding: it has another shape "
                "or a bias; leave this step out"
            )
        found = agreement(embedding, output, self.options.sample)
        if found.mean < self.options.agree or abs(found.scale - 1.0) > _MOST_SCALING:
            raise ConfigError(
                f"{NAME}: the output matrix is not a copy of the embedding ({found}, lengths "
                f"{found.scale:.3f} to 1; at least {self.options.agree} is asked for): "
                "leave this step out"
            )
        kept = self._chosen(embedding, output)
        dropped = embedding if kept is output else output
        context.note(
            f"{NAME}: the {_title(dropped)} ({dropped.type.name}) is dropped and the "
            f"{_title(kept)} ({kept.type.name}) serves as both; {found}"
        )
        if model.architecture not in _KNOWN:
            context.note(
                f"{NAME}: whether llama.cpp runs {model.architecture!r} without an output matrix "
                "is not known; the gate will tell"
            )
        tied = replace(kept, name=EMBEDDING, origin=output.origin or OUTPUT)
        return model.replaced(tied).without(OUTPUT)

    def _chosen(self, embedding: LazyTensor, output: LazyTensor) -> LazyTensor:
        if self.options.keep != "best":
            return output if self.options.keep == "output" else embedding
        finer = output.type.bits_per_weight > embedding.type.bits_per_weight
        return output if finer else embedding


def agreement(a: LazyTensor, b: LazyTensor, sample: int = 0) -> RowAgreement:
    """Compare two matrices of one shape row by row.

    Rows that are zero in both agree; a row that is zero in one only does not.

    Args:
        a: a matrix.
        b: another of its shape.
        sample: rows to compare, evenly spread; 0 for all.
    """
    cosines, lengths_a, lengths_b = [], [], []
    for start, stop in _ranges(a.rows, sample):
        left, right = a.floats(start, stop), b.floats(start, stop)
        norm_a, norm_b = _norms(left), _norms(right)
        product = np.einsum("ij,ij->i", left, right, dtype=np.float64)
        both = norm_a * norm_b
        alike = np.where(norm_a == norm_b, 1.0, 0.0)
        cosines.append(np.where(both > 0, product / np.where(both > 0, both, 1.0), alike))
        lengths_a.append(norm_a)
        lengths_b.append(norm_b)
    every = np.concatenate(cosines)
    total_a, total_b = (float(np.concatenate(x).sum()) for x in (lengths_a, lengths_b))
    return RowAgreement(
        mean=float(every.mean()),
        least=float(every.min()),
        scale=total_b / total_a if total_a > 0 else float(total_b == total_a),
        rows=len(every),
    )


def _ranges(rows: int, sample: int) -> Iterator[tuple[int, int]]:
    if not sample or sample >= rows:
        for start in range(0, rows, _CHUNK_ROWS):
            yield start, min(start + _CHUNK_ROWS, rows)
        return
    for row in np.linspace(0, rows - 1, sample).astype(int).tolist():
        yield row, row + 1


def _norms(rows: Floats) -> npt.NDArray[np.float64]:
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return np.sqrt(squares)


def _title(tensor: LazyTensor) -> str:
    return "output matrix" if tensor.name == OUTPUT else "embedding"


def make(options: Mapping[str, object]) -> Retie:
    """Return the method.

    Raises:
        ConfigError: an option that does not exist or cannot be used.
    """
    return Retie(options=read_options(RetieOptions, options, who=f"method {NAME}"))
