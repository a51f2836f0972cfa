"""A model loaded in this process through llama.cpp's C functions, to look inside it.

For the worker process alone: a fault in native code ends the process it runs in, and the log
callback is the whole process's. Everybody else uses ``NativeLogits`` and ``measure_activations``,
which run a worker.

Runs on the CPU, one sequence at a time, and gives the logits of every position.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import EngineError
from lichen.engines.llama_cpp.native.layout import (
    CONTEXT_PARAMS,
    MODEL_PARAMS,
    Batch,
    Parameters,
    check_tensor_layout,
    default_parameters,
    put,
)
from lichen.engines.llama_cpp.native.library import library

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
OnNode = Callable[[int, bool], bool]
"""Called with a tensor's address before (True) and after (False) it is computed.

Before: return whether its contents are wanted. After: return whether to go on.
"""

_P: Final = ctypes.c_void_p
_I: Final = ctypes.c_int32
_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "llama_backend_init": (None, []),
    "llama_model_load_from_file": (_P, [ctypes.c_char_p, Parameters]),
    "llama_model_free": (None, [_P]),
    "llama_init_from_model": (_P, [_P, Parameters]),
    "llama_free": (None, [_P]),
    "llama_model_get_vocab": (_P, [_P]),
    "llama_model_n_layer": (_I, [_P]),
    "llama_vocab_n_tokens": (_I, [_P]),
    "llama_get_memory": (_P, [_P]),
    "llama_memory_clear": (None, [_P, ctypes.c_bool]),
    "llama_decode": (_I, [_P, Batch]),
    "llama_get_logits": (_P, [_P]),
    "llama_log_set": (None, [_P, _P]),
}
_EVAL_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_bool, _P, ctypes.c_bool, _P)
_LOG_CALLBACK: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _P)
_LOG_ERROR: Final = 4  # ggml_log_level in ggml/include/ggml.h


class ModelContext:
    """A loaded model with room for one sequence.

    Args:
        path: a GGUF file.
        context: positions of the longest sequence.
        batch: tokens computed together; memory grows by batch times vocabulary times 8 bytes.
        threads: threads to compute with.
        on_node: sees every tensor of the computation; makes it slower.

    Raises:
        EngineError: the model cannot be loaded, or this version of llama.cpp is not known.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        batch: int,
        threads: int,
        on_node: OnNode | None = None,
    ) -> None:
        opened = library(*_SIGNATURES, purpose="looking into a model")
        self._library = opened
        self._errors: list[str] = []
        self._batch = batch
        self._fault: Exception | None = None
        self._on_node = on_node
        self._context: int | None = None
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(opened, name)
            function.restype, function.argtypes = result, arguments
        # ctypes callbacks live as long as somebody holds them: these as long as the context.
        self._log = _LOG_CALLBACK(self._logged)
        self._eval = _EVAL_CALLBACK(self._seen)
        opened.llama_log_set(ctypes.cast(self._log, _P), None)
        opened.llama_backend_init()
        self._model = self._load(path)
        vocabulary = opened.llama_model_get_vocab(self._model)
        self.vocabulary = int(opened.llama_vocab_n_tokens(vocabulary))
        self.layers = int(opened.llama_model_n_layer(self._model))
        self._context = self._open(context, threads)

    def decode(self, tokens: Tokens, position: int) -> Floats:
        """Compute up to ``batch`` tokens from ``position`` on; return logits (n, vocabulary).

        The array is llama.cpp's own and holds until the next call.

        Raises:
            EngineError: llama.cpp failed.
        """
        n = len(tokens)
        positions = np.arange(position, position + n, dtype=np.int32)
        wanted = np.ones(n, np.int8)
        batch = Batch(
            n_tokens=n,
            token=np.ascontiguousarray(tokens, np.int32).ctypes.data,
            pos=positions.ctypes.data,
            logits=wanted.ctypes.data,
        )
        status = self._library.llama_decode(self._context, batch)
        if self._fault is not None:
            raise self._fault
        if status:
            raise EngineError(f"llama.cpp cannot compute a batch (status {status}): {self._said()}")
        address = self._library.llama_get_logits(self._context)
        values = (ctypes.c_float * (n * self.vocabulary)).from_address(address)
        return np.ctypeslib.as_array(values).reshape(n, self.vocabulary)

    def batches(self, tokens: Tokens) -> list[tuple[int, Tokens]]:
        """Forget what came before and return (position, tokens) of each batch to decode."""
        memory = self._library.llama_get_memory(self._context)
        self._library.llama_memory_clear(memory, False)  # noqa: FBT003 - C has no keywords
        return [(at, tokens[at : at + self._batch]) for at in range(0, len(tokens), self._batch)]

    def close(self) -> None:
        """Free the model (idempotent)."""
        if self._context is not None:
            self._library.llama_free(self._context)
            self._library.llama_model_free(self._model)
            self._context = None

    def _load(self, path: Path) -> int:
        native = self._library
        parameters = default_parameters(native, "llama_model_default_params", MODEL_PARAMS)
        put(parameters, MODEL_PARAMS, "n_gpu_layers", 0)
        model = native.llama_model_load_from_file(os.fsencode(path), parameters)
        if not model:
            raise EngineError(f"llama.cpp cannot load {path.name}: {self._said()}")
        return int(model)

    def _open(self, context: int, threads: int) -> int:
        native, fields = self._library, CONTEXT_PARAMS
        parameters = default_parameters(native, "llama_context_default_params", fields)
        put(parameters, fields, "n_ctx", context)
        for name in ("n_batch", "n_ubatch"):
            put(parameters, fields, name, self._batch)
        for name in ("n_threads", "n_threads_batch"):
            put(parameters, fields, name, threads)
        if self._on_node is not None:
            check_tensor_layout(native)
            put(parameters, fields, "cb_eval", ctypes.cast(self._eval, _P).value)
        opened = native.llama_init_from_model(self._model, parameters)
        if not opened:
            raise EngineError(f"llama.cpp cannot make a context: {self._said()}")
        return int(opened)

    def _seen(self, tensor: int, ask: bool, _user: object) -> bool:
        if self._on_node is None or self._fault is not None:
            return False
        try:
            return self._on_node(tensor, ask)
        except Exception as exc:  # noqa: BLE001 - C code cannot pass it on: decode raises it
            self._fault = exc
            return False

    def _logged(self, level: int, text: bytes | None, _user: object) -> None:
        if level == _LOG_ERROR and text:
            with contextlib.suppress(UnicodeDecodeError):
                self._errors.append(text.decode().strip())

    def _said(self) -> str:
        return self._errors[-1] if self._errors else "it gives no reason"
