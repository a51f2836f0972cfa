"""Rows of a JSON Lines data set, plain or gzipped, checked before anyone relies on them.

Every complaint is a ``ConfigError`` that names file and line. It knows no data set's columns.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from lichen.core.errors import ConfigError

MAX_LINE_BYTES: Final = 4 << 20
MAX_TOTAL_BYTES: Final = 256 << 20
MAX_ROWS: Final = 200_000
"""Limits on hostile files (a small gzip can hold gigabytes): HumanEval has 164 rows and 0.2 MB."""

MAX_ID_CHARS: Final = 200
_GZIP_MAGIC: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One object of a JSON Lines file and where it stands."""

    path: Path
    line: int
    values: dict[str, object]

    def error(self, complaint: str) -> ConfigError:
        """Build the error for this row."""
        return ConfigError(f"{self.path}:{self.line}: {complaint}")

    def __contains__(self, column: str) -> bool:
        return column in self.values

    def text(self, column: str, default: str | None = None) -> str:
        """Return a text column; ``default`` stands for an absent or null one, if given."""
        value = self.values.get(column)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.error(f"the column {column!r} must be a text, {_found(value)}")
        return value

    def texts(self, column: str) -> tuple[str, ...]:
        """Return a column that is a list of texts."""
        value = self.values.get(column)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.error(f"the column {column!r} must be a list of texts, {_found(value)}")
        return tuple(value)

    def number(self, column: str) -> int:
        """Return a whole-number column."""
        value = self.values.get(column)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"the column {column!r} must be a whole number, {_found(value)}")
        return value

    def identifier(self, column: str) -> str:
        """Return a column that must be a Python name (it is put into programs)."""
        name = self.text(column)
        if not (name.isidentifier() and name.isascii()):
            raise self.error(f"the column {column!r} must be a Python name, not {name[:60]!r}")
        return name


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSON Lines file; blank lines are skipped.

    Raises:
        ConfigError: the file cannot be read, is too large, or a line is no JSON object.
    """
    total = 0
    try:
        with _opened(path) as stream:
            for number in range(1, MAX_ROWS + 1):
                line = stream.readline(MAX_LINE_BYTES + 1)
                total += len(line)
                if not line:
                    return
                if len(line) > MAX_LINE_BYTES or total > MAX_TOTAL_BYTES:
                    raise ConfigError(f"{path}:{number}: the data is larger than a data set may be")
                if line.strip():
                    yield Row(path=path, line=number, values=_object(path, number, line))
    except (OSError, EOFError, zlib.error) as exc:  # EOFError, zlib: a damaged gzip
        raise ConfigError(f"{path} cannot be read as JSON Lines: {exc}") from exc
    raise ConfigError(f"{path} has more than {MAX_ROWS} rows")


def unique_ids(pairs: Iterator[tuple[Row, str]]) -> Iterator[tuple[Row, str]]:
    """Pass rows with their ids through; an empty, endless or repeated id is a ConfigError."""
    seen: dict[str, int] = {}
    for row, name in pairs:
        if not name or len(name) > MAX_ID_CHARS or not name.isprintable():
            raise row.error(f"an id must be 1..{MAX_ID_CHARS} printable characters")
        if name in seen:
            raise row.error(f"the id {name!r} was already used on line {seen[name]}")
        seen[name] = row.line
        yield row, name


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise ConfigError(f"the data file {path} cannot be read: {exc}") from exc


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as probe:
        packed = probe.read(2) == _GZIP_MAGIC
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def _object(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}:{number}: not a line of JSON ({str(exc)[:80]})") from exc
    if not isinstance(value, dict):
        raise ConfigError(f"{path}:{number}: a row must be an object, {_found(value)}")
    return value


def _found(value: object) -> str:
    return "but it is missing" if value is None else f"but a {type(value).__name__} was found"
