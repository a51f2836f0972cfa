"""The summary in a terminal: readable at 80 and 120 columns, without colour, never a false 0."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from lichen.core.measurement import Missing
from lichen.core.record import RunState
from lichen.core.summary import Summary
from lichen.report import terminal
from lichen.report.cells import Basis
from lichen.testing.records import fake_run
from lichen.testing.summaries import fake_summary

SNAPSHOTS = Path(__file__).parent.parent / "snapshot" / "report"


def shown(*items: RenderableType, width: int = 120) -> str:
    """Print to a string as a terminal without colour would show it."""
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None)
    for item in items:
        console.print(item)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def rendered(summary: Summary, width: int, basis: Basis = Basis.SOLVED) -> str:
    """Render a whole report at a width."""
    return shown(*terminal.render(fake_run().run, summary, basis=basis), width=width)


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_report_looks_as_agreed(width: int) -> None:
    """The text at both widths is the one a person has looked at; it never runs over the edge."""
    text = rendered(fake_summary(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    expected = (SNAPSHOTS / f"terminal-{width}.txt").read_text(encoding="utf-8")
    assert text == expected


@pytest.mark.parametrize("width", [80, 140])
def test_two_solutions_are_held_against_each_other(width: int) -> None:
    """Both layouts show every cost as a ratio with its interval, and quality as a difference."""
    text = rendered(fake_summary(), width)
    assert "green / plain" in text
    assert text.count("0.60\u00d7") == 7
    assert text.count("1.00\u00d7") == 1
    assert "\u22120.05 to +0.05" in text
    assert "not inferior at the margin 0.05" in " ".join(text.split())


@pytest.mark.parametrize("names", [("alone",), ("a", "b", "c")])
def test_other_numbers_of_solutions_have_no_ratio(names: tuple[str, ...]) -> None:
    """With one solution or three there is no single pair to hold against each other."""
    for width in (80, 160):
        assert "\u00d7" not in rendered(fake_summary(names), width)


def test_missing_energy_is_said_and_never_zero() -> None:
    """Without energy the cells say "not measured" and a footnote says why."""
    for width in (80, 120):
        text = rendered(fake_summary(with_energy=False), width)
        assert "measured¹" in text
        assert "¹ no RAPL in this virtual machine" in text
        assert "Not measured: energy of the GPU (no GPU in this machine)" in text.replace("\n", " ")
    lines = rendered(fake_summary(with_energy=False), 80).splitlines()
    rows = [line for line in lines if "not measured¹" in line]
    assert [row.strip().split(",")[0] for row in rows] == ["energy", "water", "carbon", "money"]
    assert not any(c.isascii() and c.isdecimal() for row in rows for c in row)


def test_nothing_solved_is_an_unbounded_cost() -> None:
    """A solution that solved nothing costs infinitely much per solved task, and a note says so."""
    text = rendered(fake_summary(solved_share=0.0), 80)
    assert "∞¹" in text
    assert "no attempt solved its problem" in text


def test_a_ratio_that_does_not_exist_is_not_called_unmeasured() -> None:
    """Where nothing was solved there is no ratio per solved task, though costs were measured."""
    summary = fake_summary()
    (c,) = summary.comparisons
    absent = Missing(reason="one of them solved nothing")
    gone = replace(c, ratios=tuple(replace(r, per_solved=absent) for r in c.ratios))
    text = rendered(replace(summary, comparisons=(gone,)), 80)
    assert sum(line.endswith(" no") for line in text.splitlines()) == 8
    assert "not measured" not in text


def test_more_solutions_than_fit_continue_below() -> None:
    """At 80 columns, seven solutions make three tables that name them all."""
    names = tuple(f"solution-{i}" for i in range(7))
    text = rendered(fake_summary(names), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert all(name in text for name in names)
    assert text.count("peak memory, MiB") == 3


def test_hostile_names_are_text() -> None:
    """Markup and escapes in a solution's name are shown, not obeyed."""
    text = rendered(fake_summary(("[red]a[/red]", "b\x1b[2J\u202e")), 120)
    assert "[red]a[/red]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_costs_per_attempt_are_lower_than_per_solved_task() -> None:
    """The other basis is said in the title and changes the numbers."""
    solved, attempt = (rendered(fake_summary(), 80, basis) for basis in Basis)
    assert "costs per attempt" in attempt
    assert "32 [27, 38]" in solved
    assert "17.4 [16.0, 18.8]" in attempt


def test_an_unfinished_run_says_so() -> None:
    """Numbers of a part of a run are marked as such."""
    run = replace(fake_run().run, state=RunState.RUNNING)
    text = shown(*terminal.render(run, fake_summary()))
    assert "is running: these numbers are of the part that is stored" in text


def test_a_comparison_is_shown_in_full() -> None:
    """Conclusion, quality, McNemar, dominance and each ratio with its claim."""
    c = fake_summary().comparisons[0]
    text = shown(*terminal.comparison(replace(c, interleaved=False)))
    for part in (
        "uses less energy than plain",
        "Quality, green \u2212 plain: 0.00 [\u22120.05, +0.05]; not inferior at the margin 0.05.",
        "Solved by plain alone: 3, by green alone: 3",
        "did not run interleaved",
        "0.60\u00d7 [0.50, 0.70]",
        "no difference",
    ):
        assert part in text


def test_grids_share_units_and_keep_energy() -> None:
    """One run priced for two grids: one row per grid and solution, in the same units."""
    text = shown(terminal.priced([fake_summary(region=r) for r in ("DNK", "IND")]), width=80)
    assert "DNK" in text
    assert "IND" in text
    assert text.count("27\u201338") == 2
