"""Windows are split, never invented."""

from __future__ import annotations

import math

import pytest

from lichen.benchmark.allocate import (
    PREFILL_RATIO,
    prefill_ratio,
    split_generation,
    split_judging,
)
from lichen.core.generation import Completion, Finish, Timings
from lichen.core.measurement import Measurement, Missing, Usage, exact
from lichen.core.task import Score, Status, Verdict

WINDOW = Measurement(
    wall_s=exact(10.0, source="clock"),
    cpu_s=exact(20.0, source="process tree"),
    peak_memory_bytes=exact(1e9, source="RSS"),
    flop=Missing(reason="unknown architecture"),
    usage=Usage(prompt=400, completion=300),
)


def completion(prompt, completion_tokens, *, prefill_s=None, decode_s=None, cached=0):
    """A finished completion with these counts and times."""
    return Completion(
        id="x",
        text="",
        usage=Usage(prompt=prompt, cached=cached, completion=completion_tokens),
        finish=Finish.STOP,
        timings=Timings(total_s=1.0, prefill_s=prefill_s, decode_s=decode_s),
    )


def score(cpu_s):
    """A failed score whose verdict took so much CPU time."""
    return Score(metric="pass@1", value=0.0, verdict=Verdict(status=Status.FAILED, cpu_s=cpu_s))


def test_generation_is_split_by_modelled_work_and_conserved():
    """Twice the work is twice the share; shares sum to the window; tokens and peak are own."""
    parts = split_generation(WINDOW, [completion(100, 70), completion(300, 110, cached=100)])
    spent = [p.cpu_s.value.value for p in parts]
    assert math.fsum(spent) == pytest.approx(20.0, rel=1e-15)
    assert spent[1] / spent[0] == pytest.approx((200 * 0.3 + 110) / (100 * 0.3 + 70))
    assert [p.usage.completion for p in parts] == [70, 110]
    assert parts[0].peak_memory_bytes == WINDOW.peak_memory_bytes
    assert isinstance(parts[0].flop, Missing)


def test_the_prefill_ratio_comes_from_the_engines_own_times():
    """A prefilled token took 10 ms, a decoded one 50 ms of a step shared by two: r = 0.4."""
    asked = [
        completion(100, 200, prefill_s=1.0, decode_s=10.0),
        completion(100, 200, prefill_s=1.0, decode_s=10.0),
    ]
    pairs = [(c.usage, c.timings) for c in asked]
    assert prefill_ratio(pairs, exact(10.0, source="clock")) == pytest.approx(0.4)


def test_the_prefill_ratio_falls_back_where_nothing_is_known():
    """No split, no tokens or no wall time: the documented constant."""
    wall = exact(10.0, source="clock")
    silent = [(c.usage, c.timings) for c in [completion(100, 70)]]
    known = [(c.usage, c.timings) for c in [completion(100, 70, prefill_s=1.0, decode_s=2.0)]]
    assert prefill_ratio(silent, wall) == PREFILL_RATIO
    assert prefill_ratio([], wall) == PREFILL_RATIO
    assert prefill_ratio(known, Missing(reason="no clock")) == PREFILL_RATIO


def test_the_prefill_ratio_stays_within_reason():
    """A prefill that sat in a queue does not make prompts cost hundreds of tokens each."""
    queued = [(c.usage, c.timings) for c in [completion(10, 70, prefill_s=100.0, decode_s=1.0)]]
    assert prefill_ratio(queued, exact(101.0, source="clock")) == 2.0


def test_judging_is_split_by_cpu_time():
    """A time-out bears what it used; an unknown counts as the mean of the known."""
    parts = split_judging(WINDOW, [score(9.0), score(1.0), score(None)])
    spent = [p.cpu_s.value.value for p in parts]
    assert spent == pytest.approx([20 * 9 / 15, 20 * 1 / 15, 20 * 5 / 15])


def test_judging_without_times_is_split_equally():
    """No verdict knows its CPU time, or there is none: equal shares."""
    nothing = Score(metric="mrr", value=0.5)
    for scores in ([score(None), score(None)], [nothing, nothing], [score(0.0), score(0.0)]):
        parts = split_judging(WINDOW, scores)
        assert [p.cpu_s.value.value for p in parts] == [10.0, 10.0]
    assert split_judging(WINDOW, []) == ()


def test_a_block_without_any_token_is_split_equally():
    """Every generation failed before it began: the window is still accounted for."""
    parts = split_generation(WINDOW, [completion(0, 0), completion(0, 0)])
    assert [p.cpu_s.value.value for p in parts] == [10.0, 10.0]
