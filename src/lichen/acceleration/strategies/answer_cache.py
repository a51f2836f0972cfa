"""Answer what was answered before: the same request, its continuation, or (if asked) a near one.

*Exact*: everything that can change the answer is equal (``lichen.acceleration.answer_keys``).
*Prefix*: in raw prompts and fill-in-the-middle, the user has typed the next characters of a stored
completion; the rest of it is the answer. *Semantic*, off by default: a single-turn question that
differs in its wording only (``similarity``), where the error learned for that stored answer stays
within the user's bound (``error_bound``, after vCache, arXiv 2502.03771).

Users never see each other's answers. A hit has no usage: not one token was processed; what it
saved is in the ledger.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from lichen.acceleration.answer_store import AnswerStore
from lichen.acceleration.answering import NAME, AnswerCacheEngine, CacheSettings
from lichen.acceleration.strategy import Layer, StrategyContext
from lichen.core.generation import Capability
from lichen.core.ports import Engine
from lichen.engines.options import read_options

SIMILARITIES: Final = ("lexical", "embedding")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCacheOptions:
    """What can be set.

    Args:
        model: identity of the model that answers: its hash, or a name that changes with it.
        adapter: identity of an adapter on top, "" for none.
        typed: characters that a user may have typed of a stored completion; 0 turns this off.
        semantic: answer near questions as well.
        error_bound: probability of a wrong answer that a semantic hit may have, in (0, 1).
        similarity: of wording: ``lexical``, or ``embedding`` by the wrapped engine.
        sampled: cache sampled requests too, by their seed.
        keep_cut: keep answers that were cut at the token limit; for editors, whose completions are
            cut as a rule. They are given only to requests with the same limit.
        max_entries, max_bytes: bounds of the file.
    """

    model: str
    adapter: str = ""
    typed: int = 64
    semantic: bool = False
    error_bound: float = 0.02
    similarity: str = "lexical"
    sampled: bool = False
    keep_cut: bool = False
    max_entries: int = 10_000
    max_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if not self.model:
            raise ValueError("model must name what answers (a hash, say), so that no other answers")
        if self.similarity not in SIMILARITIES:
            msg = f"similarity must be one of {', '.join(SIMILARITIES)}, got {self.similarity!r}"
            raise ValueError(msg)
        if not 0 < self.error_bound < 1:
            msg = f"error_bound is a probability above 0 and below 1, got {self.error_bound}"
            raise ValueError(msg)
        if not 0 <= self.typed <= 500 or min(self.max_entries, self.max_bytes) < 1:  # noqa: PLR2004 (one query's keys)
            raise ValueError("typed must be 0 to 500, max_entries and max_bytes at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCache:
    """The strategy; see the module. ``now`` gives seconds since 1970."""

    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.CACHE
    needs: ClassVar[frozenset[Capability]] = frozenset()
    options: AnswerCacheOptions
    context: StrategyContext
    now: Callable[[], float] = time.time

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return the engine's options as they are."""
        return dict(options)

    def wrap(self, engine: Engine) -> AnswerCacheEngine:
        """Return an engine that looks for an answer first.

        Raises:
            StoreError: the file cannot be kept where the context says.
        """
        store = AnswerStore(
            self.context.data_dir,
            max_entries=self.options.max_entries,
            max_bytes=self.options.max_bytes,
            now=self.now,
        )
        chosen = self.options
        settings = CacheSettings(
            scope=json.dumps([chosen.model, chosen.adapter]),
            now=self.now,
            cpu_s=self.context.cpu_s,
            clock=self.context.clock,
            typed=chosen.typed,
            semantic=chosen.semantic,
            error_bound=chosen.error_bound,
            embedding=chosen.similarity == "embedding",
            sampled=chosen.sampled,
            keep_cut=chosen.keep_cut,
        )
        return AnswerCacheEngine(engine, store, settings)


def make(options: Mapping[str, object], context: StrategyContext) -> AnswerCache:
    """Build the strategy; for ``options`` see ``AnswerCacheOptions``.

    Raises:
        ConfigError: an option that is unknown, lacking, out of range or of the wrong kind.
    """
    read = read_options(AnswerCacheOptions, options, who=f"the strategy {NAME}")
    return AnswerCache(options=read, context=context)
