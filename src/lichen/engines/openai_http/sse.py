"""Read server-sent events from a stream of bytes (WHATWG HTML, section 9.2, the part in use).

Tolerates comments, CRLF or CR line ends, events cut anywhere (within a character too), a missing
last blank line. A line longer than the limit is an error: a broken or hostile server must not fill
the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

MAX_LINE_BYTES: Final = 8 << 20
"""Longest line accepted: far above any chunk of text with log-probabilities."""


class StreamError(ValueError):
    """The stream is not what an OpenAI-compatible server sends."""


def events(chunks: Iterable[bytes], max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[str]:
    """Yield the data of each event, its lines joined by line feeds; invalid UTF-8 is U+FFFD.

    Raises:
        StreamError: a line is longer than ``max_line_bytes``.
    """
    data: list[str] = []
    for line in _lines(chunks, max_line_bytes):
        if not line:
            if data:
                yield "\n".join(data)
            data = []
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
    if data:
        yield "\n".join(data)


def _lines(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    pending = b""
    for chunk in chunks:
        *complete, pending = (pending + chunk).splitlines(keepends=True) or [b""]
        if pending.endswith(b"\n"):  # a lone CR may be half a line end, so it waits
            complete.append(pending)
            pending = b""
        if len(pending) > limit:
            raise StreamError(f"the server sent a line of more than {limit} bytes")
        yield from (line.rstrip(b"\r\n") for line in complete)
    if pending:
        yield pending.rstrip(b"\r\n")
