"""Evaluations as plain values for the ledger, and back. A record that does not fit is ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lichen.compression.searched import Bill, Gated, Look
from lichen.core.interval import Interval
from lichen.core.measurement import Missing

_INTERVALS = ("kl_nats", "flips", "prefill", "decode")
_NUMBERS = ("parent_request_s", "child_request_s")


def plain_look(look: Look) -> dict[str, object]:
    """Return a look as JSON-ready values; infinities become texts."""
    plain: dict[str, object] = {
        name: [_plain(x) for x in (i.low, i.value, i.high)]
        for name in _INTERVALS
        if isinstance(i := getattr(look, name), Interval)
    }
    plain |= {name: _plain(getattr(look, name)) for name in _NUMBERS}
    return {
        **plain,
        "file_bytes": look.file_bytes,
        "error": look.error,
        "bill": _plain_bill(look.bill),
    }


def look_from(plain: Mapping[str, object]) -> Look | None:
    """Read a look back; None if the record is not one."""
    try:
        kl_nats, flips, prefill, decode = (_interval(plain[name]) for name in _INTERVALS)
        parent_request_s, child_request_s = (_number(plain[name]) for name in _NUMBERS)
        return Look(
            kl_nats=kl_nats,
            flips=flips,
            prefill=prefill,
            decode=decode,
            parent_request_s=parent_request_s,
            child_request_s=child_request_s,
            file_bytes=int(_number(plain["file_bytes"])),
            error=str(plain["error"]),
            bill=_bill(plain["bill"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def plain_gated(gated: Gated) -> dict[str, object]:
    """Return a verdict as JSON-ready values."""
    return {
        "passed": gated.passed,
        "sentence": gated.sentence,
        "rows": [list(r) for r in gated.rows],
        "bill": _plain_bill(gated.bill),
    }


def gated_from(plain: Mapping[str, object]) -> Gated | None:
    """Read a verdict back; None if the record is not one."""
    try:
        rows = plain["rows"]
        if not isinstance(rows, list) or not isinstance(plain["passed"], bool):
            return None
        return Gated(
            passed=plain["passed"],
            sentence=str(plain["sentence"]),
            rows=tuple((str(a), str(b), str(c)) for a, b, c in rows),
            bill=_bill(plain["bill"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _plain_bill(bill: Bill) -> dict[str, object]:
    known = not isinstance(bill.energy_j, Missing)
    energy = {"energy_j": bill.energy_j} if known else {"energy_missing": bill.energy_j.reason}  # type: ignore[union-attr]
    return {"wall_s": bill.wall_s, "cpu_s": bill.cpu_s, **energy}


def _bill(plain: object) -> Bill:
    if not isinstance(plain, Mapping):
        raise TypeError("a bill is a table")
    energy: float | Missing
    if "energy_missing" in plain:
        energy = Missing(reason=str(plain["energy_missing"]))
    else:
        energy = _number(plain["energy_j"])
    return Bill(wall_s=_number(plain["wall_s"]), cpu_s=_number(plain["cpu_s"]), energy_j=energy)


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("a number was expected")
    return float(value)


def _interval(value: object) -> Interval:
    if not isinstance(value, list):
        raise TypeError("an interval is a list")
    low, middle, high = map(_number, value)
    return Interval(low=low, value=middle, high=high)
