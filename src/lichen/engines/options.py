"""Turn a mapping of plain values (from TOML, flags, Python) into an adapter's options.

Every adapter states its options as one frozen dataclass; this module checks names and types by the
dataclass's annotations, so that all adapters refuse mistakes in the same words. Ranges and
combinations are the dataclass's own business: its ``__post_init__`` raises ``ValueError``.

Supported annotations: ``bool``, ``int``, ``float``, ``str``, ``X | None``, ``tuple[X, ...]``,
``Mapping[str, object]`` and ``tuple[Y, ...]`` where ``Y`` is itself such a dataclass.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.registry import unknown

T = TypeVar("T")


def read_options(cls: type[T], options: Mapping[str, object], *, who: str) -> T:
    """Build ``cls`` from ``options``.

    Args:
        cls: a dataclass whose fields are the options.
        options: option name -> value.
        who: whose options they are, for messages ("engine llama_cpp").

    Raises:
        UnknownNameError: an option that does not exist (near ones are suggested).
        ConfigError: a value of the wrong type or out of range, or an option that is lacking.
    """
    hints = typing.get_type_hints(cls)
    declared = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # cls is a dataclass
    for name in options:
        if name not in declared:
            raise UnknownNameError(unknown(f"option of {who}", str(name), list(declared)))
    for name, field in declared.items():
        if name not in options and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{who} needs the option {name!r}")
    values = {k: _checked(hints[k], v, f"option {k!r} of {who}") for k, v in options.items()}
    try:
        return cls(**values)
    except ValueError as exc:
        raise ConfigError(f"{who}: {exc}") from exc


def check_values(
    options: object, least: Mapping[str, float], choices: Mapping[str, Sequence[str]]
) -> None:
    """Check what most adapters' options state: the least value of some, the words for others.

    Raises:
        ValueError: a value below its least, or a word that is no choice.
    """
    for name, bound in least.items():
        if getattr(options, name) < bound:
            msg = f"{name} must be at least {bound}, got {getattr(options, name)}"
            raise ValueError(msg)
    for name, words in choices.items():
        if getattr(options, name) not in words:
            shown = ", ".join(map(repr, words))
            msg = f"{name} must be one of {shown}, got {getattr(options, name)!r}"
            raise ValueError(msg)


def _checked(hint: Any, value: object, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        return None if value is None else _checked(inner[0], value, where)
    if origin is tuple:
        return _tuple(typing.get_args(hint)[0], value, where)
    if origin is Mapping:
        if isinstance(value, Mapping):
            return dict(value)
        raise _wrong(where, "a table", value)
    if is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            return read_options(hint, value, who=where)
        raise _wrong(where, "a table", value)
    return _scalar(hint, value, where)


def _tuple(item: Any, value: object, where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong(where, "a list", value)
    return tuple(_checked(item, v, f"{where}, entry {i + 1}") for i, v in enumerate(value))


def _scalar(hint: Any, value: object, where: str) -> object:
    # bool is a subclass of int, so it is refused for numbers explicitly: slots = true is a mistake.
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and hint is not bool:
        raise _wrong(where, _NAMES[hint], value)
    if isinstance(value, hint):
        return value
    raise _wrong(where, _NAMES[hint], value)


_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def _wrong(where: str, expected: str, value: object) -> ConfigError:
    shown = f"a {type(value).__name__}"
    return ConfigError(f"{where} must be {expected}, not {shown}")
