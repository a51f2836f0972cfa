"""What is known of storage types: names, widths, how to read them, what runs fast here.

Numbers and block sizes are in ``lichen.catalog.tensor_types``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.catalog.tensor_types import TENSOR_TYPES, TensorType
from lichen.core.errors import ConfigError, MissingDependencyError
from lichen.core.registry import unknown

_NUMBERS: Final = {kind.name: number for number, kind in TENSOR_TYPES.items()}
_BY_NAME: Final = {kind.name: kind for kind in TENSOR_TYPES.values()}


def type_number(kind: TensorType) -> int:
    """Return the number that stands for a type in a file."""
    return _NUMBERS[kind.name]


def type_named(name: str) -> TensorType:
    """Return the type called ``name`` in any case (``"q4_k"``).

    Raises:
        UnknownNameError: there is none; near ones are suggested.
    """
    kind = _BY_NAME.get(name.upper())
    if kind is None:
        raise ConfigError(unknown("tensor type", name.upper(), list(_BY_NAME)))
    return kind


def row_bytes(width: int, kind: TensorType) -> int:
    """Return the bytes of a row of ``width`` weights."""
    return width // kind.block * kind.block_bytes


def dequantised(raw: npt.NDArray[np.uint8], kind: TensorType) -> npt.NDArray[np.float32]:
    """Return the numbers that stored rows (n, bytes of a row) stand for: (n, width), float32.

    Raises:
        MissingDependencyError: ``gguf`` is not installed and the type is a quantised one.
        ConfigError: the type has no numbers to give (an intermediate type).
    """
    if kind.name in ("F32", "F16"):
        plain = np.ascontiguousarray(raw).view(np.dtype("<f4" if kind.name == "F32" else "<f2"))
        return plain.astype(np.float32)
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError as exc:
        raise MissingDependencyError.for_extra(
            "gguf", "compress", "reading quantised weights"
        ) from exc
    try:
        numbers = quants.dequantize(raw, GGMLQuantizationType(_NUMBERS[kind.name]))
    except (NotImplementedError, ValueError) as exc:
        raise ConfigError(
            f"weights of type {kind.name} cannot be turned back into numbers here"
        ) from exc
    return np.asarray(numbers, dtype=np.float32)
