"""BM25: ranks documents by words, with no model at all. The baseline of every search.

Scores are Lucene's variant of Okapi BM25 (Robertson and Zaragoza 2009, "The Probabilistic
Relevance Framework", equation 3.15; Kamphuis et al. 2020 for the variant), computed by bm25s
(Lù 2024, arXiv 2407.03618). Identifiers are split at underscores and case changes. It generates no
text: a request comes back as an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from lichen.core.errors import ConfigError, MissingDependencyError
from lichen.core.generation import Capability, Completion, Delta, Finish, Request, Timings
from lichen.core.measurement import Usage
from lichen.core.model import ModelArtifact
from lichen.core.registry import unknown

DEFAULTS: Final[Mapping[str, float]] = {"k1": 1.2, "b": 0.75}
"""Lucene's defaults (BM25Similarity): saturation of term frequency, weight of length."""

_LIMITS: Final[Mapping[str, float]] = {"k1": 10.0, "b": 1.0}

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_IDENTIFIER: Final = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Split text and code into lower-case words: ``readHTTPHeader_v2`` -> read http header v 2.

    An identifier of several words is also kept whole, so that an exact mention counts more.
    """
    found: list[str] = []
    for identifier in _IDENTIFIER.findall(text):
        parts = [p.lower() for p in _WORD.findall(identifier)]
        found.extend(parts)
        if len(parts) > 1:
            found.append(identifier.lower())
    return found


class Bm25:
    """An engine that ranks and does nothing else."""

    def __init__(self, *, k1: float, b: float) -> None:
        self._k1, self._b = k1, b
        self._indexed: tuple[str, ...] = ()
        self._index: Any = None

    @property
    def name(self) -> str:
        """``bm25``."""
        return "bm25"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Ranking, in this process."""
        return frozenset({Capability.RANK, Capability.IN_PROCESS})

    def rank(self, queries: Sequence[str], documents: Sequence[str]) -> list[list[int]]:
        """Return, per query, all document indices from best to worst; ties keep their order.

        The index of the last documents is kept, so that batches over one corpus build it once.
        """
        texts = tuple(documents)
        if not texts:
            return [[] for _ in queries]
        if self._index is None or texts != self._indexed:
            self._index, self._indexed = self._build(texts), texts
        return [self._order(words(query)) for query in queries]

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Answer each request with an error, since there is no model."""
        for request in requests:
            yield Completion(
                id=request.id,
                text="",
                usage=Usage(),
                finish=Finish.ERROR,
                timings=Timings(total_s=0.0),
                error="bm25 ranks documents; it cannot generate text",
            )

    def close(self) -> None:
        """Forget the index."""
        self._index, self._indexed = None, ()

    def _build(self, texts: tuple[str, ...]) -> Any:
        try:
            import bm25s
        except ImportError as exc:
            raise MissingDependencyError.for_extra("bm25s", "tasks", "the engine bm25") from exc
        tokens = [words(text) for text in texts]
        if not any(tokens):
            return False  # nothing to match: every document is as good as the next
        index = bm25s.BM25(method="lucene", k1=self._k1, b=self._b)
        index.index(tokens, show_progress=False)
        return index

    def _order(self, query: list[str]) -> list[int]:
        import numpy as np

        known = [w for w in query if self._index and w in self._index.vocab_dict]
        if not known:
            return list(range(len(self._indexed)))
        scores = self._index.get_scores(known)
        return [int(i) for i in np.argsort(-scores, kind="stable")]


def open_engine(model: ModelArtifact | None, options: Mapping[str, object]) -> Bm25:
    """Open BM25; options are ``k1`` (0..10) and ``b`` (0..1).

    Raises:
        ConfigError: a model is given, or an option is unknown or out of range.
    """
    if model is not None:
        raise ConfigError(f"the engine bm25 runs no model, but {model.name!r} was given")
    chosen = dict(DEFAULTS)
    for name, value in options.items():
        if name not in DEFAULTS:
            raise ConfigError(unknown("option of the engine bm25", name, list(DEFAULTS)))
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"bm25's {name} must be a number, not {value!r}")
        if not 0 <= value <= _LIMITS[name]:  # NaN fails this, too
            raise ConfigError(f"bm25's {name} must be 0..{_LIMITS[name]:g}, not {value!r}")
        chosen[name] = float(value)
    return Bm25(k1=chosen["k1"], b=chosen["b"])
