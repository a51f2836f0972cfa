"""Read tensors of a running computation by address, in the process that computes them."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import EngineError
from lichen.engines.llama_cpp.native.layout import TensorHead
from lichen.engines.llama_cpp.native.library import library

Floats = npt.NDArray[np.float32]
_P: Final = ctypes.c_void_p
_F32: Final = 0  # ggml_type in ggml/include/ggml.h


class TensorReader:
    """What the evaluation callback may ask of a tensor.

    Raises:
        EngineError: this version of llama.cpp does not export what is needed.
    """

    def __init__(self) -> None:
        text, size = ctypes.c_char_p, ctypes.c_size_t
        signatures: dict[str, tuple[Any, list[Any]]] = {
            "ggml_get_name": (text, [_P]),
            "ggml_op_desc": (text, [_P]),
            "ggml_nbytes": (size, [_P]),
            "ggml_backend_tensor_get": (None, [_P, _P, size, size]),
        }
        self._library = library(*signatures, purpose="looking into a model")
        for name, (result, arguments) in signatures.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments

    def name(self, tensor: int) -> str:
        """Return what llama.cpp calls it."""
        return str(self._library.ggml_get_name(tensor).decode(errors="replace"))

    def multiplied_weight(self, tensor: int) -> str | None:
        """Return the name of the weight matrix that this product multiplies with, if it is one."""
        if self._library.ggml_op_desc(tensor) != b"MUL_MAT":
            return None
        name = self.name(TensorHead.from_address(tensor).src[0])
        return name if name.endswith(".weight") else None

    def values(self, tensor: int) -> Floats:
        """Copy a float tensor, wherever it lies, as (rows, width)."""
        head = TensorHead.from_address(tensor)
        if head.type != _F32:
            raise EngineError(f"activations of tensor type {head.type} cannot be read")
        raw = np.empty(self._library.ggml_nbytes(tensor), np.uint8)
        self._library.ggml_backend_tensor_get(tensor, raw.ctypes.data, 0, raw.nbytes)
        shape, strides = tuple(head.ne)[::-1], tuple(head.nb)[::-1]
        values: Floats = np.ndarray(shape, np.float32, raw, strides=strides)
        return values.reshape(-1, shape[-1])
