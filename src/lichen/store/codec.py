"""Records to JSON text and back, exactly. Unknown fields and newer versions are refused."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lichen.core.errors import StoreError
from lichen.core.record import RECORD_VERSION, RunRecord

T = TypeVar("T")


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Building one compiles a schema, so each is built once, when it is first needed.
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def encode(record: object) -> str:
    """Return a record (a frozen dataclass of ``lichen.core``) as one line of JSON."""
    text: str = _adapter(type(record)).dump_json(record).decode()
    return text


def decode(kind: type[T], text: str | bytes) -> T:
    """Return the record of type ``kind`` that ``text`` holds.

    Raises:
        StoreError: not JSON, fields missing or unknown, values out of range, or a newer version.
    """
    try:
        record: T = _adapter(kind).validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(p) for p in first["loc"]) or "the document"
        raise StoreError(
            f"cannot read a {kind.__name__}: {where}: {first['msg']}; "
            "was it written by another version of lichen?"
        ) from exc
    if isinstance(record, RunRecord) and record.record_version > RECORD_VERSION:
        raise StoreError(
            f"run {record.id} has record version {record.record_version}, this lichen reads up to "
            f"{RECORD_VERSION}: upgrade lichen"
        )
    return record
