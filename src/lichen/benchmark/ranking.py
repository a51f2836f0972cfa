"""Answer search requests with an engine that ranks or embeds: the ranking, as text.

``RankingEngine`` is an engine around an engine. A raw prompt is the query; the completion's text
is up to 100 document ids, best first, one a line. An embedder's documents are ordered by cosine
similarity, ties in the documents' order. Documents are embedded inside the first ``generate`` call
that has a real query, so that the meter's window of that call holds the cost; what it was is the
first completion's ledger entry ``index``. A warm-up request is answered from one document.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from lichen.core.errors import CapabilityError, EngineError
from lichen.core.generation import Capability, Completion, Delta, Finish, Request, Step, Timings
from lichen.core.measurement import Usage
from lichen.core.ports import Embedder, Engine, Ranker, Tokenizer

MAX_RANKED: Final = 100
WARM_UP_ID: Final = "warm-up"
"""Id of the request that a run makes before anything is measured."""


class RankingEngine:
    """Ranks ``documents`` for each raw request by means of ``inner``.

    Args:
        inner: an engine with the capability ``rank`` or ``embed``; it is closed with this one.
        ids, documents: the same length, in the order that breaks ties.
        clock: monotonic seconds.

    Raises:
        CapabilityError: the engine can neither rank nor embed.
    """

    def __init__(
        self,
        inner: Engine,
        *,
        ids: Sequence[str],
        documents: Sequence[str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._inner = inner
        self._ids = tuple(ids)
        self._documents = tuple(documents)
        self._clock = clock
        self._vectors: list[list[float]] | None = None
        self._ranker = _as_ranker(inner)
        self._embedder = None if self._ranker else _as_embedder(inner)
        if self._ranker is None and self._embedder is None:
            raise CapabilityError(
                f"search needs an engine that can rank or embed, which {inner.name!r} cannot: "
                f"use the engine bm25, or open a model with embeddings"
            )

    @property
    def name(self) -> str:
        """The inner engine's name."""
        return self._inner.name

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The inner engine's, and raw prompts, which are queries."""
        return self._inner.capabilities | {Capability.RAW}

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Rank for every request; they are served as one batch, in order."""
        batch = list(requests)
        start = self._clock()
        queries = [r.prompt or "" for r in batch]
        ledger: tuple[Step, ...] = ()
        if [r.id for r in batch] == [WARM_UP_ID]:
            rankings = self._rank(queries, self._documents[:1], None)
        else:
            if self._embedder is not None and self._vectors is None:
                self._vectors = self._embedder.embed(self._documents)
                ledger = (self._index_step(),)
            rankings = self._rank(queries, self._documents, self._vectors)
        timings = Timings(total_s=self._clock() - start)
        for request, ranking in zip(batch, rankings, strict=True):
            text = "\n".join(self._ids[i] for i in ranking[:MAX_RANKED])
            if request.stream:
                yield Delta(id=request.id, text=text)
            yield Completion(
                id=request.id,
                text=text,
                usage=self._usage([request.prompt or ""]),
                finish=Finish.STOP,
                timings=timings,
                ledger=ledger,
            )
            ledger = ()

    def close(self) -> None:
        """Close the inner engine and forget the vectors."""
        self._vectors = None
        self._inner.close()

    def _rank(
        self,
        queries: list[str],
        documents: Sequence[str],
        vectors: list[list[float]] | None,
    ) -> list[list[int]]:
        if self._ranker is not None:
            return self._ranker.rank(queries, documents)
        embedder = self._embedder
        if embedder is None:  # the constructor saw to it
            raise CapabilityError(f"{self.name} can neither rank nor embed")
        known = embedder.embed(documents) if vectors is None else vectors
        return by_cosine(embedder.embed(queries), known)

    def _index_step(self) -> Step:
        usage = self._usage(self._documents)
        detail = f"embedded {len(self._documents)} documents once"
        return Step(actor="search", action="index", usage=usage, detail=detail)

    def _usage(self, texts: Sequence[str]) -> Usage:
        """Count the tokens an embedder reads, where the engine can; a ranker reads none."""
        inner = self._inner
        if self._ranker is not None or not isinstance(inner, Tokenizer):
            return Usage()
        if Capability.TOKENIZE not in inner.capabilities:
            return Usage()
        return Usage(prompt=sum(len(inner.tokenize(t)) for t in texts))


def by_cosine(queries: list[list[float]], documents: list[list[float]]) -> list[list[int]]:
    """Return, per query, document indices by falling cosine similarity; ties keep their order.

    Raises:
        EngineError: vectors differ in length or hold something that is not a finite number.
    """
    import numpy as np

    lengths = {len(v) for v in (*queries, *documents)}
    if len(lengths) > 1 or not all(math.isfinite(x) for v in (*queries, *documents) for x in v):
        raise EngineError("the embedder's vectors must be finite and of one length")

    def unit(vectors: list[list[float]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        matrix = np.array(vectors, dtype=np.float64).reshape(len(vectors), -1)
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        return matrix / np.where(norms > 0, norms, 1.0)

    scores = unit(queries) @ unit(documents).T
    return [[int(i) for i in np.argsort(-row, kind="stable")] for row in scores]


def _as_ranker(engine: Engine) -> Ranker | None:
    able = Capability.RANK in engine.capabilities
    return engine if able and isinstance(engine, Ranker) else None


def _as_embedder(engine: Engine) -> Embedder | None:
    able = Capability.EMBED in engine.capabilities
    return engine if able and isinstance(engine, Embedder) else None
