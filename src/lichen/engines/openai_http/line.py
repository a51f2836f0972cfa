"""One connection to a server, which another thread can break off.

A thread that waits for a server's next byte can only be woken by shutting its socket down. httpx
shows the socket through its public ``trace`` and ``network_stream`` extensions; with one client of
one connection per slot it is clear which socket a request uses.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx

from lichen.engines.fanout import Job
from lichen.engines.openai_http.options import OpenAIHttpOptions

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Line:
    """A client for one request at a time.

    Args:
        options: the server and its time-outs.
        api_key: sent as a bearer token; "" for none.
    """

    def __init__(self, options: OpenAIHttpOptions, api_key: str) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(options.read_timeout_s, connect=options.connect_timeout_s)
        base = options.base_url.rstrip("/")
        self._client = httpx.Client(
            base_url=base,
            headers=headers,
            timeout=timeout,
            verify=options.verify_tls,
            limits=httpx.Limits(max_connections=1),
            follow_redirects=False,  # a key must not follow a redirect to another host
            trust_env=httpx.URL(base).host not in _LOOPBACK,  # no proxy for this machine itself
        )
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._broken = False

    @contextlib.contextmanager
    def ask(self, path: str, body: dict[str, Any], job: Job) -> Iterator[httpx.Response]:
        """Post ``body`` and yield the response, its body unread; cancelling ``job`` breaks it.

        Raises:
            httpx.HTTPError: what httpx raises, also when the job was cancelled.
        """
        with self._lock:
            self._broken = False
        job.interrupt_with(self._break)
        try:
            extensions = {"trace": self._trace}
            with self._client.stream("POST", path, json=body, extensions=extensions) as response:
                yield response
        finally:
            job.interrupt_with(None)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Post ``body`` and return the whole response."""
        return self._client.post(path, json=body)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
                if self._broken:
                    _shut(self._socket)

    def _break(self) -> None:
        with self._lock:
            self._broken = True
            _shut(self._socket)


def _shut(sock: socket.socket | None) -> None:
    if sock is None:
        return
    with contextlib.suppress(OSError):  # already closed
        # Not sock.shutdown(): a TLS socket would drop its state under the reader's feet.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
