"""The methods, one file each; they never import each other."""

from __future__ import annotations

from lichen.compression.method import MethodFactory
from lichen.core.registry import Registry

METHODS: Registry[MethodFactory] = Registry(
    "compression method",
    "lichen.methods",
    {
        "drop_layers": "lichen.compression.methods.drop_layers:make",
        "kv_cache": "lichen.compression.methods.kv_cache:make",
        "mixed_precision": "lichen.compression.methods.mixed_precision:make",
        "narrow_ffn": "lichen.compression.methods.narrow_ffn:make",
        "requantise": "lichen.compression.methods.requantise:make",
        "retie": "lichen.compression.methods.retie:make",
        "trim_vocabulary": "lichen.compression.methods.trim_vocabulary:make",
    },
)
"""Method name -> factory ``make(options)``; options are validated by the method."""
