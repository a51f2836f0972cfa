"""A child that is a folder in hub layout (what GPU tools write): does it hold together?

The header of every ``*.safetensors`` file is read and held against the file's size; the index, the
configuration and the tokenizer are held against the parent's where it is a folder too. Headers are
hostile: their length is bounded before they are read.

Format: https://github.com/huggingface/safetensors (8 bytes of length, JSON, data).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Final

from lichen.compression.gate.findings import Findings
from lichen.core.errors import IntegrityError

_MAX_HEADER_BYTES: Final = 1 << 26
"""64 MiB: the reference reader allows 100 MB; large real headers have about 10."""
_MAX_JSON_BYTES: Final = 1 << 28
_LENGTH_BYTES: Final = 8
_TOKENIZER_FILES: Final = ("tokenizer.json", "chat_template.jinja")
_SAME: Final = ("model_type", "vocab_size", "hidden_size", "num_attention_heads")


def check_folder(parent: Path, child: Path, findings: Findings) -> str:
    """Add what is wrong with the folder and return what it holds, for people."""
    names: set[str] = set()
    files = sorted(child.glob("*.safetensors"))
    if not files:
        findings.add("weights", "there is no *.safetensors file in the folder")
    for path in files:
        try:
            names |= safetensors_names(path)
        except IntegrityError as exc:
            findings.add("safetensors", str(exc))
    index = _document(child / "model.safetensors.index.json", findings)
    mapped = index.get("weight_map") if index else None
    if isinstance(mapped, dict) and set(mapped) - names:
        missing = min(set(mapped) - names)
        findings.add("index", f"the index lists {missing!r}, which no file holds")
    config = _document(child / "config.json", findings)
    if config is None:
        findings.add("config", "there is no config.json")
    elif parent.is_dir():
        _compare(parent, child, config, findings)
    return f"{len(files)} safetensors files, {len(names):,} tensors"


def safetensors_names(path: Path) -> set[str]:
    """Return the tensors of a safetensors file after checking its header against its size.

    Raises:
        IntegrityError: it is damaged.
    """
    damaged = f"{path.name!r} is damaged"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
            if length > min(_MAX_HEADER_BYTES, size):
                raise IntegrityError(f"{damaged}: its header claims {length:,} bytes")
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError, struct.error) as exc:
        raise IntegrityError(f"{damaged}: its header cannot be read") from exc
    if not isinstance(header, dict):
        raise IntegrityError(f"{damaged}: its header is no table")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not _in_order(offsets, size - _LENGTH_BYTES - length):
            raise IntegrityError(f"{damaged}: {name[:80]!r} lies outside the file")
    return set(header) - {"__metadata__"}


def _in_order(offsets: object, room: int) -> bool:
    match offsets:
        case [int(start), int(end)]:
            return 0 <= start <= end <= room
        case _:
            return False


def _document(path: Path, findings: Findings) -> dict[str, object] | None:
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            findings.add("json", f"{path.name} is too large to be one")
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        findings.add("json", f"{path.name} cannot be read as JSON")
        return {}
    return found if isinstance(found, dict) else {}


def _compare(parent: Path, child: Path, config: dict[str, object], findings: Findings) -> None:
    before = _document(parent / "config.json", findings) or {}
    for key in _SAME:
        if key in before and config.get(key) != before[key]:
            findings.add("config", f"{key} changed from {before[key]!r} to {config.get(key)!r}")
    for name in _TOKENIZER_FILES:
        old, new = parent / name, child / name
        if old.exists() and (not new.exists() or not _same_json(old, new)):
            findings.add("tokenizer", f"{name} is gone or differs from the parent's")


def _same_json(a: Path, b: Path) -> bool:
    first, second = a.read_bytes(), b.read_bytes()
    if first == second:
        return True
    try:
        return bool(json.loads(first) == json.loads(second))
    except (ValueError, RecursionError):
        return False
