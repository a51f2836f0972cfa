"""Second moments of what flows into a model's weights: ``E[x x^T]`` of every matrix's input.

What compensated quantisation needs (GPTQ, arXiv 2210.17323, where it is called the Hessian). Wide
inputs are cut into spans, and only moments within a span are kept: their memory grows with the
square of the width. Matrices that read the same input (query, key and value; gate and up) share one
moment. The numbers lie in files, since they are several times as large as the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import EngineError
from lichen.engines.llama_cpp.native.layout import TensorHead
from lichen.engines.llama_cpp.native.process import NativeProcess
from lichen.engines.llama_cpp.native.tensors import Floats, TensorReader

Sums = npt.NDArray[np.float64]

BATCH: Final = 512
"""Tokens computed together: every batch reads and writes all sums once."""
_GRAIN: Final = 256
"""Spans start at multiples of this, the largest block of a storage type."""
_EMBEDDING: Final = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class Span:
    """Moments of the input channels ``start`` to ``stop`` (exclusive) of one input."""

    start: int
    stop: int
    path: Path

    def matrix(self) -> Floats:
        """Return sums of ``x_i x_j`` over all positions, (n, n); read from the file as needed."""
        found: Floats = np.load(self.path, mmap_mode="r")
        return found


@dataclass(frozen=True, slots=True)
class Moments:
    """What was seen while a model read some tokens.

    Args:
        spans: input's name -> its spans in order; an input is named after one of its matrices.
        inputs: matrix name -> its input's name.
        tokens: positions summed.
    """

    spans: dict[str, tuple[Span, ...]]
    inputs: dict[str, str]
    tokens: int


def measure_moments(
    path: Path,
    chunks: Iterable[Sequence[int]],
    folder: Path,
    *,
    span: int,
    context: int = 512,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda _tokens: None,
) -> Moments:
    """Let a model read chunks of at most ``context`` tokens, each from an empty context.

    Args:
        path: a GGUF file.
        chunks: tokens.
        folder: an empty one; the sums are kept there.
        span: channels whose moments are kept together, at most.
        context: tokens of the longest chunk.
        threads: to compute with; None for one per available CPU.
        progress: hears the number of tokens read so far.

    Raises:
        ConfigError: no chunk, or one that cannot be read (see ``check_tokens``).
        EngineError: the engine failed, or names its tensors in an unknown way.
    """
    details = {"folder": str(folder), "span": span}
    with NativeProcess(
        "moments", path, context=context, threads=threads, batch=BATCH, details=details
    ) as process:
        done = process.read(chunks, progress)
        head, _ = process.ask({"finish": True})
    spans = {
        name: tuple(Span(start, stop, folder / file) for start, stop, file in found)
        for name, found in head["spans"].items()
    }
    return Moments(spans, head["inputs"], done)


def cut(width: int, span: int) -> list[tuple[int, int]]:
    """Return the fewest spans of about equal length that ``width`` channels are cut into."""
    count = -(-width // max(span, _GRAIN))
    grains = [len(part) for part in np.array_split(np.arange(-(-width // _GRAIN)), count)]
    ends = np.minimum(np.cumsum(grains) * _GRAIN, width)
    return list(zip([0, *map(int, ends[:-1])], map(int, ends), strict=True))


class MomentCollector:
    """Adds up what it sees of a computation; the worker hands it to ``ModelContext``."""

    def __init__(self, folder: Path, span: int) -> None:
        self._tensors = TensorReader()
        self._folder = folder
        self._span = span
        self._sums: dict[str, list[tuple[int, int, str, Any]]] = {}
        self._inputs: dict[str, str] = {}
        self._seen: dict[int, str] = {}

    def start_batch(self) -> None:
        """Forget the addresses of the last batch: the next may use them for other tensors."""
        self._seen = {}

    def __call__(self, tensor: int, ask: bool) -> bool:
        """See a tensor before (say whether it is wanted) or after it is computed."""
        weight = self._tensors.multiplied_weight(tensor)
        # A tied embedding is looked up as well as multiplied with, so its error is another.
        wanted = weight is not None and weight != _EMBEDDING
        if ask or weight is None:
            return wanted
        inputs = int(TensorHead.from_address(tensor).src[1])
        first = self._seen.setdefault(inputs, weight)
        self._inputs[weight] = first
        if first == weight:
            self._add(weight, self._tensors.values(inputs))
        return True

    def result(self, _layers: int) -> tuple[dict[str, object], list[Sums]]:
        """Write what was added up to its files and say which are there."""
        if not self._sums:
            raise EngineError(
                "this version of the engine (xllamacpp) names its tensors in a way that lichen "
                "does not know: models cannot be looked into"
            )
        spans = {}
        for name, parts in self._sums.items():
            spans[name] = [(start, stop, file) for start, stop, file, _ in parts]
            for *_, sums in parts:
                sums.flush()
        return {"spans": spans, "inputs": self._inputs}, []

    def _add(self, name: str, values: Floats) -> None:
        if name not in self._sums:
            self._sums[name] = [
                self._opened(start, stop) for start, stop in cut(values.shape[1], self._span)
            ]
        for start, stop, _, sums in self._sums[name]:
            part = np.ascontiguousarray(values[:, start:stop])
            np.add(sums, part.T @ part, out=sums)

    def _opened(self, start: int, stop: int) -> tuple[int, int, str, Any]:
        file = f"{sum(map(len, self._sums.values()))}-{start}.npy"
        shape = (stop - start, stop - start)
        sums = np.lib.format.open_memmap(self._folder / file, "w+", np.float32, shape)
        return start, stop, file, sums
