"""Write plain values as TOML. Deterministic: keys keep their order, numbers have one spelling.

Nested tables are written inline, so that a table of the document is one line per key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Final

from lichen.core.errors import ConfigError

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


def toml_text(document: Mapping[str, object]) -> str:
    """Return a document: plain keys first, then tables and arrays of tables in order.

    Raises:
        ConfigError: a value that TOML has no form for (None, an object).
    """
    plain, sections = [], []
    for key, value in document.items():
        if isinstance(value, Mapping):
            sections.append(f"[{_key(key)}]\n{_lines(value)}")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            sections += [f"[[{_key(key)}]]\n{_lines(v)}" for v in value]
        else:
            plain.append(f"{_key(key)} = {_value(value)}\n")
    head = ["".join(plain)] if plain else []
    return "\n".join([*head, *sections])


def _lines(table: Mapping[str, object]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _key(key: str) -> str:
    return key if _BARE.match(key) else _quoted(key)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON leaves.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case str():
            return _quoted(value)
        case Mapping():
            inner = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple():
            return f"[{', '.join(_value(v) for v in value)}]"
        case _:
            raise ConfigError(f"a recipe cannot hold {value!r}: TOML has no form for it")
