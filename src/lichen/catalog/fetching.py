"""Get one file: cache, then each source in order, hash checked always, renamed in one step.

A source that fails or lies is remembered with its reason and the next one is tried; a lying
source's partial file is deleted, nothing else ever is. What to fetch is decided in ``catalog``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lichen.catalog.entries import Pin
from lichen.catalog.locking import locked
from lichen.catalog.part import PartFile, Report
from lichen.catalog.verified import VerifiedHashes
from lichen.core.errors import FetchError, IntegrityError

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, bytes so far, bytes in all or None)."""


class Source(Protocol):
    """A place that can deliver a file."""

    @property
    def label(self) -> str:
        """How messages name it; without credentials."""

    @property
    def identity(self) -> str:
        """What tells it from every other source of the same file."""

    @property
    def online(self) -> bool:
        """Whether it may use the network."""

    def deliver(self, part: PartFile, pin: Pin, report: Report) -> None:
        """Fill ``part`` with the whole file, going on from what it holds where that is possible.

        The caller checks the hash. Raises FetchError with the reason alone (no label).
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Fetches files into a cache directory.

    Args:
        locks: directory of lock files.
        verified: remembered hashes.
        offline: use no source that needs the network.
        progress: told how far a download is; None for silence.
    """

    locks: Path
    verified: VerifiedHashes
    offline: bool = False
    progress: Progress | None = None

    def fetch(self, name: str, target: Path, pin: Pin, sources: Sequence[Source]) -> str:
        """Make sure ``target`` holds the pinned file; returns its SHA-256.

        An unpinned file that is there is taken as it is: its hash is what the record will say.

        Raises:
            FetchError: no source could deliver; every one is listed with its reason.
            IntegrityError: the same, and at least one delivered wrong bytes.
        """
        try:
            with locked(self.locks, target):
                return self._fetch(name, target, pin, sources)
        except OSError as exc:
            raise FetchError(
                f"{name} cannot be kept in {target.parent}: {exc.strerror or exc}; "
                "free some space or set LICHEN_CACHE to another directory"
            ) from exc

    def _fetch(self, name: str, target: Path, pin: Pin, sources: Sequence[Source]) -> str:
        failures: list[tuple[str, str]] = []
        lied = False
        if target.is_file():
            found = self.verified.sha256(target)
            if found == (pin.sha256 or found):
                return found
            failures.append(("the cache", f"{target} is damaged (SHA-256 {found})"))
        for source in sources:
            if self.offline and source.online:
                failures.append((source.label, "not tried: offline"))
                continue
            try:
                digest = self._from(source, name, target, pin)
            except FetchError as exc:
                lied |= isinstance(exc, IntegrityError)
                failures.append((source.label, str(exc)))
                continue
            for other in sources:
                PartFile(target, other.identity).discard()
            return digest
        kind = IntegrityError if lied else FetchError
        raise kind(_all_failed(name, failures))

    def _from(self, source: Source, name: str, target: Path, pin: Pin) -> str:
        part = PartFile(target, source.identity)
        what = f"{name} from {source.label}"
        resumed = part.size > 0
        try:
            digest = self._complete(source, part, pin, what)
        except IntegrityError:
            part.discard()
            if not resumed:
                raise
            # The old bytes may be to blame (a crash, another version): once more from the start.
            try:
                digest = self._complete(source, part, pin, what)
            except IntegrityError:
                part.discard()
                raise
        part.path.replace(target)
        part.discard()
        self.verified.record(target, digest)
        return digest

    def _complete(self, source: Source, part: PartFile, pin: Pin, what: str) -> str:
        def report(done: int) -> None:
            if self.progress is not None:
                self.progress(what, done, pin.size)

        source.deliver(part, pin, report)
        if pin.size is not None and part.size != pin.size:
            raise IntegrityError(f"it gave {part.size:,} bytes instead of {pin.size:,}")
        with part.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != (pin.sha256 or digest):
            raise IntegrityError(f"it gave other bytes (SHA-256 {digest}, not {pin.sha256})")
        return digest


def _all_failed(name: str, failures: Sequence[tuple[str, str]]) -> str:
    tried = "; ".join(f"{label}: {reason}" for label, reason in failures) or "it has no sources"
    return (
        f"{name} could not be fetched ({tried}); connect to a network that reaches one of these, "
        "or put the file in a directory named by LICHEN_MIRROR"
    )
