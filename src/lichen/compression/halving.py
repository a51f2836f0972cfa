"""Successive halving over several objectives: who goes on to the dearer measurement.

Candidates are sorted into fronts (Deb et al. 2002, NSGA-II): the first front holds those that no
other beats in every objective, the next one those that only the first front beats, and so on.
Within a front those go first that stand far from their neighbours, so that what goes on covers the
whole trade-off and not one corner of it. Each round keeps one in ``eta`` (Jamieson and Talwalkar,
2016, whose single loss the rank replaces).

The area that a set of candidates covers beneath a reference point (its *hypervolume*) is the
yardstick for comparing sets: here, guided candidates with random ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

Objectives = tuple[float, ...]
"""All are to be small. Every candidate has the same number of them; infinity is allowed."""

ETA: Final = 3
"""One in three goes on: the choice of Li et al. 2018 (Hyperband), there near the optimum e."""


def dominates(a: Objectives, b: Objectives) -> bool:
    """Whether ``a`` is at least as good in everything and better in something."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def fronts(points: Sequence[Objectives]) -> list[list[int]]:
    """Return indices front by front; equal points share a front."""
    left = set(range(len(points)))
    found = []
    while left:
        front = sorted(i for i in left if not any(dominates(points[j], points[i]) for j in left))
        found.append(front)
        left -= set(front)
    return found


def ranked(points: Sequence[Objectives]) -> list[int]:
    """Return all indices, the ones to keep first: by front, then by distance to neighbours."""
    order: list[int] = []
    for front in fronts(points):
        gaps = _gaps([points[i] for i in front])
        order += [i for _, i in sorted(zip(gaps, front, strict=True), key=lambda g: (-g[0], g[1]))]
    return order


def schedule(count: int, *, eta: int = ETA, finalists: int = 3) -> list[int]:
    """Return how many candidates each round has, the finalists last: ``[12, 4, 3]``."""
    sizes = [count]
    while sizes[-1] > finalists:
        sizes.append(max(math.ceil(sizes[-1] / eta), finalists))
    return sizes


def hypervolume(points: Sequence[Objectives], reference: Objectives) -> float:
    """Return the volume that ``points`` dominate within ``reference``; 0 for none.

    Any number of objectives, by slicing along the last one; meant for dozens of points.
    """
    inside = [p for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(p[0] for p in inside)
    cuts = [*sorted({p[-1] for p in inside}), reference[-1]]
    return math.fsum(
        (high - low) * hypervolume([p[:-1] for p in inside if p[-1] <= low], reference[:-1])
        for low, high in pairwise(cuts)
    )


def _gaps(points: Sequence[Objectives]) -> list[float]:
    """Return each point's crowding distance within one front; ends are infinitely far."""
    gaps = [0.0] * len(points)
    for axis in range(len(points[0])):
        order = sorted(range(len(points)), key=lambda i: points[i][axis])
        values = [points[i][axis] for i in order]
        span = values[-1] - values[0]
        gaps[order[0]] = gaps[order[-1]] = math.inf
        if not 0 < span < math.inf:
            continue
        for k in range(1, len(order) - 1):
            gaps[order[k]] += (values[k + 1] - values[k - 1]) / span
    return gaps
