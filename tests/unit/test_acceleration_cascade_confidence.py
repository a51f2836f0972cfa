"""Calibration, break-even and the cost-quality curve: pure functions."""

from __future__ import annotations

import math
import random

import pytest

from lichen.acceleration.break_even import BreakEven, wilson
from lichen.acceleration.confidence import (
    Calibration,
    fit_isotonic,
    fit_platt,
    reliability,
)
from lichen.acceleration.cost_quality import LevelOutcome, curve, frontier
from lichen.core.interval import Interval
from lichen.core.measurement import Missing


def drawn(seed: int, n: int = 400) -> list[tuple[float, bool]]:
    """Draw scores and whether the answer was right, with P(right) = sigmoid(3 s + 2)."""
    rng = random.Random(seed)
    scores = [rng.uniform(-2, 0.5) for _ in range(n)]
    return [(s, rng.random() < 1 / (1 + math.exp(-(3 * s + 2)))) for s in scores]


def test_isotonic_pools_what_is_out_of_order() -> None:
    """Scores whose outcomes contradict the order share one probability."""
    fit = fit_isotonic([(-3.0, False), (-2.0, True), (-1.0, False), (-0.5, True)])
    assert fit.points == ((-3.0, 0.0), (-2.0, 0.5), (-1.0, 0.5), (-0.5, 1.0))
    assert fit.probability(-1.5) == 0.5
    assert fit.probability(-9) == 0.0
    assert fit.probability(9) == 1.0


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_a_fit_holds_on_the_other_half(fit) -> None:
    """Fitted on one half, the predicted probabilities come true on the other within 8 points."""
    found = reliability(fit(drawn(1)).probability, drawn(2))
    assert found.expected_error < 0.08
    assert found.brier < 0.25
    assert found.auroc is not None
    assert found.auroc > 0.7
    assert sum(b.count for b in found.bins) == 400


def test_raw_probabilities_are_worse_than_calibrated_ones() -> None:
    """The reliability shows an over-confident score for what it is."""
    raw = reliability(lambda s: math.exp(min(s, 0)), drawn(2))
    fitted = reliability(fit_platt(drawn(1)).probability, drawn(2))
    assert fitted.expected_error < raw.expected_error


def test_platt_refuses_a_falling_curve() -> None:
    """Where higher scores were worse, the score says nothing, and the fit is flat."""
    fit = fit_platt([(0.0, True), (0.1, True), (0.9, False), (1.0, False)])
    assert fit.probability(0.0) == fit.probability(1.0)


def test_platt_survives_separable_data() -> None:
    """Perfectly separated answers give finite, rising probabilities."""
    fit = fit_platt([(x / 10, x > 5) for x in range(11)])
    assert fit.probability(0.0) < 0.2
    assert fit.probability(1.0) > 0.8


@pytest.mark.parametrize(
    "points", [(), ((0.0, 1.5),), ((1.0, 0.2), (0.0, 0.3)), ((0.0, 0.5), (1.0, 0.4))]
)
def test_bad_calibrations_are_refused(points) -> None:
    """A calibration out of range or order is a mistake, not a router."""
    with pytest.raises(ValueError, match="calibration"):
        Calibration(points=points)


def test_no_pairs_no_fit() -> None:
    """Nothing observed is not a calibration."""
    for call in (fit_isotonic, fit_platt):
        with pytest.raises(ValueError, match="none"):
            call([])
    with pytest.raises(ValueError, match="none"):
        reliability(lambda s: s, [])


def fed(rate: float, n: int, *, small: float = 1.0, large: float = 2.0) -> BreakEven:
    """Return a two-level balance after ``n`` requests of which a share is handed on."""
    balance = BreakEven(2)
    for i in range(n):
        up = int((i + 1) * rate) > int(i * rate)
        balance.observe(0, cost=small, escalated=up)
        if up:
            balance.observe(1, cost=large, escalated=False)
    return balance


def test_a_level_above_its_break_even_is_skipped() -> None:
    """1 - 1/2 = 50 %: a level that hands on 90 % is switched off and says why."""
    balance = fed(0.9, 60)
    assert balance.start == 1
    assert "hands on" in balance.why(0)
    assert "50%" in balance.why(0)


def test_a_level_below_its_break_even_stays() -> None:
    """A level that hands on 20 % where 50 % would do stays on."""
    balance = fed(0.2, 200)
    assert balance.start == 0
    limit = balance.balance()[0].limit
    assert isinstance(limit, Interval)
    assert limit.value == pytest.approx(0.5)


def test_near_the_break_even_nothing_is_decided() -> None:
    """Without confidence the cascade stays on."""
    assert fed(0.55, 60).start == 0


def test_few_looks_decide_nothing() -> None:
    """The first requests never switch it off, however bad they are."""
    assert fed(1.0, 19).start == 0
    assert fed(1.0, 20).start == 1


def test_a_skipped_level_comes_back() -> None:
    """When later looks are favourable, the level is tried first again."""
    balance = fed(1.0, 20)
    for _ in range(20):
        assert balance.start == 1
        balance.observe(0, cost=1.0, escalated=False)
    assert balance.start == 0
    assert balance.why(0) == ""


def test_costs_that_cannot_be_seen_decide_nothing() -> None:
    """A level whose cost is not measured has no limit, with a reason, and stays on."""
    balance = BreakEven(2)
    for _ in range(100):
        balance.observe(0, cost=1.0, escalated=True)
        balance.observe(1, cost=None, escalated=False)
    assert balance.start == 0
    assert isinstance(balance.balance()[0].limit, Missing)
    assert isinstance(balance.balance()[1].cost, Missing)


def test_the_middle_level_alone_can_be_skipped() -> None:
    """Of three levels only the one that helps nobody is left out."""
    balance = BreakEven(3)
    for i in range(200):
        balance.observe(0, cost=1.0, escalated=i % 5 == 0)
        if i % 5 == 0:
            balance.observe(1, cost=3.0, escalated=True)
            balance.observe(2, cost=4.0, escalated=False)
    assert [balance.skipped(k) for k in range(3)] == [False, True, False]


def test_wilson_matches_a_published_value() -> None:
    """10 of 20 at 95 %: [0.299, 0.701] (Newcombe 1998's method 3)."""
    found = wilson(10, 20, z=1.959964)
    assert (found.low, found.high) == (
        pytest.approx(0.2993, abs=1e-4),
        pytest.approx(0.7007, abs=1e-4),
    )


def outcomes(*levels: tuple[float, bool, float]) -> list[LevelOutcome]:
    return [LevelOutcome(score=s, solved=r, cost=c) for s, r, c in levels]


def test_the_curve_runs_from_small_alone_to_both() -> None:
    """Its ends are: never hand on, and always; in between, cost rises with the threshold."""
    samples = [
        outcomes((0.9, True, 1), (1, True, 4)),
        outcomes((0.5, False, 1), (1, True, 4)),
        outcomes((0.1, False, 1), (1, False, 4)),
    ]
    points = curve(samples)
    assert [p.cost for p in points] == pytest.approx([1, 1 + 4 / 3, 1 + 8 / 3, 5])
    assert [p.quality for p in points] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert points[2].reached == pytest.approx((1, 2 / 3))
    assert points[0].cost_per_solved == pytest.approx(3)
    assert [p.cost for p in frontier(points)] == pytest.approx([1, 1 + 8 / 3])


def test_the_curve_handles_three_levels() -> None:
    """A problem climbs until a level's score reaches the threshold."""
    points = curve([outcomes((0.2, False, 1), (0.8, True, 2), (0, False, 8))])
    assert [(p.cost, p.quality) for p in points] == [(1, 0), (3, 1), (11, 0)]


def test_a_curve_of_nothing_is_refused() -> None:
    """No problems, or unequal levels, is a mistake."""
    for samples in ([], [outcomes((1, True, 1)), outcomes((1, True, 1), (1, True, 1))]):
        with pytest.raises(ValueError, match="curve"):
            curve(samples)
