"""The exact logits of every position of a text, from the engine that will run the model.

For comparing two models token by token. Streams: a vocabulary of 152 thousand entries takes 0.6 MB
a position, so logits come in blocks of at most ``BATCH`` positions and are never held together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from lichen.engines.llama_cpp.native.process import BATCH, NativeProcess, check_tokens

Floats = npt.NDArray[np.float32]


class NativeLogits:
    """A model loaded in a worker process; also a context manager.

    Args:
        path: a GGUF file.
        context: positions of the longest chunk.
        threads: threads to compute with; None for one per available CPU.

    Raises:
        ConfigError: no such file.
        EngineError: the model cannot be loaded.
    """

    def __init__(self, path: Path, *, context: int = 512, threads: int | None = None) -> None:
        self._process = NativeProcess("logits", path, context=context, threads=threads)
        self.context = context
        self.vocabulary = int(self._process.head["vocabulary"])
        self._pending = 0

    def blocks(self, tokens: Sequence[int]) -> Iterator[Floats]:
        """Yield the logits of one chunk, (n, vocabulary) each, n <= ``BATCH``, in order.

        Row i holds the logits of the token after ``tokens[i]``. The chunk starts an empty context.
        One chunk at a time: asking for the next one ends this one.

        Raises:
            ConfigError: no tokens, more than ``context``, or an id outside the vocabulary.
            EngineError: the engine failed.
        """
        ids = check_tokens(tokens, self.context, self.vocabulary)
        while self._pending:  # blocks of an earlier chunk that nobody took
            self._next()
        self._pending = -(-len(ids) // BATCH)
        self._process.send({}, [ids])
        while self._pending:
            yield self._next()

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Return the logits of one chunk, (n, vocabulary); raises as ``blocks`` does."""
        return np.concatenate(list(self.blocks(tokens)))

    def _next(self) -> Floats:
        self._pending -= 1
        return self._process.receive()[1][0]

    def close(self) -> None:
        """End the worker (idempotent)."""
        self._process.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the worker."""
        self.close()
