"""What stands for values that cannot cross as they are: opaque objects, exceptions, refusals."""

from __future__ import annotations

import builtins
from typing import Any

_MAX_TEXT = 2000


class Unsendable(Exception):  # noqa: N818 (it says what the value is)
    """A value cannot cross: too deep, too large, cyclic, or a function given as an argument."""


class Malformed(Exception):  # noqa: N818 (it says what the bytes are)
    """Bytes are not an encoding of a value."""


class Opaque:
    """Stands for an object that has no plain value. Equal to nothing, itself included."""

    __slots__ = ("_type_name",)

    def __init__(self, type_name: str) -> None:
        self._type_name = type_name

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<object of type {self._type_name}>"


def builtin_name(exc: BaseException) -> str:
    """Return the name of the nearest built-in exception class of ``exc``."""
    for kind in type(exc).__mro__:
        if kind.__module__ == "builtins" and getattr(builtins, kind.__name__, None) is kind:
            return str(kind.__name__)
    return "Exception"


def rebuild(name: str, arguments: tuple[Any, ...]) -> Exception:
    """Build the built-in exception of that name, else ``Exception``, never running its __init__."""
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = Exception
    try:
        exc: Exception = kind.__new__(kind)
    except TypeError:  # exception groups want arguments that did not cross
        exc = Exception()
    exc.args = arguments
    return exc


def text_of(exc: BaseException) -> str:
    """Return an exception's text; code that it may run is the sender's own."""
    try:
        return str(exc)[:_MAX_TEXT]
    except BaseException:  # noqa: BLE001 (a hostile __str__ must not matter)
        return ""
