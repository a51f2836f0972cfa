"""Runs that belong together: the name they share, and which run has which.

The name is the spec's ``part_of``. It is part of what a run's hash covers, so that the rounds of a
search are never taken for runs that somebody asked for by themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from lichen.compose.spec import RunSpec
from lichen.core.record import RunRecord
from lichen.store import Store

_DIGITS: Final = 8


def label_for(spec: RunSpec, store: Store, *, fresh: bool = False) -> str:
    """Return the name of the search over a spec: the latest there is, a new one if ``fresh``."""
    digest = hashlib.sha256(spec.canonical().encode("utf-8", "replace")).hexdigest()[:_DIGITS]
    first = f"search-{digest}"
    tails = [part_of(r).removeprefix(first) for r in store.runs() if part_of(r).startswith(first)]
    numbers = [int(t.removeprefix("-")) if t else 1 for t in tails if not t or t[1:].isdigit()]
    number = max(numbers, default=0) + (1 if fresh or not numbers else 0)
    return first if number == 1 else f"{first}-{number}"


def part_of(run: RunRecord) -> str:
    """Return what a run is part of, "" if it stands for itself."""
    try:
        spec = json.loads(run.spec)
    except ValueError:  # imported from elsewhere
        return ""
    found = spec.get("part_of", "") if isinstance(spec, Mapping) else ""
    return found if isinstance(found, str) else ""
