"""What tuning is asked for, and what it found: values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from lichen.acceleration.engine_cost import CostSample, EngineSetting, Workload
from lichen.core.interval import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What to tune for.

    Args:
        cpus_free: most threads, >= 1; see ``free_cpus``.
        latency_bound_s: most seconds per generated token of one request; None for no bound.
        budget_s: wall-clock seconds after which no further race is begun, > 0.
        max_slots: most requests in flight worth considering, >= 1.
        min_gain: least saving for which a setting is changed, in [0, 1).
        workload: what a request is made of.
    """

    cpus_free: int
    latency_bound_s: float | None = None
    budget_s: float = 120.0
    max_slots: int = 16
    min_gain: float = 0.02
    workload: Workload = field(default_factory=Workload)

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.cpus_free < 1 or self.max_slots < 1 or self.budget_s <= 0:
            msg = f"cpus_free and max_slots must be at least 1, budget_s above 0: {self}"
            raise ValueError(msg)
        if self.latency_bound_s is not None and self.latency_bound_s <= 0:
            msg = f"a latency bound is above 0 s per token, got {self.latency_bound_s:g}"
            raise ValueError(msg)
        if not 0 <= self.min_gain < 1:
            msg = f"min_gain is a share below 1, got {self.min_gain:g}"
            raise ValueError(msg)


class Outcome(StrEnum):
    """How a race ended, for the challenger."""

    ADOPTED = "adopted"
    DEARER = "dearer"
    NO_BETTER = "no better"
    TOO_SLOW = "too slow"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """One challenger against the incumbent of that time.

    ``ratio`` is the cost of the challenger to the incumbent's for the workload, 90 % interval; None
    if it could not be measured.
    """

    option: str
    incumbent: EngineSetting
    challenger: EngineSetting
    outcome: Outcome
    ratio: Interval | None
    rounds: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The best setting found, and everything that was measured on the way.

    Args:
        setting: to use.
        cost_s: CPU-seconds per token of the workload's mix.
        start_cost_s: the same for the setting that the search began with.
        token_s: seconds per generated token of one request; None if the engine cannot tell.
        in_bound: whether the latency bound is kept (True without a bound).
        complete: False if the budget ended the search.
        spent_s: wall-clock seconds of the search.
        cpus_free: CPUs that were free.
        races: in order.
        samples: every measurement, in order.
    """

    setting: EngineSetting
    cost_s: float
    start_cost_s: float
    token_s: float | None
    in_bound: bool
    complete: bool
    spent_s: float
    cpus_free: int
    races: tuple[Race, ...] = ()
    samples: tuple[CostSample, ...] = ()
