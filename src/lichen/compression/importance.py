"""How much each input channel of each weight matrix matters: the mean square of what flows in.

Quantising weight ``w_ij`` by an error ``e_ij`` moves output i by ``sum_j e_ij x_j``. If channels
are uncorrelated, the expected square of that is ``sum_j e_ij^2 E[x_j^2]``, so ``E[x_j^2]`` is the
weight of channel j's error (llama.cpp's importance matrix; the diagonal of GPTQ's Hessian, arXiv
2210.17323). Measured on code and on conversations about code, from a corpus.

The same run measures *block influence*, how much a layer turns the hidden state:
``1 - mean cosine(input, output)`` (ShortGPT, arXiv 2403.03853).

Files have llama.cpp's layout (tools/imatrix, since July 2025): ``<tensor>.in_sum2`` and
``<tensor>.counts``, keys ``imatrix.*``; lichen's own entries are extra keys that llama.cpp ignores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.catalog.tensor_types import TENSOR_TYPES
from lichen.compression.calibration import CHUNK, chunks
from lichen.compression.corpus import Corpus
from lichen.compression.metadata import ARRAY, F32, MetaValue
from lichen.compression.model_file import LazyTensor, ModelFile, open_model, write_model
from lichen.core.errors import ConfigError
from lichen.engines.llama_cpp.native.activations import Activations, measure_activations
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer

Floats = npt.NDArray[np.float32]

TOKENS: Final = 24_576
"""Read by default: 48 pieces. Rankings settle early; more costs a prefill of each token."""
_SUMS, _COUNTS = ".in_sum2", ".counts"
_DATASETS: Final = "imatrix.datasets"
_CHUNK_COUNT: Final = "imatrix.chunk_count"
_CHUNK_SIZE: Final = "imatrix.chunk_size"
_INFLUENCE: Final = "lichen.block_influence"
_TEXTS: Final = "lichen.texts_sha256"
_METHOD: Final = "1"
"""Version of how importance is measured; part of the cache's key."""


@dataclass(frozen=True)
class Importance:
    """What a model's insides did while it read some texts.

    Args:
        sums: matrix name -> sum of squares per input channel, (row width,), >= 0.
        rows: matrix name -> positions summed, > 0.
        influence: 1 - mean cosine between a layer's input and output, layer by layer, 0..2; () if
            unknown.
        datasets: what was read, for people.
        texts_sha256: hash of the token chunks read, "" if unknown.
        chunk_count, chunk_size: how many pieces, and tokens of the longest.
    """

    sums: Mapping[str, Floats]
    rows: Mapping[str, float]
    influence: tuple[float, ...] = ()
    datasets: tuple[str, ...] = ()
    texts_sha256: str = ""
    chunk_count: int = 0
    chunk_size: int = CHUNK

    @cached_property
    def weights(self) -> Mapping[str, Floats]:
        """Matrix name -> mean square of each input channel, (row width,)."""
        return {n: (s / self.rows[n]).astype(np.float32) for n, s in self.sums.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """How to measure importance.

    Args:
        tokens: how many to read, >= 1.
        chat: whether every second piece is a conversation (see ``calibration.chunks``).
        threads: to compute with; None for one per available CPU.
        progress: hears (tokens read, tokens in all).
    """

    tokens: int = TOKENS
    chat: bool = True
    threads: int | None = None
    progress: Callable[[int, int], None] = field(default=lambda _done, _all: None)


def measure_importance(
    model: Path, corpus: Corpus, how: Measuring | None = None, *, cache: Path | None = None
) -> Importance:
    """Measure on the corpus's calibration part; with a ``cache`` folder, at most once.

    Raises:
        ConfigError: no such file, or no text to read.
        EngineError: the engine cannot run the model or is of an unknown version.
    """
    how = how or Measuring()
    tokenizer = NativeTokenizer(model, special=True)
    try:
        pieces = list(chunks(corpus.calibration, tokenizer, tokens=how.tokens, chat=how.chat))
    finally:
        tokenizer.close()
    texts = _hash_of(pieces)
    kept = cache / f"importance-{_key(model, texts)}.gguf" if cache is not None else None
    if kept is not None and kept.is_file():
        return read_importance(kept)
    total = sum(map(len, pieces))
    seen = measure_activations(
        model,
        pieces,
        context=CHUNK,
        threads=how.threads,
        progress=lambda done: how.progress(done, total),
    )
    found = _importance_of(seen, pieces, texts)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_importance(found, kept)
    return found


def write_importance(importance: Importance, path: Path) -> str:
    """Write llama.cpp's importance matrix file; return its SHA-256. Same values, same bytes.

    Raises:
        ConfigError: the file cannot be written.
    """
    metadata = {
        "general.type": MetaValue.text("imatrix"),
        _DATASETS: MetaValue.texts(importance.datasets),
        _CHUNK_COUNT: MetaValue.count(importance.chunk_count),
        _CHUNK_SIZE: MetaValue.count(importance.chunk_size),
        _TEXTS: MetaValue.text(importance.texts_sha256),
        _INFLUENCE: MetaValue(ARRAY, F32, list(importance.influence)),
    }
    tensors: list[LazyTensor] = []
    for name in sorted(importance.sums):
        sums = np.asarray(importance.sums[name], np.float32)
        counts = np.array([importance.rows[name]], np.float32)
        tensors += [_stored(name + _SUMS, sums), _stored(name + _COUNTS, counts)]
    return write_model(ModelFile(metadata, tuple(tensors)), path)


def read_importance(path: Path) -> Importance:
    """Read an importance matrix written by lichen or by llama.cpp (GGUF layout).

    Matrices of several experts get the mean over all their rows; those never used are left out.

    Raises:
        ConfigError: not such a file, or values that cannot be sums of squares.
        IntegrityError: a damaged file.
    """
    model = open_model(path)
    if not any(t.name.endswith(_SUMS) for t in model.tensors):
        raise ConfigError(
            f"{str(path)!r} is no importance matrix in GGUF layout: make one with lichen, or "
            "convert an older one with llama.cpp's tools"
        )
    sums: dict[str, Floats] = {}
    rows: dict[str, float] = {}
    for tensor in model.tensors:
        name = tensor.name.removesuffix(_SUMS)
        if name == tensor.name:
            continue
        total = tensor.floats(0, tensor.rows).sum(axis=0, dtype=np.float64).astype(np.float32)
        count = float(model.tensor(name + _COUNTS).floats(0, tensor.rows).sum())
        if not (np.isfinite(total).all() and (total >= 0).all() and np.isfinite(count)):
            raise ConfigError(f"{str(path)!r} has values for {name!r} that are no sums of squares")
        if count > 0:
            sums[name], rows[name] = total, count
    return Importance(
        sums,
        rows,
        influence=_floats(model.value(_INFLUENCE)),
        datasets=tuple(str(d) for d in _list(model.value(_DATASETS))),
        texts_sha256=str(model.value(_TEXTS, "")),
        chunk_count=_whole(model.value(_CHUNK_COUNT)),
        chunk_size=_whole(model.value(_CHUNK_SIZE)),
    )


def _importance_of(seen: Activations, pieces: Sequence[Sequence[int]], texts: str) -> Importance:
    return Importance(
        {name: sums.astype(np.float32) for name, sums in seen.sums.items()},
        {name: float(rows) for name, rows in seen.rows.items()},
        influence=tuple(float(np.float32(1.0 - c)) for c in seen.cosine),
        datasets=(f"{len(pieces)} pieces of code and conversations, {seen.tokens} tokens",),
        texts_sha256=texts,
        chunk_count=len(pieces),
        chunk_size=max(map(len, pieces)),
    )


def _stored(name: str, values: Floats) -> LazyTensor:
    raw = values.view(np.uint8).reshape(1, -1)
    return LazyTensor(
        name=name,
        shape=(len(values), 1),
        type=TENSOR_TYPES[0],  # F32
        read=lambda start, stop: raw[start:stop],
    )


def _hash_of(pieces: Sequence[Sequence[int]]) -> str:
    digest = hashlib.sha256(_METHOD.encode())
    for piece in pieces:
        digest.update(len(piece).to_bytes(4, "little"))
        digest.update(np.asarray(piece, np.int32).tobytes())
    return digest.hexdigest()


def _key(model: Path, texts: str) -> str:
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(texts.encode())
    return digest.hexdigest()[:16]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _floats(value: object) -> tuple[float, ...]:
    found = tuple(v for v in _list(value) if isinstance(v, float))
    return found if np.isfinite(found).all() else ()


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
