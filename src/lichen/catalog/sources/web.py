"""An http(s) address as a source, with resumption by range requests.

A download goes on where it stopped if the server still has the same version (``If-Range`` with
its ETag or date), or if the file is pinned, since then the hash decides. Connecting takes at most
``CONNECT_S``, so that a closed network costs seconds.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from lichen.catalog.entries import Pin
from lichen.catalog.names import shown_url
from lichen.catalog.part import Appender, PartFile, Report, TooLongError
from lichen.core.errors import FetchError, IntegrityError

if TYPE_CHECKING:
    import httpx

CONNECT_S: Final = 3.0
_READ_S: Final = 20.0
_MAX_REDIRECTS: Final = 5
_MAX_STALLS: Final = 5
"""Broken connections in a row that brought something before the source is given up."""
_OK, _PARTIAL, _RANGE_NOT_SATISFIABLE = 200, 206, 416
_FROM: Final = re.compile(r"bytes (\d{1,18})-")
_LENGTH: Final = re.compile(r"\d{1,18}")

ClientFactory = Callable[[], "httpx.Client"]


def open_client() -> httpx.Client:
    """Return a client with short connect time-outs that follows a few redirects."""
    import httpx

    return httpx.Client(
        timeout=httpx.Timeout(_READ_S, connect=CONNECT_S),
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
    )


class WebSource:
    """The file at ``url``.

    Args:
        url: http or https.
        headers: sent along, e.g. an authorisation; dropped by the client on another host.
        client: opens the HTTP client; tests give one without a network.
    """

    online = True

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        client: ClientFactory = open_client,
    ) -> None:
        self._url = url
        self._headers = dict(headers or {})
        self._client = client

    @property
    def label(self) -> str:
        """The address without credentials."""
        return shown_url(self._url)

    @property
    def identity(self) -> str:
        """The whole address."""
        return self._url

    def deliver(self, part: PartFile, pin: Pin, report: Report) -> None:
        """Download into ``part``, resuming; see ``Source``."""
        import httpx

        stalls = 0
        while True:
            before = part.size
            try:
                with self._client() as client:
                    self._download(client, part, pin, report)
            except httpx.TransportError as exc:
                stalls += 1
                if part.size > before and stalls < _MAX_STALLS:
                    continue  # the connection broke after bringing something: go on from there
                raise FetchError(_reason(exc)) from exc
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise FetchError(_reason(exc)) from exc
            return

    def _download(self, client: httpx.Client, part: PartFile, pin: Pin, report: Report) -> None:
        start = part.size
        state = part.state()
        if pin.size is not None and start == pin.size:
            return
        validator = state.get("validator", "")
        if start and not validator and pin.sha256 is None:
            start = 0  # nothing could tell an old version's bytes from the new one's
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator:
                headers["If-Range"] = validator
        with client.stream("GET", self._url, headers=headers) as response:
            if response.status_code == _RANGE_NOT_SATISFIABLE and start:
                part.discard()
                raise IntegrityError("it has fewer bytes than were fetched before")
            at = self._checked_start(response, start)
            length = _length(response)
            self._check_room(part, length)
            with part.append(at, limit=pin.size, report=report) as write:
                part.save({"validator": _validator(response)})
                self._copy(response, write)
        if length is not None and write.written != at + length:
            raise IntegrityError(f"it promised {at + length:,} bytes and gave {write.written:,}")

    def _checked_start(self, response: httpx.Response, start: int) -> int:
        if self._url.startswith("https:") and response.url.scheme != "https":
            raise FetchError("it redirects from https to http, which lichen does not follow")
        if response.status_code not in {_OK, _PARTIAL}:
            raise FetchError(f"it answers with HTTP status {response.status_code}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchError("it compresses the answer although told not to")
        if response.status_code == _OK:
            return 0
        match = _FROM.match(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise IntegrityError("it answers with another range than it was asked for")
        return start

    @staticmethod
    def _copy(response: httpx.Response, write: Appender) -> None:
        try:
            for chunk in response.iter_raw():  # as they come, so that a break loses nothing
                write(chunk)
        except TooLongError as exc:
            raise IntegrityError(str(exc)) from exc

    @staticmethod
    def _check_room(part: PartFile, length: int | None) -> None:
        part.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(part.path.parent).free
        if length is not None and length > free:
            raise FetchError(f"{length:,} bytes are to come and the disk has {free:,} free")


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if _LENGTH.fullmatch(text) else None


def _validator(response: httpx.Response) -> str:
    etag = str(response.headers.get("ETag", ""))
    if etag and not etag.startswith("W/"):  # If-Range needs a strong one: RFC 9110, 13.1.5
        return etag
    return str(response.headers.get("Last-Modified", ""))


def _reason(exc: Exception) -> str:
    kind = type(exc).__name__
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", kind).lower()
    text = "".join(c for c in str(exc) if c.isprintable())[:200]
    return f"{words}: {text}" if text else words
