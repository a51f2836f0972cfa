"""Read and check factor files: every row states value, range, unit, year, source and licence.

The package's own rows lie in ``data/factors.csv`` and ``data/grid.csv``. People add files of the
same columns; a row there replaces every earlier row of its (name, region). A file is checked
whole before anything is computed, because a factor that is wrong by a unit is the commonest way
to be wrong by a thousand.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from lichen.core.errors import ConfigError
from lichen.core.footprint import Factor
from lichen.core.interval import Interval

COLUMNS: Final = (
    "name", "region", "value", "low", "high", "unit", "year", "source", "licence", "note",
)  # fmt: skip
BUILT_IN: Final = ("factors.csv", "grid.csv")
_MAY_BE_EMPTY: Final = frozenset({"region", "note"})

GRID: Final = "grid.carbon_intensity"
OFFSITE: Final = "water.offsite"
TARIFF: Final = "tariff.electricity"

_UNITS: Final[dict[str, tuple[str, ...]]] = {
    GRID: ("gCO2e/kWh",),
    OFFSITE: ("L/kWh",),
    TARIFF: ("USD/kWh",),
    "site.*.pue": ("1",),
    "site.*.wue": ("L/kWh",),
    "embodied.*": ("kgCO2e", "kgCO2e per logical CPU"),
    "lifetime.*": ("year",),
    "power.*": ("W",),
    "peak_flops.*": ("FLOP/s",),
    "bandwidth.*": ("B/s",),
    "training.*": ("1",),
    "inference.*": ("1", "W"),
    "query.*": ("Wh",),
    "equivalent.*": ("kWh/year", "tCO2e/year", "gCO2e/km", "Wh", "L"),
}
"""What a factor may be called (``*`` is one word) and the units it may have."""

_DIVISORS: Final = ("lifetime.", "peak_flops.", "bandwidth.", "equivalent.")


def load_factors(paths: Sequence[Path] = ()) -> tuple[Factor, ...]:
    """Return the built-in factors, with rows of ``paths`` put over them in order.

    A row of a later file replaces all earlier rows of the same (name, region), whatever their
    year. Within one file (name, region, year) is unique.

    Raises:
        ConfigError: a file cannot be read or a row is not usable; the message has file and line.
    """
    rows = _built_in()
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(
                f"the factor file {path} cannot be read as UTF-8 text: {exc}"
            ) from exc
        over = parse_factors(text, where=str(path))
        replaced = {(f.name, f.region) for f in over}
        rows = (*(f for f in rows if (f.name, f.region) not in replaced), *over)
    return rows


@cache
def _built_in() -> tuple[Factor, ...]:
    data = resources.files("lichen.footprint") / "data"
    return tuple(
        factor
        for name in BUILT_IN
        for factor in parse_factors((data / name).read_text(encoding="utf-8"), where=name)
    )


def parse_factors(text: str, *, where: str) -> tuple[Factor, ...]:
    """Parse one file's text; ``where`` names it in messages. Raises ConfigError."""
    factors: list[Factor] = []
    seen: dict[tuple[str, str, int], int] = {}
    for line, row in _rows(text, where):
        factor = _factor(row, f"{where}:{line}")
        key = (factor.name, factor.region, factor.year)
        if key in seen:
            raise ConfigError(
                f"{where}:{line}: {factor.name} for {factor.region or 'any region'} in "
                f"{factor.year} is already on line {seen[key]}; keep one of them"
            )
        seen[key] = line
        factors.append(factor)
    return tuple(factors)


def _rows(text: str, where: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(reader, [])
        odd = sorted(set(header) ^ set(COLUMNS))
        if odd or len(header) != len(COLUMNS):
            raise ConfigError(
                f"{where}:1: the columns must be exactly {','.join(COLUMNS)}; "
                f"unknown, missing or repeated: {', '.join(odd) or 'a repeated one'}"
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ConfigError(
                    f"{where}:{reader.line_num}: {len(cells)} cells where the header has "
                    f"{len(header)}; quote cells that contain a comma"
                )
            pairs = zip(header, cells, strict=True)
            yield reader.line_num, {column: cell.strip() for column, cell in pairs}
    except csv.Error as exc:
        raise ConfigError(f"{where}:{reader.line_num}: not valid CSV: {exc}") from exc


def _factor(row: dict[str, str], at: str) -> Factor:
    for column in COLUMNS:
        if not row[column] and column not in _MAY_BE_EMPTY:
            raise ConfigError(
                f"{at}: the {column} is missing; a factor nobody can check is not used"
            )
    low, value, high = (_number(row, column, at) for column in ("low", "value", "high"))
    if not low <= value <= high:
        raise ConfigError(f"{at}: needs low <= value <= high, got {low:g}, {value:g}, {high:g}")
    if not re.fullmatch(r"[0-9]{1,4}", row["year"]):
        raise ConfigError(
            f"{at}: the year {row['year'][:20]!r} must be a number, 0 for a definition"
        )
    check(row["name"], Interval(low=low, value=value, high=high), unit=row["unit"], at=at)
    return Factor(
        name=row["name"],
        region=row["region"],
        value=Interval(low=low, value=value, high=high),
        unit=row["unit"],
        year=int(row["year"]),
        source=row["source"],
        licence=row["licence"],
        note=row["note"],
    )


def _number(row: dict[str, str], column: str, at: str) -> float:
    try:
        number = float(row[column])
    except ValueError as exc:
        raise ConfigError(f"{at}: the {column} {row[column]!r} is not a number") from exc
    if not math.isfinite(number) or number < 0:
        raise ConfigError(f"{at}: the {column} must be finite and not negative, got {number}")
    return number


def check(name: str, value: Interval, *, unit: str | None, at: str) -> None:
    """Refuse a factor of unknown name, wrong unit or impossible value; ``at`` says where it is.

    Raises:
        ConfigError: one sentence that starts with ``at``.
    """
    units = _UNITS.get(_family(name))
    if units is None:
        raise ConfigError(f"{at}: no factor is called {name!r}; known: {', '.join(_UNITS)}")
    if unit is not None and unit not in units:
        raise ConfigError(f"{at}: {name} is in {' or '.join(units)}, not in {unit!r}")
    if not math.isfinite(value.high) or value.low < 0:
        raise ConfigError(f"{at}: {name} must be finite and not negative")
    if name.endswith(".pue") and value.low < 1:
        raise ConfigError(
            f"{at}: a PUE is at least 1 (it includes the IT itself), got {value.low:g}"
        )
    if name.startswith(_DIVISORS) and value.low <= 0:
        raise ConfigError(f"{at}: {name} divides, so it must be above 0")


def _family(name: str) -> str:
    words = name.split(".")
    if len(words) == 3 and all(words):  # noqa: PLR2004 (site.<profile>.<pue or wue>)
        return f"{words[0]}.*.{words[2]}"
    if len(words) == 2 and all(words) and name not in _UNITS:  # noqa: PLR2004 (family.member)
        return f"{words[0]}.*"
    return name
