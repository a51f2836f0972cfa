"""The judge's side: run the check with the solution replaced by a proxy, and report.

The check is a data set's code: it is contained like a solution, but never meets one. The proxy
sends plain arguments, gets plain values, and updates in place what the solution changed in place.
The report carries the nonce, which only the parent and this process know, after the last check.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

from . import codec, plain, wire

_HOME = "check"
_SETUP, _CHECK = "setup.py", "check.py"
_MAX_TEXT = 2000
_UNREADY = frozenset({"syntax", "exception", "no-entry", "exit", "memory"})


class _Lost(BaseException):
    """The solution cannot answer any more; no check may catch this and go on to pass."""


class _Check:
    """One check against one solution."""

    def __init__(self, stream: wire.Stream) -> None:
        self._stream = stream
        self.lost: tuple[str, str] | None = None
        self.raised: Exception | None = None

    def wait_ready(self) -> None:
        """Wait until the solution has been imported; raise if it cannot be called."""
        message = self._receive()
        if message != ("ready",):
            kind, text = _texts(message, 1, 2)
            # The word is the solution's own, so only those that name a failure count.
            self._lose(kind if kind in _UNREADY else "protocol", text)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the solution as if it were here."""
        if self.lost is not None:
            raise _Lost  # a check that caught the first one does not get further
        try:
            request = codec.encode((args, kwargs), argument=True, home=_HOME)
        except plain.Unsendable as exc:
            self._lose("protocol", f"the check gives what cannot be sent: {exc}")
        self._send(request)
        message, changes = self._receive(), self._receive_bytes()
        tag, size = message[0], len(message)
        if tag == "value" and size == 2:  # noqa: PLR2004 (tag, value)
            self._synchronise(args, kwargs, changes)
            return message[1]
        if tag == "raised" and size == 5 and type(message[2]) is tuple:  # noqa: PLR2004 (as sent)
            self._synchronise(args, kwargs, changes)
            raise self._exception(message)
        refused = tag == "unsendable"
        why = _texts(message, 1)[0] if refused else "the solution sent what is no answer"
        return self._lose("protocol", why)

    def _exception(self, message: tuple[Any, ...]) -> Exception:
        name, shown, kind = _texts(message, 1, 3, 4)
        if kind in ("exit", "memory"):
            self._lose(kind, f"in call: {shown}")
        if name in ("KeyboardInterrupt", "GeneratorExit"):
            self._lose("exception", f"in call: {shown}")
        self.raised = plain.rebuild(name, message[2])
        return self.raised

    def _synchronise(self, args: tuple[Any, ...], kwargs: dict[str, Any], changes: bytes) -> None:
        """Repeat here what the solution did to its mutable arguments."""
        if not changes:
            return
        change = self._decode(changes)
        if type(change) is not tuple or len(change) != 2:  # noqa: PLR2004 (args, kwargs)
            self._lose("protocol", "the solution sent a malformed change")
        new_args, new_kwargs = change
        if type(new_args) is tuple and len(new_args) == len(args):
            _update(args, new_args)
        if type(new_kwargs) is dict and new_kwargs.keys() == kwargs.keys():
            for key, value in kwargs.items():
                _update(value, new_kwargs[key])

    def _send(self, payload: bytes) -> None:
        try:
            self._stream.send(payload)
        except wire.Closed:
            self._lose("gone", "the solution's process ended")

    def _receive(self) -> tuple[Any, ...]:
        message = self._decode(self._receive_bytes())
        if type(message) is tuple and message and type(message[0]) is str:
            return message
        return self._lose("protocol", "the solution sent what is no answer")

    def _receive_bytes(self) -> bytes:
        try:
            return self._stream.receive()
        except wire.Closed:
            return self._lose("gone", "the solution's process ended")

    def _decode(self, data: bytes) -> Any:
        try:
            return codec.decode(data)
        except plain.Malformed as exc:
            return self._lose("protocol", f"the solution sent malformed bytes: {exc}")
        except MemoryError:
            return self._lose("memory", "the answer does not fit in the check's memory")

    def _lose(self, kind: str, text: str) -> NoReturn:
        self.lost = (kind, text)
        raise _Lost


def _texts(message: tuple[Any, ...], *positions: int) -> list[str]:
    """Return the strings at the positions; a wrong type or length is an empty one."""
    found = [message[p] if p < len(message) else "" for p in positions]
    return [text[:_MAX_TEXT] if type(text) is str else "" for text in found]


def _update(old: Any, new: Any) -> None:
    """Make ``old`` equal to ``new`` in place, keeping the identity of nested containers."""
    if type(new) is not type(old):
        return
    if type(old) is list:
        old[:] = [_merged(a, b) for a, b in zip(old, new, strict=False)] + new[len(old) :]
    elif type(old) is tuple and len(old) == len(new):
        for a, b in zip(old, new, strict=True):
            _update(a, b)
    elif type(old) is dict:
        merged = {k: _merged(old[k], v) if k in old else v for k, v in new.items()}
        old.clear()
        old.update(merged)
    elif type(old) is set:
        old.clear()
        old.update(new)
    elif type(old) is bytearray:
        old[:] = new


def _merged(old: Any, new: Any) -> Any:
    if type(new) is plain.Opaque:
        return old
    if type(old) is type(new) and type(old) in (list, dict, set, bytearray):
        _update(old, new)
        return old
    return new


def prepare(ticket: dict[str, Any]) -> None:
    """Compile a check in the cell, once for all its trials. Compiling runs nothing."""
    for source, name in ((ticket["setup"], _SETUP), (ticket["check"], _CHECK)):
        with contextlib.suppress(Exception):  # what cannot be compiled fails again in the trial
            _compiled(source, name)


@lru_cache(maxsize=32)
def _compiled(source: str, name: str) -> types.CodeType:
    return compile(source, name, "exec", dont_inherit=True)


def _proxy(check: _Check, name: str) -> Callable[..., Any]:
    def candidate(*args: Any, **kwargs: Any) -> Any:
        return check.call(args, kwargs)

    candidate.__name__ = candidate.__qualname__ = name
    return candidate


def run(ticket: dict[str, Any], report: int, peer: int) -> None:
    """Run one check and write the report. Never returns."""
    os.write(report, codec.encode(judge(ticket, wire.Stream(peer))))
    os._exit(0)


def unload() -> None:
    """Forget the check's module and the compiled checks."""
    sys.modules.pop(_HOME, None)
    _compiled.cache_clear()


def judge(ticket: dict[str, Any], stream: wire.Stream) -> dict[str, Any]:
    """Hold the solution behind the stream against the ticket's check; return the report."""
    module = types.ModuleType(_HOME)
    sys.modules[_HOME] = module
    space = vars(module)
    check = _Check(stream)
    try:
        exec(_compiled(ticket["setup"], _SETUP), space)  # noqa: S102 (contained, see above)
        check.wait_ready()
        space["candidate"] = _proxy(check, ticket["entry_point"])
        if ticket["entry_point"].isidentifier():
            space[ticket["entry_point"]] = space["candidate"]
        exec(_compiled(ticket["check"], _CHECK), space)  # noqa: S102 (as above)
    except BaseException as exc:  # noqa: BLE001 (how a check fails is its result)
        kind, text = _failure(check, exc)
    else:
        if check.lost is None:
            return {"kind": "passed", "text": "", "nonce": ticket["nonce"]}
        kind, text = check.lost
    return {"kind": kind, "text": text, "nonce": b""}


def _failure(check: _Check, exc: BaseException) -> tuple[str, str]:
    if check.lost is not None:
        return check.lost
    if exc is check.raised:
        return "exception", _shown(exc)
    if isinstance(exc, AssertionError):
        return "assertion", _shown(exc)
    return "check", f"the check raised {_shown(exc)}"


def _shown(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"[:_MAX_TEXT]
    except Exception:  # noqa: BLE001 (str of an argument may fail, e.g. a huge int)
        return type(exc).__name__
