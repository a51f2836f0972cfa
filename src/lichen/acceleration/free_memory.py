"""How much memory is free, and how much an engine needs: so that nothing is loaded that won't fit.

An estimate for decisions, not a measurement for reports: weights as large as their file and half
as much again for what is repacked and for work buffers, and keys and values of every slot in full.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Final

from lichen.core.model import ModelArtifact
from lichen.core.units import BYTES_PER_KIB

REPACKED: Final = 1.5
"""Bytes in memory per byte of the file: llama.cpp repacks most of the weights for the processor
beside the file's own pages, and keeps buffers of some 100 MB (seen with 0.5B and 1.5B models)."""

_UNKNOWN_MODEL: Final = 2e9
"""Bytes, where an engine loads something whose size is not known."""


def engine_bytes(model: ModelArtifact | None, *, slots: int = 1, context: int = 4096) -> float:
    """Estimate the bytes that an engine takes with this model.

    Args:
        model: None if unknown.
        slots: sequences decoded together, >= 1.
        context: tokens that each of them may hold, >= 1.
    """
    if model is None:
        return _UNKNOWN_MODEL
    return REPACKED * model.size_bytes + slots * sequence_bytes(model, context)


def sequence_bytes(model: ModelArtifact, context: int) -> float:
    """Estimate the bytes of keys and values of one full sequence; 0 if the shape is unknown."""
    return model.shape.kv_bytes_per_token() * context if model.shape is not None else 0.0


def free_bytes(root: Path = Path("/")) -> float | None:
    """Return the memory that can be had now without swapping; None where nothing tells.

    Pages of files that nobody uses count as free; a container's limit counts, not the host's size.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    free = [float(found[1]) * BYTES_PER_KIB] if found else []
    group = root / "sys/fs/cgroup"
    limit, used = _text(group / "memory.max").strip(), _text(group / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        cached = re.search(r"^inactive_file (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
        free.append(float(limit) - float(used) + (float(cached[1]) if cached else 0.0))
    return max(0.0, min(free)) if free else None


def give_back_freed() -> bool:
    """Give memory that was freed in this process back to the system, where the C library can.

    Freed blocks below one that is in use stay resident: some 30 MiB for each engine that was
    loaded and closed. Returns whether the C library knows how (glibc's ``malloc_trim``).
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    trim(0)
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
