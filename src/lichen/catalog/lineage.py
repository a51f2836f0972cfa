"""What a model file says of its origin: ancestors, recipe, recommended engine options.

Files that ``lichen compress`` writes carry this in their metadata; for all others everything is
empty. Like the rest of a header it comes from outside: only well-formed hashes are taken for
ancestors, and only options that name no file and open nothing are taken for recommendations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from lichen.catalog.gguf import ArrayInfo, GgufHeader, Scalar, read_array

ANCESTORS: Final = "lichen.lineage"
"""SHA-256 of the files this one was made from, nearest first."""
RECIPE: Final = "lichen.recipe"
"""The recipe that made it from its nearest ancestor, as TOML."""
EARLIER_RECIPES: Final = "lichen.earlier_recipes"
"""The recipes that made its ancestors, nearest first."""
REQUANTISED: Final = "lichen.requantised"
"""Which weights were quantised a second time, e.g. ``"Q5_0 to IQ4_NL: 120 tensors"``."""
ENGINE: Final = "lichen.engine."
"""Prefix of recommended engine options."""

RECOMMENDABLE: Final = (
    "batch",
    "cache_type_k",
    "cache_type_v",
    "context",
    "flash_attention",
    "mmap",
    "ubatch",
)
"""Engine options that a file may recommend: none names a file or changes who may connect."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_MOST: Final = 64
"""Entries of a list that are read."""
_LONGEST: Final = 1 << 16
"""Characters of a text that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a file came from; empty for an original."""

    ancestors: tuple[str, ...] = ()
    recipe: str = ""
    earlier_recipes: tuple[str, ...] = ()
    requantised: tuple[str, ...] = ()
    engine: Mapping[str, Scalar] = field(default_factory=dict)


def read_lineage(path: Path, header: GgufHeader) -> Lineage:
    """Return what the file at ``path`` says of itself."""
    return Lineage(
        ancestors=tuple(t for t in _texts(path, header, ANCESTORS) if _SHA256.match(t)),
        recipe=_clean(header.text(RECIPE)),
        earlier_recipes=_texts(path, header, EARLIER_RECIPES),
        requantised=_texts(path, header, REQUANTISED),
        engine=recommended(header.metadata),
    )


def recommended(metadata: Mapping[str, object]) -> dict[str, Scalar]:
    """Return the recommended engine options among metadata values."""
    found = {name: metadata.get(ENGINE + name) for name in RECOMMENDABLE}
    return {n: v for n, v in found.items() if isinstance(v, int | float | bool | str)}


def _texts(path: Path, header: GgufHeader, key: str) -> tuple[str, ...]:
    if not isinstance(header.metadata.get(key), ArrayInfo):
        return ()
    return tuple(_clean(str(v)) for v in islice(read_array(path, header, key), _MOST))


def _clean(text: str) -> str:
    """Return a text safe to print and store: no control characters but line ends."""
    return "".join(c for c in text[:_LONGEST] if c.isprintable() or c == "\n")
