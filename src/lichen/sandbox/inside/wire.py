"""Frames on a stream socket: a length, then one encoded value; optionally one descriptor.

Used between parent and cell (trusted both ways) and between judge and solution (the judge trusts
nothing it reads). End of stream, and a frame above the bound, are ``Closed``.
"""

from __future__ import annotations

import _socket
import contextlib
import marshal
import os
import struct
from typing import Any

from . import codec, plain

Socket = _socket.socket
"""The C class beneath ``socket.socket``: a cell does not load the Python one."""

_MAX_CONTROL = 1 << 30
"""Bytes of a message between parent and cell: programs and their captured output."""

_HEADER = struct.Struct(">I")


class Closed(Exception):  # noqa: N818 (a state of the stream)
    """The other side is gone, or sent a frame that is none."""


def framed(payload: bytes) -> bytes:
    """Return a frame's bytes."""
    return _HEADER.pack(len(payload)) + payload


def pair() -> tuple[Socket, Socket]:
    """Return two connected sockets."""
    return _socket.socketpair()


class Stream:
    """Blocking frames over a descriptor that this object does not own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, *payloads: bytes) -> None:
        """Write frames."""
        rest = memoryview(b"".join(map(framed, payloads)))
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


def send_control(control: Socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send a message between parent and cell, with descriptors attached to its first byte.

    Both run the same interpreter and trust each other, so the message is marshalled: C code, which
    touches, and after a fork so copies, fewer of the cell's pages than ``codec`` does.

    Raises:
        Unsendable: the message is too large.
    """
    payload = marshal.dumps(message)
    if len(payload) > _MAX_CONTROL:
        raise plain.Unsendable("larger than a message may be")
    frame = memoryview(framed(payload))
    packed = struct.pack(f"{len(fds)}i", *fds)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if fds else []
    sent = control.sendmsg([frame[:65536]], rights)
    control.sendall(frame[sent:])


def receive_control(control: Socket) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Read one message and the descriptors that came with it (blocking)."""
    head, ancillary, _flags, _address = control.recvmsg(_HEADER.size, _socket.CMSG_SPACE(4 * 4))
    fds: tuple[int, ...] = ()
    for _level, _kind, packed in ancillary:
        fds += struct.unpack(f"{len(packed) // 4}i", packed)
    try:
        head += _rest(control, _HEADER.size - len(head)) if head else b""
        if not head:
            raise Closed("end of stream")  # noqa: TRY301 (descriptors are closed below)
        message = marshal.loads(_rest(control, _HEADER.unpack(head)[0]))  # noqa: S302 (as above)
    except BaseException:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        raise
    return message, fds


def _rest(control: Socket, size: int) -> bytes:
    body = bytearray()
    while len(body) < size:
        more = control.recv(min(size - len(body), 1 << 20))
        if not more:
            raise Closed("end of stream")
        body += more
    return bytes(body)
