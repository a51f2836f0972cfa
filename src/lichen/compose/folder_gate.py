"""The gate's ports for model folders in hub layout, which transformers runs: what GPU tools write.

Next-token agreement and the tokenizer are asked of the engine ``transformers``; memory must hold
both models. The benchmark runs GGUF files, so quality, answers and rewrites cannot be had here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.compression.agreement import Comparing, Shared, compare, summarise
from lichen.compression.alignment import Aligned
from lichen.compression.calibration import CHUNK, code_of, passage
from lichen.compression.corpus import Document
from lichen.compression.gate.ports import AgreementValue, GatePorts
from lichen.core.errors import ConfigError
from lichen.core.measurement import Missing
from lichen.core.model import ModelArtifact
from lichen.engines.transformers import TransformersEngine, open_engine

_FEWEST: Final = 2
_NO_TASK: Final = Missing(reason="the benchmark runs GGUF files, and this is a model folder")


def folder_ports(
    options: Mapping[str, object],
    *,
    held_out: Sequence[Document],
    comparing: Comparing | None = None,
) -> GatePorts:
    """Return the ports.

    Args:
        options: of the engine transformers, e.g. ``{"device": "cuda"}``.
        held_out: texts that the compression has not seen.
        comparing: on how much of them next tokens are compared.
    """
    how = comparing or Comparing()

    def agreement(parent: Path, child: Path) -> AgreementValue:
        first = _open(parent, options)
        try:
            second = _open(child, options)
            try:
                return _agreement(first, second, held_out, how)
            finally:
                second.close()
        finally:
            first.close()

    return GatePorts(
        held_out=tuple(held_out),
        tokenizer=lambda path: _Tokens(_open(path, options)),
        agreement=agreement,
        task=_NO_TASK,
        flips=_NO_TASK,
        cost=_NO_TASK,
    )


def _agreement(
    parent: TransformersEngine,
    child: TransformersEngine,
    documents: Sequence[Document],
    how: Comparing,
) -> AgreementValue:
    found, read = [], 0
    for document in code_of(documents):
        if how.tokens - read < _FEWEST:
            break
        ids = parent.tokenize(passage(document.text))[: min(CHUNK, how.tokens - read)]
        if len(ids) >= _FEWEST:
            every = np.arange(len(ids))
            text = Aligned(ids, ids, every, every)  # the structure check saw one tokenizer
            found.append(compare(text, _Logits(parent), _Logits(child), Shared(None)))
            read += len(ids)
            how.progress(read, how.tokens)
    if not found:
        raise ConfigError("there is no held-out text to compare models on: give a larger corpus")
    return summarise(found)


@dataclass(frozen=True)
class _Logits:
    engine: TransformersEngine

    def blocks(self, tokens: Sequence[int]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all positions at once."""
        yield self.engine.logits(tokens)


@dataclass(frozen=True)
class _Tokens:
    engine: TransformersEngine

    def encode(self, text: str) -> list[int]:
        """Return token ids."""
        return self.engine.tokenize(text)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of whole characters."""
        return self.engine.detokenize(ids).encode()


def _open(path: Path, options: Mapping[str, object]) -> TransformersEngine:
    model = ModelArtifact(
        name=path.name, path=str(path), format="safetensors-folder", sha256="", size_bytes=0
    )
    return open_engine(model, options)
