"""Write storage types with llama.cpp's own quantiser, from Python, without compiling anything.

``Quantiser`` calls ``ggml_quantize_chunk`` by ctypes, which releases the interpreter, so blocks of
rows run on all CPUs. Each type is tested at its first use: random rows are quantised and turned
back by the ``gguf`` package, an independent reader, and must come back close. Where the function is
not exported, the simple types are written with numpy (``gguf.quants``), without importance weights.

llama.cpp aborts the process on numbers it cannot place (NaN, infinity), so they are refused before.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from lichen.core.errors import ConfigError, EngineError, MissingDependencyError
from lichen.engines.llama_cpp.native.library import library

Floats = npt.NDArray[np.float32]
Raw = npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)

WRITABLE: Final = (
    *("F32", "F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS"),
    *("IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"),
)
"""Types that llama.cpp can write and run, and that ``gguf`` can read back to test them."""

_NEEDS_WEIGHTS: Final = frozenset({"IQ2_XXS", "IQ2_XS", "IQ1_S"})
"""``ggml_quantize_requires_imatrix`` in ggml/src/ggml.c."""

_WITH_NUMPY: Final = frozenset({"Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "TQ1_0", "TQ2_0", "MXFP4"})
"""What ``gguf.quants.quantize`` implements (gguf 0.19)."""

_LEAST_WEIGHT: Final = 1e-6
"""Of the mean importance: a block of channels that all weigh nothing has no best scale."""
_PER_THREAD: Final = 1 << 15
"""Weights below which a further thread costs more than it brings."""
_TEST_ROWS: Final = 8
_TEST_WIDTH: Final = 256
"""The largest block."""


class StorageType(Protocol):
    """How weights are stored: ``block`` of them take ``block_bytes`` bytes."""

    @property
    def name(self) -> str:
        """What ggml calls it, in capitals."""

    @property
    def block(self) -> int:
        """Weights in a block."""

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""


Chunk = Callable[[Floats, StorageType, Floats | None], Raw]


class Quantiser:
    """Writes rows of numbers as blocks of a storage type.

    Args:
        workers: threads, 0 for one per CPU.
        note: told once if llama.cpp's quantiser is missing and numpy writes instead.
    """

    def __init__(self, *, workers: int = 0, note: Callable[[str], None] = _log.warning) -> None:
        self._workers = workers or os.cpu_count() or 1
        self._note = note
        self._native: Any = None
        self._why_not = ""
        self._tested: set[str] = set()
        self._lock = threading.Lock()

    def quantise(self, rows: Floats, kind: StorageType, weights: Floats | None = None) -> Raw:
        """Return ``rows`` (n, width) as stored: (n, bytes of a row).

        Args:
            rows: finite numbers.
            kind: storage type, one of ``WRITABLE``.
            weights: (width,) importance of each channel, >= 0; None for all alike.

        Raises:
            ConfigError: the type cannot be written, not with rows of this width, not without
                weights, or a number is not finite.
            EngineError: llama.cpp's quantiser fails its test.
            MissingDependencyError: ``gguf``, which the test needs, is not installed.
        """
        _check(rows, kind, weights)
        if kind.name in _CASTS:
            return _cast(rows, kind)
        chunk = self._chunk(kind)
        weighed = None if weights is None else _floored(weights)
        parts = min(self._workers, len(rows), max(1, rows.size // _PER_THREAD))
        if parts <= 1:
            return chunk(rows, kind, weighed)
        with ThreadPoolExecutor(parts) as pool:
            done = pool.map(lambda part: chunk(part, kind, weighed), np.array_split(rows, parts))
            return np.concatenate(list(done))

    def _chunk(self, kind: StorageType) -> Chunk:
        """Return what writes ``kind``, tested."""
        with self._lock:
            if self._native is None and not self._why_not:
                self._find_native()
            if self._native is None:
                return self._numpy(kind)
            if kind.name not in self._tested:
                _test(self._write, kind)
                self._tested.add(kind.name)
            return self._write

    def _find_native(self) -> None:
        try:
            function = library(_FUNCTION, purpose="quantising").ggml_quantize_chunk
        except (EngineError, MissingDependencyError) as exc:
            self._why_not = str(exc)
            self._note(f"{exc}; the simple types are written without importance weights instead")
            return
        function.restype = ctypes.c_size_t
        function.argtypes = _SIGNATURE
        self._native = function

    def _numpy(self, kind: StorageType) -> Chunk:
        if kind.name not in _WITH_NUMPY:
            raise ConfigError(
                f"weights cannot be written as {kind.name} here: {self._why_not}; without it "
                f"these can: {', '.join(sorted(_WITH_NUMPY | _CASTS))}"
            )
        return _write_with_numpy

    def _write(self, rows: Floats, kind: StorageType, weights: Floats | None) -> Raw:
        """Call llama.cpp for one block of rows."""
        count, width = rows.shape
        source = np.ascontiguousarray(rows, np.float32)
        target = np.zeros((count, width // kind.block * kind.block_bytes), np.uint8)
        written = self._native(
            _gguf_type(kind).value,
            source.ctypes.data,
            target.ctypes.data,
            0,
            count,
            width,
            None if weights is None else weights.ctypes.data,
        )
        if written != target.nbytes:
            raise EngineError(
                f"llama.cpp wrote {written:,} bytes of {kind.name} where lichen expects "
                f"{target.nbytes:,}: this version of llama.cpp is not known"
            )
        return target


_FUNCTION: Final = "ggml_quantize_chunk"
_SIGNATURE: Final[list[Any]] = [
    ctypes.c_int,  # type
    ctypes.c_void_p,  # float * source
    ctypes.c_void_p,  # void * target
    ctypes.c_int64,  # first element
    ctypes.c_int64,  # rows
    ctypes.c_int64,  # width
    ctypes.c_void_p,  # float * weights, or NULL
]
_CASTS: Final = frozenset({"F32", "F16", "BF16"})


def _check(rows: Floats, kind: StorageType, weights: Floats | None) -> None:
    """Refuse what llama.cpp would abort on, or cannot write."""
    if kind.name not in WRITABLE:
        raise ConfigError(f"weights cannot be written as {kind.name}: it is no type for weights")
    if rows.ndim != 2:  # noqa: PLR2004 (rows and columns)
        raise ConfigError(f"quantising takes rows of numbers, not an array of shape {rows.shape}")
    width = rows.shape[1]
    if width % kind.block:
        raise ConfigError(
            f"{kind.name} stores weights in blocks of {kind.block}, and rows of {width:,} are not "
            "a multiple of that"
        )
    if not np.isfinite(rows).all():
        raise ConfigError("weights that are not finite numbers cannot be quantised")
    if weights is None:
        if kind.name in _NEEDS_WEIGHTS:
            raise ConfigError(f"{kind.name} cannot be written without importance weights")
        return
    if weights.shape != (width,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ConfigError(
            f"importance weights of rows of {width:,} are as many finite numbers >= 0, "
            f"got shape {weights.shape}"
        )


def _floored(weights: Floats) -> Floats | None:
    """Return weights that are all positive; None where nothing is known of any channel."""
    mean = float(weights.mean(dtype=np.float64))
    if not mean > 0.0:
        return None
    scaled = np.maximum(weights.astype(np.float64) / mean, _LEAST_WEIGHT)
    return np.ascontiguousarray(scaled, np.float32)


def _cast(rows: Floats, kind: StorageType) -> Raw:
    """Return rows as plain floating-point numbers."""
    exact = np.ascontiguousarray(rows, np.float32)
    if kind.name == "F32":
        stored: npt.NDArray[Any] = exact.astype("<f4")
    elif kind.name == "F16":
        with np.errstate(over="ignore"):
            stored = exact.astype("<f2")
        if not np.isfinite(stored).all():
            raise ConfigError("a weight is too large for F16; use BF16 or F32")
    else:
        bits = exact.view(np.uint32)
        # Round half to even: add half of the last kept bit, and that bit itself.
        stored = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return stored.view(np.uint8).reshape(len(rows), -1)


def _write_with_numpy(rows: Floats, kind: StorageType, weights: Floats | None) -> Raw:  # noqa: ARG001 (has no use for weights)
    from gguf import quants

    exact = np.ascontiguousarray(rows, np.float32)
    return np.asarray(quants.quantize(exact, _gguf_type(kind)), np.uint8)


def _test(write: Chunk, kind: StorageType) -> None:
    """Quantise random rows and read them back with another implementation.

    Raises:
        EngineError: what comes back is not what went in.
    """
    from gguf import quants

    rows = np.random.default_rng(0).standard_normal((_TEST_ROWS, _TEST_WIDTH)).astype(np.float32)
    raw = write(rows, kind, np.ones(_TEST_WIDTH, np.float32))
    with np.errstate(all="ignore"):  # bytes in a wrong layout need not be numbers
        back = quants.dequantize(raw, _gguf_type(kind))
        error = float(np.sqrt(np.square(back - rows).mean() / np.square(rows).mean()))
    if not error < _most_error(kind):
        raise EngineError(
            f"llama.cpp's quantiser fails its test for {kind.name} (relative error {error:.3g}): "
            "this version of llama.cpp is not known"
        )


def _gguf_type(kind: StorageType) -> Any:
    """Return the type as the ``gguf`` package knows it; its value is ggml's number."""
    try:
        from gguf import GGMLQuantizationType
    except ImportError as exc:
        raise MissingDependencyError.for_extra("gguf", "compress", "quantising") from exc
    try:
        return GGMLQuantizationType[kind.name]
    except KeyError as exc:
        raise ConfigError(
            f"the installed gguf does not know {kind.name}, so it cannot be written: upgrade it"
        ) from exc


def _most_error(kind: StorageType) -> float:
    """Return the relative error that normal noise may have: twice what good types reach, < 1.

    Uniform steps halve the error with each bit; ggml's types reach 1.4 to 3.3 times ``2**-bits``.
    Bytes in a wrong layout come back with an error of 1 and more.
    """
    return float(min(4.0 * 2.0 ** (-8.0 * kind.block_bytes / kind.block), 0.85))
