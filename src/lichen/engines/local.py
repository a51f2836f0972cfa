"""What adapters share that load a model file in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lichen.core.errors import EngineError

_GGUF_MAGIC: Final = b"GGUF"
"""First four bytes of every GGUF file (ggml's gguf.md)."""


def available_cpus() -> int:
    """How many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_gguf(what: str, path: str) -> None:
    """Refuse what is no GGUF file before a library sees it.

    Raises:
        EngineError: the file cannot be read, or is of another kind; ``what`` it should have been
            is named.
    """
    try:
        with Path(path).open("rb") as f:
            magic = f.read(len(_GGUF_MAGIC))
    except OSError as exc:
        raise EngineError(f"the {what} {path} cannot be read: {exc.strerror}") from exc
    if magic != _GGUF_MAGIC:
        raise EngineError(f"the {what} {path} is not a GGUF file")


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """Return how many characters, or tokens, two sequences share at their start."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
