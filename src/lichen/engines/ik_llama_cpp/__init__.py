"""Run GGUF models in this process with ik_llama.cpp (``ik-llama-cpp-python``, extra ``[ik]``).

A fork of llama.cpp with faster matrix kernels on x86 processors, above all for reading prompts. It
reads the same files. Its library is driven here directly: continuous batching over slots, kept
prompts, streaming, log-probabilities. No HTTP port is opened.
"""

from __future__ import annotations

from collections.abc import Mapping

from lichen.core.errors import ConfigError
from lichen.core.model import ModelArtifact
from lichen.engines.ik_llama_cpp.engine import IkLlamaCppEngine
from lichen.engines.ik_llama_cpp.options import IkLlamaCppOptions
from lichen.engines.options import read_options

__all__ = ["IkLlamaCppEngine", "IkLlamaCppOptions", "open_engine"]


def open_engine(model: ModelArtifact | None, options: Mapping[str, object]) -> IkLlamaCppEngine:
    """Load ``model`` (a GGUF file) and return the running engine.

    Raises:
        ConfigError: no model, or an option that cannot be used (see ``IkLlamaCppOptions``).
        MissingDependencyError: ik-llama-cpp-python or jinja2 is not installed.
        EngineError: ik_llama.cpp cannot load the file.
    """
    if model is None:
        raise ConfigError("engine ik_llama_cpp needs a model: a GGUF file, by name or by path")
    settings = read_options(IkLlamaCppOptions, options, who="engine ik_llama_cpp")
    return IkLlamaCppEngine(model, settings)
