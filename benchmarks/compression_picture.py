"""Draws what recipes cost against how far they move the model, as an SVG that stands for itself.

Two panels share the height: KL divergence from the parent. To the right go CPU time of a typical
request, and file size, both as ratios to the parent, which is at (1, 0). Left and down is better.
What no other recipe beats in both is filled and joined by dashed steps; thin bars are 95 %
intervals. The height grows with the square root, so that zero has a place and small divergences
are told apart.

The report's charts are laid out by a library that measures texts in the fonts it finds. Here the
drawing is compared byte by byte with the stored one, so it is written out; fonts and theme are the
reader's, the background is white in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import product
from typing import Final

from lichen.compression.halving import fronts

INK, QUIET, HAIR, FRONT, PAPER = "#22261f", "#5a6154", "#d9d8cb", "#2a5f95", "#ffffff"
"""As in the report's light theme."""

_WIDTH, _HEIGHT = 980, 408
_PANEL: Final = (410, 330)
_TOP: Final = 20
_LEFTS: Final = (58, 552)
_FONT: Final = 12
_LETTER: Final = 6.4
"""Pixels that a letter takes at most, on average: labels are placed by it."""
_LINE: Final = 14
_DOT: Final = 5.0
_TICKS: Final = tuple(m * 10.0**e for e in range(-5, 2) for m in (1, 2, 5))
_LEAST_TOP: Final = 0.01
"""Nats at the upper edge at least: below is noise."""
_LEAST_GAP: Final = 26
"""Pixels between ticks of the height."""
_DISTANCES: Final = (9, 16, 24, 34, 46, 60, 76)
_ANGLES: Final = (0, 180, 330, 30, 210, 150, 300, 60, 240, 120, 270, 90)
_COVERED: Final = 3.0
_CROSSED: Final = 40.0
"""What a square pixel that a label covers, and a thing that its line crosses, count in pixels of
distance."""
_SPOTS: Final = 8

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Place = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A recipe, or the parent. ``cpu`` and ``kl`` are low, value, high; ratios to the parent."""

    label: str
    cpu: tuple[float, float, float]
    size: float
    kl: tuple[float, float, float]


PARENT: Final = Point(label="parent", cpu=(1.0, 1.0, 1.0), size=1.0, kl=(0.0, 0.0, 0.0))


def picture(model: str, points: Sequence[Point]) -> str:
    """Return the drawing as SVG text; the parent is added.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("there is nothing to draw")
    everything = [PARENT, *points]
    top = max(_LEAST_TOP, *(p.kl[1] * 1.15 for p in points))
    by_cpu = {p.label: p.cpu for p in everything}
    by_size = {p.label: (p.size, p.size, p.size) for p in everything}
    name = escape(f"{model}: divergence from the parent against CPU time and file size", quote=True)
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{name}" '
        f'font-family="sans-serif" font-size="{_FONT}">'
    )
    parts = [
        root,
        f"<desc>{escape(describe(points))}</desc>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="{PAPER}"/>',
        *_panel(_LEFTS[0], everything, by_cpu, top, "CPU time of a typical request, ratio"),
        *_panel(_LEFTS[1], everything, by_size, top, "file size, ratio"),
        _text(16, _TOP + _PANEL[1] / 2, "KL from the parent, nats", "middle", QUIET, turned=True),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def describe(points: Sequence[Point]) -> str:
    """Return the picture in words."""
    said = "; ".join(
        f"{p.label}: KL {p.kl[1]:.4f} nats, CPU {p.cpu[1]:.2f}, size {p.size:.2f}" for p in points
    )
    return f"Ratios to the parent, which is at KL 0 and ratio 1. {said}."


def on_front(points: Sequence[Point], x: Callable[[Point], float]) -> list[Point]:
    """Return what no other point beats in both, from left to right."""
    first = fronts([(x(p), p.kl[1]) for p in points])[0]
    return sorted((points[i] for i in first), key=x)


@dataclass(slots=True)
class _Scale:
    """Where numbers are on the drawing."""

    left: float
    low: float
    high: float
    top: float

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.left + _PANEL[0] * min(max(share, 0.0), 1.0)

    def y(self, nats: float) -> float:
        share = math.sqrt(max(nats, 0.0) / self.top)
        return _TOP + _PANEL[1] * (1 - min(share, 1.0))


def _panel(
    left: float,
    points: Sequence[Point],
    xs: Mapping[str, tuple[float, float, float]],
    top: float,
    title: str,
) -> list[str]:
    values = [xs[p.label][1] for p in points]
    room = max(0.06 * (max(values) - min(values)), 0.02)
    scale = _Scale(left, min(values) - room, max(values) + room, top)
    front = on_front(points, lambda p: xs[p.label][1])
    labels = _Labels(left)
    places = {p.label: (scale.x(xs[p.label][1]), scale.y(p.kl[1])) for p in points}
    labels.taken += [(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in places.values()]
    hint = (left + 6, _TOP + _PANEL[1] - 8)
    labels.taken.append((hint[0], hint[1] - _LINE, hint[0] + 52, hint[1]))
    parts = [*_axes(scale, title), _text(*hint, "better ↙", "start", QUIET), _steps(front, places)]
    for p in points:
        parts += _bars(p, xs[p.label], scale, places[p.label])
    for p in points:
        parts.append(_dot(p, places[p.label], filled=p in front))
    for p in [*front, *(q for q in points if q not in front)]:
        colour = INK if p is PARENT else FRONT if p in front else QUIET
        parts += labels.place(p.label, places[p.label], colour)
    return parts


def _axes(scale: _Scale, title: str) -> list[str]:
    left, bottom, right = scale.left, _TOP + _PANEL[1], scale.left + _PANEL[0]
    parts = [_line((left, bottom), (right, bottom), HAIR)]
    shown: list[float] = []
    for nats in (0.0, *_TICKS):
        y = scale.y(nats)
        if nats > scale.top or (shown and shown[-1] - y < _LEAST_GAP):
            continue
        shown.append(y)
        parts += [_line((left, y), (right, y), HAIR), _text(left - 7, y + 4, f"{nats:g}", "end")]
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1e9) if 7 * s > scale.high - scale.low)
    number = math.ceil(scale.low / step)
    while number * step <= scale.high:
        x = scale.x(number * step)
        parts += [_line((x, bottom), (x, bottom + 5), HAIR)]
        parts += [_text(x, bottom + 20, f"{number * step:.2f}", "middle")]
        number += 1
    return [*parts, _text(left + _PANEL[0] / 2, bottom + 44, title, "middle")]


def _steps(front: Sequence[Point], places: Mapping[str, Place]) -> str:
    """Join the front: everything above and to the right of the line is beaten by one of it."""
    (x, y), *rest = (places[p.label] for p in front)
    path = f"M{x:.1f} {y:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)
    return f'<path d="{path}" fill="none" stroke="{FRONT}" stroke-dasharray="3 4"/>'


def _bars(p: Point, x: tuple[float, float, float], scale: _Scale, place: Place) -> list[str]:
    """Return both intervals, as far as they are on the panel."""
    parts = []
    if x[0] < x[2]:
        parts.append(_line((scale.x(x[0]), place[1]), (scale.x(x[2]), place[1]), QUIET, 0.45))
    if p.kl[0] < p.kl[2]:
        parts.append(_line((place[0], scale.y(p.kl[0])), (place[0], scale.y(p.kl[2])), QUIET, 0.45))
    return parts


def _dot(p: Point, place: Place, *, filled: bool) -> str:
    x, y = place
    if p is PARENT:
        corner = f'x="{x - _DOT:.1f}" y="{y - _DOT:.1f}"'
        return f'<rect {corner} width="{2 * _DOT}" height="{2 * _DOT}" fill="{INK}"/>'
    colour, inside = (FRONT, FRONT) if filled else (QUIET, PAPER)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_DOT - 0.5}" fill="{inside}" stroke="{colour}" '
        'stroke-width="1.5"/>'
    )


@dataclass(slots=True)
class _Labels:
    """Finds room for labels beside their points, one after another."""

    left: float
    taken: list[Box] = field(default_factory=list)

    def place(self, label: str, at: Place, colour: str) -> list[str]:
        """Return a label, with a line to its point where it could not be next to it."""
        best, far, box = math.inf, 0.0, (0.0, 0.0, 0.0, 0.0)
        for distance, angle in product(_DISTANCES, _ANGLES):
            if distance >= best:
                break  # no trouble is less than the distance
            there = self._box(label, at, distance, angle)
            trouble = self._trouble(there, distance, at, best)
            if trouble < best:
                best, far, box = trouble, distance, there
        self.taken.append(box)
        parts = []
        if far > _DISTANCES[0]:
            self.taken += _stretch(at, box)
            parts.append(_line(at, _nearest(at, box), QUIET, 0.7))
        return [*parts, _text((box[0] + box[2]) / 2, box[3] - 3, label, "middle", colour)]

    @staticmethod
    def _box(label: str, at: Place, distance: float, angle: float) -> Box:
        """Return where the label would be, in that direction; its near edge is at the distance."""
        width = _LETTER * len(label)
        dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        side = round(dx, 3) and math.copysign(1.0, dx)  # straight above and below: centred
        x = at[0] + dx * distance + side * width / 2
        y = at[1] + dy * (distance + _LINE / 2)
        return (x - width / 2, y - _LINE / 2, x + width / 2, y + _LINE / 2)

    def _trouble(self, box: Box, distance: float, at: Place, enough: float) -> float:
        """Return what speaks against a place: what it covers, what its line crosses, and its way.

        What reaches ``enough`` is looked at no further. The point itself is no obstacle to its own
        line.
        """
        panel = (self.left, float(_TOP), self.left + _PANEL[0], float(_TOP + _PANEL[1]))
        whole = (box[2] - box[0]) * (box[3] - box[1])
        covered = whole - _overlap(box, panel) + sum(_overlap(box, other) for other in self.taken)
        found = round(_COVERED * covered + distance, 3)  # ties are ties on every machine
        if found >= enough or distance == _DISTANCES[0]:
            return found
        own = (at[0] - _DOT, at[1] - _DOT, at[0] + _DOT, at[1] + _DOT)
        others = [other for other in self.taken if other != own]
        crossed = sum(_overlap(spot, o) > 0 for spot in _stretch(at, box) for o in others)
        return found + _CROSSED * crossed


def _nearest(at: Place, box: Box) -> Place:
    """Return the point of a box that is nearest to ``at``."""
    return (min(max(at[0], box[0]), box[2]), min(max(at[1], box[1]), box[3]))


def _stretch(at: Place, box: Box) -> list[Box]:
    """Return small boxes along the line from a point to its label, without its ends."""
    end = _nearest(at, box)
    shares = [n / _SPOTS for n in range(1, _SPOTS)]
    spots = [(at[0] + s * (end[0] - at[0]), at[1] + s * (end[1] - at[1])) for s in shares]
    return [(x - 1, y - 1, x + 1, y + 1) for x, y in spots]


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _line(start: Place, end: Place, colour: str, opacity: float = 1.0) -> str:
    (x1, y1), (x2, y2) = start, end
    faint = "" if opacity == 1.0 else f' stroke-opacity="{opacity}"'
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" fill="none" stroke="{colour}"{faint}/>'


def _text(
    x: float, y: float, words: str, anchor: str, colour: str = QUIET, *, turned: bool = False
) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    halo = f' paint-order="stroke" stroke="{PAPER}" stroke-width="3"'
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{halo}{turn}>'
        f"{escape(words)}</text>"
    )
