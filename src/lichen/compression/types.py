"""What is known of storage types: names, reading them, which rows they fit, what runs fast.

Numbers and block sizes are in ``lichen.catalog.tensor_types``; how to write types is in
``lichen.engines.llama_cpp.native.quantise``.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.catalog.tensor_types import TENSOR_TYPES, TensorType
from lichen.core.errors import ConfigError, MissingDependencyError, UnknownNameError
from lichen.core.registry import unknown

_NUMBERS: Final = {kind.name: number for number, kind in TENSOR_TYPES.items()}
_BY_NAME: Final = {kind.name: kind for kind in TENSOR_TYPES.values()}

PLAIN: Final = ("F32", "F16", "BF16")
"""Types that store each weight as a number of its own."""

_NARROWER: Final = {
    "Q6_K": "Q8_0",
    "Q5_K": "Q5_1",
    "Q4_K": "IQ4_NL",
    "Q3_K": "IQ4_NL",
    "Q2_K": "IQ4_NL",
    "TQ2_0": "Q4_0",
    "TQ1_0": "Q4_0",
    "NVFP4": "MXFP4",
}
"""What stands in where rows are no multiple of the block: 32 wide, not less precise.

llama.cpp puts Q5_0 in for Q4_K (``tensor_type_fallback`` in src/llama-quant.cpp); IQ4_NL has the
same 4.5 bits as Q4_K and a fast kernel.
"""
_LAST_RESORT: Final = "F16"

_FAST: Final = {
    "avx2": {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8, "MXFP4": 8},
    "avx512": {"Q2_K": 8},
    "dotprod": {
        "Q4_0": 4,
        "IQ4_NL": 4,
        "MXFP4": 4,
        "Q8_0": 4,
        "Q4_K": 8,
        "Q5_K": 8,
        "Q6_K": 8,
    },
}
"""CPU feature -> type -> what the rows must be a multiple of to be repacked for SIMD.

``ggml_repack_get_optimal_repack_type`` in ggml/src/ggml-cpu/repack.cpp (build b10605 and later).
"""


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
        raise UnknownNameError(unknown("tensor type", name.upper(), list(_BY_NAME)))
    return kind


def row_bytes(width: int, kind: TensorType) -> int:
    """Return the bytes of a row of ``width`` weights."""
    return width // kind.block * kind.block_bytes


def fitting(kind: TensorType, width: int) -> TensorType:
    """Return ``kind``, or the type that stands in for it where rows of ``width`` do not fit."""
    if width % kind.block == 0:
        return kind
    # The codebook types that are 256 wide all have IQ4_NL as their nearest narrow relative.
    narrower = _BY_NAME[_NARROWER.get(kind.name, "IQ4_NL")]
    return narrower if width % narrower.block == 0 else _BY_NAME[_LAST_RESORT]


def fast_types(features: AbstractSet[str]) -> tuple[str, ...]:
    """Return the types whose matrices are repacked for SIMD on a CPU with these features."""
    found = [name for feature, types in _FAST.items() if feature in features for name in types]
    return tuple(sorted(set(found)))


def runs_fast(kind: TensorType, rows: int, features: AbstractSet[str]) -> bool:
    """Whether a matrix of ``rows`` rows in this type is repacked for SIMD on such a CPU."""
    multiples = [_FAST[f][kind.name] for f in _FAST if f in features and kind.name in _FAST[f]]
    return any(rows % multiple == 0 for multiple in multiples)


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
        # A damaged file has scales that are no numbers; whoever writes the rows refuses those.
        with np.errstate(all="ignore"):
            numbers = quants.dequantize(raw, GGMLQuantizationType(_NUMBERS[kind.name]))
    except (NotImplementedError, ValueError) as exc:
        raise ConfigError(
            f"weights of type {kind.name} cannot be turned back into numbers here"
        ) from exc
    return np.asarray(numbers, dtype=np.float32)
