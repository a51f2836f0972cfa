"""What was measured: readings that know their method, and windows that add up.

``Missing`` is the only way to say "not measured": never 0, NaN or None. Adding ``Missing`` to a
reading gives ``Missing``, because a partial sum would understate the cost.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from lichen.core.interval import Interval
from lichen.core.value import Value


class Method(StrEnum):
    """How a number was obtained: the ladder of the methodology page, best first."""

    WALL_METER = "wall meter"
    COUNTER = "counter"
    SAMPLED = "sampled"
    CALIBRATED = "calibrated"
    MODELLED = "modelled"

    @property
    def rung(self) -> int:
        """Position on the ladder; 0 is the most trustworthy."""
        return list(Method).index(self)


class Component(StrEnum):
    """Which part of a machine a reading is about."""

    PROCESS = "process"
    CPU = "cpu"
    DRAM = "dram"
    GPU = "gpu"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Value):
    """A measured or modelled quantity, in the unit its holder's name states.

    ``source`` says which counter or equation gave it, e.g. ``"RAPL package-0"`` or
    ``"2-8 W per busy core"``.
    """

    value: Interval
    method: Method
    component: Component
    source: str

    def __add__(self, other: Quantity) -> Quantity:
        """Add another quantity of the same unit; the weaker method and both sources are kept."""
        if isinstance(other, Missing):
            return other
        return Reading(
            value=self.value + other.value,
            method=max(self.method, other.method, key=lambda m: m.rung),
            component=_joined(self.component, other.component),
            source=_merged(self.source, other.source),
        )

    def scaled(self, factor: float) -> Reading:
        """Return this reading times a plain number >= 0 (a share of a window, say)."""
        return Reading(
            value=self.value * factor,
            method=self.method,
            component=self.component,
            source=self.source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing(Value):
    """Not measured, and why. ``reason`` is one clause for people, e.g. "no RAPL in this VM"."""

    reason: str
    component: Component = Component.PROCESS

    def __add__(self, other: Quantity) -> Missing:
        """Stay missing: a partial sum would understate."""
        if isinstance(other, Missing) and other.reason != self.reason:
            return Missing(reason=_merged(self.reason, other.reason), component=self.component)
        return self

    def scaled(self, factor: float) -> Missing:  # noqa: ARG002 (same shape as Reading.scaled)
        """Stay missing."""
        return self


Quantity = Reading | Missing


def exact(value: float, *, component: Component = Component.PROCESS, source: str) -> Reading:
    """Return a counter reading without uncertainty (a clock, getrusage, a token count)."""
    return Reading(
        value=Interval.exact(value), method=Method.COUNTER, component=component, source=source
    )


def largest(a: Quantity, b: Quantity) -> Quantity:
    """Combine two peaks: the larger one; missing wins, since an unknown peak may be larger."""
    if isinstance(a, Missing):
        return a + b
    if isinstance(b, Missing):
        return b
    return a if a.value.value >= b.value.value else b


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Value):
    """Tokens of one request or many. ``cached`` is the part of ``prompt`` not computed again.

    Raises:
        ValueError: a count is negative, or ``cached`` exceeds ``prompt``.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def __post_init__(self) -> None:
        """Check the counts."""
        if min(self.prompt, self.cached, self.completion) < 0 or self.cached > self.prompt:
            msg = f"token counts must be >= 0 and cached <= prompt: {self}"
            raise ValueError(msg)

    @property
    def prefilled(self) -> int:
        """Prompt tokens that were computed."""
        return self.prompt - self.cached

    def __add__(self, other: Usage) -> Usage:
        """Add counts."""
        return Usage(
            prompt=self.prompt + other.prompt,
            cached=self.cached + other.cached,
            completion=self.completion + other.completion,
        )


_NOT_ASKED = Missing(reason="not asked for in this window")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Value):
    """The cost of one window of work. Additive, save for peak memory, which takes the maximum.

    ``energy_j`` has one entry per component that a machine could have (cpu, dram, gpu), each a
    reading or a reason; ``foreign_cpu_s`` is CPU time that *other* processes used meanwhile and
    ``steal_s`` what the hypervisor took: both say how far to trust ``wall_s``.
    """

    wall_s: Quantity = _NOT_ASKED
    cpu_s: Quantity = _NOT_ASKED
    peak_memory_bytes: Quantity = _NOT_ASKED
    flop: Quantity = _NOT_ASKED
    bytes_moved: Quantity = _NOT_ASKED
    energy_j: tuple[Quantity, ...] = ()
    foreign_cpu_s: Quantity = _NOT_ASKED
    steal_s: Quantity = _NOT_ASKED
    usage: Usage = Usage()

    def __post_init__(self) -> None:
        """Keep one energy entry per component, in a fixed order, so that addition lines up."""
        components = [e.component for e in self.energy_j]
        if len(set(components)) != len(components):
            msg = f"one energy entry per component, got {[str(c) for c in components]}"
            raise ValueError(msg)
        ordered = tuple(sorted(self.energy_j, key=lambda e: list(Component).index(e.component)))
        object.__setattr__(self, "energy_j", ordered)

    def __add__(self, other: Measurement) -> Measurement:
        """Add two windows that did not overlap."""
        return Measurement(
            wall_s=self.wall_s + other.wall_s,
            cpu_s=self.cpu_s + other.cpu_s,
            peak_memory_bytes=largest(self.peak_memory_bytes, other.peak_memory_bytes),
            flop=self.flop + other.flop,
            bytes_moved=self.bytes_moved + other.bytes_moved,
            energy_j=_energies(self.energy_j, other.energy_j),
            foreign_cpu_s=self.foreign_cpu_s + other.foreign_cpu_s,
            steal_s=self.steal_s + other.steal_s,
            usage=self.usage + other.usage,
        )

    def scaled(self, factor: float) -> Measurement:
        """Return the share ``factor`` (0..1) of this window; peaks and token counts stay whole."""
        return Measurement(
            wall_s=self.wall_s.scaled(factor),
            cpu_s=self.cpu_s.scaled(factor),
            peak_memory_bytes=self.peak_memory_bytes,
            flop=self.flop.scaled(factor),
            bytes_moved=self.bytes_moved.scaled(factor),
            energy_j=tuple(e.scaled(factor) for e in self.energy_j),
            foreign_cpu_s=self.foreign_cpu_s.scaled(factor),
            steal_s=self.steal_s.scaled(factor),
            usage=self.usage,
        )

    @property
    def it_energy_j(self) -> Quantity:
        """Energy of the components that were read or modelled, in J; missing if none was.

        A component that is missing because the machine has none of it (no GPU) does not spoil
        the sum: it is listed in ``energy_j`` with its reason, and its source is not in the sum's
        ``source``, which names the scope.
        """
        present = [e for e in self.energy_j if isinstance(e, Reading)]
        if not present:
            reasons = "; ".join(
                dict.fromkeys(e.reason for e in self.energy_j if isinstance(e, Missing))
            )
            return Missing(reason=reasons or "no energy probe in this window")
        total: Quantity = present[0]
        for entry in present[1:]:
            total = total + entry
        return total


def total(measurements: tuple[Measurement, ...] | list[Measurement]) -> Measurement:
    """Sum windows; raises ValueError for none, since an empty sum has no method."""
    if not measurements:
        msg = "the sum of no measurements is not 0 but unknown"
        raise ValueError(msg)
    result = measurements[0]
    for m in measurements[1:]:
        result = result + m
    return result


def missing_fields(m: Measurement) -> tuple[tuple[str, str], ...]:
    """List ``(field, reason)`` for everything that was not measured, energy components included."""
    found: list[tuple[str, str]] = []
    for f in fields(m):
        value = getattr(m, f.name)
        if isinstance(value, Missing):
            found.append((f.name, value.reason))
        elif f.name == "energy_j":
            found.extend(
                (f"energy_j[{e.component}]", e.reason) for e in value if isinstance(e, Missing)
            )
    return tuple(found)


def _energies(a: tuple[Quantity, ...], b: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
    mine, theirs = ({e.component: e for e in side} for side in (a, b))
    absent = "not read in every window of the sum"
    return tuple(
        mine.get(c, Missing(reason=absent, component=c))
        + theirs.get(c, Missing(reason=absent, component=c))
        for c in Component
        if c in mine or c in theirs
    )


def _joined(a: Component, b: Component) -> Component:
    return a if a == b else Component.SYSTEM


def _merged(a: str, b: str) -> str:
    parts = dict.fromkeys([*a.split(" + "), *b.split(" + ")])
    return " + ".join(parts)
