"""A file on the model hub as a source.

The bytes come over plain HTTPS from the hub's resolve address, so resumption, time-outs and
progress are those of ``web``. Where ``huggingface_hub`` is installed it contributes what it knows:
the user's end point and access token, and a copy in the user's own hub cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from lichen.catalog.entries import HubSpec, Pin
from lichen.catalog.part import PartFile, Report
from lichen.catalog.sources.web import ClientFactory, WebSource, open_client
from lichen.core.errors import FetchError

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAccess:
    """What is known about the hub on this machine."""

    endpoint: str = DEFAULT_ENDPOINT
    token: str = ""
    cached: Path | None = None


AccessFinder = Callable[[HubSpec], HubAccess]


def find_access(spec: HubSpec) -> HubAccess:
    """Ask ``huggingface_hub`` for end point, token and cached copy; defaults if not installed."""
    try:
        from huggingface_hub import constants, get_token, try_to_load_from_cache
    except ImportError:
        return HubAccess()
    try:
        found = try_to_load_from_cache(spec.repo, spec.file, revision=spec.revision)
    except ValueError as exc:
        raise FetchError(f"{spec.repo!r} is not a repository's name") from exc
    if constants.HF_HUB_OFFLINE and not isinstance(found, str):
        raise FetchError("HF_HUB_OFFLINE is set and the hub cache does not have it")
    return HubAccess(
        endpoint=constants.ENDPOINT,
        token=get_token() or "",
        cached=Path(found) if isinstance(found, str) else None,
    )


class HubSource:
    """A repository's file at a revision.

    Args:
        spec: repository, file and revision.
        access: finds end point, token and cached copy.
        client: opens the HTTP client.
    """

    online = True

    def __init__(
        self,
        spec: HubSpec,
        *,
        access: AccessFinder = find_access,
        client: ClientFactory = open_client,
    ) -> None:
        self._spec = spec
        self._access = access
        self._client = client

    @property
    def label(self) -> str:
        """The reference a user could type."""
        return f"hf:{self._spec.repo}/{self._spec.file}@{self._spec.revision}"

    @property
    def identity(self) -> str:
        """The same: it names one version of one file."""
        return self.label

    def deliver(self, part: PartFile, pin: Pin, report: Report) -> None:
        """Copy from the user's hub cache or download; see ``Source``."""
        access = self._access(self._spec)
        if access.cached is not None and self._copied(access.cached, part, pin, report):
            return
        headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        url = resolve_url(self._spec, access.endpoint)
        try:
            WebSource(url, headers=headers, client=self._client).deliver(part, pin, report)
        except FetchError as exc:
            if "status 401" in str(exc) or "status 403" in str(exc):
                raise FetchError(
                    f"{exc}: the repository does not exist or needs an access token; "
                    "log in with huggingface_hub"
                ) from exc
            raise

    @staticmethod
    def _copied(path: Path, part: PartFile, pin: Pin, report: Report) -> bool:
        try:
            if pin.size is not None and path.stat().st_size != pin.size:
                return False
            with path.open("rb") as file, part.append(0, limit=None, report=report) as write:
                while chunk := file.read(_CHUNK):
                    write(chunk)
        except OSError:
            return False  # a broken hub cache is no reason not to download
        return True


def resolve_url(spec: HubSpec, endpoint: str = DEFAULT_ENDPOINT) -> str:
    """Return the address that redirects to the file's bytes."""
    revision = quote(spec.revision, safe="")
    return f"{endpoint.rstrip('/')}/{spec.repo}/resolve/{revision}/{quote(spec.file)}"
