"""Compression by other tools, for users with a GPU stack: each runs in its own Python environment.

These tools pin versions of torch and transformers that rarely fit each other, so nothing of them is
imported here: an adapter writes an order as JSON, starts the environment's Python with a small
driver script, and reads the driver's answer. Input and output are model folders in hub layout;
outputs go through the same gate as any child, as far as a folder can (``gate``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lichen.compression.adapters.external_tool import Adapter
from lichen.core.registry import Registry

AdapterFactory = Callable[[Mapping[str, object]], Adapter]

ADAPTERS: Registry[AdapterFactory] = Registry(
    "compression tool",
    "lichen.compression_tools",
    {
        "gptqmodel": "lichen.compression.adapters.gptqmodel:make",
        "llm_compressor": "lichen.compression.adapters.llm_compressor:make",
    },
)
"""Tool name -> factory ``make(options)``; options are validated by the adapter."""
