"""Tuning on engines whose costs are known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lichen.acceleration.engine_cost import EngineSetting, Phase, Workload, synthetic_code
from lichen.acceleration.free_cpus import free_cpus
from lichen.acceleration.tuned import Goal, Outcome, Tuning
from lichen.acceleration.tuning import tune, tune_once
from lichen.acceleration.tuning_cache import TuningCache, TuningKey, machine_id
from lichen.core.errors import ConfigError, EngineError
from lichen.core.interval import Interval
from lichen.core.measurement import Measurement, Missing, Quantity, exact
from lichen.meter import capture
from lichen.testing.clock import FakeClock
from lichen.testing.costed_engine import ClockMeter, CostedEngine, Costs
from lichen.testing.meter import ScriptedMeter

BEST = EngineSetting(slots=4, threads=2, threads_batch=4, batch=512, ubatch=256)


def off(value: object, best: int) -> float:
    """How many doublings a value is away from the best one."""
    assert isinstance(value, int)
    return abs(math.log2(value / best))


def valley(options: Mapping[str, object]) -> Costs:
    """A surface with its minimum at ``BEST``: each doubling away costs a fifth more."""
    decode = 0.010 * (1 + 0.2 * off(options["slots"], 4) + 0.2 * off(options["threads"], 2))
    prefill = 0.004 * (
        1 + 0.2 * off(options["threads_batch"], 4) + 0.2 * off(options["ubatch"], 256)
    )
    slots = options["slots"]
    assert isinstance(slots, int)
    return Costs(prefill_s=prefill, decode_s=decode, token_s=0.010 * slots)


def steep(options: Mapping[str, object]) -> Costs:
    """A surface on which more than one slot is far dearer."""
    return Costs(decode_s=0.01 if options["slots"] == 1 else 0.02)


class Bench:
    """Opens costed engines on one clock and remembers them."""

    def __init__(
        self,
        surface: Callable[[Mapping[str, object]], Costs] = valley,
        noise: Callable[[], float] = lambda: 1.0,
        load_s: float = 1.0,
    ) -> None:
        self.clock = FakeClock()
        self.engines: list[CostedEngine] = []
        self.most_open = 0
        self._surface = surface
        self._noise = noise
        self._load_s = load_s

    def open(self, options: Mapping[str, object]) -> CostedEngine:
        engine = CostedEngine(self._surface, options, cpu=self.clock, noise=self._noise)
        self.clock.advance(self._load_s)
        self.engines.append(engine)
        self.most_open = max(self.most_open, sum(not e.closed for e in self.engines))
        return engine

    def tune(self, goal: Goal) -> Tuning:
        return tune(self.open, goal, meter=ClockMeter(self.clock), clock=self.clock)


def test_it_finds_the_cheapest_setting() -> None:
    """Climbing option by option reaches the known minimum and states its cost."""
    found = Bench().tune(Goal(cpus_free=4, budget_s=1e6))
    assert found.setting == BEST
    assert found.complete
    assert found.cost_s == pytest.approx((160 * 0.004 + 200 * 0.010) / 360, rel=0.1)
    assert found.start_cost_s > found.cost_s


def test_it_opens_far_fewer_engines_than_a_grid_has() -> None:
    """The number of loads grows with the sum of the values per option, not their product."""
    bench = Bench()
    bench.tune(Goal(cpus_free=4, budget_s=1e6))
    assert len(bench.engines) < 30  # the grid has 5 * 3 * 3 * 6 * 6 settings


def test_at_most_two_engines_are_open_and_none_is_left() -> None:
    """The incumbent and one challenger are loaded together, and everything is closed at the end."""
    bench = Bench()
    bench.tune(Goal(cpus_free=4, budget_s=1e6))
    assert bench.most_open == 2
    assert all(e.closed for e in bench.engines)


def test_threads_never_exceed_the_free_cpus() -> None:
    """No setting that is tried spins on more CPUs than are free."""
    found = Bench().tune(Goal(cpus_free=3, budget_s=1e6))
    tried = {s.setting for s in found.samples}
    assert max(max(s.threads, s.threads_batch) for s in tried) == 3
    assert found.cpus_free == 3


def test_a_challenger_far_behind_is_dropped_at_the_first_look() -> None:
    """A setting a quarter dearer gets one look, not a race."""
    found = Bench(steep).tune(Goal(cpus_free=1, budget_s=1e6))
    (race,) = [r for r in found.races if r.option == "slots"]
    assert (race.outcome, race.rounds) == (Outcome.DEARER, 1)
    assert found.setting.slots == 1


def test_the_latency_bound_stops_batching() -> None:
    """A cheaper setting whose requests are slower than allowed is refused."""
    found = Bench().tune(Goal(cpus_free=2, latency_bound_s=0.021, budget_s=1e6))
    assert found.setting.slots == 2
    assert found.in_bound
    assert [r.challenger.slots for r in found.races if r.outcome is Outcome.TOO_SLOW] == [4]


def test_beyond_the_bound_it_goes_where_it_is_faster() -> None:
    """If the first setting is too slow, speed decides before cost, until the bound is kept."""

    def slower_with_threads(options: Mapping[str, object]) -> Costs:
        threads = options["threads"]
        assert isinstance(threads, int)
        return Costs(decode_s=0.02 / threads, token_s=0.01 * threads)

    bench = Bench(slower_with_threads)
    found = bench.tune(Goal(cpus_free=4, latency_bound_s=0.025, budget_s=1e6, max_slots=1))
    assert found.setting.threads == 2
    assert found.in_bound


def test_an_impossible_bound_is_said() -> None:
    """If nothing keeps the bound, the result says that it does not."""
    found = Bench().tune(Goal(cpus_free=2, latency_bound_s=0.001, budget_s=1e6))
    assert not found.in_bound


def test_the_budget_ends_the_search() -> None:
    """No race is begun that would overrun the budget, and the result says it is incomplete."""
    found = Bench(load_s=5.0).tune(Goal(cpus_free=4, budget_s=20.0))
    assert not found.complete
    assert found.spent_s <= 25.0
    assert found.setting.slots > 1  # what it has found by then is kept


def test_every_measurement_is_reported() -> None:
    """Samples and races account for each other: two per round, two for the first setting."""
    found = Bench().tune(Goal(cpus_free=4, budget_s=1e6))
    assert len(found.samples) == 2 + 2 * sum(r.rounds for r in found.races)
    assert {s.phase for s in found.samples} == set(Phase)


def test_a_setting_that_cannot_be_opened_loses() -> None:
    """A challenger that fails is a result with its reason, not the end of the search."""

    def little_memory(options: Mapping[str, object]) -> Costs:
        if options["slots"] == 4:
            raise EngineError("memory is short")
        return valley(options)

    found = Bench(little_memory).tune(Goal(cpus_free=2, budget_s=1e6))
    (race,) = [r for r in found.races if r.outcome is Outcome.FAILED]
    assert race.detail == "memory is short"
    assert race.ratio is None
    assert found.setting.slots == 2


def test_an_engine_that_cannot_be_opened_at_all_is_an_error() -> None:
    """Without a first setting there is nothing to tune."""

    def broken(options: Mapping[str, object]) -> Costs:
        raise EngineError("no such file")

    with pytest.raises(EngineError, match="no such file"):
        Bench(broken).tune(Goal(cpus_free=1))


def test_missing_cpu_time_is_an_error() -> None:
    """Where CPU time cannot be measured, tuning says so instead of comparing nothing."""
    bench, blind = Bench(), others(cpu_s=Missing(reason="no clock"))
    with pytest.raises(EngineError, match="no clock"):
        tune(bench.open, Goal(cpus_free=1), meter=blind, clock=bench.clock)  # type: ignore[arg-type]
    assert all(e.closed for e in bench.engines)


@pytest.mark.parametrize("seed", range(10))
def test_noise_of_a_shared_machine_costs_little(seed: int) -> None:
    """With 5 % noise per request, the setting found is within 15 % of the best one's true cost."""
    noise = random.Random(seed)
    bench = Bench(noise=lambda: noise.lognormvariate(0, 0.05))
    found = bench.tune(Goal(cpus_free=4, budget_s=1e6))

    def true_cost(setting: EngineSetting) -> float:
        costs = valley(setting.options())
        return Workload().cost(costs.prefill_s, costs.decode_s)

    assert true_cost(found.setting) < 1.15 * true_cost(BEST)


def test_the_workload_decides_what_matters() -> None:
    """Where nearly all tokens are prompt, decoding settings are not worth changing."""
    prompts = Workload(prompt_tokens=5_000, completion_tokens=1)
    found = Bench().tune(Goal(cpus_free=4, budget_s=1e6, workload=prompts))
    assert found.setting.slots == 1
    assert found.setting.ubatch == 256


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpus_free": 0},
        {"cpus_free": 1, "budget_s": 0},
        {"cpus_free": 1, "latency_bound_s": 0.0},
        {"cpus_free": 1, "min_gain": 1.0},
    ],
)
def test_a_goal_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    """Goals that mean nothing do not reach an engine."""
    with pytest.raises(ValueError, match=r"at least 1|above 0|below 1"):
        Goal(**wrong)  # type: ignore[arg-type]


def test_synthetic_prompts_share_no_beginning() -> None:
    """A cache of prompt beginnings cannot make a measurement look cheap."""
    texts = [synthetic_code(i, 160) for i in range(12)]
    assert len({t[:3] for t in texts}) == 12


# -- the cache -----------------------------------------------------------------------------------

KEY = TuningKey(machine="m", model_sha256="ab", engine="llama_cpp 1", cpus_free=4)


def tuned(cpus_free: int = 4) -> Tuning:
    """A tuning with races and samples in it."""
    return Bench().tune(Goal(cpus_free=cpus_free, budget_s=60.0))


def test_a_tuning_survives_the_disk(tmp_path: Path) -> None:
    """What is read back equals what was stored, unbounded intervals included."""
    cache, tuning = TuningCache(tmp_path / "new"), Bench(steep).tune(Goal(cpus_free=2))
    path = cache.put(KEY, tuning)
    assert cache.get(KEY) == tuning
    assert any(r.ratio and r.ratio.high == math.inf for r in tuning.races)
    json.loads(path.read_text(), parse_constant=pytest.fail)  # plain JSON, no Infinity


@pytest.mark.parametrize(
    "other", [{"machine": "n"}, {"model_sha256": "cd"}, {"engine": "x"}, {"latency_bound_s": 0.1}]
)
def test_a_tuning_holds_for_its_key_only(tmp_path: Path, other: dict[str, object]) -> None:
    """Another machine, model, engine or bound finds nothing."""
    cache = TuningCache(tmp_path)
    cache.put(KEY, tuned())
    different = TuningKey(**{**{f: getattr(KEY, f) for f in KEY.__slots__}, **other})  # type: ignore[arg-type]
    assert cache.get(different) is None
    assert cache.nearest(different) is None


def test_the_nearest_tuning_never_has_more_cpus(tmp_path: Path) -> None:
    """With three CPUs free the tuning for two is taken, not the one for four."""
    cache = TuningCache(tmp_path)
    for cpus in (1, 2, 4):
        key = TuningKey(machine="m", model_sha256="ab", engine="e", cpus_free=cpus)
        cache.put(key, tuned(cpus))
    wanted = TuningKey(machine="m", model_sha256="ab", engine="e", cpus_free=3)
    found = cache.nearest(wanted)
    assert found is not None
    assert found.cpus_free == 2


def test_a_known_case_is_not_tuned_again(tmp_path: Path) -> None:
    """The second time the stored result comes back without opening an engine, unless asked for."""
    cache, bench = TuningCache(tmp_path), Bench()
    meter, goal = ClockMeter(bench.clock), Goal(cpus_free=4)
    first, stored = tune_once(bench.open, goal, key=KEY, cache=cache, meter=meter)
    opened = len(bench.engines)
    assert not stored
    assert tune_once(bench.open, goal, key=KEY, cache=cache, meter=meter) == (first, True)
    assert len(bench.engines) == opened
    _, stored = tune_once(bench.open, goal, key=KEY, cache=cache, meter=meter, fresh=True)
    assert not stored
    assert len(bench.engines) > opened


def test_a_tuning_is_not_stored_under_another_case(tmp_path: Path) -> None:
    """A key that contradicts the goal would poison the cache, so it is refused."""
    bench = Bench()
    with pytest.raises(ConfigError, match="another case"):
        tune_once(
            bench.open,
            Goal(cpus_free=2),
            key=KEY,
            cache=TuningCache(tmp_path),
            meter=ClockMeter(bench.clock),
        )


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"format": 1}', '{"format": 99}'])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, damage: str) -> None:
    """A file that cannot be used does not stop anybody."""
    cache = TuningCache(tmp_path)
    cache.put(KEY, tuned()).write_text(damage)
    assert cache.get(KEY) is None
    assert cache.nearest(KEY) is None


def test_hostile_settings_in_a_file_are_refused(tmp_path: Path) -> None:
    """Options that tuning never writes cannot be smuggled into the engine through the file."""
    cache = TuningCache(tmp_path)
    path = cache.put(KEY, tuned())
    document = json.loads(path.read_text())
    document["tuning"]["setting"]["verbosity"] = 3
    path.write_text(json.dumps(document))
    assert cache.get(KEY) is None


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """Where the cache cannot be, the message says what to do."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match="name a folder"):
        TuningCache(blocked / "below").put(KEY, tuned())


def test_machines_differ_by_their_processor() -> None:
    """The fingerprint is stable and tells two processors apart."""
    here = capture()
    assert machine_id(here) == machine_id(capture())
    assert machine_id(here) != machine_id(replace(here, cpu_model="another"))


# -- free CPUs -----------------------------------------------------------------------------------


def others(**seen: Quantity) -> ScriptedMeter:
    """A meter that saw others use some CPU-seconds in two seconds."""
    return ScriptedMeter(lambda: Measurement(wall_s=exact(2.0, source="test"), **seen))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("foreign_s", "steal_s", "free"),
    [(0.0, 0.0, 4), (0.4, 0.0, 4), (2.0, 0.0, 3), (1.0, 1.0, 3), (7.0, 0.0, 1), (80.0, 0.0, 1)],
)
def test_busy_cpus_are_not_free(foreign_s: float, steal_s: float, free: int) -> None:
    """Foreign and stolen time are taken off; at least one CPU remains."""
    meter = others(foreign_cpu_s=exact(foreign_s, source="t"), steal_s=exact(steal_s, source="t"))
    assert free_cpus(meter, 4, seconds=2.0, sleep=lambda _: None) == free  # type: ignore[arg-type]


def test_unknown_load_counts_as_none() -> None:
    """Where others cannot be seen, all usable CPUs are taken to be free."""
    meter = others(foreign_cpu_s=Missing(reason="macOS"), steal_s=Missing(reason="macOS"))
    assert free_cpus(meter, 4, sleep=lambda _: None) == 4  # type: ignore[arg-type]


def test_ratios_of_races_are_intervals() -> None:
    """Each finished race states how much cheaper the challenger was, with bounds."""
    found = Bench().tune(Goal(cpus_free=2, budget_s=1e6))
    first = found.races[0]
    assert first.ratio is not None
    assert isinstance(first.ratio, Interval)
    assert first.ratio.low < first.ratio.value < 1
