"""What a compression method is: a pure, lazy step from model to model.

``apply`` reads no weights. It returns a model whose tensors compute themselves when they are
written, so shapes and types, and with them size and cost, are known at once: ``predict`` is the dry
run of any recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from lichen.catalog.tensor_types import TensorType
from lichen.compression.corpus import Corpus
from lichen.compression.model_file import LazyTensor, ModelFile

Floats = npt.NDArray[np.float32]
Raw = npt.NDArray[np.uint8]
Note = Callable[[str], None]
"""Told what the user should hear, in one sentence: a type that did not fit, what was dropped."""


class Quantises(Protocol):
    """Turns numbers into blocks of a storage type."""

    def quantise(self, rows: Floats, kind: TensorType, weights: Floats | None = None) -> Raw:
        """Return ``rows`` (n, width) stored as ``kind``: (n, bytes of a row).

        ``weights`` (width,) says how much each input channel matters, >= 0; None for all alike.

        Raises:
            ConfigError: the type cannot hold rows of this width, or cannot be written here.
        """


class Compensates(Protocol):
    """Turns a model's matrix into blocks of a storage type, as a whole: errors are made up for."""

    def quantise(
        self, tensor: LazyTensor, rows: Floats, kind: TensorType, weights: Floats | None
    ) -> Raw:
        """Return some rows of ``tensor`` stored as ``kind``, as ``Quantises`` does.

        What cannot be compensated is stored without. The first call may let the model read texts.
        """


class TextTokenizer(Protocol):
    """Turns text into the model's tokens and back."""

    def encode(self, text: str) -> list[int]:
        """Return token ids, without special tokens added."""

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes that token ids stand for."""


class ImportanceWeights(Protocol):
    """How much each input channel of each weight matrix matters."""

    @property
    def weights(self) -> Mapping[str, Floats]:
        """Tensor name in the source model -> (row width,), >= 0."""


def _unheard(text: str) -> None:
    """Drop a note: nobody asked to hear it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodContext:
    """What methods may use of the world; everything is passed in.

    Args:
        quantiser: writes storage types.
        source: the original file, for what only an engine can measure.
        corpus: texts to choose and calibrate by; None where none was given.
        importance: of input channels, by the source's tensor names; see ``LazyTensor.origin``.
        compensator: stores matrices so that errors are made up for; None where there are no texts.
        tokenizer: the source's.
        note: what the user should hear.
    """

    quantiser: Quantises
    source: Path
    corpus: Corpus | None = None
    importance: ImportanceWeights | None = None
    compensator: Compensates | None = None
    tokenizer: TextTokenizer | None = None
    note: Note = _unheard


@runtime_checkable
class Method(Protocol):
    """One way to make a model smaller. Frozen: its options never change after it is made."""

    @property
    def name(self) -> str:
        """Registry name."""

    def apply(self, model: ModelFile, context: MethodContext) -> ModelFile:
        """Return the changed model, without reading more weights than the decision needs.

        Raises:
            ConfigError: the model has not what the method works on, or the context lacks what it
                needs; the sentence says which.
        """


MethodFactory = Callable[[Mapping[str, object]], Method]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model will cost, from shapes and types alone.

    Args:
        file_bytes: of the written file, exactly.
        bytes_per_decoded_token: weights read from memory to decode one token, one sequence.
        flop_per_token: multiplications and additions with weights; attention comes on top.
        parameters: all weights.
    """

    file_bytes: int
    bytes_per_decoded_token: int
    flop_per_token: int
    parameters: int


def predict(model: ModelFile) -> Prediction:
    """Return what ``model`` will cost. Reads no weights.

    Raises:
        ConfigError: not a whole language model.
    """
    shape = model.shape()
    return Prediction(
        file_bytes=model.file_bytes,
        bytes_per_decoded_token=shape.weight_bytes,
        flop_per_token=2 * shape.active_parameters,
        parameters=shape.parameters,
    )
