"""ik_llama.cpp's C interface, as far as it is needed: one model with one context.

The package's own bindings are used for the layouts of structures, since these change with the
library that it brings; what they leave out (parts of sequences in the cache, metadata) is bound
here. All texts of a model file are hostile: they are only ever data.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import EngineError, MissingDependencyError
from lichen.engines.ik_llama_cpp.cells import Cells
from lichen.engines.ik_llama_cpp.options import IkLlamaCppOptions
from lichen.engines.local import available_cpus, check_gguf

_MOST_TEMPLATE: Final = 1 << 20
"""Bytes of a chat template that are read; the longest in use are some ten thousand."""

FULL: Final = 1
"""What ``llama_decode`` returns where the cache has no room for the tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One token of a step: which, where in which sequence, and whether what follows is wanted."""

    token: int
    position: int
    sequence: int
    wanted: bool


class Library:
    """The loaded shared library with the functions that the package does not bind."""

    def __init__(self) -> None:
        try:
            self.c: Any = importlib.import_module("ik_llama_cpp._ctypes_api")
        except ImportError as exc:
            raise MissingDependencyError.for_extra(
                "ik-llama-cpp-python", "ik", "the engine ik_llama_cpp"
            ) from exc
        except (OSError, AttributeError) as exc:  # no library for this machine, or another one
            raise EngineError(f"ik_llama.cpp's library cannot be used here: {exc}") from exc
        pointer, whole, flag = ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool
        text, size = ctypes.c_char_p, ctypes.c_size_t
        self._log = ctypes.CFUNCTYPE(None, ctypes.c_int, text, pointer)(lambda *_: None)
        self.seq_rm = self._bound("llama_kv_cache_seq_rm", flag, pointer, whole, whole, whole)
        self.seq_cp = self._bound(
            "llama_kv_cache_seq_cp", None, pointer, whole, whole, whole, whole
        )
        self.used_cells = self._bound("llama_get_kv_cache_used_cells", whole, pointer)
        self.state_size = self._bound("llama_state_get_size", size, pointer)
        self.state, self.set_state = (
            self._bound(f"llama_state_{way}_data", size, pointer, text, size)
            for way in ("get", "set")
        )
        self.meta = self._bound("llama_model_meta_val_str", whole, pointer, text, text, size)
        self.bos = self._bound("llama_vocab_bos", whole, pointer)
        self.vocabulary = self._bound("llama_n_vocab", whole, pointer)
        log_set = self._bound("llama_log_set", None, type(self._log), pointer)
        log_set(self._log, None)  # it writes hundreds of lines to stderr

    def _bound(self, name: str, result: Any, *arguments: Any) -> Any:
        try:
            # A function of our own: setting types on the package's shared one could break it.
            found = ctypes.CFUNCTYPE(result, *arguments)((name, self.c._lib))  # noqa: SLF001 (no public way)
        except AttributeError as exc:
            msg = (
                f"ik_llama.cpp's library has no {name}: install a version of "
                "ik-llama-cpp-python that the extra [ik] allows"
            )
            raise EngineError(msg) from exc
        return found


class Loaded:
    """A model and its context. Only one thread at a time may call ``step`` and the cache's methods.

    Raises:
        EngineError: the file is no GGUF file, or the library cannot load it.
    """

    def __init__(self, path: str, options: IkLlamaCppOptions) -> None:
        check_gguf("model", path)
        self._library = library = Library()
        self._c = c = library.c
        c.llama_backend_init()
        wanted = c.llama_model_default_params()
        wanted.use_mmap = options.mmap != "off"
        self._model = c.llama_model_load_from_file(path.encode(), wanted)
        if not self._model:
            msg = (
                f"ik_llama.cpp cannot load {path}: it is damaged or of a kind that it does not "
                "know, or memory is short; the engine llama_cpp may know it"
            )
            raise EngineError(msg)
        self._context = c.llama_init_from_model(self._model, _parameters(c, options))
        if not self._context:
            c.llama_free_model(self._model)
            raise EngineError(f"ik_llama.cpp has no memory for {options.slots} slots of {path}")
        self._vocab = c.llama_model_get_vocab(self._model)
        self.vocabulary = int(library.vocabulary(self._model))
        self._batch = c.llama_batch_init(options.batch, 0, 1)
        self._cells = Cells(self, sequences=options.slots, size=options.slots * options.context)

    def close(self) -> None:
        """Free everything; nothing may be called afterwards."""
        self._c.llama_batch_free(self._batch)
        self._c.llama_free(self._context)
        self._c.llama_free_model(self._model)

    # -- texts ---------------------------------------------------------------------------------

    def metadata(self, key: str) -> str:
        """Return a text of the file's metadata, "" if there is none."""
        room = ctypes.create_string_buffer(_MOST_TEMPLATE)
        length = self._library.meta(self._model, key.encode(), room, len(room))
        return room.raw[:length].decode(errors="replace") if 0 < length < len(room) else ""

    @property
    def bos(self) -> int:
        """Token id that opens a text, -1 if the vocabulary has none."""
        return int(self._library.bos(self._vocab))

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return token ids of ``text``."""
        raw = text.encode()
        # The package's first parameter is named vocab, but the library's function takes the model.
        room = (ctypes.c_int32 * (len(raw) + 8))()
        count = self._c.llama_tokenize(
            self._model, raw, len(raw), room, len(room), add_special, parse_special
        )
        if count < 0:
            raise EngineError(f"ik_llama.cpp cannot tokenise a text of {len(text)} characters")
        return list(room[:count])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return a token's bytes; half a character is possible."""
        if not 0 <= token < self.vocabulary:
            msg = f"there is no token {token}: the vocabulary has {self.vocabulary}"
            raise EngineError(msg)
        room = ctypes.create_string_buffer(64)
        length = self._c.llama_token_to_piece(self._model, token, room, len(room), 0, special)
        if length < 0:
            room = ctypes.create_string_buffer(-length)
            length = self._c.llama_token_to_piece(self._model, token, room, len(room), 0, special)
        return room.raw[: max(length, 0)]

    def ends(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return bool(self._c.llama_token_is_eog(self._model, token))

    # -- steps ---------------------------------------------------------------------------------

    def step(self, items: Sequence[Item]) -> int:
        """Compute some tokens; at most ``batch`` of them. 0 if it went well, ``FULL``, or < 0.

        Raises:
            EngineError: the cache had to be put in order, and could not.
        """
        if not self._cells.make_room(len(items)):
            return FULL
        batch = self._batch
        batch.n_tokens = len(items)
        for i, item in enumerate(items):
            batch.token[i] = item.token
            batch.pos[i] = item.position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = item.sequence
            batch.logits[i] = item.wanted
        code = int(self._c.llama_decode(self._context, batch))
        if code == 0:
            self._cells.put((item.sequence, item.position) for item in items)
        return code

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """Return what the last step computed for its item ``row``: (vocabulary,), a view."""
        found = self._c.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(found, shape=(self.vocabulary,))

    def forget(self, sequence: int, start: int = 0) -> None:
        """Drop a sequence's tokens from position ``start`` on."""
        self._cells.drop(sequence, start)

    def share(self, source: int, target: int, end: int) -> None:
        """Let ``target``, which is empty, begin with ``end`` tokens of ``source``, uncopied."""
        self._cells.share(source, target, end)

    # -- for Cells -----------------------------------------------------------------------------

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """See ``cells.Store``."""
        self._library.seq_cp(self._context, source, target, start, end)

    def remove(self, sequence: int, start: int, end: int) -> None:
        """See ``cells.Store``."""
        self._library.seq_rm(self._context, sequence, start, end)

    def pack(self) -> int:
        """See ``cells.Store``.

        A state is saved without its free cells, and comes back without them (a few milliseconds
        for some hundred tokens). The library's own way, ``llama_kv_cache_defrag``, moves only so
        much at a time, and relies on the end of the cache that it gets wrong.

        Raises:
            EngineError: the library did not take the state back.
        """
        size = self._library.state_size(self._context)
        room = ctypes.create_string_buffer(size)
        saved = self._library.state(self._context, room, size)
        if not saved or self._library.set_state(self._context, room, saved) != saved:
            msg = "ik_llama.cpp cannot put its cache in order"
            raise EngineError(msg)
        return int(self._library.used_cells(self._context))


def _parameters(c: Any, options: IkLlamaCppOptions) -> Any:
    wanted = c.llama_context_default_params()
    wanted.n_ctx = options.slots * options.context
    wanted.n_batch = options.batch
    wanted.n_ubatch = options.ubatch
    wanted.n_seq_max = options.slots + 1  # one for what is given up; see cells
    wanted.n_threads = options.threads or available_cpus()
    wanted.n_threads_batch = options.threads_batch or wanted.n_threads
    wanted.flash_attn = False
    return wanted
