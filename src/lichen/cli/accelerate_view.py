"""What ``lichen accelerate`` shows: the plan, the races, the proof and the bill."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lichen.acceleration.candidates import Choice, label, opening
from lichen.acceleration.log_ratio import shown
from lichen.acceleration.racing import Rules
from lichen.acceleration.search import SCREENING_SHARE
from lichen.acceleration.searched import Budget, Found, in_words
from lichen.acceleration.slot_screening import SlotScreening
from lichen.acceleration.tuned import Tuning
from lichen.benchmark.summarise import StoredRun
from lichen.cli import accelerate_story as story
from lichen.cli import console
from lichen.compose.acceleration import GREEN, Halves
from lichen.compose.spec import RunSpec
from lichen.core.interval import Interval
from lichen.core.record import RunRecord
from lichen.core.summary import Summary
from lichen.report import format as fmt
from lichen.report import terminal


def plan(
    choices: Sequence[Choice], slots: Sequence[int], rules: Rules, budget: Budget, both: Halves
) -> dict[str, Any]:
    """Return what a search would do, as plain values."""
    at_slots = [Choice(strategy="concurrency")] if slots else []
    return {
        "tries": [c.label for c in choices],
        "tries_first": [c.label for c in opening((*at_slots, *choices))],
        "screens_slots": list(slots),
        "calibration_problems": len(both.calibration),
        "problems_per_look": min(budget.problems_per_round, len(both.calibration)),
        "looks_at_most": rules.rounds,
        "looks_at_most_for_quality": rules.quality_rounds,
        "at_most_s": budget.seconds,
        "screening_share": SCREENING_SHARE,
        "verification_answers": 2 * budget.proof,
        "verification_problems": len(both.verification),
        "margin": rules.margin,
        "max_latency_s": rules.max_latency_s,
    }


def show_plan(what: dict[str, Any]) -> None:
    """Print a plan."""
    rows = [[console.plain(c)] for c in what["tries"]]
    if what["screens_slots"]:
        slots = ", ".join(str(n) for n in what["screens_slots"])
        rows.append([f"concurrency, the cheapest of {slots} slots on the engine alone"])
    console.table("Would try", ["strategy"], rows)
    first = " + ".join(what["tries_first"])
    ahead = f"{first} first, together; then the others, " if first else ""
    console.note(
        f"{ahead}each beside the best so far, on up to "
        f"{what['problems_per_look']} problems at a time, at most "
        f"{what['looks_at_most']} times ({what['looks_at_most_for_quality']} while the quality of "
        "a cheaper one is in doubt), then those that pay together\n"
        f"then plain against the winner on {what['verification_problems']} other problems\n"
        f"all within {in_words(what['at_most_s'])}: what plain needs for "
        f"{what['verification_answers']} answers is set aside for the verification; of the rest, "
        f"screening has {what['screening_share']:.0%} and joining what is left"
    )


def show_search(found: Found, screening: SlotScreening | None) -> None:
    """Print every look and race, and what each strategy of the winner contributes."""
    if screening is not None:
        threads = f", {screening.threads} threads" if screening.threads else ""
        console.table(
            f"Slots on the engine alone{threads}: CPU-seconds per decoded token",
            [">slots", ">CPU-ms"],
            [
                [str(k.slots), console.plain(story.milliseconds(k.cpu_s_per_token))]
                for k in screening.looks
            ],
        )
    rows: list[list[str]] = []
    for stage, races in story.staged(found.races).items():
        rows.append([f"[bold]{console.plain(stage)}[/bold]", "", ""])
        for race in races:
            name, cost, quality, result = map(console.plain, story.race_cells(race))
            rows.append([f"{name}\n[dim]  {result}[/dim]", cost, quality])
    console.table(
        "Search: cost against the best then, quality in points against plain (90 % intervals)",
        ["tried", ">cost ratio", ">quality"],
        rows,
        caption=_caption(found),
    )
    if left := story.missed(found.races):
        console.show(f"No time was left to look at: {console.plain(left)}")
    if found.best:
        console.table(
            "What each strategy contributes: cost without it over cost with it",
            ["strategy", ">ratio"],
            [
                [console.plain(c.label), console.plain(story.ratio(r))]
                for c, r in found.contributions
            ],
        )


def _caption(found: Found) -> str:
    parts = [f"{found.spent_cpu_s:.0f} CPU-s in {in_words(found.spent_s)}"]
    if found.reserved_s:
        parts.append(f"{in_words(found.reserved_s)} of the budget kept for the verification")
    if found.stored_rounds:
        parts.append(f"{found.stored_rounds} of {found.rounds} rounds were run before")
    if not found.complete:
        parts.append("the budget ended the search before it was complete")
    return "; ".join(parts)


def show_nothing(found: Found) -> None:
    """Say that plain stays."""
    why = "" if found.complete else " within the budget (a longer --budget may)"
    console.note(
        f"nothing better found{why}: keep the solution as it is; no file was written. The search "
        f"cost {found.spent_cpu_s:.0f} CPU-s"
    )


def show_verification(run: RunRecord, summary: Summary, bill: story.Bill) -> None:
    """Print the proof: quality, the six dimensions, the ratios, the bill."""
    console.show(*terminal.render(run, summary, width=console.out().width))
    for comparison in summary.comparisons:
        if comparison.b == GREEN:
            console.show(*terminal.comparison(comparison)[1:])
    problems = fmt.plural(len(run.problem_ids), "problem")
    console.table(
        f"Proof on {problems} that the search had not seen "
        f"({fmt.percent(summary.confidence)} intervals)",
        [
            "solution",
            f">{console.plain(summary.metric)}",
            ">minus plain's",
            ">CPU time ratio",
            ">per solved",
        ],
        [[console.plain(cell) for cell in row] for row in story.proof_cells(summary)],
    )
    console.table(
        "What it cost to find out",
        ["", ">CPU-s", ">time", ">paid back after"],
        [[console.plain(cell) for cell in row] for row in story.bill_cells(bill)],
    )


def show_tuning(tuning: Tuning, *, stored: bool) -> None:
    """Print a tuning of the engine."""
    options = ", ".join(f"{k} {v}" for k, v in tuning.setting.options().items())
    console.table(
        f"Engine tuned for {tuning.cpus_free} free CPUs" + (" (stored before)" if stored else ""),
        ["option", ">from", ">to", ">cost ratio", "result"],
        [
            [
                r.option,
                str(getattr(r.incumbent, r.option)),
                str(getattr(r.challenger, r.option)),
                shown(r.ratio) if r.ratio is not None else "not measured",
                str(r.outcome),
            ]
            for r in tuning.races
        ],
        caption=f"{options}: {1000 * tuning.cost_s:.1f} CPU-ms per token, before "
        f"{1000 * tuning.start_cost_s:.1f}; took {in_words(tuning.spent_s)}",
    )
    if not tuning.in_bound:
        console.note("no setting keeps the latency bound; this one comes nearest")


def remarks(found: Found, spec: RunSpec) -> list[str]:
    """Return the comments of a green file about its search."""
    ratio = shown(found.ratio) if isinstance(found.ratio, Interval) else "not measured"
    return [
        f"Task {spec.task.name}, margin {spec.margin:g}; searched on the even problems:",
        f"cost ratio to plain {ratio} (90 %), with {label(found.best)}.",
    ]


def verdict(stored: StoredRun, summary: Summary) -> list[str]:
    """Return the comments of a green file about its proof."""
    said = [c.conclusion for c in summary.comparisons if c.b == GREEN]
    return [f"Verified on the odd problems, run {stored.run.id}:", *said]


def verification_s(found: Found, answers: int) -> float:
    """Estimate the seconds of a verification with ablation rows, of so many answers a row.

    Time is what plain takes, in proportion to the cost; loading is not in it.
    """
    plain = [k for k in found.looks if not k.candidate]
    answer_s = math.fsum(k.observed.wall_s for k in plain) / sum(len(k.problems) for k in plain)
    ratio = found.ratio.value if isinstance(found.ratio, Interval) else 1.0
    rows = [1.0, ratio]
    if len(found.best) > 1:
        parts = [r for _, r in found.contributions]
        rows += [ratio * r.value if isinstance(r, Interval) else 1.0 for r in parts]
    return answers * answer_s * math.fsum(rows)
