"""Where the fields lie in llama.cpp's structures that this package reads or writes.

The installed library comes without headers, and llama.cpp reorders these structures between
releases. So nothing is assumed: a structure is used only after its default values (parameters) or
a tensor made for the purpose (``ggml_tensor``) have shown every field where it is expected.

Source: include/llama.h and ggml/include/ggml.h of llama.cpp around build b11549, and the default
values of that build. A structure passed by value may be longer than the library's own: the calling
conventions of x86-64 and AArch64 copy it or pass its address, and the callee reads its own length.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from lichen.core.errors import EngineError

POINTER: Final = ctypes.c_void_p
ROOM: Final = 512
"""Bytes kept for a parameter structure; the longest known has 168."""

Field = tuple[int, Any, float | None]
"""(offset, ctypes type, default value; None for a null pointer)."""

MODEL_PARAMS: Final[dict[str, Field]] = {
    "devices": (0, POINTER, None),
    "tensor_buft_overrides": (8, POINTER, None),
    "n_gpu_layers": (16, ctypes.c_int32, -1),
    "split_mode": (20, ctypes.c_int32, 1),
    "load_mode": (24, ctypes.c_int32, -1),
    "lazy_mode": (28, ctypes.c_int32, 1),
    "main_gpu": (32, ctypes.c_int32, 0),
    "tensor_split": (40, POINTER, None),
    "progress_callback": (48, POINTER, None),
    "progress_callback_user_data": (56, POINTER, None),
    "kv_overrides": (64, POINTER, None),
    "vocab_only": (72, ctypes.c_bool, 0),
    "check_tensors": (73, ctypes.c_bool, 0),
    "use_extra_bufts": (74, ctypes.c_bool, 1),
    "no_host": (75, ctypes.c_bool, 0),
    "no_alloc": (76, ctypes.c_bool, 0),
}
CONTEXT_PARAMS: Final[dict[str, Field]] = {
    "n_ctx": (0, ctypes.c_uint32, 512),
    "n_batch": (4, ctypes.c_uint32, 2048),
    "n_ubatch": (8, ctypes.c_uint32, 512),
    "n_seq_max": (12, ctypes.c_uint32, 1),
    "n_threads": (28, ctypes.c_int32, 4),
    "n_threads_batch": (32, ctypes.c_int32, 4),
    "ctx_type": (36, ctypes.c_int32, 0),
    "rope_scaling_type": (40, ctypes.c_int32, -1),
    "pooling_type": (44, ctypes.c_int32, -1),
    "attention_type": (48, ctypes.c_int32, -1),
    "flash_attn_type": (52, ctypes.c_int32, -1),
    "rope_freq_base": (56, ctypes.c_float, 0.0),
    "rope_freq_scale": (60, ctypes.c_float, 0.0),
    "yarn_ext_factor": (64, ctypes.c_float, -1.0),
    "yarn_orig_ctx": (80, ctypes.c_uint32, 0),
    "defrag_thold": (84, ctypes.c_float, -1.0),
    "cb_eval": (88, POINTER, None),
    "cb_eval_user_data": (96, POINTER, None),
    "type_k": (104, ctypes.c_int32, 1),
    "type_v": (108, ctypes.c_int32, 1),
    "embeddings": (136, ctypes.c_bool, 0),
    "offload_kqv": (137, ctypes.c_bool, 1),
}


class Parameters(ctypes.Structure):
    """A parameter structure as bytes, with ``ROOM`` to spare."""

    _fields_ = (("raw", ctypes.c_uint8 * ROOM),)


class Batch(ctypes.Structure):
    """``llama_batch``: tokens of one sequence, their positions, and which give logits."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    )


class TensorHead(ctypes.Structure):
    """The start of ``ggml_tensor``, up to its second source."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int32),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 2),
    )


def default_parameters(library: ctypes.CDLL, function: str, fields: dict[str, Field]) -> Parameters:
    """Return a parameter structure with llama.cpp's default values, checked field by field.

    ``function`` returns the structure by value; being longer than 16 bytes, it is returned through
    a hidden first argument, which is how it is called here.

    Raises:
        EngineError: a field does not hold its known default: another version of llama.cpp.
    """
    found = Parameters()
    call = getattr(library, function)
    call.restype, call.argtypes = None, [ctypes.c_void_p]
    call(ctypes.addressof(found))
    for name, (offset, kind, default) in fields.items():
        value = kind.from_buffer(found, offset).value
        if value != default:
            raise unknown_version(f"{function} gives {name} = {value!r} instead of {default!r}")
    return found


def put(parameters: Parameters, fields: dict[str, Field], name: str, value: object) -> None:
    """Write one field."""
    offset, kind, _ = fields[name]
    kind.from_buffer(parameters, offset).value = value


def check_tensor_layout(library: ctypes.CDLL) -> None:
    """Make a small product of two matrices and read it through ``TensorHead``.

    Raises:
        EngineError: something is not where it is expected: another version of llama.cpp.
    """

    class InitParams(ctypes.Structure):
        _fields_ = (
            ("mem_size", ctypes.c_size_t),
            ("mem_buffer", ctypes.c_void_p),
            ("no_alloc", ctypes.c_bool),
        )

    library.ggml_init.restype, library.ggml_init.argtypes = POINTER, [InitParams]
    library.ggml_free.restype, library.ggml_free.argtypes = None, [POINTER]
    new = library.ggml_new_tensor_2d
    new.restype, new.argtypes = POINTER, [POINTER, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    library.ggml_mul_mat.restype = POINTER
    library.ggml_mul_mat.argtypes = [POINTER, POINTER, POINTER]
    arena = library.ggml_init(InitParams(mem_size=1 << 16))
    if not arena:
        raise EngineError("llama.cpp cannot allocate 64 KiB for its self-test: free some memory")
    try:
        weight, inputs = new(arena, 1, 8, 3), new(arena, 0, 8, 5)  # types 1 = F16, 0 = F32
        product = TensorHead.from_address(library.ggml_mul_mat(arena, weight, inputs))
        left = TensorHead.from_address(weight)
        seen = (tuple(product.src), tuple(product.ne), tuple(left.nb)[:2], left.type, product.type)
        if seen != ((weight, inputs), (3, 5, 1, 1), (2, 16), 1, 0):
            raise unknown_version("its tensors are laid out in another way")
    finally:
        library.ggml_free(arena)


def unknown_version(why: str) -> EngineError:
    """Return the one error for a library whose structures are not the known ones."""
    return EngineError(
        "this version of the engine (xllamacpp) is not known to lichen, so models cannot be looked "
        f"into ({why}): install a version of xllamacpp that this lichen was tested with"
    )
