"""Frames on a stream socket: a length, then one encoded value; optionally one descriptor.

Used between parent and cell (trusted both ways, one frame bound) and between judge and solution
(the judge trusts nothing it reads). End of stream, and a frame above the bound, are ``Closed``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Any

from . import codec

_HEADER = struct.Struct(">I")


class Closed(Exception):  # noqa: N818 (a state of the stream)
    """The other side is gone, or sent a frame that is none."""


class Stream:
    """Blocking frames over a descriptor that this object does not own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, payload: bytes) -> None:
        """Write one frame."""
        rest = memoryview(_HEADER.pack(len(payload)) + payload)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as exc:
            raise Closed(str(exc)) from None

    def receive(self) -> bytes:
        """Read one frame."""
        (size,) = _HEADER.unpack(self._exactly(_HEADER.size))
        if size > codec.MAX_BYTES + 1024:
            raise Closed("frame too large")
        return self._exactly(size)

    def _exactly(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            try:
                part = os.read(self._fd, min(count, 1 << 20))
            except OSError as exc:
                raise Closed(str(exc)) from None
            if not part:
                raise Closed("end of stream")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def send_control(
    control: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()
) -> None:
    """Send a message between parent and cell, with descriptors attached to its first byte."""
    payload = codec.encode(message)
    frame = memoryview(_HEADER.pack(len(payload)) + payload)
    sent = socket.send_fds(control, [frame[:65536]], list(fds))
    control.sendall(frame[sent:])


def receive_control(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read one message and the descriptors that came with it (blocking)."""
    head, fds, _flags, _address = socket.recv_fds(control, _HEADER.size, 4)
    try:
        while len(head) < _HEADER.size:
            more = control.recv(_HEADER.size - len(head)) if head else b""
            if not more:
                raise Closed("end of stream")
            head += more
        (size,) = _HEADER.unpack(head)
        body = bytearray()
        while len(body) < size:
            more = control.recv(min(size - len(body), 1 << 20))
            if not more:
                raise Closed("end of stream")
            body += more
        message = codec.decode(bytes(body))
    except BaseException:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        raise
    return message, fds
