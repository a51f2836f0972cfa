"""What a model is, where it came from, and what one token costs in FLOP and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lichen.core.measurement import Measurement, Usage
from lichen.core.value import Value


class RefKind(StrEnum):
    """How a model or data set was named."""

    NAME = "name"
    PATH = "path"
    HUB = "hub"
    URL = "url"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """A model as the user wrote it: short name, path, ``hf:owner/repo/file[@revision]`` or URL."""

    text: str
    kind: RefKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape(Value):
    """The architecture numbers that computation and traffic follow from.

    Args:
        architecture: e.g. ``"qwen2"``.
        parameters: all weights.
        active_parameters: weights used per token without the input embedding (a lookup, not a
            multiplication) but with the output matrix; fewer than all for mixtures of experts.
        layers, embedding, heads, kv_heads, head_dim, feed_forward, vocabulary, context: as in the
            model's metadata.
        weight_bytes: bytes of weights read to decode one token (the input embedding is read by
            row, so it counts once only if it is also the output matrix).
    """

    architecture: str
    parameters: int
    active_parameters: int
    layers: int
    embedding: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    context: int
    weight_bytes: int

    def flop(self, usage: Usage) -> float:
        """Estimate the floating-point operations of one request, in FLOP.

        Two per active weight and token (Kaplan et al. 2020, arXiv 2001.08361, section 2.1), plus
        attention: ``4 * layers * heads * head_dim`` per token and position attended to, summed
        over the causal triangle. Prompt tokens served from a cache cost nothing.
        """
        new = usage.prefilled + usage.completion
        end = usage.prompt + usage.completion
        attended = end * (end + 1) / 2 - usage.cached * (usage.cached + 1) / 2
        attention = 4.0 * self.layers * self.heads * self.head_dim * attended
        return 2.0 * self.active_parameters * new + attention

    def kv_bytes_per_token(self, element_bytes: float = 2.0) -> float:
        """Return bytes of keys and values that one position adds (2 bytes an element is f16)."""
        return 2.0 * self.layers * self.kv_heads * self.head_dim * element_bytes

    def bytes_moved(
        self, usage: Usage, *, mean_batch: float = 1.0, kv_element_bytes: float = 2.0
    ) -> float:
        """Estimate the bytes read from memory for one request.

        Weights are read once per decoded token, shared by the ``mean_batch`` sequences decoded
        together, and once for the prefill; keys and values of all earlier positions are read once
        per decoded token. Cache hierarchy and activations are ignored: this is traffic the
        algorithm needs, not traffic a counter saw.
        """
        weights = self.weight_bytes * (usage.completion / max(mean_batch, 1.0) + 1.0)
        positions = usage.completion * (usage.prompt + usage.completion / 2.0)
        return weights + positions * self.kv_bytes_per_token(kv_element_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArtifact(Value):
    """A model file on this machine: what it is, what it came from, what making it cost.

    ``lineage`` lists ancestors' SHA-256, nearest first; ``recipe`` is the text that made it from
    them ("" for an original); ``cost`` is what running the recipe measured, None for an original.
    """

    name: str
    path: str
    format: str
    sha256: str
    size_bytes: int
    shape: ModelShape | None = None
    licence: str = "unknown"
    lineage: tuple[str, ...] = ()
    recipe: str = ""
    cost: Measurement | None = None
