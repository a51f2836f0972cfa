"""Run GGUF models in this process with llama.cpp (through ``xllamacpp``, extra ``[llama]``).

Continuous batching over slots, streaming with per-sequence cancel, log-probabilities, LoRA,
key/value cache types, speculative decoding, embeddings. llama.cpp also opens an HTTP port on
127.0.0.1 that cannot be switched off; it is closed to others with a random key (see ``loopback``).
"""

from __future__ import annotations

from collections.abc import Mapping

from lichen.core.errors import ConfigError
from lichen.core.model import ModelArtifact
from lichen.engines.llama_cpp.engine import LlamaCppEngine
from lichen.engines.llama_cpp.options import LlamaCppOptions
from lichen.engines.options import read_options

__all__ = ["LlamaCppEngine", "LlamaCppOptions", "open_engine"]


def open_engine(model: ModelArtifact | None, options: Mapping[str, object]) -> LlamaCppEngine:
    """Load ``model`` (a GGUF file) and return the running engine.

    Raises:
        ConfigError: no model, or an option that cannot be used (see ``LlamaCppOptions``).
        MissingDependencyError: xllamacpp is not installed.
        EngineError: llama.cpp cannot load the file.
    """
    if model is None:
        raise ConfigError("engine llama_cpp needs a model: a GGUF file, by name or by path")
    settings = read_options(LlamaCppOptions, options, who="engine llama_cpp")
    return LlamaCppEngine(model, settings)
