"""Run requests on any server that speaks the OpenAI API (vLLM, llama.cpp, Ollama, a cloud).

The server's own cost is not visible from here: the engine lacks the capability ``in_process``, so
CPU time and energy of a remote model are never claimed from this machine's counters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from lichen.core.model import ModelArtifact
from lichen.engines.openai_http.engine import OpenAIHttpEngine
from lichen.engines.openai_http.options import OpenAIHttpOptions
from lichen.engines.options import read_options

__all__ = ["OpenAIHttpEngine", "OpenAIHttpOptions", "open_engine"]


def open_engine(
    model: ModelArtifact | None,  # noqa: ARG001 (the factory's shape; the server has the model)
    options: Mapping[str, object],
    environ: Mapping[str, str] = os.environ,
) -> OpenAIHttpEngine:
    """Return an engine for the server that ``options`` name; nothing is sent yet.

    Raises:
        ConfigError: an option that cannot be used (see ``OpenAIHttpOptions``), or an environment
            variable for the key that is not set.
    """
    settings = read_options(OpenAIHttpOptions, options, who="engine openai_http")
    return OpenAIHttpEngine(settings, settings.key(environ))
