"""Laws of calibration, break-even and the curve."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lichen.acceleration.answer_code import goes_in_circles, python_answer
from lichen.acceleration.break_even import BreakEven, wilson
from lichen.acceleration.confidence import fit_isotonic, fit_platt, reliability
from lichen.acceleration.cost_quality import LevelOutcome, curve

scores = st.floats(-20, 0, allow_nan=False)
pairs = st.lists(st.tuples(scores, st.booleans()), min_size=1, max_size=60)


@given(pairs, scores, scores)
def test_calibrations_never_fall_and_stay_probabilities(found, a, b) -> None:
    """A higher score is never less probable, in either fit."""
    for fit in (fit_isotonic(found), fit_platt(found)):
        low, high = fit.probability(min(a, b)), fit.probability(max(a, b))
        assert 0 <= low <= high + 1e-12 <= 1 + 1e-9


@given(pairs)
def test_isotonic_keeps_the_overall_rate(found) -> None:
    """On its own data, the mean prediction is the share of right answers."""
    fit = fit_isotonic(found)
    mean = sum(fit.probability(s) for s, _ in found) / len(found)
    assert abs(mean - sum(r for _, r in found) / len(found)) < 1e-9


@given(pairs)
def test_reliability_is_in_range(found) -> None:
    """Errors are between 0 and 1 whatever the data."""
    judged = reliability(fit_platt(found).probability, found)
    assert 0 <= judged.expected_error <= 1
    assert 0 <= judged.brier <= 1
    assert judged.auroc is None or 0 <= judged.auroc <= 1


looks = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.none(), st.floats(0, 1e6)), st.booleans()),
    max_size=150,
)


@given(looks)
def test_the_break_even_always_has_a_level_to_begin_with(seen) -> None:
    """Whatever is observed, the last level is never skipped and the balance can be read."""
    balance = BreakEven(3, minimum=5, window=50)
    for level, cost, escalated in seen:
        balance.observe(level, cost=cost, escalated=escalated)
        assert 0 <= balance.start <= 2
    assert not balance.balance()[-1].skipped


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_encloses_the_rate(counts) -> None:
    """The interval holds the observed rate and stays within 0 and 1."""
    found = wilson(*counts)
    assert 0 <= found.low <= found.value <= found.high <= 1


outcome = st.builds(
    LevelOutcome, score=st.floats(0, 1), solved=st.booleans(), cost=st.floats(0, 100)
)


@given(
    st.integers(1, 4).flatmap(
        lambda k: st.lists(st.lists(outcome, min_size=k, max_size=k), min_size=1, max_size=12)
    )
)
def test_cost_never_falls_with_the_threshold(samples) -> None:
    """Handing on more can only cost more."""
    costs = [p.cost for p in curve(samples)]
    assert all(a <= b + 1e-9 for a, b in pairwise(costs))


@given(st.text(max_size=300), st.sampled_from(["f", "", "a.b", "x y"]), st.text(max_size=60))
def test_any_text_can_be_read(text, entry_point, shown) -> None:
    """Hostile answers are broken, never an exception."""
    code, fault = python_answer(text, entry_point=entry_point, given=shown)
    assert bool(code) != bool(fault)
    goes_in_circles(text)
