"""Names of places: ISO 3166-1 alpha-3 codes, alpha-2 codes and English names, all lead to one code.

Facts of ISO 3166-1 for every country that the grid file covers. ``WORLD`` is the average.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Final

from lichen.core.errors import UnknownNameError
from lichen.core.registry import unknown

WORLD: Final = "WORLD"


@cache
def _table() -> tuple[dict[str, str], dict[str, str]]:
    """Return (folded spelling -> code, code -> name)."""
    path = resources.files("lichen.footprint") / "data" / "regions.csv"
    spellings: dict[str, str] = {}
    names: dict[str, str] = {}
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        names[row["code"]] = row["name"]
        for spelling in (row["code"], row["alpha2"], row["name"], *row["aliases"].split("|")):
            if spelling:
                spellings[spelling.casefold()] = row["code"]
    return spellings, names


def region_code(text: str, *, also: Collection[str] = ()) -> str:
    """Return the code of a country given by alpha-3, alpha-2 or English name; case is ignored.

    ``also`` are codes that a user's factor file brings; they are matched as they are.

    Raises:
        UnknownNameError: no such region; near ones are suggested.
    """
    if text in also:
        return text
    spellings, names = _table()
    code = spellings.get(text.strip().casefold())
    if code is None:
        hints = list(dict.fromkeys([*names, *names.values(), *also]))
        near = text.strip().title() if len(text.strip()) > 3 else text.strip().upper()  # noqa: PLR2004 (a code has 3 letters)
        raise UnknownNameError(unknown("region", near, hints))
    return code


def region_name(code: str) -> str:
    """Return the English name of a code, or the code itself where a user's file brought it."""
    return _table()[1].get(code, code)


def region_codes() -> tuple[str, ...]:
    """All codes that the package knows, sorted."""
    return tuple(sorted(_table()[1]))
