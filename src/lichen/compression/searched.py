"""What a search for a smaller model is asked for, and what it found: values and ports only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from lichen.compression.candidates import CompressionCandidate
from lichen.compression.halving import Objectives
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.units import J_PER_WH

_MINUTE_S: Final = 60.0

QUICK: Final = 0
"""Level of a look: a few hundred positions of held-out code, one turn each for the cost."""
LONGER: Final = 1
"""Level of a look at those that are left: several times as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What some work cost. ``energy_j`` is missing where it can be neither read nor modelled."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    energy_j: float | Missing = 0.0

    def scaled(self, factor: float) -> Bill:
        """Return so many times of it."""
        energy = self.energy_j
        return Bill(
            wall_s=self.wall_s * factor,
            cpu_s=self.cpu_s * factor,
            energy_j=energy if isinstance(energy, Missing) else energy * factor,
        )

    def __add__(self, other: Bill) -> Bill:
        """Add up; an unknown part leaves the energy unknown."""
        energy: float | Missing
        if isinstance(self.energy_j, Missing):
            energy = self.energy_j
        elif isinstance(other.energy_j, Missing):
            energy = other.energy_j
        else:
            energy = self.energy_j + other.energy_j
        return Bill(
            wall_s=self.wall_s + other.wall_s, cpu_s=self.cpu_s + other.cpu_s, energy_j=energy
        )


_WORST: Final = Interval.exact(math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One cheap measurement of a candidate beside the parent.

    Args:
        kl_nats: mean divergence of the next-token distribution on held-out code.
        flips: share of positions whose most likely token changed.
        prefill, decode: CPU-seconds per token, child over parent.
        parent_request_s, child_request_s: CPU-seconds of one typical request.
        file_bytes: of the file that was made.
        error: a sentence if it could not be made or measured; the rest is meaningless then.
        bill: what making and measuring it cost.
    """

    kl_nats: Interval = _WORST
    flips: Interval = _WORST
    prefill: Interval = _WORST
    decode: Interval = _WORST
    parent_request_s: float = 0.0
    child_request_s: float = math.inf
    file_bytes: int = 0
    error: str = ""
    bill: Bill = Bill()

    @property
    def cost_ratio(self) -> float:
        """CPU-seconds of a typical request, child over parent."""
        if not self.parent_request_s > 0:
            return math.inf
        return self.child_request_s / self.parent_request_s

    @property
    def objectives(self) -> Objectives:
        """Bytes, cost and divergence, all to be small; infinite where nothing was measured."""
        if self.error:
            return (math.inf, math.inf, math.inf)
        return (float(self.file_bytes), self.cost_ratio, self.kl_nats.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """What the gate said: whether it let the candidate through, and (check, verdict, sentence)."""

    passed: bool
    sentence: str
    rows: tuple[tuple[str, str, str], ...] = ()
    bill: Bill = Bill()

    @property
    def stopped_by(self) -> str:
        """Names of the checks that failed, or the whole sentence where none did."""
        return ", ".join(n for n, verdict, _ in self.rows if verdict == "FAILED") or self.sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What later stages are expected to take, by a first look.

    Args:
        making: a finalist's file, where that is more than a quick look's; once for each.
        longer: a longer look at a file that is there.
        gate: holding one that is there against the parent.
        answers: that each model gives at the gate, at most.
    """

    making: Bill = Bill()
    longer: Bill = Bill()
    gate: Bill = Bill()
    answers: int = 0


class Workshop(Protocol):
    """Makes and measures candidates for real. Scripted in tests.

    Files are made when first needed and kept until ``discard``; a file that is there already is
    used again. A candidate that cannot be made or measured comes back with its ``error``.
    """

    def look(self, candidate: CompressionCandidate, level: int) -> Look:
        """Make the candidate if need be and measure it beside the parent."""

    def gate(self, candidate: CompressionCandidate) -> Gated:
        """Hold it against the parent."""

    def foresee(self, look: Look) -> Foreseen:
        """Say what longer looks and the gate are expected to take, by a quick look."""

    def discard(self, candidate: CompressionCandidate) -> None:
        """Delete its file, if there is one."""

    def path(self, candidate: CompressionCandidate) -> Path:
        """Return where its file is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much may be spent: wall-clock seconds, joules, or both; at least one is given.

    Nothing is begun that would not end within it, as far as earlier ones of its kind tell.
    """

    seconds: float = math.inf
    joules: float = math.inf

    def __post_init__(self) -> None:
        """Check that there is a bound above 0."""
        if not min(self.seconds, self.joules) > 0 or self.seconds == self.joules == math.inf:
            msg = f"a budget needs seconds or joules above 0: {self}"
            raise ValueError(msg)

    def scaled(self, factor: float) -> Budget:
        """Return so many times of it."""
        return Budget(seconds=self.seconds * factor, joules=self.joules * factor)

    def __str__(self) -> str:
        """Write it as it is given: ``45m``, ``5.2Wh``."""
        time = f"{math.ceil(self.seconds / _MINUTE_S)}m" if self.seconds < math.inf else ""
        energy = f"{self.joules / J_PER_WH:.2g}Wh" if self.joules < math.inf else ""
        return " and ".join(filter(None, (time, energy)))

    def share(self, spent: Bill) -> float:
        """Return the part of the budget that is used; unknown energy counts as all of it."""
        shares = [spent.wall_s / self.seconds]
        if self.joules < math.inf:
            known = not isinstance(spent.energy_j, Missing)
            shares.append(spent.energy_j / self.joules if known else math.inf)  # type: ignore[operator]
        return max(shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What makes a candidate better.

    Args:
        most_kl, most_flips: above this divergence, or share of changed tokens, it would fail the
            gate anyway; it leaves the race.
        most_bytes: of the file.
        most_cost: CPU-seconds of a request, child over parent, at most; 1 means no dearer.
        finalists: how many are held against the gate at most, >= 1.
    """

    most_kl: float = math.inf
    most_flips: float = 1.0
    most_bytes: int | None = None
    most_cost: float = 1.0
    finalists: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A candidate and everything that was found of it.

    ``fate`` is one clause: why it left the race, or how it ended. ``pareto`` marks those that no
    other measured candidate beats in bytes, cost and divergence at once.
    """

    candidate: CompressionCandidate
    look: Look | None
    gated: Gated | None
    fate: str
    pareto: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Predicted against random candidates, as many of each, after the first round.

    The volume that each set covers between nothing and the parent (bytes, cost, divergence), as a
    share of all of it; the predicted ones' is the mean over draws of equal size.
    """

    each: int
    predicted_volume: float
    random_volume: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What the search found, and everything it measured.

    Args:
        best: the recommended candidate, None if nothing better was found.
        rows: of all candidates that were tried, the best first.
        baseline: random search beside it; missing where too few were measured.
        spent: what it cost in all, loaded results included.
        resumed: evaluations that an earlier, interrupted search had finished.
        pays_after: requests after which ``spent`` is paid back; missing if never.
        complete: False if the budget ended it.
    """

    best: CompressionCandidate | None
    rows: tuple[Row, ...]
    baseline: Baseline | Missing
    spent: Bill
    resumed: int
    pays_after: float | Missing
    complete: bool
