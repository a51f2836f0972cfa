"""Find the engine settings that cost the least CPU-seconds per token here, in a minute or two.

Coordinate-wise hill climbing with racing. One setting is the incumbent and stays loaded. For one
option after the other a challenger with the next larger (or smaller) value is loaded and raced:
both are measured in turn, in alternating order, so that drift of the machine falls on both. The
race ends as soon as the interval of the log-ratio (``log_ratio``) lies on one side, and a
challenger that is far behind at the first look is dropped at once. A climb goes on in a direction
while it wins. Never a grid: with k values per option the number of loads grows with the sum of the
k, not with their product. Racing is Maron and Moore's (1994, Hoeffding races); see also F-Race
(Birattari et al., 2002).

Threads never exceed the free CPUs (``free_cpus``). The search sees interactions between options
only along its path; it repeats its rounds over the options until nothing changes or time is up.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from lichen.acceleration.engine_cost import CostSample, EngineSetting, Phase, measure, warm
from lichen.acceleration.log_ratio import as_ratio, log_ratio
from lichen.acceleration.tuned import Goal, Outcome, Race, Tuning
from lichen.acceleration.tuning_cache import TuningCache, TuningKey
from lichen.core.errors import ConfigError, LichenError
from lichen.core.ports import Engine, Meter

OpenEngine = Callable[[Mapping[str, object]], Engine]
"""Opens the engine with these options changed; tuning closes it again."""

FAR_BEHIND: Final = 1.25
"""Cost ratio at the first look from which a race is not worth a second one. Side by side, single
looks differ by about 10 % on a busy machine."""

TOO_SLOW: Final = 1.25
"""The same for the latency bound."""

FASTER: Final = 0.97
"""Time per token, relative to an incumbent beyond the latency bound, from which a challenger is a
step towards the bound."""

MAX_ROUNDS: Final = 4
"""Looks at each side of a race at most."""


def tune(
    open_engine: OpenEngine,
    goal: Goal,
    *,
    meter: Meter,
    clock: Callable[[], float] = time.monotonic,
    progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> Tuning:
    """Search for the cheapest setting within the latency bound.

    Args:
        open_engine: see ``OpenEngine``. At most two engines are open at a time.
        goal: what to tune for.
        meter: its windows give CPU-seconds.
        clock: monotonic seconds, for the budget.
        progress: called before each race with what is tried and the share of the budget used.

    Raises:
        LichenError: the engine cannot be opened or measured with the first setting at all.
    """
    search = _Search(open_engine, goal, meter, clock)
    try:
        search.begin()
        for option, values in search.plan():
            search.climb(option, values, progress)
    finally:
        search.close()
    return search.result()


def tune_once(
    open_engine: OpenEngine,
    goal: Goal,
    *,
    key: TuningKey,
    cache: TuningCache,
    meter: Meter,
    fresh: bool = False,
    progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> tuple[Tuning, bool]:
    """Return the stored tuning for ``key``, or tune now and store it; says whether it was stored.

    Args:
        open_engine: see ``tune``.
        goal: see ``tune``.
        key: what the tuning holds for; its free CPUs and latency bound are the goal's.
        cache: where tunings are kept.
        meter: see ``tune``.
        fresh: tune anew in any case.
        progress: see ``tune``.

    Raises:
        ConfigError: key and goal contradict each other, or the cache cannot be written.
        LichenError: as ``tune``.
    """
    if (key.cpus_free, key.latency_bound_s) != (goal.cpus_free, goal.latency_bound_s):
        raise ConfigError(f"this tuning would be stored under another case: {key} for {goal}")
    known = None if fresh else cache.get(key)
    if known is not None:
        return known, True
    found = tune(open_engine, goal, meter=meter, progress=progress)
    cache.put(key, found)
    return found, False


_PHASES: Final[Mapping[str, Phase]] = {
    "slots": Phase.DECODE,
    "threads": Phase.DECODE,
    "threads_batch": Phase.PREFILL,
    "ubatch": Phase.PREFILL,
    "batch": Phase.PREFILL,
}
"""Options in the order of what they were seen to matter, and the phase that each acts upon."""

_ACTS_ON: Final[Mapping[Phase, tuple[str, ...]]] = {
    phase: tuple(option for option, acted in _PHASES.items() if acted is phase) for phase in Phase
}

_BATCHES: Final = (64, 128, 256, 512, 1024, 2048)


class _Search:
    """The state of one tuning."""

    def __init__(
        self, open_engine: OpenEngine, goal: Goal, meter: Meter, clock: Callable[[], float]
    ) -> None:
        self._open = open_engine
        self._goal = goal
        self._meter = meter
        self._clock = clock
        self._began_s = clock()
        self._setting = EngineSetting(threads=goal.cpus_free, threads_batch=goal.cpus_free)
        self._engine: Engine | None = None
        self._samples: list[CostSample] = []
        self._races: list[Race] = []
        self._tried: set[tuple[object, ...]] = set()
        self._basis: dict[Phase, EngineSetting] = {}
        self._longest_race_s = 0.0
        self._complete = True
        self._start_cost_s = 0.0

    def begin(self) -> None:
        """Open the first incumbent and measure both phases."""
        self._engine = self._open(self._setting.options())
        self._tried |= {_as_seen_by(phase, self._setting) for phase in Phase}
        warm(self._engine)
        for phase in (Phase.PREFILL, Phase.DECODE):
            self._look(self._engine, self._setting, phase)
            self._basis[phase] = self._setting
        self._start_cost_s = self._cost(self._setting)

    def plan(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield options to climb along, again and again until a whole round changes nothing."""
        threads = _steps(self._goal.cpus_free)
        values = {
            "slots": _steps(self._goal.max_slots),
            "threads": threads,
            "threads_batch": threads,
            "ubatch": _BATCHES,
            "batch": _BATCHES,
        }
        while True:
            before = self._setting
            for option in _PHASES:
                yield option, values[option]
            if self._setting == before or not self._complete:
                return

    def climb(
        self, option: str, values: tuple[int, ...], progress: Callable[[str, float], None]
    ) -> None:
        """Walk along one option while it gets cheaper: upwards, else downwards."""
        for direction in (1, -1):
            moved = False
            while (challenger := self._next(option, values, direction)) is not None:
                used_s = self._clock() - self._began_s
                if used_s + self._longest_race_s > self._goal.budget_s:
                    self._complete = False
                    return
                value = getattr(challenger, option)
                progress(f"{option} {value}", min(1.0, used_s / self._goal.budget_s))
                if not self._race(option, challenger):
                    break
                moved = True
            if moved:
                return

    def close(self) -> None:
        """Close the incumbent's engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def result(self) -> Tuning:
        """Return what was found."""
        token_s = self._token_s(self._setting)
        return Tuning(
            setting=self._setting,
            cost_s=self._cost(self._setting),
            start_cost_s=self._start_cost_s,
            token_s=token_s,
            in_bound=not self._beyond(token_s, 1.0),
            complete=self._complete,
            spent_s=self._clock() - self._began_s,
            cpus_free=self._goal.cpus_free,
            races=tuple(self._races),
            samples=tuple(self._samples),
        )

    # -- one race ------------------------------------------------------------------------------

    def _next(self, option: str, values: tuple[int, ...], direction: int) -> EngineSetting | None:
        """Return the neighbour of the incumbent that was not tried yet, None if there is none."""
        here = getattr(self._setting, option)
        beyond = [v for v in values if (v > here if direction > 0 else v < here)]
        if not beyond:
            return None
        value = min(beyond) if direction > 0 else max(beyond)
        changed = replace(self._setting, **{option: value})
        if changed.ubatch > changed.batch:  # the engine refuses it: the other one follows
            other = "batch" if option == "ubatch" else "ubatch"
            changed = replace(changed, **{other: value})
        return None if _as_seen_by(_PHASES[option], changed) in self._tried else changed

    def _race(self, option: str, challenger: EngineSetting) -> bool:
        """Race a challenger; returns whether it is the incumbent now."""
        began_s = self._clock()
        phase = _PHASES[option]
        self._tried.add(_as_seen_by(phase, challenger))
        incumbent = self._setting
        pairs: list[tuple[float, float]] = []
        outcome, detail = Outcome.FAILED, ""
        engine: Engine | None = None
        try:
            engine = self._open(challenger.options())
            warm(engine)
            outcome = self._run(engine, challenger, phase, pairs)
        except LichenError as exc:  # a setting that this machine cannot run is a result
            detail = str(exc)
        if outcome is Outcome.ADOPTED and engine is not None:
            self.close()
            self._engine, self._setting = engine, challenger
            self._basis[phase] = challenger
        elif engine is not None:
            engine.close()
        self._races.append(
            Race(
                option=option,
                incumbent=incumbent,
                challenger=challenger,
                outcome=outcome,
                ratio=as_ratio(log_ratio(pairs)) if pairs else None,
                rounds=len(pairs),
                detail=detail,
            )
        )
        self._longest_race_s = max(self._longest_race_s, self._clock() - began_s)
        return outcome is Outcome.ADOPTED

    def _run(
        self,
        engine: Engine,
        challenger: EngineSetting,
        phase: Phase,
        pairs: list[tuple[float, float]],
    ) -> Outcome:
        assert self._engine is not None  # noqa: S101 (begin() opened it; narrows the type)
        sides = [(self._engine, self._setting), (engine, challenger)]
        while True:
            order = sides if len(pairs) % 2 else sides[::-1]
            cost = {s: self._look(e, s, phase).cpu_s_per_token for e, s in order}
            pairs.append(
                (
                    self._mixed(phase, cost[self._setting]),
                    self._mixed(phase, cost[challenger]),
                )
            )
            outcome = self._judged(challenger, phase, pairs)
            if outcome is not None:
                return outcome

    def _judged(
        self, challenger: EngineSetting, phase: Phase, pairs: list[tuple[float, float]]
    ) -> Outcome | None:
        """Return how the race ended; None if it goes on."""
        if phase is Phase.DECODE and self._goal.latency_bound_s is not None:
            mine, theirs = self._token_s(challenger), self._token_s(self._setting)
            far_or_sure = TOO_SLOW if len(pairs) == 1 else 1.0
            if self._beyond(theirs, 1.0):  # then the way to the bound counts, not the cost
                faster = mine is not None and theirs is not None and mine < theirs * FASTER
                return (Outcome.ADOPTED if faster else Outcome.TOO_SLOW) if len(pairs) > 1 else None
            if self._beyond(mine, far_or_sure):
                return Outcome.TOO_SLOW
        logs = log_ratio(pairs)
        last = len(pairs) == MAX_ROUNDS
        needed = math.log1p(-self._goal.min_gain)
        if logs.high < needed or (last and logs.value < needed):
            return Outcome.ADOPTED
        if logs.value > math.log(FAR_BEHIND) or logs.low > 0:
            return Outcome.DEARER
        return Outcome.NO_BETTER if last or logs.low > needed else None

    def _beyond(self, token_s: float | None, slack: float) -> bool:
        bound = self._goal.latency_bound_s
        return bound is not None and token_s is not None and token_s > bound * slack

    # -- figures -------------------------------------------------------------------------------

    def _look(self, engine: Engine, setting: EngineSetting, phase: Phase) -> CostSample:
        sample = measure(engine, setting, phase, self._goal.workload, self._meter)
        self._samples.append(sample)
        return sample

    def _mixed(self, phase: Phase, cpu_s_per_token: float) -> float:
        """Return the workload's cost if ``phase`` cost this, the other phase as the incumbent's."""
        other = self._mean(self._setting, _OTHER[phase])
        if phase is Phase.PREFILL:
            return self._goal.workload.cost(cpu_s_per_token, other)
        return self._goal.workload.cost(other, cpu_s_per_token)

    def _cost(self, setting: EngineSetting) -> float:
        return self._goal.workload.cost(
            self._mean(setting, Phase.PREFILL), self._mean(setting, Phase.DECODE)
        )

    def _mean(self, setting: EngineSetting, phase: Phase) -> float:
        """Return the mean cost of a phase, from the latest incumbent if not measured for this.

        A challenger is measured in one phase only; the other is what the incumbent costs, since
        its option does not act upon it.
        """
        own = [s.cpu_s_per_token for s in self._samples if (s.setting, s.phase) == (setting, phase)]
        return statistics.fmean(own) if own else self._mean(self._basis[phase], phase)

    def _token_s(self, setting: EngineSetting) -> float | None:
        """Return the median time per token; None if the engine cannot tell."""
        decoded = [s for s in self._samples if (s.setting, s.phase) == (setting, Phase.DECODE)]
        if not decoded:
            return self._token_s(self._basis[Phase.DECODE])
        times = [s.token_s for s in decoded if s.token_s is not None]
        return statistics.median(times) if times else None


_OTHER: Final = {Phase.PREFILL: Phase.DECODE, Phase.DECODE: Phase.PREFILL}


def _as_seen_by(phase: Phase, setting: EngineSetting) -> tuple[object, ...]:
    """Return what of a setting acts on a phase: nothing is gained by racing the same twice."""
    return (phase, *(getattr(setting, option) for option in _ACTS_ON[phase]))


def _steps(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4 ... and ``most``."""
    powers = [1 << i for i in range(most.bit_length())]
    return tuple(sorted({*powers, most}))
