"""What changed between two model files, from their headers: tensors by role, metadata, origin.

Weights are not read: two tensors of one shape and type count as alike, whatever they hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from lichen.catalog.gguf import ArrayInfo, GgufHeader, Tensor, Value, read_array, read_header
from lichen.catalog.lineage import Lineage, read_lineage
from lichen.catalog.shape import shape_of
from lichen.core.errors import ConfigError
from lichen.core.model import ModelShape

_ROLE: Final = re.compile(r"^(?:blk\.\d{1,6}\.)?(.+?)(?:\.(weight|bias))?$", re.DOTALL)
_SHOWN: Final = 60
"""Characters of a metadata value that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleContent:
    """The tensors of one role in one file: how many, their bytes, types and shapes with counts."""

    tensors: int
    size_bytes: int
    types: tuple[tuple[str, int], ...]
    shapes: tuple[tuple[tuple[int, ...], int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChange:
    """One role in both files; None where a file has no such tensors."""

    role: str
    a: RoleContent | None
    b: RoleContent | None

    @property
    def changed(self) -> bool:
        """Whether anything that a header shows differs."""
        return self.a != self.b


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A metadata entry that differs; "" where a file lacks it. Texts come from outside."""

    key: str
    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDifference:
    """Two files side by side.

    Args:
        bytes_a, bytes_b: of the files.
        shape_a, shape_b: None for files that are no whole language model.
        roles: in the order of the files.
        keys: metadata that differs, sorted; ``lichen.`` entries are in the lineage.
        lineage_a, lineage_b: where each says that it comes from.
    """

    bytes_a: int
    bytes_b: int
    shape_a: ModelShape | None
    shape_b: ModelShape | None
    roles: tuple[RoleChange, ...]
    keys: tuple[KeyChange, ...]
    lineage_a: Lineage
    lineage_b: Lineage

    @property
    def same(self) -> bool:
        """Whether the headers say nothing different."""
        return not self.keys and not any(r.changed for r in self.roles)


def difference(a: Path, b: Path) -> ModelDifference:
    """Compare two GGUF files by their headers.

    Raises:
        ConfigError: one cannot be read or is no GGUF file. IntegrityError: one is damaged.
    """
    head_a, head_b = read_header(a), read_header(b)
    content_a, content_b = _contents(head_a.tensors), _contents(head_b.tensors)
    return ModelDifference(
        bytes_a=head_a.file_size,
        bytes_b=head_b.file_size,
        shape_a=_shape(head_a),
        shape_b=_shape(head_b),
        roles=tuple(
            RoleChange(role=role, a=content_a.get(role), b=content_b.get(role))
            for role in {**content_a, **content_b}
        ),
        keys=tuple(_key_changes(a, head_a, b, head_b)),
        lineage_a=read_lineage(a, head_a),
        lineage_b=read_lineage(b, head_b),
    )


def _contents(tensors: Iterable[Tensor]) -> dict[str, RoleContent]:
    members: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        members.setdefault(_role(tensor.name), []).append(tensor)
    return {
        role: RoleContent(
            tensors=len(found),
            size_bytes=sum(t.size for t in found),
            types=tuple(Counter(t.type.name for t in found).most_common()),
            shapes=tuple(Counter(t.shape for t in found).most_common()),
        )
        for role, found in members.items()
    }


def _role(name: str) -> str:
    """Return what a tensor is called in every layer; biases are told apart from weights."""
    found = _ROLE.match(name)
    if found is None:
        return name
    return f"{found[1]} (bias)" if found[2] == "bias" else found[1]


def _key_changes(a: Path, head_a: GgufHeader, b: Path, head_b: GgufHeader) -> Iterable[KeyChange]:
    for key in sorted({*head_a.metadata, *head_b.metadata}):
        left, right = head_a.metadata.get(key), head_b.metadata.get(key)
        if key.startswith("lichen.") or _alike(left, right):
            continue
        if isinstance(left, ArrayInfo) and isinstance(right, ArrayInfo):
            differing = _differing(a, head_a, b, head_b, key)
            if differing == 0:
                continue
            yield KeyChange(key=key, a=_shown(left), b=f"{_shown(right)}, {differing:,} differ")
            continue
        yield KeyChange(key=key, a=_shown(left), b=_shown(right))


def _alike(left: Value | None, right: Value | None) -> bool:
    return left == right and not isinstance(left, ArrayInfo)


def _differing(a: Path, head_a: GgufHeader, b: Path, head_b: GgufHeader, key: str) -> int:
    """Return in how many places two arrays differ; nested arrays are compared by length alone."""
    left, right = head_a.metadata[key], head_b.metadata[key]
    try:
        pairs = zip_longest(read_array(a, head_a, key), read_array(b, head_b, key))
        return sum(x != y for x, y in pairs)
    except ConfigError:
        assert isinstance(left, ArrayInfo)  # noqa: S101 (narrows for mypy; the caller checked)
        assert isinstance(right, ArrayInfo)  # noqa: S101 (the same)
        return abs(left.count - right.count)


def _shown(value: Value | None) -> str:
    if value is None:
        return ""
    if isinstance(value, ArrayInfo):
        return f"{value.count:,} entries"
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def _shape(header: GgufHeader) -> ModelShape | None:
    try:
        return shape_of(header)
    except ConfigError:
        # An adapter or one part of a model: its tensors can be compared all the same.
        return None
