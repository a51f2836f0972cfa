"""The search over strategies, on surfaces whose best point is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from lichen.acceleration import STRATEGIES
from lichen.acceleration.candidates import (
    LAYERS,
    TABLE,
    CandidateSet,
    Choice,
    default_candidates,
    label,
    ordered,
    with_choice,
)
from lichen.acceleration.racing import Observed, Rules, Standing, Track, cost_against, cost_along
from lichen.acceleration.search import search
from lichen.acceleration.searched import Budget, Evaluate, Found, Pace, Round, pays_back
from lichen.acceleration.strategy import StrategyContext
from lichen.core.errors import ConfigError, EngineError
from lichen.core.generation import Hints, Message, Request, Role
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.testing.in_process_sandbox import InProcessSandbox

PROBLEMS = [f"p{i}" for i in range(40)]


class Surface:
    """An ``Evaluate`` whose costs multiply by strategy, with drift, noise and a wall clock."""

    def __init__(
        self,
        factors: dict[str, float],
        *,
        lost: dict[str, float] | None = None,
        latency: dict[str, float] | None = None,
        broken: Sequence[str] = (),
        noise: float = 0.01,
        clash: Callable[[set[str]], float] = lambda _: 1.0,
    ) -> None:
        self.factors = factors
        self.lost = lost or {}
        self.latency = latency or {}
        self.broken = broken
        self.noise = noise
        self.clash = clash
        self.rng = random.Random(7)
        self.calls: list[tuple[CandidateSet, ...]] = []
        self.paid = 0.0

    def __call__(self, candidates: Sequence[CandidateSet], problems: Sequence[str]) -> Round:
        """Run the candidates; each takes half a second to load."""
        self.calls.append(tuple(candidates))
        drift = self.rng.uniform(1.0, 3.0)
        seen = tuple(self._seen(c, problems, drift) for c in candidates)
        wall_s = sum(o.wall_s for o in seen)
        cpu_s = sum(sum(o.cpu_s) for o in seen) + 0.5 * len(seen)
        self.paid += cpu_s
        return Round(observed=seen, cpu_s=cpu_s, seconds=wall_s)

    def _seen(self, candidate: CandidateSet, problems: Sequence[str], drift: float) -> Observed:
        names = [c.label for c in candidate]
        if set(names) & set(self.broken):
            return Observed(error="it cannot be loaded")
        factor = math.prod(self.factors[n] for n in names) * self.clash(set(names))
        cost = drift * factor * math.exp(self.rng.gauss(0, self.noise))
        lost = sum(self.lost.get(n, 0.0) for n in names)
        wrong = {p for p in problems if random.Random(p).random() < lost}
        return Observed(
            quality=tuple(0.0 if p in wrong else 1.0 for p in problems),
            cpu_s=(cost,) * len(problems),
            latency_s=(math.prod(self.latency.get(n, 1.0) for n in names),) * len(problems),
            wall_s=cost * len(problems),
        )


def found(surface: Surface, *, seconds: float = 1e6, proof: int = 0, **rules: float) -> Found:
    """Search the surface's own strategies."""
    choices = [Choice(strategy=n) for n in surface.factors]
    evaluate: Evaluate = surface
    return search(
        evaluate,
        choices,
        PROBLEMS,
        rules=Rules(**rules),  # type: ignore[arg-type]
        budget=Budget(seconds=seconds, problems_per_round=8, proof=proof),
    )


def standing(result: Found, name: str) -> Standing:
    """How a strategy ended its screening."""
    for race in result.races:
        if race.stage == "screening" and race.candidate == (Choice(strategy=name),):
            return race.standing
    raise KeyError(name)


def test_search_finds_the_optimum() -> None:
    """All that pays is joined, nothing that does not, and the ratio's interval holds the truth."""
    surface = Surface({"a": 0.5, "b": 0.8, "c": 1.1, "d": 2.0, "e": 1.0})
    result = found(surface)
    assert {c.strategy for c in result.best} == {"a", "b"}
    assert isinstance(result.ratio, Interval)
    assert result.ratio.value == pytest.approx(0.4, rel=0.05)
    assert result.complete
    parts = {c.strategy: r for c, r in result.contributions}
    assert isinstance(parts["a"], Interval)
    assert isinstance(parts["b"], Interval)
    assert parts["a"].value == pytest.approx(2.0, rel=0.05)
    assert parts["b"].value == pytest.approx(1.25, rel=0.05)


def test_search_is_no_grid() -> None:
    """Eight strategies are sorted out in far fewer looks than the 256 sets there are."""
    surface = Surface({chr(97 + i): f for i, f in enumerate([0.5, 0.7, 0.9] + [1.3] * 5)})
    result = found(surface)
    assert {c.strategy for c in result.best} == {"a", "b", "c"}
    assert len({look.candidate for look in result.looks}) < 20
    assert sum(len(group) for group in surface.calls) < 60


def test_search_drops_what_is_dominated_at_the_first_look() -> None:
    """A candidate that is far behind is looked at once."""
    result = found(Surface({"a": 0.5, "slow": 3.0}))
    assert standing(result, "slow") is Standing.DEARER
    assert sum(look.candidate == (Choice(strategy="slow"),) for look in result.looks) == 1


def test_search_rejects_what_is_cheap_but_worse() -> None:
    """A strategy that halves the cost and loses a third of the answers is not taken."""
    result = found(Surface({"cheat": 0.3, "b": 0.8}, lost={"cheat": 0.33}), margin=0.02)
    assert {c.strategy for c in result.best} == {"b"}
    assert standing(result, "cheat") is Standing.WORSE


def test_search_margin_is_the_users() -> None:
    """The same strategy is taken if the user allows that much."""
    result = found(Surface({"cheat": 0.3}, lost={"cheat": 0.2}), margin=0.6)
    assert {c.strategy for c in result.best} == {"cheat"}


def test_search_keeps_the_latency_bound() -> None:
    """What is cheap but slower than the bound is not taken."""
    surface = Surface({"batch": 0.4, "b": 0.8}, latency={"batch": 5.0})
    assert {c.strategy for c in found(surface, max_latency_s=2.0).best} == {"b"}


def test_search_leaves_out_what_another_makes_useless() -> None:
    """A strategy that pays alone but nothing on top of the winner is not kept."""
    both = {"a", "b"}
    surface = Surface({"a": 0.5, "b": 0.6}, clash=lambda n: 1 / 0.6 if n >= both else 1.0)
    assert {c.strategy for c in found(surface).best} == {"a"}


def test_search_says_when_nothing_pays() -> None:
    """Where every strategy costs more, plain stays and nothing is promised."""
    result = found(Surface({"a": 1.2, "b": 1.05}))
    assert result.best == ()
    assert isinstance(result.ratio, Missing)
    assert isinstance(result.pays_after, Missing)


def test_search_pays_its_own_bill() -> None:
    """Its cost is the sum of all that was run, loading included; N* follows from it."""
    surface = Surface({"a": 0.5}, noise=0.0)
    result = found(surface)
    assert result.spent_cpu_s == pytest.approx(surface.paid)
    plain = [x for k in result.looks if k.candidate == () for x in k.observed.cpu_s]
    mean = sum(plain) / len(plain)
    assert result.pays_after == pytest.approx(surface.paid / (mean - 0.5 * mean), rel=0.01)


def test_search_stops_within_its_budget() -> None:
    """It is overrun by what the last round's drift adds at most; the result is not complete."""
    surface = Surface({"a": 0.5, "b": 0.8, "c": 0.9})
    result = found(surface, seconds=150.0)
    assert not result.complete
    last = max(k.round for k in result.looks)
    last_s = sum(k.observed.wall_s for k in result.looks if k.round == last)
    assert result.spent_s - last_s * (1 - 1 / 3) <= 150.0  # drift is a factor of three at most


def test_search_survives_a_candidate_that_cannot_run() -> None:
    """What cannot be loaded is reported with the reason; the rest goes on."""
    result = found(Surface({"a": 0.5, "bad": 0.1}, broken=["bad"]))
    assert {c.strategy for c in result.best} == {"a"}
    failed = [r for r in result.races if r.standing is Standing.FAILED]
    assert [r.detail for r in failed] == ["it cannot be loaded"]


def test_search_keeps_one_setting_of_a_strategy() -> None:
    """Of two settings of a strategy the cheaper one wins; they are never joined."""
    few, many = (Choice(strategy="concurrency", options=(("slots", n),)) for n in (4, 8))
    surface = Surface({few.label: 0.7, many.label: 0.5})
    result = search(surface, [few, many], PROBLEMS, budget=Budget(seconds=1e6))
    assert result.best == (many,)


def test_search_needs_problems() -> None:
    """Without a problem there is nothing to calibrate on."""
    with pytest.raises(ConfigError, match="no problem"):
        search(Surface({"a": 0.5}), [Choice(strategy="a")], [])


def test_break_even_is_a_division() -> None:
    """100 CPU-seconds spent and 2 saved per request are back after 50."""
    assert pays_back(100.0, 3.0, 1.0) == 50.0
    assert isinstance(pays_back(100.0, 1.0, 1.0), Missing)


def test_tracks_compare_over_common_rounds_only() -> None:
    """Two candidates are held against each other where both ran, whatever drift did elsewhere."""
    a, b = (Choice(strategy="a"),), (Choice(strategy="b"),)
    one, two = Track(logs={1: 0.0, 2: 5.0}), Track(logs={1: -0.7, 3: 9.0})
    cost = cost_against({a: one, b: two}, a, b)
    assert cost is not None
    assert cost.value == pytest.approx(-0.7)


def test_quality_interval_does_not_trust_few_agreements() -> None:
    """Eight problems that agree do not prove a difference below two points."""
    track = Track(differences={str(i): [0.0] for i in range(8)})
    assert track.quality().value == 0.0
    assert track.quality().low < -0.02


def test_a_problem_asked_twice_counts_once() -> None:
    """Asking again does not make an interval narrower."""
    once = Track(differences={"p": [1.0], "q": [0.0]})
    twice = Track(differences={"p": [1.0, 1.0], "q": [0.0, 0.0]})
    assert once.quality() == twice.quality()


@pytest.mark.parametrize("name", sorted(STRATEGIES.names()))
def test_table_of_layers_is_true(name: str) -> None:
    """The layers that the search orders by are those of the strategies themselves."""
    options: dict[str, dict[str, object]] = {
        "answer_cache": {"model": "m"},
        "cascade": {"levels": [{"model": "m"}], "signal": "confidence"},
    }
    context = StrategyContext(sandbox=InProcessSandbox())
    assert STRATEGIES.get(name)(options.get(name, {}), context).layer is LAYERS[name]


@pytest.mark.parametrize("choice", TABLE, ids=lambda c: c.label)
def test_every_choice_of_the_table_can_be_made(choice: Choice) -> None:
    """The settings in the table are ones that their strategies take."""
    context = StrategyContext(sandbox=InProcessSandbox())
    made = STRATEGIES.get(choice.strategy)(dict(choice.options), context)
    assert made.name == choice.strategy


def test_table_has_no_repeats_and_known_names() -> None:
    """Each choice is registered and listed once."""
    assert len(set(TABLE)) == len(TABLE)
    assert {c.strategy for c in TABLE} <= set(STRATEGIES.names())


def test_candidates_leave_alone_what_the_solution_has() -> None:
    """Strategies that the solution lists are not searched; named models add candidates."""
    names = {c.strategy for c in default_candidates(present=["concurrency"], firsts=["small"])}
    assert "concurrency" not in names
    assert "cascade" in names
    assert not {"cascade", "recipe"} & {c.strategy for c in default_candidates()}
    assert "recipe" in {c.strategy for c in default_candidates(recipes=["fast"])}
    controllers = [
        dict(c.options)["controller"]
        for c in default_candidates(exits=True)
        if c.strategy == "early_exit"
    ]
    assert controllers == ["confidence", "linear"]
    assert "early_exit" not in {c.strategy for c in default_candidates()}
    assert "recipe" not in {
        c.strategy for c in default_candidates(present=["recipe"], recipes=["fast"])
    }
    drafts = [c for c in default_candidates(draft="tiny") if ("draft", "tiny") in c.options]
    assert len(drafts) == 1


def test_a_second_form_needs_code_that_the_question_gives() -> None:
    """A cascade whose second model is asked in another form is tried only where there is a form."""
    forms = {
        given: [
            dict(c.options).get("form")
            for c in default_candidates(
                firsts=["small"],
                asked=Request(
                    id="1",
                    messages=(Message(role=Role.USER, content="Write f."),),
                    hints=Hints(given=given, entry_point="f"),
                ),
            )
            if c.strategy == "cascade"
        ]
        for given in ("def f():\n", "")
    }
    assert forms == {"def f():\n": [None, "shown", None], "": [None, None]}


def test_candidates_are_ordered_from_the_engine_outwards() -> None:
    """Whatever order choices come in, the engine's own are innermost."""
    names = ["cascade", "stop_when_complete", "concurrency"]
    made = ordered(Choice(strategy=n) for n in names)
    assert [c.strategy for c in made] == names[::-1]
    replaced = with_choice(made, Choice(strategy="concurrency", options=(("slots", 8),)))
    assert label(replaced) == "concurrency(slots=8) + stop_when_complete + cascade"


def test_search_gives_doubtful_quality_more_looks() -> None:
    """One unlucky answer does not drop what is cheaper: quality gets more looks than cost."""
    surface = Surface({"a": 0.5}, lost={"a": 0.04}, noise=0.0)
    unlucky = sum(random.Random(p).random() < 0.04 for p in PROBLEMS)
    result = found(surface, margin=(unlucky + 0.5) / len(PROBLEMS))
    assert unlucky > 0
    assert {c.strategy for c in result.best} == {"a"}


def test_search_takes_smaller_rounds_where_time_is_short() -> None:
    """Rounds shrink so that every candidate is looked at within the budget, never below four."""
    surface = Surface({"a": 0.5, "b": 0.8, "c": 0.9})
    result = found(surface, seconds=120.0)
    sizes = {len(look.problems) for look in result.looks if look.candidate}
    assert 4 <= max(sizes) < 8
    assert {c for r in result.looks for c in r.candidate} >= {
        Choice(strategy=n) for n in surface.factors
    }


def test_search_begins_nothing_that_cannot_end() -> None:
    """A budget that holds no look at a candidate is refused with what would do."""
    surface = Surface({"a": 0.5})
    with pytest.raises(ConfigError, match="give it at least 1m"):
        found(surface, seconds=10.0)
    assert surface.calls == [((),)]


def test_search_refuses_a_budget_that_verification_would_eat() -> None:
    """Verification is set aside first; where nothing is left for the search, it says so."""
    with pytest.raises(ConfigError, match=r"too small: verifying takes about .*1000 answers"):
        found(Surface({"a": 0.5}), seconds=600.0, proof=1000)


def test_search_says_when_a_refusal_rests_on_old_times() -> None:
    """A pilot that was slow on a busy machine must not refuse the budget for ever unexplained."""
    surface = Surface({"a": 0.5})

    def stored(candidates: Sequence[CandidateSet], problems: Sequence[str]) -> Round:
        return replace(surface(candidates, problems), stored=True)

    with pytest.raises(ConfigError, match="--fresh looks again"):
        search(stored, [Choice(strategy="a")], PROBLEMS, budget=Budget(seconds=10.0))


def test_search_leaves_the_verification_its_time() -> None:
    """What is set aside covers plain twice, and the search ends before it would touch that."""
    surface = Surface({"a": 0.5, "b": 0.8, "c": 0.9})
    result = found(surface, seconds=250.0, proof=40)
    pilot = result.looks[0]
    assert result.reserved_s == pytest.approx(2 * 40 * pilot.observed.wall_s / len(pilot.problems))
    assert result.spent_s <= 250.0 - result.reserved_s
    assert not result.complete


def test_search_goes_the_same_way_over_stored_rounds() -> None:
    """Given what the rounds said, the search asks for the same rounds again: it can be resumed."""
    live = Surface({"a": 0.5, "b": 0.8, "c": 1.1}, noise=0.2)
    kept: list[Round] = []

    def recording(candidates: Sequence[CandidateSet], problems: Sequence[str]) -> Round:
        kept.append(live(candidates, problems))
        return kept[-1]

    asked: list[tuple[CandidateSet, ...]] = []

    def replaying(candidates: Sequence[CandidateSet], _problems: Sequence[str]) -> Round:
        asked.append(tuple(candidates))
        return replace(kept[len(asked) - 1], stored=True)

    choices = [Choice(strategy=n) for n in live.factors]
    first = search(recording, choices, PROBLEMS)
    again = search(replaying, choices, PROBLEMS)
    assert asked == live.calls
    assert again.stored_rounds == again.rounds == first.rounds
    assert replace(again, stored_rounds=0) == first


def lossless(*, few: float = 0.6, many: float = 0.5, **others: float) -> tuple[Surface, Found]:
    """Search strategies that leave the answers alone, two settings of one, and others."""
    slots = [Choice(strategy="concurrency", options=(("slots", n),)) for n in (8, 16)]
    choices = [*slots, *map(_choice, ("prefix_cache", "stop_when_complete", *others))]
    factors = {slots[0].label: few, slots[1].label: many, "prefix_cache": 0.9}
    surface = Surface({**factors, "stop_when_complete": 0.8, **others})
    return surface, search(surface, choices, PROBLEMS, budget=Budget(seconds=1e6))


def _choice(name: str) -> Choice:
    return Choice(strategy=name)


def test_what_leaves_the_answers_alone_is_tried_first_and_together() -> None:
    """The rest is then raced on top of it, never alone, and joined where it pays there."""
    surface, result = lossless(a=0.7, b=1.2)
    pilot, first, *later = surface.calls
    assert pilot == ((),)
    opened = "concurrency(slots=8) + prefix_cache + stop_when_complete"
    assert [label(c) for c in first] == ["plain", opened]
    assert all(len(c) > 1 for group in later for c in group if c)
    assert label(result.best) == "concurrency(slots=16) + prefix_cache + stop_when_complete + a"
    assert isinstance(result.ratio, Interval)
    assert result.ratio.value == pytest.approx(0.5 * 0.9 * 0.8 * 0.7, rel=0.05)
    by_plain = {k.round: k.problems for k in result.looks if not k.candidate}
    known: set[str] = set()
    for number in sorted({k.round for k in result.looks}):
        (ids,) = {k.problems for k in result.looks if k.round == number}
        assert (number in by_plain) == (not known >= set(ids))  # asked once, never for its cost
        known |= set(ids)
    race = result.races[0]
    assert (race.stage, race.against, race.standing) == ("opening", (), Standing.PAYS)
    assert {label(r.against) for r in result.races if r.stage == "screening"} == {opened}


def test_a_base_that_breaks_ends_the_search_with_what_is_known() -> None:
    """When what all else runs on top of fails half-way, it has still paid, and stays."""
    slots = Choice(strategy="concurrency", options=(("slots", 8),))
    harmless = (slots, _choice("prefix_cache"))
    surface = Surface({slots.label: 0.5, "prefix_cache": 0.9, "a": 0.7})

    def breaking(candidates: Sequence[CandidateSet], problems: Sequence[str]) -> Round:
        ran = surface(candidates, problems)
        if candidates[0] == ():
            return ran
        return replace(ran, observed=(Observed(error="no memory"), *ran.observed[1:]))

    choices = [*harmless, _choice("a")]
    result = search(breaking, choices, PROBLEMS, budget=Budget(seconds=2000.0))
    assert set(result.best) == set(harmless)
    assert not result.complete
    assert isinstance(result.ratio, Interval)


def test_costs_of_sets_that_never_met_are_added_up() -> None:
    """Step by step, bounds too; a step without a common round leaves it unknown."""
    a, b = (_choice("a"),), (_choice("b"),)
    tracks = {
        (): Track(logs={1: 0.0, 2: 0.0}),
        a: Track(logs={1: -0.5, 2: -0.5, 3: 0.0, 4: 0.0}),
        b: Track(logs={3: -0.2, 4: -0.2}),
    }
    steps = [cost_against(tracks, (), a), cost_against(tracks, a, b)]
    whole = cost_along(tracks, [(), a, b])
    assert whole is not None
    assert whole.value == pytest.approx(-0.7)
    assert whole.low == pytest.approx(sum(s.low for s in steps if s))
    assert cost_along(tracks, [(), a]) == steps[0]
    assert cost_along({**tracks, b: Track(logs={9: 0.0})}, [(), a, b]) is None


def test_an_opening_that_does_not_pay_leaves_each_its_chance_alone() -> None:
    """Where the joint set costs more, its parts are screened one by one like all others."""
    _, result = lossless(few=4.0, many=4.0, a=0.7)
    opened = result.races[0]
    assert (opened.stage, opened.standing) == ("opening", Standing.DEARER)
    assert {c.strategy for c in result.best} == {"prefix_cache", "stop_when_complete", "a"}


def test_one_harmless_strategy_is_no_opening() -> None:
    """With a single one there is nothing to join: screening looks at it."""
    result = found(Surface({"prefix_cache": 0.8, "a": 0.7}))
    assert {r.stage for r in result.races} == {"screening", "joining", "leaving out"}
    assert {c.strategy for c in result.best} == {"prefix_cache", "a"}


def test_a_short_budget_still_finds_what_leaves_the_answers_alone() -> None:
    """Ten undecided candidates must not use up the time of the set that decides in two looks."""
    slots = Choice(strategy="concurrency", options=(("slots", 8),))
    open_ones = [_choice(f"x{i}") for i in range(10)]
    harmless = [slots, _choice("prefix_cache"), _choice("stop_when_complete")]
    factors = {c.label: 0.8 for c in harmless} | {c.label: 0.97 for c in open_ones}
    surface = Surface(factors, noise=0.1)
    choices = [*open_ones, *harmless]
    result = search(surface, choices, PROBLEMS, budget=Budget(seconds=450.0, proof=40))
    assert not result.complete
    assert set(harmless) <= set(result.best)


def test_screening_may_use_all_the_time_while_nothing_pays() -> None:
    """A search that ends with nothing has used its budget, but for a round that did not fit."""
    surface = Surface({f"x{i}": 0.9 for i in range(6)}, noise=0.3)
    result = found(surface, seconds=400.0)
    assert not result.complete
    longest = max(sum(o.observed.wall_s for o in result.looks if o.round == n) for n in range(9))
    assert result.best or result.spent_s > 400.0 - longest


def test_one_answer_that_a_batch_rounds_otherwise_is_no_reason_to_doubt() -> None:
    """What leaves answers alone pays after two looks, though one of sixteen problems is lost."""
    slots = Choice(strategy="concurrency", options=(("slots", 8),))
    harmless = (slots, _choice("prefix_cache"))
    few = PROBLEMS[:16]
    share = 0.3
    assert sum(random.Random(p).random() < share for p in few) == 1
    surface = Surface({slots.label: 0.7, "prefix_cache": 0.9}, lost={slots.label: share})
    result = search(surface, harmless, few, budget=Budget(seconds=1e6))
    assert (result.races[0].stage, result.races[0].standing) == ("opening", Standing.PAYS)
    assert result.races[0].rounds == 2
    assert set(result.best) == set(harmless)


def test_what_always_loses_is_no_opening_either() -> None:
    """A set that is worse with confidence is refused, whatever it is said to leave alone."""
    slots = Choice(strategy="concurrency", options=(("slots", 8),))
    choices = [slots, _choice("prefix_cache")]
    surface = Surface({slots.label: 0.5, "prefix_cache": 0.9}, lost={slots.label: 0.5})
    result = search(surface, choices, PROBLEMS, budget=Budget(seconds=1e6))
    assert result.races[0].standing is Standing.WORSE
    assert {c.strategy for c in result.best} == {"prefix_cache"}


def test_quality_in_doubt_gets_no_looks_at_the_same_problems() -> None:
    """When all problems have been asked, another round would only repeat their answers."""
    surface = Surface({"a": 0.5}, lost={"a": 0.3}, noise=0.0)
    few = PROBLEMS[:16]
    lost = sum(random.Random(p).random() < 0.3 for p in few) / len(few)
    rules = Rules(margin=lost - 0.01, rounds=2)
    result = search(surface, [_choice("a")], few, rules=rules, budget=Budget(seconds=1e6))
    assert standing(result, "a") is Standing.WORSE
    assert sum(k.candidate == (_choice("a"),) for k in result.looks) == 2


def test_an_opening_that_cannot_run_is_said_once() -> None:
    """A part that cannot be loaded fails the set; the other parts are screened as usual."""
    slots = Choice(strategy="concurrency", options=(("slots", 8),))
    choices = [slots, _choice("prefix_cache")]
    surface = Surface({slots.label: 0.5, "prefix_cache": 0.8}, broken=[slots.label])
    result = search(surface, choices, PROBLEMS, budget=Budget(seconds=1e6))
    assert (result.races[0].stage, result.races[0].standing) == ("opening", Standing.FAILED)
    assert {c.strategy for c in result.best} == {"prefix_cache"}


def test_a_round_is_expected_to_take_what_its_candidates_took() -> None:
    """Those not seen yet count as the first of the round; loading counts for each."""
    a, b, c = ((_choice(n),) for n in "abc")
    pace = Pace()
    seen = (Observed(wall_s=8.0), Observed(wall_s=4.0))
    pace.learn([a, b], Round(observed=seen, cpu_s=1.0, seconds=13.0), 4)
    assert pace.load_s == pytest.approx(0.5)
    assert pace.expects([b, c], 10) == pytest.approx(10 * (1.0 + 1.0) + 2 * 0.5)
    assert pace.expects([a, b], 2) == pytest.approx(2 * (2.0 + 1.0) + 2 * 0.5)
    pace.learn([a], Round(observed=(Observed(wall_s=1.0),), cpu_s=1.0, seconds=1.0), 1)
    assert pace.expects([a], 1) == pytest.approx(2.0 + 0.5)  # the slowest so far stays


def test_screening_has_its_share_of_what_the_opening_left() -> None:
    """An opening that took most of the time must not leave candidates without a look."""
    slots = Choice(strategy="concurrency", options=(("slots", 8),))
    factors = {slots.label: 0.93, "prefix_cache": 0.97, "a": 0.5, "b": 0.9}
    surface = Surface(factors, noise=0.05)
    choices = [slots, *map(_choice, ("prefix_cache", "a", "b"))]
    result = search(surface, choices, PROBLEMS, budget=Budget(seconds=170.0))
    assert any(r.stage == "screening" and r.rounds for r in result.races)
    assert not result.complete


def test_what_nobody_looked_at_comes_before_leaving_out() -> None:
    """What screening had no time for is looked at next, before what is open and any ablation."""
    slots = Choice(strategy="concurrency", options=(("slots", 8),))
    dull = [_choice(f"x{i}") for i in range(7)]
    factors = {slots.label: 0.9, "prefix_cache": 0.9, "gem": 0.4} | {c.label: 0.97 for c in dull}
    surface = Surface(factors, noise=0.1)
    choices = [slots, _choice("prefix_cache"), *dull, _choice("gem")]
    result = search(surface, choices, PROBLEMS, budget=Budget(seconds=200.0))
    assert not result.complete
    assert _choice("gem") in result.best
    first = next(r for r in result.races if _choice("gem") in r.candidate)
    assert (first.stage, first.standing) == ("joining", Standing.PAYS)


def test_named_models_are_looked_at_first() -> None:
    """A budget that ends early has tried what the caller asked for."""
    choices = default_candidates(
        slots=[Choice(strategy="concurrency")], draft="tiny", firsts=["small"], recipes=["fast"]
    )
    kinds = list(dict.fromkeys(c.strategy for c in choices))
    assert kinds[:3] == ["recipe", "cascade", "speculation"]
    assert kinds[-1] == "concurrency"


def test_plain_that_breaks_later_is_said() -> None:
    """Without plain's answers nothing can be said of quality: one sentence ends the search."""
    surface = Surface({"a": 0.5})

    def breaking(candidates: Sequence[CandidateSet], problems: Sequence[str]) -> Round:
        ran = surface(candidates, problems)
        if len(candidates) == 1:
            return ran
        return replace(ran, observed=(Observed(error="no memory"), *ran.observed[1:]))

    with pytest.raises(EngineError, match="plain itself cannot be run: no memory"):
        search(breaking, [_choice("a")], PROBLEMS, budget=Budget(seconds=2000.0))
