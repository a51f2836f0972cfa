"""What a user may type for a model or data set, and what it means.

=================================  ======================================================
``qwen2.5-coder-0.5b``             a catalog name (wins over a file of that name; use ./)
``./model.gguf``                   a path
``hf:owner/repo/file[@revision]``  a file on the hub; the revision defaults to ``main``
``https://...``                    an address
=================================  ======================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lichen.catalog.entries import HubSpec
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.model import ModelRef, RefKind
from lichen.core.registry import unknown

HUB_PREFIX: Final = "hf:"
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]*")
_MAX_FILE_NAME: Final = 120


def parse_ref(text: str, names: Sequence[str], *, what: str = "model") -> ModelRef:
    """Decide what ``text`` names; ``names`` are the catalog's. Touches no network.

    Raises:
        UnknownNameError: neither a catalog name nor anything that looks like another kind.
        ConfigError: a malformed ``hf:`` reference, address or missing file.
    """
    if text in names:
        return ModelRef(text=text, kind=RefKind.NAME)
    if text.startswith(HUB_PREFIX):
        parse_hub(text)
        return ModelRef(text=text, kind=RefKind.HUB)
    if "://" in text:
        check_url(text)
        return ModelRef(text=text, kind=RefKind.URL)
    path = Path(text).expanduser()
    if path.is_file():
        return ModelRef(text=text, kind=RefKind.PATH)
    if path.is_dir():
        raise ConfigError(f"{text!r} is a directory; name the {what} file in it")
    if "/" in text or "\\" in text or path.suffix in {".gguf", ".jsonl", ".json", ".gz"}:
        raise ConfigError(f"there is no {what} file {text!r}")
    raise UnknownNameError(unknown(what, text, list(names)))


def parse_hub(text: str) -> HubSpec:
    """Split ``hf:owner/repo/file[@revision]``; the file may lie in folders. Raises ConfigError."""
    body, _, revision = text.removeprefix(HUB_PREFIX).partition("@")
    segments = body.split("/")
    wanted = 3
    bad = [s for s in (*segments, *revision.split("/")) if s and not _SEGMENT.fullmatch(s)]
    if len(segments) < wanted or not all(segments) or bad or text.endswith("@"):
        raise ConfigError(
            f"{text!r} is not a hub reference; write hf:owner/repo/file or add @revision"
        )
    return HubSpec(
        repo="/".join(segments[:2]), file="/".join(segments[2:]), revision=revision or "main"
    )


def check_url(url: str) -> None:
    """Accept http and https addresses with a host; raises ConfigError for anything else."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as exc:
        raise ConfigError(f"{shown_url(url)!r} is not a valid address: {exc}") from exc
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"{shown_url(url)!r} is not an address lichen can fetch; use https://")


def shown_url(url: str) -> str:
    """Return an address fit for messages: without user, password, query and fragment."""
    head, sep, tail = url.partition("://")
    host, slash, path = tail.partition("/")
    host = host.rpartition("@")[2]
    return head + sep + re.split(r"[?#]", host + slash + path, maxsplit=1)[0]


def file_name_of(url: str) -> str:
    """Return a safe file name for what an address points to."""
    last = urlsplit(url).path.rpartition("/")[2]
    clean = re.sub(r"[^A-Za-z0-9._\-]", "_", last).lstrip(".-")[-_MAX_FILE_NAME:]
    return clean or "file"
