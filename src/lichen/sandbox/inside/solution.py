"""The solution's side: run untrusted source, then answer calls to its entry point.

Everything in this process is the adversary's once its source runs, this code included. So nothing
here is relied upon: the judge takes only plain values from it and the cell minds its resources.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any

from . import codec, plain, wire

_UNBUILT = (SyntaxError, ValueError, RecursionError, OverflowError)
"""What ``compile`` raises for text that is no program (NUL bytes, lone surrogates, nesting)."""


def run(ticket: dict[str, Any], _report: int, peer: int) -> None:
    """Serve the judge until it goes away. Never returns."""
    stream = wire.Stream(peer)
    try:
        ready, module = load(ticket["source"], ticket["entry_point"])
        stream.send(codec.encode(ready))
        while ready[0] == "ready":
            entry_point = vars(module)[ticket["entry_point"]]
            stream.send(*answer(entry_point, stream.receive(), module))
    except wire.Closed:
        pass
    os._exit(0)


def load(source: str, entry_point: str) -> tuple[tuple[str, ...], types.ModuleType]:
    """Run the source as a module; the first item says whether it can be called."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses and pickle look a class's module up
    try:
        code = compile(source, "solution.py", "exec", dont_inherit=True)
    except MemoryError:
        return ("failed", "memory", "out of memory while compiling"), module
    except _UNBUILT as exc:
        return ("failed", "syntax", f"{type(exc).__name__}: {plain.text_of(exc)}"), module
    try:
        exec(code, vars(module))  # noqa: S102 (running it is the purpose; the walls are around us)
    except BaseException as exc:  # noqa: BLE001 (whatever it raises is its result)
        return (
            "failed",
            _kind(exc),
            f"at import: {type(exc).__name__}: {plain.text_of(exc)}",
        ), module
    if not callable(vars(module).get(entry_point)):
        why = "is not callable" if entry_point in vars(module) else "is not defined"
        return ("failed", "no-entry", f"{entry_point} {why}"), module
    return ("ready",), module


def unload() -> None:
    """Forget the module."""
    sys.modules.pop("solution", None)


def answer(entry_point: Any, request: bytes, module: types.ModuleType) -> tuple[bytes, bytes]:
    """Call the entry point with the request's arguments.

    Returns the encoded outcome, and the arguments' encoding where the call has changed them.
    """

    def record(name: str, attributes: dict[str, Any]) -> object:
        kind = vars(module).get(name)
        built = object.__new__(kind) if isinstance(kind, type) else types.SimpleNamespace()
        built.__dict__.update(attributes)
        return built

    args, kwargs = codec.decode(request, record)
    before = _state(args, kwargs)
    try:
        outcome: tuple[Any, ...] = ("value", entry_point(*args, **kwargs))
    except BaseException as exc:  # noqa: BLE001 (whatever it raises is its result)
        kind = _kind(exc)
        outcome = ("raised", plain.builtin_name(exc), _arguments(exc), type(exc).__name__, kind)
    try:
        value = codec.encode(outcome)  # before the arguments: draining an answer may change them
        after = _state(args, kwargs) if before else b""
    except (plain.Unsendable, RecursionError, MemoryError) as exc:
        return codec.encode(("unsendable", f"the answer cannot be sent: {exc}")), b""
    except Exception as exc:  # noqa: BLE001 (a value whose own methods fail while it is read)
        why = f"the answer cannot be read: {type(exc).__name__}"
        return codec.encode(("unsendable", why)), b""
    return value, after if after != before else b""


def _state(args: Any, kwargs: Any) -> bytes:
    """Return the arguments' present encoding; b"" where none of them can change, or be told."""
    if all(_frozen(value) for value in (*args, *kwargs.values())):
        return b""
    try:
        return codec.encode((args, kwargs), drain=False)
    except (plain.Unsendable, RecursionError):
        return b""


def _frozen(value: object) -> bool:
    return value is None or type(value) in (bool, int, float, complex, str, bytes, range)


def _arguments(exc: BaseException) -> tuple[Any, ...]:
    arguments = exc.args
    try:
        codec.encode(arguments)
    except Exception:  # noqa: BLE001 (whatever was put there by hostile code)
        return (plain.text_of(exc),)
    return tuple(arguments)


def _kind(exc: BaseException) -> str:
    if isinstance(exc, SystemExit):
        return "exit"
    return "memory" if isinstance(exc, MemoryError) else "exception"
