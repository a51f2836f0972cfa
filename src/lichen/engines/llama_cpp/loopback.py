"""Talk to llama.cpp's own HTTP port on 127.0.0.1, for what has no call in the process.

That is: the chat template, tokens, and completions that nobody streams. The latter because a call
in the process can be cancelled only from a callback per token, which costs about 0.2 CPU-ms per
token for nothing, while a closed connection cancels at no cost. The port wants a random key that
never leaves the process. It is the only connection made, and no proxy setting applies to it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from lichen.core.errors import EngineError
from lichen.engines.fanout import Job


class Loopback:
    """A client of one llama.cpp server.

    Args:
        address: e.g. ``http://127.0.0.1:37683``.
        api_key: the server's key.
    """

    def __init__(self, address: str, api_key: str) -> None:
        parts = urlsplit(address)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}

    def post(self, path: str, body: Mapping[str, Any], job: Job | None = None) -> Any:
        """Post JSON and return the JSON answer, whatever its status (errors are in the answer).

        With a ``job``, cancelling it breaks the connection: llama.cpp then drops the sequence
        within about a second, and the result is ``{}``.

        Raises:
            EngineError: the server does not answer.
        """
        connection = http.client.HTTPConnection(self._host, self._port)
        try:
            connection.connect()
            if job is not None:
                job.interrupt_with(lambda: _break(connection.sock))
            connection.request("POST", path, json.dumps(body).encode(), self._headers)
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as exc:
            if job is not None and job.cancelled:
                return {}
            raise EngineError(f"llama.cpp does not answer {path}: {exc!r}") from exc
        finally:
            if job is not None:
                job.interrupt_with(None)
            connection.close()


def _break(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the answer came first and the socket is closed already
        sock.shutdown(socket.SHUT_RDWR)
