"""Run a model: one file per adapter, all behind ``lichen.core.ports.Engine``.

An adapter module exports ``open_engine(model, options) -> Engine``: ``model`` is a
``ModelArtifact`` or None for engines without one, ``options`` a mapping of plain values that the
adapter validates (an unknown option is a ``ConfigError`` with a suggestion). Adapters translate;
policy (retries over engines, caching, cascades) lives in strategies that wrap them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lichen.core.model import ModelArtifact
from lichen.core.ports import Engine
from lichen.core.registry import Registry

EngineFactory = Callable[[ModelArtifact | None, Mapping[str, object]], Engine]

ENGINES: Registry[EngineFactory] = Registry(
    "engine",
    "lichen.engines",
    {
        "bm25": "lichen.engines.bm25:open_engine",
        "ik_llama_cpp": "lichen.engines.ik_llama_cpp:open_engine",
        "llama_cpp": "lichen.engines.llama_cpp:open_engine",
        "openai_http": "lichen.engines.openai_http:open_engine",
        "transformers": "lichen.engines.transformers:open_engine",
    },
)
"""Engine name -> factory."""
