"""PILLAR 4: the same answers for a fraction of the energy.

A *strategy* is an engine that holds an engine. It may change the engine's options before the model
is loaded, wrap the engine afterwards, and says what it needs. ``strategy`` has the port and the
rules of composition · ``strategies`` one file each · ``accelerate`` finds out which of them pay
here, on this task, and proves it.

Every strategy writes what it did for a request, and what that cost, into the completion's ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lichen.acceleration.strategy import Strategy, StrategyContext
from lichen.core.registry import Registry

StrategyFactory = Callable[[Mapping[str, object], StrategyContext], Strategy]

STRATEGIES: Registry[StrategyFactory] = Registry(
    "strategy",
    "lichen.strategies",
    {
        "answer_cache": "lichen.acceleration.strategies.answer_cache:make",
        "answer_prefix": "lichen.acceleration.strategies.answer_prefix:make",
        "backtrack": "lichen.acceleration.strategies.backtrack:make",
        "cascade": "lichen.acceleration.strategies.cascade:make",
        "concurrency": "lichen.acceleration.strategies.concurrency:make",
        "early_exit": "lichen.acceleration.strategies.early_exit:make",
        "kv_cache_type": "lichen.acceleration.strategies.kv_cache_type:make",
        "prefix_cache": "lichen.acceleration.strategies.prefix_cache:make",
        "speculation": "lichen.acceleration.strategies.speculation:make",
        "stop_when_complete": "lichen.acceleration.strategies.stop_when_complete:make",
        "stop_when_passing": "lichen.acceleration.strategies.stop_when_passing:make",
    },
)
"""Strategy name -> factory ``make(options, context)``; options are validated by the strategy."""
