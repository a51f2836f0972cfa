"""What stored records of a cascade tell: levels, costs, break-even and the curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from lichen.acceleration.cascade_replay import routes
from lichen.acceleration.cascade_steps import End, asked, read
from lichen.benchmark.set_aside import judged
from lichen.core.generation import Completion, Finish, Step, Timings
from lichen.core.measurement import Missing, Usage, exact
from lichen.core.ports import Candidate, Task
from lichen.core.record import SampleRecord
from lichen.core.summary import RouteSummary
from lichen.core.task import Problem, Score, Status, Verdict
from lichen.testing.records import fake_run

SMALL_S, LARGE_S, CHECK_S = 0.01, 0.1, 0.5
"""CPU-seconds per token of two levels, and of a check."""

FAKE = fake_run(solutions=("c",), problems=40)


def gave(level: str, *, score: float) -> Step:
    return Step(actor="cascade", action=asked(level, End.GAVE), cpu_s=CHECK_S, score=score)


def aside(level: str, tokens: int, *, score: float, solved: bool | None = False) -> Step:
    return Step(
        actor="cascade",
        action=asked(level, End.SET_ASIDE),
        usage=Usage(completion=tokens),
        cpu_s=CHECK_S,
        engine_cpu_s=tokens * SMALL_S,
        score=score,
        answer="x",
        solved=solved,
    )


def sample(
    i: int, ledger: Sequence[Step], tokens: Sequence[int], *, solved: bool = True
) -> SampleRecord:
    """An attempt whose levels wrote so many tokens each; the second one is the large one."""
    checks = sum(s.cpu_s or 0.0 for s in ledger)
    small, large = (tokens[0], tokens[1]) if len(tokens) == 2 else (tokens[0], 0)
    cpu = small * SMALL_S + large * LARGE_S + checks
    base = FAKE.samples[i]
    status = Status.PASSED if solved else Status.FAILED
    return replace(
        base,
        usage=Usage(completion=small + large),
        generation=replace(base.generation, cpu_s=exact(cpu, source="test")),
        score=Score(metric="pass@1", value=float(solved), verdict=Verdict(status=status)),
        ledger=tuple(ledger),
    )


def route(samples: Sequence[SampleRecord]) -> RouteSummary:
    (found,) = routes(FAKE.run, samples)
    return found


def mixed() -> list[SampleRecord]:
    """Thirty right answers at once; ten handed on with scores 0.0 to 0.45, half of them right."""
    kept = [sample(i, [gave("small", score=0.9)], [10]) for i in range(30)]
    handed = [
        sample(
            30 + i,
            [aside("small", 10, score=i / 20, solved=i % 2 == 1), gave("large", score=1.0)],
            [10, 20],
        )
        for i in range(10)
    ]
    return kept + handed


def test_actions_are_read_as_they_were_written() -> None:
    """Whatever a level is called, its step tells the level and what became of the answer."""
    for level in ("level 0", "a: b", "asked x: gave", ""):
        for end in End:
            assert read(Step(actor="cascade", action=asked(level, end))) == (level, end)
    for other in ("switched off", "asked", "asked small: shrugged"):
        assert read(Step(actor="cascade", action=other)) is None
    assert read(Step(actor="someone", action=asked("small", End.GAVE))) is None


def test_levels_have_their_costs_and_rates() -> None:
    """Each level's cost per attempt is what it was, the last one's what remains of the whole."""
    small, large = route(mixed()).levels
    assert (small.name, small.attempts, small.handed_on) == ("small", 40, 10)
    assert (large.name, large.attempts, large.handed_on) == ("large", 10, 0)
    assert small.cost_cpu_s.value == pytest.approx(10 * SMALL_S + CHECK_S)  # type: ignore[union-attr]
    assert large.cost_cpu_s.value == pytest.approx(20 * LARGE_S + CHECK_S)  # type: ignore[union-attr]
    assert small.limit.value == pytest.approx(1 - 0.6 / 2.5)  # type: ignore[union-attr]


def test_the_last_point_is_the_run_and_the_first_hands_nothing_on() -> None:
    """Costs and quality at the ends are sums over the records themselves."""
    samples = mixed()
    points = route(samples).points
    assert len(points) == 11
    assert points[0].threshold == -math.inf
    assert points[0].cost_cpu_s == pytest.approx(0.6)
    assert points[0].quality == pytest.approx(35 / 40)
    measured = sum(s.generation.cpu_s.value.value for s in samples) / 40  # type: ignore[union-attr]
    assert points[-1].cost_cpu_s == pytest.approx(measured)
    assert (points[-1].quality, points[-1].handed_on) == (1.0, 0.25)


@pytest.mark.parametrize(
    ("handed", "said"), [(0.25, "It pays"), (1.0, "It does not pay"), (0.75, "not settled")]
)
def test_the_conclusion_follows_the_intervals(handed: float, said: str) -> None:
    """Paying, not paying and not knowing are told apart by rate and limit with their intervals."""
    n = round(40 * handed)
    up = [
        sample(i, [aside("small", 10, score=0), gave("large", score=1)], [10, 20]) for i in range(n)
    ]
    kept = [sample(i, [gave("small", score=1)], [10]) for i in range(n, 40)]
    assert said in route(up + kept).conclusion


def test_a_switched_off_level_is_counted_and_left_out_of_the_curve() -> None:
    """Requests that began at the last level count as skipped, with the run's own cost there."""
    off = Step(actor="cascade", action="switched off", detail="small: it hands on all")
    later = [
        replace(s, usage=Usage(completion=20), ledger=(off, gave("large", score=1.0)))
        for s in (sample(i, [], [0, 20]) for i in range(30))
    ]
    first = [
        sample(30 + i, [aside("small", 10, score=0), gave("large", score=1)], [10, 20])
        for i in range(10)
    ]
    found = route(later + first)
    assert (found.attempts, found.skipped) == (40, 30)
    assert "switched itself off for 30 of 40 requests" in found.conclusion
    assert found.points[-1].handed_on == 1.0
    assert "30 of 40 attempts" in found.note


def test_costs_that_cannot_be_told_apart_are_not_invented() -> None:
    """Without the engines' CPU time there is no curve and no verdict, but the counts stay."""
    blind = [
        replace(
            s,
            generation=replace(s.generation, cpu_s=Missing(reason="elsewhere")),
            ledger=tuple(replace(x, engine_cpu_s=None) for x in s.ledger),
        )
        for s in mixed()
    ]
    found = route(blind)
    assert found.points == ()
    assert "cannot be told apart" in found.note
    assert "cannot be said" in found.conclusion
    assert [level.handed_on for level in found.levels] == [10, 0]


def test_old_records_without_verdicts_give_no_false_point() -> None:
    """An answer that was set aside and never judged does not count as wrong."""
    old = [
        replace(s, ledger=tuple(replace(x, solved=None) for x in s.ledger)) if i >= 30 else s
        for i, s in enumerate(mixed())
    ]
    found = route(old)
    assert [p.handed_on for p in found.points] == [0.0]
    assert "10 of 40" in found.note


def test_runs_without_a_cascade_have_no_route() -> None:
    """Ledgers of other strategies are not mistaken for one."""
    fake = fake_run()
    step = Step(actor="stop_when_complete", action="stopped: complete")
    assert routes(fake.run, [replace(s, ledger=(step,)) for s in fake.samples]) == ()


class _Judge:
    """A task that passes answers that say so, and counts what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Candidate] = []

    def extract(self, problem: Problem, text: str) -> str:
        return f"{problem.id} {text}"

    def score(self, candidates: Sequence[Candidate]):
        for c in candidates:
            self.seen.append(c)
            yield c.id, Score(metric="m", value=float(c.code.endswith("right")))


@pytest.mark.parametrize("answers", [(), ("right",), ("wrong", "", "right")])
def test_answers_that_were_set_aside_are_judged(answers: tuple[str, ...]) -> None:
    """Each kept answer gets a verdict as an answer to its own problem; nothing else changes."""
    make: Callable[[str], Step] = lambda a: Step(actor="cascade", action="x", answer=a)  # noqa: E731 (a row's shape)
    completion = Completion(
        id="1",
        text="t",
        usage=Usage(),
        finish=Finish.STOP,
        timings=Timings(total_s=1.0),
        ledger=tuple(map(make, answers)),
    )
    judge = _Judge()
    task: Task = judge  # type: ignore[assignment]
    problems = [Problem(id="p", prompt=""), Problem(id="q", prompt="")]
    first, second = judged(task, problems, [completion, completion])
    wanted = [None if not a else a == "right" for a in answers]
    assert [s.solved for s in first.ledger] == wanted == [s.solved for s in second.ledger]
    assert replace(first, ledger=()) == replace(completion, ledger=())
    assert {c.code.partition(" ")[0] for c in judge.seen} == ({"p", "q"} if any(answers) else set())
