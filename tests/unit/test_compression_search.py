"""The search in a world whose costs are known: rounds, gate, budget, resumption, baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lichen.compression.candidates import CompressionCandidate, Origin, Predicted, shortlist
from lichen.compression.ledger import Ledger
from lichen.compression.recipe import Recipe, RecipeStep
from lichen.compression.search import search
from lichen.compression.search_records import gated_from, look_from, plain_gated, plain_look
from lichen.compression.searched import (
    Baseline,
    Bill,
    Budget,
    Foreseen,
    Gated,
    Look,
    Rules,
    Search,
)
from lichen.core.errors import ConfigError
from lichen.core.interval import Interval
from lichen.core.measurement import Missing

PARENT_BYTES = 1000


@dataclass(frozen=True)
class World:
    """What a candidate called by its number is really like."""

    file_bytes: int
    cost: float
    kl: float
    passes: bool = True
    error: str = ""


def candidate(name: str, origin: Origin = Origin.PREDICTED) -> CompressionCandidate:
    """A candidate whose recipe is its name."""
    return CompressionCandidate(
        label=name,
        recipe=Recipe(steps=(RecipeStep("retie", {"name": name}),)),
        origin=origin,
        predicted=Predicted(file_bytes=500, cpu_s=1.0, error=1.0),
    )


@dataclass
class ScriptedWorkshop:
    """Looks up what it is asked; every look takes 10 s and 10 CPU-s, every gate 100."""

    worlds: dict[str, World]
    asked: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    killed_after: int = 10**9
    joules: float | Missing = 20.0
    expected_s: float = 0.0
    making_s: float = 0.0
    longer_s: float = 10.0

    def look(self, c: CompressionCandidate, level: int) -> Look:
        """Measure."""
        self._ask(f"look {level} {c.label}")
        world = self.worlds[c.label]
        self.files.add(c.label)
        return Look(
            kl_nats=Interval.exact(world.kl),
            flips=Interval.exact(world.kl / 2),
            prefill=Interval.exact(world.cost),
            decode=Interval.exact(world.cost),
            parent_request_s=10.0,
            child_request_s=10.0 * world.cost,
            file_bytes=world.file_bytes,
            error=world.error,
            bill=Bill(wall_s=10, cpu_s=10, energy_j=self.joules),
        )

    def gate(self, c: CompressionCandidate) -> Gated:
        """Judge."""
        self._ask(f"gate {c.label}")
        assert c.label in self.files
        passed = self.worlds[c.label].passes
        return Gated(
            passed=passed,
            sentence="" if passed else "quality: lost 9 points",
            rows=(("quality", "passed" if passed else "FAILED", "said"),),
            bill=Bill(wall_s=100, cpu_s=100, energy_j=self.joules),
        )

    def foresee(self, look: Look) -> Foreseen:
        """Expect what was scripted."""
        assert not look.error
        return Foreseen(
            making=Bill(wall_s=self.making_s, cpu_s=self.making_s),
            longer=Bill(wall_s=self.longer_s, cpu_s=self.longer_s, energy_j=self.joules),
            gate=Bill(wall_s=self.expected_s, cpu_s=self.expected_s),
            answers=164,
        )

    def discard(self, c: CompressionCandidate) -> None:
        """Delete."""
        self.files.discard(c.label)

    def path(self, c: CompressionCandidate) -> Path:
        """Name the file."""
        return Path(c.label)

    def _ask(self, what: str) -> None:
        if len(self.asked) >= self.killed_after:
            raise KeyboardInterrupt
        self.asked.append(what)


SPREAD = {
    f"c{i}": World(file_bytes=900 - 60 * i, cost=0.95 - 0.05 * i, kl=0.01 * 1.5**i)
    for i in range(9)
}


def run(
    workshop: ScriptedWorkshop,
    *,
    rules: Rules | None = None,
    budget: Budget | None = None,
    ledger: Ledger | None = None,
    origins: Callable[[str], Origin] = lambda _n: Origin.PREDICTED,
) -> Search:
    """Search over all of a workshop's worlds."""
    return search(
        workshop,
        [candidate(n, origins(n)) for n in workshop.worlds],
        parent_bytes=PARENT_BYTES,
        rules=rules or Rules(most_kl=0.2),
        budget=budget or Budget(seconds=10_000),
        ledger=ledger or Ledger(None, "test"),
    )


def fates(found: Search) -> dict[str, str]:
    """Label to fate."""
    return {r.candidate.label: r.fate for r in found.rows}


def test_the_cheapest_that_passes_is_recommended() -> None:
    """All candidates are looked at, few twice, and the gate is asked until one passes."""
    workshop = ScriptedWorkshop(SPREAD)
    found = run(workshop)
    assert found.best is not None
    assert found.complete
    looked = [a for a in workshop.asked if a.startswith("look 0")]
    again = [a for a in workshop.asked if a.startswith("look 1")]
    gates = [a for a in workshop.asked if a.startswith("gate")]
    assert (len(looked), len(again), len(gates)) == (9, 3, 1)
    costs = [SPREAD[a.split()[-1]].cost for a in again]
    assert SPREAD[found.best.label].cost == min(costs)
    assert workshop.files == {found.best.label}
    assert found.rows[0].candidate is found.best
    assert fates(found)[found.best.label] == "passed the gate"


def test_a_failed_gate_sends_the_next_one() -> None:
    """Where the cheapest finalists fail, the next is asked; the sentence is kept."""
    cheapest = min((n for n in SPREAD if SPREAD[n].kl <= 0.2), key=lambda n: SPREAD[n].cost)
    worlds = {n: World(w.file_bytes, w.cost, w.kl, passes=n != cheapest) for n, w in SPREAD.items()}
    found = run(ScriptedWorkshop(worlds))
    assert found.best is not None
    assert found.best.label != cheapest
    assert fates(found)[cheapest] == "the gate stopped it: quality"


def test_nothing_better_is_an_honest_answer() -> None:
    """If all fail, none is recommended, nothing is kept and nothing is paid back."""
    workshop = ScriptedWorkshop(
        {n: World(w.file_bytes, w.cost, w.kl, passes=False) for n, w in SPREAD.items()}
    )
    found = run(workshop)
    assert found.best is None
    assert isinstance(found.pays_after, Missing)
    assert workshop.files == set()


@pytest.mark.parametrize(
    ("world", "why"),
    [
        (World(500, 0.5, 0.5), "diverges by 0.500"),
        (World(500, 0.5, 0.19), "flips 9.5%"),
        (World(500, 1.4, 0.01), "costs 1.40 times"),
        (World(990, 0.5, 0.01), "larger than 950"),
        (World(500, 0.5, 0.01, error="cannot be loaded"), "cannot be loaded"),
    ],
)
def test_what_cannot_win_leaves_before_the_gate(world: World, why: str) -> None:
    """Divergence, cost, size and errors end a candidate at the first look."""
    workshop = ScriptedWorkshop({"bad": world})
    found = run(workshop, rules=Rules(most_kl=0.2, most_flips=0.09, most_bytes=950))
    assert workshop.asked == ["look 0 bad"]
    assert found.best is None
    assert why in fates(found)["bad"]
    assert not workshop.files


def test_the_budget_is_kept() -> None:
    """No look begins that would not end within the rounds' share, no gate beyond the whole."""
    workshop = ScriptedWorkshop(SPREAD)
    found = run(workshop, budget=Budget(seconds=70))
    assert sum(a.startswith("look") for a in workshop.asked) == 4
    assert not found.complete
    assert found.spent.wall_s <= 70 + 100
    assert "budget" in " ".join(fates(found).values())


def test_what_the_gate_will_take_is_set_aside() -> None:
    """Rounds end earlier where the gate is long; without a forecast they have 60 %."""
    looks = {}
    for expected in (0.0, 100.0, 130.0):
        workshop = ScriptedWorkshop(SPREAD, expected_s=expected)
        found = run(workshop, budget=Budget(seconds=200))
        looks[expected] = sum(a.startswith("look") for a in workshop.asked)
        assert any(a.startswith("gate") for a in workshop.asked), "the gate could still be asked"
        assert found.best is not None
    assert looks == {0.0: 12, 100.0: 10, 130.0: 7}


def test_a_longer_look_that_would_use_up_the_gates_part_is_left_out() -> None:
    """It makes the file, which takes longer than any look so far; the gate is asked all the same."""
    asked = {}
    for making in (0.0, 60.0):
        workshop = ScriptedWorkshop(SPREAD, expected_s=100.0, making_s=making, longer_s=10.0)
        found = run(workshop, budget=Budget(seconds=260))
        asked[making] = [a for a in workshop.asked if not a.startswith("look 0")]
        assert found.best is not None
        assert found.complete == (making == 0.0)
    assert [a[:4] for a in asked[0.0]] == ["look", "look", "look", "gate"]
    assert [a[:4] for a in asked[60.0]] == ["gate"]


def test_what_a_gate_would_take_is_said_where_it_does_not_fit() -> None:
    """A finalist that was not held against it says what was expected, and what was left."""
    workshop = ScriptedWorkshop(SPREAD, expected_s=205.0, longer_s=1.0)
    found = run(workshop, budget=Budget(seconds=300))
    longer = [a for a in workshop.asked if not a.startswith("look 0")]
    assert [a[:6] for a in longer] == ["look 1"], "one, which took 10 s instead of 1"
    why = "not held against the gate: 68% of the budget expected, 67% left"
    assert sum(fate == why for fate in fates(found).values()) == 3
    assert not found.complete


def test_a_budget_that_the_gate_alone_would_use_is_refused() -> None:
    """After one look, with a budget that would do; the look is kept for the next command."""
    workshop = ScriptedWorkshop(SPREAD, expected_s=2_200.0)
    ledger = Ledger(None, "test")
    with pytest.raises(
        ConfigError, match=r"164 answers of each.* 81% .*budget of 45m: give --budget 92m.*--limit"
    ):
        run(workshop, budget=Budget(seconds=2_700), ledger=ledger)
    assert workshop.asked == ["look 0 c0"]


def test_a_search_that_had_ended_is_shown_again_whatever_the_gate_took(tmp_path: Path) -> None:
    """What is in the ledger is not refused for a budget that it has kept to or not."""
    first = ScriptedWorkshop(SPREAD)
    ledger = tmp_path / "ledger.jsonl"
    found = run(first, ledger=Ledger(ledger, "test"))
    again = ScriptedWorkshop(SPREAD, files=first.files, expected_s=20_000.0)
    assert run(again, ledger=Ledger(ledger, "test")).best == found.best
    assert again.asked == []


def test_energy_can_be_the_budget() -> None:
    """Joules bound the search too; where energy is unknown, the first look is the last."""
    workshop = ScriptedWorkshop(SPREAD)
    run(workshop, budget=Budget(joules=100))
    assert sum(a.startswith("look") for a in workshop.asked) == 3
    blind = ScriptedWorkshop(SPREAD, joules=Missing(reason="no counter"))
    assert not run(blind, budget=Budget(joules=100)).complete
    assert len(blind.asked) == 1


@pytest.mark.parametrize("budget", [{}, {"seconds": 0.0}, {"joules": -1.0}])
def test_a_budget_has_a_bound(budget: dict[str, float]) -> None:
    """No bound, or none above 0, is refused."""
    with pytest.raises(ValueError, match="budget"):
        Budget(**budget)


@pytest.mark.parametrize("killed_after", [0, 1, 5, 9, 11, 12])
def test_an_interrupted_search_goes_on(tmp_path: Path, killed_after: int) -> None:
    """Killed anywhere, the same command asks for nothing twice and ends with the same result."""
    path = tmp_path / "ledger.jsonl"
    whole = ScriptedWorkshop(SPREAD)
    expected = run(whole)
    first = ScriptedWorkshop(SPREAD, killed_after=killed_after)
    with pytest.raises(KeyboardInterrupt):
        run(first, ledger=Ledger(path, "test"))
    second = ScriptedWorkshop(SPREAD, files=set(SPREAD))
    found = run(second, ledger=Ledger(path, "test"))
    assert first.asked + second.asked == whole.asked
    assert found.best == expected.best
    assert found.rows == expected.rows
    assert found.spent == expected.spent
    assert found.resumed == killed_after


def test_the_ledger_survives_torn_lines_and_other_scopes(tmp_path: Path) -> None:
    """A torn line costs that one entry; entries of another model are not used and not lost."""
    path = tmp_path / "ledger.jsonl"
    mine = Ledger(path, "mine")
    mine.put("a", {"x": 1})
    with path.open("ab") as file:
        file.write(b'{"scope": "mine", "key": "b", "val')
    again = Ledger(path, "mine")
    assert again.get("a") == {"x": 1}
    assert again.get("b") is None
    again.put("c", {"x": 2})
    assert Ledger(path, "mine").get("c") == {"x": 2}
    other = Ledger(path, "other")
    assert other.get("a") is None
    other.put("a", {"x": 3})
    assert Ledger(path, "mine").get("a") == {"x": 1}


def test_records_come_back_as_they_went() -> None:
    """Looks and verdicts survive JSON, infinities and missing energy included."""
    look = Look(
        error="broken", bill=Bill(wall_s=1, cpu_s=2, energy_j=Missing(reason="no counter here"))
    )
    assert look_from(json.loads(json.dumps(plain_look(look), allow_nan=False))) == look
    gated = Gated(passed=False, sentence="s", rows=(("a", "b", "c"),), bill=Bill(wall_s=3))
    assert gated_from(json.loads(json.dumps(plain_gated(gated)))) == gated
    assert look_from({"kl_nats": [1]}) is None
    assert gated_from({"passed": "yes", "rows": []}) is None


def test_random_recipes_are_the_baseline() -> None:
    """Predicted and random candidates are compared by the volume they cover, as many of each."""

    def origin(name: str) -> Origin:
        return Origin.RANDOM if name.startswith("r") else Origin.PREDICTED

    worlds = {**SPREAD, "r0": World(880, 0.97, 0.15), "r1": World(950, 0.9, 0.19)}
    baseline = run(ScriptedWorkshop(worlds), origins=origin).baseline
    assert isinstance(baseline, Baseline)
    assert baseline.each == 2
    assert baseline.predicted_volume > baseline.random_volume > 0
    assert isinstance(run(ScriptedWorkshop(SPREAD)).baseline, Missing)


def test_the_bill_is_paid_back_by_what_a_request_saves() -> None:
    """Requests to pay back are the search's CPU-seconds over the CPU-seconds saved by each."""
    found = run(ScriptedWorkshop({"only": World(500, 0.6, 0.01)}))
    assert found.spent.cpu_s == 110
    assert found.pays_after == pytest.approx(110 / 4.0)


def test_pareto_rows_are_beaten_by_nobody() -> None:
    """The marked rows are those that no other measured candidate beats everywhere."""
    worlds = {**SPREAD, "worse": World(900, 0.96, 0.02)}
    marked = {r.candidate.label: r.pareto for r in run(ScriptedWorkshop(worlds)).rows}
    assert marked == {**dict.fromkeys(SPREAD, True), "worse": False}


def shaped(name: str, size: int, cpu: float, error: float) -> CompressionCandidate:
    """A candidate with a prediction."""
    return CompressionCandidate(
        label=name,
        recipe=Recipe(steps=(RecipeStep("retie", {"name": name}),)),
        origin=Origin.PREDICTED,
        predicted=Predicted(file_bytes=size, cpu_s=cpu, error=error),
    )


def test_the_shortlist_fits_and_spans_the_frontier() -> None:
    """Files that are too large are left out, equal recipes count once, ends come first."""
    several: Sequence[CompressionCandidate] = [
        shaped("small", 100, 1.0, 9.0),
        shaped("middle", 200, 1.5, 4.0),
        shaped("exact", 300, 2.0, 1.0),
        shaped("beaten", 310, 2.1, 1.1),
        shaped("large", 900, 3.0, 0.0),
    ]
    found = shortlist([*several, several[0]], 3, most_bytes=400)
    assert {c.label for c in found} == {"small", "middle", "exact"}
    assert "large" not in {c.label for c in shortlist(several, 9, most_bytes=400)}


def test_no_candidates_is_an_error() -> None:
    """A search over nothing says that nothing fits the limits."""
    with pytest.raises(ConfigError, match="nothing to try"):
        run(ScriptedWorkshop({}))


def test_unmeasured_looks_are_never_good() -> None:
    """An error's objectives are the worst there can be."""
    assert Look(error="x", file_bytes=1).objectives == (math.inf,) * 3
