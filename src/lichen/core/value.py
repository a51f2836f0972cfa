"""The base of values that are stored: what a codec must know about them, without a codec.

Pydantic reads ``__pydantic_config__`` from standard-library dataclasses; nothing here imports it.
Unknown fields are refused (a record from a newer lichen must not lose data silently), and infinite
bounds are written as strings, since JSON has no infinity and null would become "not measured".
"""

from __future__ import annotations

from typing import ClassVar


class Value:
    """Marker base of frozen dataclasses that records are made of."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "ser_json_inf_nan": "strings",
    }
