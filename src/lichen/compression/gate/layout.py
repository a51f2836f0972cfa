"""Are the tensors of a child those that its metadata promises, in the parent's shapes?

What compression may change: the number of layers, the width of feed-forward layers, the number of
rows of embedding and output, whether there is an output matrix at all, and storage types. All else
must be the parent's.
"""

from __future__ import annotations

from typing import Final

from lichen.compression.gate.findings import Findings
from lichen.compression.gate.stored import EMBEDDING, OUTPUT, TOKENS, by_layer, texts, whole
from lichen.compression.model_file import LazyTensor, ModelFile

_MAY_CHANGE: Final = ("block_count", "feed_forward_length", "vocab_size")
"""Keys under the architecture's name that a method may set."""

_FEED_FORWARD: Final = {
    "ffn_gate.weight": 1,
    "ffn_up.weight": 1,
    "ffn_down.weight": 0,
    "ffn_gate.bias": 0,
    "ffn_up.bias": 0,
}
"""Tensor -> which of its dimensions is the feed-forward width."""


def check_layout(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    """Add what is wrong with the child's tensors and architecture numbers."""
    if child.architecture != parent.architecture:
        findings.add(
            "architecture",
            f"the architecture is {child.architecture!r}, the parent's {parent.architecture!r}",
        )
        return
    _layers(parent, child, findings)
    _globals(parent, child, findings)
    _shapes(parent, child, findings)
    _architecture_numbers(parent, child, findings)


def _layers(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    count = whole(child, f"{child.architecture}.block_count")
    layers, expected = by_layer(child), by_layer(parent)
    if count != len(layers) or sorted(layers) != list(range(len(layers))):
        missing = sorted(set(range(count or 0)) - set(layers))
        which = f", layer {missing[0]} has no tensors" if missing else ""
        findings.add(
            "layers", f"block_count is {count} but {len(layers)} layers have tensors{which}"
        )
    if len(layers) > len(expected):
        findings.add("more layers", f"{len(layers)} layers, more than {len(expected)} before")
    known = {frozenset(names) for names in expected.values()}
    for number, names in sorted(layers.items()):
        if frozenset(names) not in known:
            nearest = min(known, key=lambda k: len(k ^ names.keys()), default=frozenset())
            lacking = sorted(nearest - names.keys())
            what = f"lacks {lacking[0]!r}" if lacking else "has tensors that no layer had before"
            findings.add("layer tensors", f"layer {number} {what}")


def _globals(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    before, after = (
        {t.name for t in m.tensors} - {n for layer in by_layer(m).values() for n in layer.values()}
        for m in (parent, child)
    )
    for name in sorted(before - after - {OUTPUT}):
        findings.add("lost tensor", f"the tensor {name!r} is gone")
    for name in sorted(after - before):
        findings.add("new tensor", f"the tensor {name!r} was not there before")


def _shapes(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    expected: dict[str, list[LazyTensor]] = {}
    for names in by_layer(parent).values():
        for inner, name in names.items():
            expected.setdefault(inner, []).append(parent.tensor(name))
    for number, names in by_layer(child).items():
        for inner, name in names.items():
            tensor = child.tensor(name)
            shapes = {t.shape for t in expected.get(inner, [])}
            if shapes and tensor.shape not in shapes | _narrowed(shapes, inner, child, number):
                findings.add("shape", f"{name!r} has the shape {tensor.shape}")
    vocabulary = len(texts(child, TOKENS))
    for tensor in child.tensors:
        if not parent.has(tensor.name) or tensor.name.startswith("blk."):
            continue
        shape = parent.tensor(tensor.name).shape
        if tensor.name in {EMBEDDING, OUTPUT} and len(shape) == 2 and vocabulary:  # noqa: PLR2004 (a matrix)
            shape = (shape[0], vocabulary + _padding(parent))
        if tensor.shape != shape:
            findings.add("shape", f"{tensor.name!r} has the shape {tensor.shape}, not {shape}")


def _padding(model: ModelFile) -> int:
    """Rows of the embedding beyond the tokens: none in a file that llama.cpp can load."""
    tokens = len(texts(model, TOKENS))
    rows = model.tensor(EMBEDDING).rows if model.has(EMBEDDING) else tokens
    return rows - tokens if tokens else 0


def _narrowed(
    shapes: set[tuple[int, ...]], inner: str, child: ModelFile, number: int
) -> set[tuple[int, ...]]:
    """Return the shapes with the feed-forward width that the child states for the layer."""
    place, value = (
        _FEED_FORWARD.get(inner),
        child.value(f"{child.architecture}.feed_forward_length"),
    )
    if isinstance(value, list | tuple):
        value = value[number] if number < len(value) else None
    if place is None or type(value) is not int:
        return set()
    return {(*s[:place], value, *s[place + 1 :]) for s in shapes if place < len(s)}


def _architecture_numbers(parent: ModelFile, child: ModelFile, findings: Findings) -> None:
    prefix = f"{parent.architecture}."
    before, after = (whole(m, f"{prefix}block_count") for m in (parent, child))
    for key, value in parent.metadata.items():
        if not key.startswith(prefix):
            continue
        now, name = child.value(key), key.removeprefix(prefix)
        per_layer = isinstance(value.value, list | tuple) and len(value.value) == before
        if now is None:
            findings.add("metadata", f"{key!r} is gone")
        elif per_layer or name == "feed_forward_length":
            if isinstance(now, list | tuple) and len(now) != after:
                findings.add("metadata", f"{key!r} has {len(now)} values for {after} layers")
        elif name not in _MAY_CHANGE and now != value.value:
            findings.add("metadata", f"{key!r} changed from {value.value!r} to {now!r}")
