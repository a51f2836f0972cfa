"""Quantise so that each weight's rounding error is made up for by the weights that come after it.

Storing ``w_j`` with an error ``e_j`` moves the output by ``e_j x_j``; where input channels are
correlated, the weights not yet stored can move the other way. With ``H = E[x x^T]`` and the upper
Cholesky factor ``U`` of its inverse (``H^-1 = U^T U``), the best change of the weights ``k > j``
after ``j`` is stored is ``-(e_j / U_jj) U_jk`` (GPTQ, Frantar et al. 2023, arXiv 2210.17323,
equations 2 and 3 and section 3.3). Here it is done inside llama.cpp's own block types: llama.cpp
chooses a block's scales from the weights as they then are, and the codes are chosen one column
after another.

Rows do not depend on each other, so a matrix can be stored chunk by chunk. ``Compensator`` lets the
model read a corpus at the first use; until then nothing is computed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]  # types-psutil is not needed to run

from lichen.catalog.tensor_types import TensorType
from lichen.compression.block_codes import CODED
from lichen.compression.calibration import CHUNK, chunks
from lichen.compression.corpus import Corpus
from lichen.compression.method import Floats, Quantises, Raw
from lichen.compression.model_file import LazyTensor
from lichen.core.errors import ConfigError
from lichen.engines.llama_cpp.native.moments import Moments, measure_moments
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer

TOKENS: Final = 8_192
"""Read by default: more than the widest span has channels."""
SPAN: Final = 4_864
"""Channels that are compensated together, at most. Memory grows with the square: 95 MB a matrix.
Narrow spans lose much: with 1,216 of 4,864 half of the gain is left (docs/lab-notes.md)."""
DAMPING: Final = 0.01
"""Of the mean diagonal, added to it: GPTQ's own choice, section 3.3."""
_MOST_DAMPING: Final = 1.0
_COLUMNS: Final = 256
"""Columns stored before the rest of the row hears of their errors; a multiple of every block."""
_SCRATCH: Final = "lichen-moments-"
_KEPT: Final = 3
"""Factors kept: matrices that share an input (query and key, gate and up) are close to each other
in a file, and the next matrices' rows are asked for ahead."""


@dataclass(frozen=True, slots=True)
class Factor:
    """How errors spread within a span of input channels.

    Args:
        start, stop: the columns of the matrix.
        upper: U of the module's text, (n, n), upper triangular.
        weights: mean square of each channel, (n,): what scales are chosen by.
    """

    start: int
    stop: int
    upper: Floats
    weights: Floats


def factor_of(moment: Floats, *, start: int = 0, damping: float = DAMPING) -> Factor:
    """Return the factor of a moment matrix (n, n), its columns starting at ``start``.

    A matrix that is not positive definite even so is damped more, ten times each time.

    Raises:
        ConfigError: the numbers are no moments.
    """
    exact = np.asarray(moment, np.float64)
    diagonal = np.diagonal(exact).copy()
    mean = float(diagonal.mean())
    if not (np.isfinite(exact).all() and mean > 0):
        raise ConfigError("the model's activations are no numbers or all zero: is it damaged?")
    while damping <= _MOST_DAMPING:
        damped = exact.copy()
        damped[np.diag_indices_from(damped)] += damping * mean
        try:
            inverse = np.linalg.inv(damped)
            lower = np.linalg.cholesky((inverse + inverse.T) / 2)
        except np.linalg.LinAlgError:
            damping *= 10
            continue
        upper = np.ascontiguousarray(lower.T, np.float32)
        return Factor(start, start + len(exact), upper, diagonal.astype(np.float32))
    raise ConfigError("the model's activations have no usable second moments: is it damaged?")


def compensated(
    rows: Floats, kind: TensorType, factors: tuple[Factor, ...], quantiser: Quantises
) -> Raw:
    """Return ``rows`` (n, width) stored as ``kind``, which is one of ``CODED``.

    Raises:
        ConfigError: see ``Quantises``.
    """
    spans = [
        _span(rows[:, f.start : f.stop].astype(np.float32), kind, f, quantiser) for f in factors
    ]
    return np.concatenate(spans, axis=1)


def _span(left: Floats, kind: TensorType, factor: Factor, quantiser: Quantises) -> Raw:
    """Store the columns of one span; ``left`` is changed as errors are passed on."""
    codes = CODED[kind.name]
    width = left.shape[1]
    raw: list[Raw] = []
    for first in range(0, width, _COLUMNS):
        last = min(first + _COLUMNS, width)
        errors = np.empty((len(left), last - first), np.float32)
        for start in range(first, last, kind.block):
            stop = start + kind.block
            block = np.ascontiguousarray(left[:, start:stop])
            stored = quantiser.quantise(
                block, kind, np.ascontiguousarray(factor.weights[start:stop])
            )
            steps = codes.steps(stored)
            chosen = np.empty(block.shape, np.uint8)
            for column in range(start, stop):
                chosen[:, column - start], value = steps.nearest(left[:, column], column - start)
                error = (left[:, column] - value) / factor.upper[column, column]
                errors[:, column - first] = error
                left[:, column + 1 : last] -= np.outer(
                    error, factor.upper[column, column + 1 : last]
                )
            raw.append(codes.with_codes(stored, chosen))
        left[:, last:] -= errors @ factor.upper[first:last, last:]
    return np.concatenate(raw, axis=1)


def fits(tensor: LazyTensor, kind: TensorType) -> bool:
    """Whether a tensor can be compensated: a matrix of a layer, in a type whose codes are known."""
    return kind.name in CODED and len(tensor.shape) == 2 and tensor.name != "token_embd.weight"  # noqa: PLR2004 (a matrix; stacks of experts are no one matrix)


@dataclass(slots=True, kw_only=True, weakref_slot=True)
class Compensator:
    """Stores matrices with compensation; measures what it needs at the first use, once.

    Args:
        source: the model whose activations count.
        texts: gives what it reads.
        quantiser: chooses scales.
        tokens: read, >= 1.
        span: see ``SPAN``.
        scratch: folder for temporary files; None for the system's.
        threads: to compute with; None for one per available CPU.
        progress: hears (tokens read, tokens in all).
    """

    source: Path
    texts: Callable[[], Corpus]
    quantiser: Quantises
    tokens: int = TOKENS
    span: int = SPAN
    scratch: Path | None = None
    threads: int | None = None
    progress: Callable[[int, int], None] = lambda _done, _all: None
    _moments: Moments | None = None
    _factors: dict[str, tuple[Factor, ...]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def quantise(
        self, tensor: LazyTensor, rows: Floats, kind: TensorType, weights: Floats | None
    ) -> Raw:
        """Return ``rows`` of ``tensor`` stored as ``kind``; see ``Compensates``."""
        with self._lock:
            factors = self._of(tensor)
        if not factors or not fits(tensor, kind):
            return self.quantiser.quantise(rows, kind, weights)
        return compensated(rows, kind, factors, self.quantiser)

    def _of(self, tensor: LazyTensor) -> tuple[Factor, ...]:
        """Return the factors of a tensor's input; () where its input was not seen."""
        moments = self._measured()
        name = moments.inputs.get(tensor.origin or tensor.name, "")
        if name not in moments.spans:
            return ()
        key = f"{name} {_digest(tensor.channels)}"
        if key not in self._factors:
            while len(self._factors) >= _KEPT:
                del self._factors[next(iter(self._factors))]
            self._factors[key] = self._computed(moments, name, tensor.channels)
        return self._factors[key]

    def _computed(
        self, moments: Moments, name: str, channels: npt.NDArray[np.int64] | None
    ) -> tuple[Factor, ...]:
        found: list[Factor] = []
        start = 0
        for span in moments.spans[name]:
            matrix = span.matrix() / np.float32(moments.tokens)
            if channels is not None:
                here = channels[(channels >= span.start) & (channels < span.stop)] - span.start
                matrix = matrix[np.ix_(here, here)]
            if len(matrix) % _COLUMNS and span is not moments.spans[name][-1]:
                return ()  # a block would reach into the next span
            found.append(factor_of(matrix, start=start))
            start = found[-1].stop
        return tuple(found)

    def _measured(self) -> Moments:
        if self._moments is None:
            folder = _scratch_folder(self.scratch)
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            tokenizer = NativeTokenizer(self.source, special=True)
            try:
                pieces = list(
                    chunks(self.texts().calibration, tokenizer, tokens=self.tokens, chat=True)
                )
            finally:
                tokenizer.close()
            total = sum(map(len, pieces))
            self._moments = measure_moments(
                self.source,
                pieces,
                folder,
                span=self.span,
                context=CHUNK,
                threads=self.threads,
                progress=lambda done: self.progress(done, total),
            )
        return self._moments


def _scratch_folder(parent: Path | None) -> Path:
    """Make an empty folder, and delete those of processes that were killed: they are large."""
    parent = parent or Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{_SCRATCH}*"):
        owner = old.name.removeprefix(_SCRATCH).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-", dir=parent))


def _digest(channels: npt.NDArray[np.int64] | None) -> str:
    return "all" if channels is None else hashlib.blake2b(channels.tobytes()).hexdigest()
