"""Units and significant figures: the one place where a number becomes text.

Values come in SI (J, s, bytes, litres, grams, dollars, FLOP). A column gets one unit, so that its
numbers compare by eye. Decimals follow the width of the interval: two significant figures of the
uncertainty, never fewer than two nor more than four of the value. "Not measured" is not formatted
here, because it is not a number.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lichen.core.footprint import Priced
from lichen.core.interval import Interval
from lichen.core.summary import Dimension
from lichen.core.units import BYTES_PER_GIB, BYTES_PER_KIB, BYTES_PER_MIB, J_PER_KWH, J_PER_WH

EN_DASH: Final = "\u2013"
MINUS: Final = "\u2212"
INFINITY: Final = "\u221e"
_SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit for people: its symbol and how many base units it is."""

    symbol: str
    size: float = 1.0

    def of(self, value: float) -> float:
        """Convert from the base unit."""
        return value / self.size

    def interval(self, value: Interval) -> Interval:
        """Convert an interval from the base unit."""
        return Interval(
            low=self.of(value.low), value=self.of(value.value), high=self.of(value.high)
        )


PLAIN: Final = Unit(symbol="")


_SHARP = 0.002
"""Relative width under which the third figure does not move."""


def _ladder(*steps: tuple[str, float]) -> tuple[Unit, ...]:
    return tuple(Unit(symbol=symbol, size=size) for symbol, size in steps)


LADDERS: Final[dict[Dimension, tuple[Unit, ...]]] = {
    Dimension.COMPUTATION: _ladder(
        ("FLOP", 1.0),
        ("kFLOP", 1e3),
        ("MFLOP", 1e6),
        ("GFLOP", 1e9),
        ("TFLOP", 1e12),
        ("PFLOP", 1e15),
        ("EFLOP", 1e18),
    ),
    Dimension.MEMORY: _ladder(
        ("B", 1.0), ("KiB", BYTES_PER_KIB), ("MiB", BYTES_PER_MIB), ("GiB", BYTES_PER_GIB)
    ),
    Dimension.TIME: _ladder(("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0)),
    Dimension.CPU_TIME: _ladder(
        ("CPU-ms", 1e-3), ("CPU-s", 1.0), ("CPU-min", 60.0), ("CPU-h", 3600.0)
    ),
    Dimension.ENERGY: _ladder(("mJ", 1e-3), ("J", 1.0), ("Wh", J_PER_WH), ("kWh", J_PER_KWH)),
    Dimension.WATER: _ladder(("µL", 1e-6), ("mL", 1e-3), ("L", 1.0), ("m³", 1e3)),
    Dimension.CARBON: _ladder(
        ("µg CO₂e", 1e-6), ("mg CO₂e", 1e-3), ("g CO₂e", 1.0), ("kg CO₂e", 1e3), ("t CO₂e", 1e6)
    ),
    Dimension.MONEY: _ladder(("m¢", 1e-5), ("¢", 1e-2), ("$", 1.0)),
}
"""Units per dimension, smallest first; ``m¢`` is a thousandth of a US cent."""

LABELS: Final[dict[Dimension, str]] = {
    Dimension.COMPUTATION: "computation",
    Dimension.MEMORY: "peak memory",
    Dimension.TIME: "time",
    Dimension.CPU_TIME: "CPU time",
    Dimension.ENERGY: "energy",
    Dimension.WATER: "water",
    Dimension.CARBON: "carbon",
    Dimension.MONEY: "money",
}


def unit_for(dimension: Dimension, values: Iterable[Priced]) -> Unit:
    """Choose a column's unit: the largest in which the median value is at least 1."""
    ladder = LADDERS[dimension]
    sizes = [
        size
        for v in values
        if isinstance(v, Interval)
        for size in [abs(v.low if math.isinf(v.value) else v.value)]
        if size and not math.isinf(size)
    ]
    if not sizes:
        return next(u for u in ladder if u.size == 1.0)
    middle = statistics.median_low(sizes)
    fitting = [u for u in ladder if middle >= u.size]
    return fitting[-1] if fitting else ladder[0]


def sharp(value: Interval) -> bool:
    """Whether a range would tell nothing beside three figures: it is narrower than they resolve."""
    return value.is_exact or value.width < _SHARP * abs(value.value)


def decimals(value: Interval) -> int:
    """Return how many decimals an interval deserves; see the module."""
    spread = value.width
    if math.isinf(spread):
        spread = 2 * (value.value - value.low) if not math.isinf(value.value) else 0.0
    size = value.value if not math.isinf(value.value) else value.low
    if not size or math.isinf(size):
        return _places(spread, 2) if spread and not math.isinf(spread) else 0
    if not spread or sharp(value):
        return _places(size, 3)
    return min(max(_places(spread, 2), _places(size, 2)), _places(size, 4))


def number(value: float, places: int) -> str:
    """Write a number with thousands separators; what rounds to 0 without being 0 says so."""
    if math.isinf(value):
        return INFINITY if value > 0 else MINUS + INFINITY
    text = f"{abs(value):,.{places}f}"
    if value and not float(text.replace(",", "")):
        text = f"<{10.0**-places:.{places}f}"
        return text if value > 0 else f"{MINUS}{text}"
    return f"{MINUS}{text}" if value < 0 else text


def significant(value: float, figures: int = 3) -> str:
    """Write a number with that many significant figures (integers keep all their digits)."""
    if not value or math.isinf(value):
        return number(value, 0)
    return number(value, _places(value, figures))


def interval(value: Interval) -> str:
    """Write ``0.56 [0.48, 0.63]``; a value that is exact to the figures shown has no brackets."""
    d = decimals(value)
    best = number(value.value, d)
    if sharp(value):
        return best
    return f"{best} [{number(value.low, d)}, {number(value.high, d)}]"


def parts(value: Interval) -> tuple[str, str]:
    """Write the best estimate and ``low-high`` (with an en dash) apart; "" when exact."""
    d = decimals(value)
    return number(value.value, d), "" if sharp(value) else _span(value, d)


def span(value: Interval) -> str:
    """Write ``12-48`` (with an en dash): a range without a best estimate, two figures each.

    A range whose ends read the same is written as its best estimate.
    """
    low, high = significant(value.low, 2), significant(value.high, 2)
    if sharp(value) or low == high:
        return significant(value.value)
    return f"{low}{EN_DASH}{high}"


def plain(value: float) -> str:
    """Write a given constant without rounding it; large and small ones as a power of ten."""
    if value and not math.isinf(value) and not 1e-4 <= abs(value) < 1e7:  # noqa: PLR2004 (readable)
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa} \u00d7 10{superscript(int(exponent))}"
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def signed(value: Interval) -> str:
    """Write a difference with its sign: ``+0.02 [-0.05, +0.09]``."""
    # A difference may be close to 0 and still be known well: only its width sets the decimals.
    d = 2 if value.is_exact or math.isinf(value.width) else max(2, _places(value.width, 2))
    best, low, high = (_signed(x, d) for x in (value.value, value.low, value.high))
    return f"{best} [{low}, {high}]"


def ratio(value: Interval) -> str:
    """Write a ratio: ``0.61x [0.55, 0.68]`` with a multiplication sign."""
    best, _, rest = interval(value).partition(" ")
    return f"{best}\u00d7 {rest}".rstrip()


def percent(share: float) -> str:
    """Write a share of 1 in per cent, without decimals unless below one per cent."""
    value = 100 * share
    return f"{number(value, 1 if 0 < abs(value) < 1 else 0)} %"


def probability(p: float) -> str:
    """Write ``= 0.62``, or ``< 0.001`` and ``> 0.999`` where resampling cannot tell more."""
    if p < 0.001:  # noqa: PLR2004 (three decimals)
        return "<\u00a00.001"
    return ">\u00a00.999" if p > 0.999 else f"=\u00a0{significant(p, 2)}"  # noqa: PLR2004 (three decimals)


def count(value: int) -> str:
    """Write an integer with thousands separators."""
    return f"{value:,}"


def quantity(dimension: Dimension, value: float) -> str:
    """Write one value of a dimension with its own best unit: ``31.2 J``."""
    unit = unit_for(dimension, [Interval.exact(value)])
    return f"{significant(unit.of(value))} {unit.symbol}"


def plural(n: int, noun: str) -> str:
    """Write ``1 problem``, ``20 problems``."""
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def superscript(n: int) -> str:
    """Write a footnote mark."""
    return str(n).translate(_SUPERSCRIPTS)


def _span(value: Interval, places: int) -> str:
    return f"{number(value.low, places)}{EN_DASH}{number(value.high, places)}"


def _signed(value: float, places: int) -> str:
    return f"+{number(value, places)}" if value > 0 else number(value, places)


def _places(value: float, figures: int) -> int:
    """Return the decimals that show ``figures`` significant figures of ``value`` (not 0)."""
    return max(0, figures - 1 - math.floor(math.log10(abs(value))))
