"""The engine's own tokenizer, from a model file's vocabulary alone: no weights are loaded.

What the engine does to a text is the only definition of the model's tokens that counts, so
everything that counts tokens or compares vocabularies asks here. Loading takes under a second, and
a file without any tensors will do; one core encodes about a megabyte of code in a second.

llama.cpp runs in this process and trusts a file that looks like GGUF: one from outside has to pass
``lichen.catalog.gguf`` first, and its vocabulary ``lichen.compression.vocabulary``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import ConfigError, EngineError
from lichen.engines.llama_cpp.native.layout import (
    MODEL_PARAMS,
    POINTER,
    Parameters,
    default_parameters,
    put,
)
from lichen.engines.llama_cpp.native.library import library

Ids = npt.NDArray[np.int32]

_MAGIC: Final = b"GGUF"
_PIECE_BYTES: Final = 1024
"""Room for one token's bytes at first; the engine says when it needs more."""
_LogFunction = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class NativeTokenizer:
    """Encodes and decodes as the engine does. Safe to use from several threads.

    Args:
        path: a GGUF file; its tensors are not read.
        special: whether texts of control tokens (``<|im_end|>``) stand for these tokens; plain text
            otherwise, which is right for a corpus.

    Raises:
        MissingDependencyError: the engine is not installed.
        ConfigError: the file cannot be read, or is no GGUF file.
        EngineError: the engine cannot use the vocabulary, or is of an unknown version.
    """

    def __init__(self, path: Path, *, special: bool = False) -> None:
        _check_magic(path)
        self._special = special
        self._library = _prepared()
        parameters = default_parameters(self._library, "llama_model_default_params", MODEL_PARAMS)
        put(parameters, MODEL_PARAMS, "vocab_only", value=True)
        with _Quiet(self._library):
            self._model = self._library.llama_model_load_from_file(
                str(path).encode("utf-8", "surrogateescape"), parameters
            )
        if not self._model:
            raise EngineError(
                f"llama.cpp cannot load the vocabulary of {str(path)!r}; is it a whole model that "
                "this version of llama.cpp knows?"
            )
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.size: int = self._library.llama_vocab_n_tokens(self._vocabulary)
        self._pieces: dict[int, bytes] = {}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Free the vocabulary; encoding afterwards is an EngineError."""
        model, self._model = getattr(self, "_model", None), None
        if model:
            self._library.llama_model_free(model)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``; no beginning or end tokens are added.

        Lone surrogates, which are no text, become question marks.
        """
        found: list[int] = self.encode_array(text).tolist()
        return found

    def encode_array(self, text: str) -> Ids:
        """Return the token ids of ``text`` as int32, (tokens,)."""
        self._check_open()
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 8
        while True:
            ids = np.empty(room, dtype=np.int32)
            count = self._library.llama_tokenize(
                self._vocabulary,
                raw,
                len(raw),
                ids.ctypes.data,
                room,
                _NO,  # adds no beginning or end
                self._special,
            )
            if count >= 0:
                return ids[:count].copy()
            if -count <= room:
                raise EngineError(f"llama.cpp cannot encode a text of {len(raw):,} bytes")
            room = -count

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes that ``ids`` stand for, control tokens as their text.

        Raises:
            EngineError: an id that the vocabulary does not have.
        """
        return b"".join(map(self._piece, ids))

    def _piece(self, number: int) -> bytes:
        found = self._pieces.get(number)
        if found is None:
            found = self._pieces[number] = self._fetch_piece(number)
        return found

    def _fetch_piece(self, number: int) -> bytes:
        self._check_open()
        if not 0 <= number < self.size:
            raise EngineError(f"there is no token {number:,} among {self.size:,}")
        room = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._library.llama_token_to_piece(
                self._vocabulary, number, buffer, room, 0, _YES
            )
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def _check_open(self) -> None:
        if not self._model:
            raise EngineError("the tokenizer is closed")


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            found = file.read(len(_MAGIC))
    except OSError as exc:
        raise ConfigError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
    if found != _MAGIC:
        raise ConfigError(f"{str(path)!r} is not a GGUF file")


_YES, _NO = True, False
_TEXT, _FLAG, _NUMBER = ctypes.c_char_p, ctypes.c_bool, ctypes.c_int32
_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "llama_backend_init": (None, []),
    "llama_model_load_from_file": (POINTER, [_TEXT, Parameters]),
    "llama_model_free": (None, [POINTER]),
    "llama_model_get_vocab": (POINTER, [POINTER]),
    "llama_vocab_n_tokens": (_NUMBER, [POINTER]),
    "llama_tokenize": (_NUMBER, [POINTER, _TEXT, _NUMBER, POINTER, _NUMBER, _FLAG, _FLAG]),
    "llama_token_to_piece": (_NUMBER, [POINTER, _NUMBER, _TEXT, _NUMBER, _NUMBER, _FLAG]),
    "llama_log_set": (None, [POINTER, POINTER]),
    "llama_log_get": (None, [POINTER, POINTER]),
}


@cache
def _prepared() -> ctypes.CDLL:
    """Return the library with the functions used here declared."""
    loaded = library(*_SIGNATURES, purpose="reading a model's vocabulary")
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    loaded.llama_backend_init()
    return loaded


class _Quiet:
    """Drops what the library would log while the block runs; its logging is restored afterwards."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._callback, self._data = ctypes.c_void_p(), ctypes.c_void_p()
        self._silent = _LogFunction(lambda _level, _text, _data: None)

    def __enter__(self) -> None:
        self._library.llama_log_get(ctypes.byref(self._callback), ctypes.byref(self._data))
        self._library.llama_log_set(ctypes.cast(self._silent, ctypes.c_void_p), None)

    def __exit__(self, *_: object) -> None:
        self._library.llama_log_set(self._callback, self._data)
