"""What flows through a model's weights: sums of squares per input channel, and what layers change.

For every product of a weight matrix with activations, llama.cpp's evaluation callback gives the
activations: their squares, summed per input channel over all positions, are what llama.cpp calls
an importance matrix (tools/imatrix). For every layer, the cosine between its input and its output,
averaged over positions, says how little it changes (ShortGPT, arXiv 2403.03853, section 3.1).

Mixtures of experts (``MUL_MAT_ID``) are passed over: their weights get no sums.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import EngineError
from lichen.engines.llama_cpp.native.layout import TensorHead
from lichen.engines.llama_cpp.native.process import NativeProcess
from lichen.engines.llama_cpp.native.tensors import Floats, TensorReader

Sums = npt.NDArray[np.float64]
_OUTPUT: Final = re.compile(r"l_out-(\d+)")
"""How llama.cpp names what a layer returns (build b11549, for all dense architectures)."""


@dataclass(frozen=True)
class Activations:
    """What was seen while a model read some tokens.

    Args:
        sums: weight name -> sum of the squared inputs per channel, (row width,).
        rows: weight name -> how many positions were summed.
        cosine: mean cosine between input and output, layer by layer; () for an architecture whose
            layers cannot be followed.
        tokens: positions read.
    """

    sums: Mapping[str, Sums]
    rows: Mapping[str, int]
    cosine: tuple[float, ...]
    tokens: int


def measure_activations(
    path: Path,
    chunks: Iterable[Sequence[int]],
    *,
    context: int = 512,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda _tokens: None,
) -> Activations:
    """Let a model read chunks of at most ``context`` tokens, each from an empty context.

    ``progress`` hears the number of tokens read so far. Costs what a prefill of the same tokens
    does, logits included.

    Raises:
        ConfigError: no chunk, or one that cannot be read (see ``check_tokens``).
        EngineError: the engine failed, or names its tensors in an unknown way.
    """
    with NativeProcess("activations", path, context=context, threads=threads) as process:
        done = process.read(chunks, progress)
        head, arrays = process.ask({"finish": True})
    cosine = tuple(float(c) for c in arrays[0])
    sums = dict(zip(head["names"], arrays[1:], strict=True))
    return Activations(sums, dict(zip(head["names"], head["rows"], strict=True)), cosine, done)


class Collector:
    """Adds up what it sees of a computation; the worker hands it to ``ModelContext``.

    The residual stream is followed through the layers by name: what layer i returns is what layer
    i + 1 gets, and the first layer gets what its normalisation reads.
    """

    def __init__(self) -> None:
        self._tensors = TensorReader()
        self._sums: dict[str, Sums] = {}
        self._rows: dict[str, int] = {}
        self._squares: tuple[int, Sums] | None = None
        self._before: Floats | None = None
        self._cosine: dict[int, float] = {}
        self._positions: dict[int, int] = {}

    def start_batch(self) -> None:
        """Forget the addresses of the last batch: the next may use them for other tensors."""
        self._squares = None
        self._before = None

    def __call__(self, tensor: int, ask: bool) -> bool:
        """See a tensor before (say whether it is wanted) or after it is computed."""
        name = self._tensors.name(tensor)
        weight = self._tensors.multiplied_weight(tensor)
        first = name == "norm-0" and self._before is None
        layer = _OUTPUT.fullmatch(name)
        if ask:
            return bool(weight or first or layer)
        if weight:
            self._add_product(tensor, weight)
        if first:
            self._before = self._tensors.values(TensorHead.from_address(tensor).src[0])
        if layer:
            self._add_layer(int(layer[1]), self._tensors.values(tensor))
        return True

    def result(self, layers: int) -> tuple[dict[str, object], list[Sums]]:
        """Return what was added up: names and rows, and the cosines followed by the sums."""
        if not self._sums:
            raise EngineError(
                "this version of the engine (xllamacpp) names its tensors in a way that lichen "
                "does not know: models cannot be looked into"
            )
        known = range(layers if sorted(self._cosine) == list(range(layers)) else 0)
        cosine = np.array([self._cosine[i] / self._positions[i] for i in known])
        names = list(self._sums)
        head: dict[str, object] = {"names": names, "rows": [self._rows[n] for n in names]}
        return head, [cosine, *self._sums.values()]

    def _add_product(self, tensor: int, name: str) -> None:
        inputs = TensorHead.from_address(tensor).src[1]
        if self._squares is None or self._squares[0] != inputs:
            # Query, key and value share their input, so do gate and up: square it once.
            values = self._tensors.values(inputs)
            self._squares = (inputs, np.einsum("ij,ij->j", values, values).astype(np.float64))
        sums = self._sums.setdefault(name, np.zeros_like(self._squares[1]))
        sums += self._squares[1]
        rows = int(np.prod(tuple(TensorHead.from_address(inputs).ne)[1:]))
        self._rows[name] = self._rows.get(name, 0) + rows

    def _add_layer(self, layer: int, after: Floats) -> None:
        before, self._before = self._before, after
        if before is None or before.shape != after.shape:
            return  # layers of this architecture are no plain sequence: no cosines are given
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        dots = np.einsum("ij,ij->i", before, after)
        cosine = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
        self._cosine[layer] = self._cosine.get(layer, 0.0) + float(cosine.sum(dtype=np.float64))
        self._positions[layer] = self._positions.get(layer, 0) + len(after)
