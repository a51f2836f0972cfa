"""The story of a search: every standing has its words, every number its interval."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lichen.acceleration.candidates import CandidateSet, Choice
from lichen.acceleration.racing import Standing
from lichen.acceleration.searched import Found, Race
from lichen.cli.accelerate_story import (
    Bill,
    doubt,
    missed,
    proof_cells,
    ratio,
    sentences,
    staged,
    tried,
    why,
)
from lichen.compose.rounds import Spent
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.testing.summaries import fake_summary

STOP = Choice(strategy="stop_when_complete")
SLOTS = Choice(strategy="concurrency", options=(("slots", 4),))


def race(standing: Standing, *, stage: str = "screening", detail: str = "") -> Race:
    """A race that ended like this."""
    unseen = Missing(reason="it did not run")
    failed = standing is Standing.FAILED
    return Race(
        stage=stage,
        candidate=(STOP,),
        against=(),
        standing=standing,
        ratio=unseen if failed else Interval(low=0.7, value=0.8, high=0.9),
        quality=unseen if failed else Interval(low=-0.05, value=0.0, high=0.05),
        rounds=0 if failed else 3,
        detail=detail,
    )


def found(*races: Race) -> Found:
    """A search with these races, whose winner has two strategies."""
    return Found(
        best=(SLOTS, STOP),
        ratio=Interval(low=0.3, value=0.4, high=0.5),
        quality=Interval(low=-0.05, value=0.0, high=0.05),
        contributions=(
            (SLOTS, Interval(low=1.8, value=2.0, high=2.2)),
            (STOP, Missing(reason="the budget ended before it was left out once")),
        ),
        races=races,
        looks=(),
        spent_cpu_s=100.0,
        spent_s=60.0,
        reserved_s=30.0,
        rounds=5,
        stored_rounds=0,
        pays_after=10.0,
        complete=True,
    )


@pytest.mark.parametrize("stage", ["screening", "joining", "leaving out"])
@pytest.mark.parametrize("standing", list(Standing))
def test_every_standing_has_words(stage: str, standing: Standing) -> None:
    """No race ends without a reason; a failure's own sentence is kept."""
    assert why(race(standing, stage=stage))
    assert "no memory" in why(race(standing, stage=stage, detail="no memory"))
    dropped = why(race(standing)).startswith("dropped")
    assert dropped == (standing not in (Standing.PAYS, Standing.OPEN))


def test_sentences_name_candidate_ratio_interval_and_reason() -> None:
    """Each race is one sentence with all of these; what was not measured says so."""
    bill = Bill(
        search_cpu_s=100.0,
        search_s=60.0,
        verification_cpu_s=50.0,
        verification_s=30.0,
        search_pays_after=10.0,
        all_pays_after=Missing(reason="nothing is saved"),
    )
    told = sentences(found(race(Standing.DEARER), race(Standing.FAILED, detail="no memory")), bill)
    assert told[0] == (
        "Search, screening: stop_when_complete against plain: cost ratio 0.80 [0.70, 0.90], quality "
        "against plain +0.0 [-5.0, +5.0] points, 3 looks, dropped: it costs more"
    )
    assert "cost ratio not measured, quality against plain not measured" in told[1]
    assert told[1].endswith("it cannot run: no memory")
    assert told[2] == (
        "Search: without concurrency(slots=4) the winner costs 2.00 [1.80, 2.20] times as much"
    )
    assert told[-2] == "The search took 100 CPU-s (60 s), paid back after 10 requests"
    assert told[-1].endswith("150 CPU-s (90 s), paid back after never: nothing is saved")


@pytest.mark.parametrize(
    ("candidate", "against", "said"),
    [
        ((SLOTS, STOP), (), "concurrency(slots=4) + stop_when_complete"),
        ((SLOTS, STOP), (SLOTS,), "+ stop_when_complete"),
        ((STOP,), (SLOTS, STOP), "- concurrency(slots=4)"),
        (
            (SLOTS, STOP),
            (replace(SLOTS, options=(("slots", 8),)), STOP),
            "concurrency(slots=4) for concurrency(slots=8)",
        ),
    ],
)
def test_a_candidate_is_named_by_what_is_new(
    candidate: CandidateSet, against: CandidateSet, said: str
) -> None:
    """The table says what was added, left out or changed, not the whole set again and again."""
    assert tried(replace(race(Standing.PAYS), candidate=candidate, against=against)) == said


def test_what_was_not_looked_at_is_said_once() -> None:
    """The table shows races; a sentence names what the time did not suffice for."""
    seen = race(Standing.OPEN)
    broken = replace(race(Standing.FAILED, detail="no memory"), rounds=0)
    unseen = replace(race(Standing.OPEN), rounds=0, against=(SLOTS,))
    added = replace(unseen, candidate=(SLOTS, STOP))
    other = replace(unseen, candidate=(replace(SLOTS, options=(("slots", 8),)),))
    gone = replace(added, stage="leaving out", candidate=(STOP,), against=(SLOTS, STOP))
    races = [seen, added, other, gone, broken]
    assert staged(races) == {"screening": [seen, broken]}
    assert missed(races) == (
        "screening: + stop_when_complete, concurrency(slots=8) for concurrency(slots=4); "
        "leaving out: - concurrency(slots=4)"
    )
    assert not missed([seen, broken])


def test_a_single_look_has_no_interval() -> None:
    """An unbounded interval is said in words, not as infinity."""
    assert ratio(Interval(low=0.0, value=0.68, high=math.inf)) == "0.68, no interval"
    assert ratio(Interval(low=0.5, value=0.6, high=0.7)) == "0.60 [0.50, 0.70]"


def test_proof_has_intervals_for_every_row() -> None:
    """Plain and each other solution: quality, difference and both ratios, each with its range."""
    rows = proof_cells(fake_summary(("plain", "green", "green without concurrency")))
    assert [r[0] for r in rows] == ["plain", "green", "green without concurrency"]
    assert rows[0][2:] == ("", "1", "1")
    for row in rows[1:]:
        assert all("[" in cell or "\u2013" in cell for cell in row[1:])


def test_bill_is_worked_out_from_the_verification() -> None:
    """What was spent, over what the winner saves per request on the unseen half."""
    summary = fake_summary(("plain", "green"))
    bill = Bill.of(found(), summary, Spent(cpu_s=50.0, seconds=30.0))
    assert bill.search_cpu_s == 100.0
    assert isinstance(bill.search_pays_after, float)
    assert isinstance(bill.all_pays_after, float)
    assert bill.search_pays_after == pytest.approx(100.0 / (0.4 * 15.2), rel=0.01)
    assert bill.all_pays_after == pytest.approx(1.5 * bill.search_pays_after)


def test_a_loss_that_few_problems_cannot_show_is_warned_of() -> None:
    """A winner that solved less in the proof is written, and the reader is told to look again."""
    assert doubt(Interval(low=-0.46, value=-0.25, high=0.02), 0.02).startswith("; but it solved 25")
    assert not doubt(Interval(low=-0.2, value=-0.01, high=0.2), 0.02)
    assert not doubt(Interval(low=-0.2, value=0.1, high=0.2), 0.02)
