"""Write a solution file: the TOML that ``spec.load`` reads, with remarks on where it came from.

The standard library reads TOML and does not write it. Only what solution specs hold is covered:
strings, numbers, booleans, lists and tables; tables below the second level are written inline.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lichen.compose.spec import SolutionSpec
from lichen.core.errors import ConfigError

MARK: Final = "# Written by lichen accelerate."
"""First line of files that may be overwritten by the next search."""


def solution_text(spec: SolutionSpec, remarks: Sequence[str] = ()) -> str:
    """Return a solution as TOML text, with remarks as comments at the top."""
    document = spec.model_dump(mode="json", exclude_none=True)
    if not spec.recipe:
        del document["recipe"]
    lines = [MARK, *(f"# {_one_line(r)}" for r in remarks), *_document(document)]
    return "\n".join(lines) + "\n"


def write_solution(path: Path, spec: SolutionSpec, remarks: Sequence[str] = ()) -> None:
    """Write a solution file.

    Raises:
        ConfigError: the path holds a file that was not written by this function, or cannot be
            written.
    """
    check_writable(path)
    try:
        path.write_text(solution_text(spec, remarks), encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror or exc}") from exc


def check_writable(path: Path) -> None:
    """Raise ConfigError if the path holds somebody's own file, or its folder does not exist."""
    if not path.resolve().parent.is_dir():
        raise ConfigError(f"cannot write {path}: its folder does not exist")
    if not path.exists():
        return
    try:
        own = path.read_text(encoding="utf-8").startswith(MARK)
    except (OSError, UnicodeDecodeError):
        own = False
    if not own:
        raise ConfigError(
            f"{path} exists and was not written by lichen accelerate: choose another path with -o"
        )


def _document(document: Mapping[str, Any]) -> Iterator[str]:
    later = {}
    for key, value in document.items():
        if isinstance(value, Mapping) or (value and _is_tables(value)):
            later[key] = value
        elif value != []:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in later.items():
        tables = [value] if isinstance(value, Mapping) else value
        for table in tables:
            yield ""
            yield f"[{_key(key)}]" if isinstance(value, Mapping) else f"[[{_key(key)}]]"
            yield from (f"{_key(k)} = {_value(v)}" for k, v in table.items() if v is not None)


def _is_tables(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, Mapping) for v in value)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inside} }}" if inside else "{}"
    return _string(str(value))


def _key(key: str) -> str:
    plain = key.replace("_", "").replace("-", "")
    return key if plain.isalnum() and plain.isascii() else _string(key)


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but JSON leaves DEL as it is and TOML does not allow that.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
