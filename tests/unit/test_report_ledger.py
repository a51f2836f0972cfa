"""What strategies did, summed up; and cascades over their threshold, as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lichen.core.generation import Step
from lichen.core.measurement import Missing, Usage
from lichen.core.record import SampleRecord
from lichen.core.summary import Dimension
from lichen.report import figures
from lichen.report.ledger import MOST_ACTIONS, ledger
from lichen.report.routes import MOST_POINTS, thinned, view
from lichen.testing.records import fake_run
from lichen.testing.summaries import fake_route, fake_summary


def stepped(*steps: Step, every: int = 1) -> list[SampleRecord]:
    """A run of plain and green, where every n-th attempt of green has these steps."""
    samples = list(fake_run().samples)
    return [
        replace(s, ledger=steps) if s.solution == "green" and i % every == 0 else s
        for i, s in enumerate(samples)
    ]


def test_without_strategies_there_is_no_section() -> None:
    """A run of plain models has nothing to tell here."""
    assert ledger(fake_run().samples, fake_summary()) is None


def test_each_kind_of_action_is_counted_and_its_waste_summed() -> None:
    """Times, tokens in vain and CPU time are sums over the attempts that did the same."""
    check = Step(
        actor="stop_when_passing", action="stopped", cpu_s=0.25, detail="after 3 lines",
        usage=Usage(prompt=7, cached=2, completion=3),
    )  # fmt: skip
    found = ledger(stepped(Step(actor="concurrency", action="slots 8"), check), fake_summary())
    assert found is not None
    plain, green = found.solutions
    assert plain.actors == ()
    assert [a.name for a in green.actors] == ["concurrency", "stop_when_passing"]
    (set_up,), (stopped,) = (a.did for a in green.actors)
    assert (set_up.times, set_up.wasted, set_up.cpu) == ("40 of 40", "", "")
    assert stopped.wasted == "120 written, 200 read"
    assert stopped.cpu == "10.0 CPU-s"
    assert stopped.example == "after 3 lines"


def test_tokens_times_their_cost_is_the_cost() -> None:
    """The two ratios that explain a saving multiply to the ratio of CPU time per attempt."""
    samples = stepped(Step(actor="a", action="b"))
    found = ledger(samples, fake_summary())
    assert found is not None
    ratios = {o.label: float(o.ratio.rstrip("\u00d7")) for o in found.origins if o.ratio}
    spent = [
        sum(s.generation.cpu_s.value.value for s in samples if s.solution == name)  # type: ignore[union-attr]
        for name in ("plain", "green")
    ]
    explained = ratios["tokens written"] * ratios["CPU time per written token"]
    assert explained == pytest.approx(spent[1] / spent[0], rel=0.01)


def test_how_answers_ended_adds_up() -> None:
    """Every attempt of a solution is counted under exactly one end."""
    samples = stepped(Step(actor="a", action="b"))
    found = ledger(samples, fake_summary())
    assert found is not None
    ends = [o for o in found.origins if o.label.startswith("ended by ")]
    for place in (0, 1):
        assert sum(int(o.values[place].partition(" ")[0]) for o in ends) == 40


def test_rare_kinds_are_summed_up() -> None:
    """However many different things a strategy did, the table stays short and loses none."""
    samples = [
        replace(s, ledger=(Step(actor="a", action=f"did {i}"),))
        for i, s in enumerate(s for s in fake_run().samples if s.solution == "green")
    ]
    found = ledger(samples, fake_summary(("green",)))
    assert found is not None
    did = found.solutions[0].actors[0].did
    assert len(did) == MOST_ACTIONS + 1
    assert did[-1].action == f"{40 - MOST_ACTIONS} rarer kinds"
    assert sum(int(d.times.partition(" ")[0]) for d in did) == 40


def test_cpu_time_that_is_missing_is_said() -> None:
    """A cost per token that was not measured is words, never 0."""
    samples = [
        replace(s, generation=replace(s.generation, cpu_s=Missing(reason="elsewhere")))
        for s in stepped(Step(actor="a", action="b"))
    ]
    found = ledger(samples, fake_summary())
    assert found is not None
    labels = [o.label for o in found.origins]
    assert "CPU time per written token" not in labels
    one = [s if s.solution == "plain" else samples[i] for i, s in enumerate(stepped())]
    mixed = ledger([*one[:40], *samples[40:]], fake_summary())
    assert mixed is not None
    (row,) = [o for o in mixed.origins if o.label == "CPU time per written token"]
    assert row.values[1] == "not measured"
    assert row.ratio == ""


def test_thresholds_are_thinned_but_keep_both_ends() -> None:
    """A table has a few thresholds, from handing nothing on to the one of the run."""
    points = fake_route().points * 10
    kept = thinned(points)
    assert len(kept) == MOST_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:3]) == points[:3]


def test_a_cascade_reads_as_text() -> None:
    """Levels with counts, costs and break-even; thresholds with cost and quality."""
    found = view(fake_route())
    first, last = found.levels
    assert first.handed_on == "10 (25 % [16, 38])"
    assert first.limit == "below 75 % [70, 80]"
    assert last.limit == "the last level hands nothing on"
    assert found.points[0].scores == "none"
    assert found.points[-1].scores == "up to 1.0"
    assert found.unit == "CPU-s"


def test_a_cascade_without_points_says_why() -> None:
    """Where costs could not be told apart there is a reason in place of a drawing."""
    route = replace(fake_route(), points=(), note="its levels run elsewhere")
    figure = figures.threshold_curve(route, 0, {})
    assert figure.wide is None
    assert "its levels run elsewhere" in figure.note
    assert view(route).points == ()


def test_a_drawn_threshold_has_words() -> None:
    """The description names both ends and the other solutions with cost and quality."""
    route = fake_route(others=(("large", 10.0, 0.6),))
    figure = figures.threshold_curve(route, 0, {"green": 1, "large": 0})
    assert figure.wide is not None
    for words in ("green: 0.56 solved at 5.00 CPU-s", "hands nothing on: 0.40", "large: 0.60"):
        assert words in figure.wide.description
    assert figure.wide.title.endswith("over the threshold of green")
    assert Dimension.CPU_TIME.unit in figure.wide.title
