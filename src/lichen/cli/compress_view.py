"""What ``lichen compress`` shows: predictions, the gate, the search's table, and the bill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from lichen.cli import console
from lichen.compose.compression import Verdict
from lichen.compose.compression_search import Limits, SearchPlan
from lichen.compression.candidates import CompressionCandidate, Origin, Predicted
from lichen.compression.kernel_cost import Workload
from lichen.compression.method import Prediction
from lichen.compression.searched import Baseline, Budget, Look, Row, Search
from lichen.core.measurement import Measurement, Missing
from lichen.core.model import ModelArtifact
from lichen.core.units import J_PER_WH

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Payback:
    """What making a file cost, and after how many typical requests that is saved.

    The gate's own cost is not in it: proving is a choice, and it is shown by the run.
    """

    spent_cpu_s: float | Missing
    saved_cpu_s_per_request: float | Missing
    requests: float | Missing

    @classmethod
    def of(cls, cost: Measurement | None, verdict: Verdict) -> Self:
        """Work it out from what making was measured to cost and from the gate's cost check."""
        spent: float | Missing = Missing(reason="it was not measured")
        if cost is not None:
            found = cost.cpu_s
            spent = found if isinstance(found, Missing) else found.value.value
        measured, load = verdict.cost, Workload()
        if isinstance(measured, Missing):
            return cls(spent_cpu_s=spent, saved_cpu_s_per_request=measured, requests=measured)
        saved = load.prompt * measured.parent_prefill_s * (
            1 - measured.prefill.value
        ) + load.completion * measured.parent_decode_s * (1 - measured.decode.value)
        requests: float | Missing
        if isinstance(spent, Missing):
            requests = spent
        elif saved <= 0:
            requests = Missing(reason="nothing is saved per request")
        else:
            requests = spent / saved
        return cls(spent_cpu_s=spent, saved_cpu_s_per_request=saved, requests=requests)


def show_prediction(before: Prediction, after: Prediction) -> None:
    """Print what a recipe would make, from shapes and types alone."""
    console.table("Predicted; nothing was written", *_change(before, after))


def show_result(before: Prediction, after: Prediction, verdict: Verdict, bill: Payback) -> None:
    """Print one table of what changed and what the gate found, and the break-even line."""
    columns, rows = _change(before, after)
    gate = [
        [f"gate: {name}", "", "", console.plain(_verdict(shown, what))]
        for name, shown, what in verdict.report.rows()
    ]
    console.table(
        f"Compressed; the gate ({verdict.report.level}) "
        + ("lets it through" if verdict.report.passed else "does NOT let it through"),
        columns,
        [*rows, *gate],
        caption=_payback(bill),
    )


def show_plan(plan: SearchPlan, limits: Limits) -> None:
    """Print what a search would measure."""
    console.table(
        f"Would measure {len(plan.candidates)} of {plan.predicted} predicted recipes",
        ["recipe", ">MB", ">expected CPU", ">error"],
        [
            ["as it is", *_predicted(plan.parent, plan.parent)],
            *(_planned(c, plan.parent) for c in plan.candidates),
        ],
        caption="expected CPU: of a typical request, by prior figures, against the model as it is",
    )
    console.note(f"for at most {_budget(limits.budget)}; the last 40 % are kept for the gate")


def show_search(found: Search, source: ModelArtifact) -> None:
    """Print the Pareto table, the baseline and the break-even line."""
    console.table(
        "Search: measured beside the model as it is",
        ["", "recipe", ">MB", ">CPU", ">KL, nats", ">flips", "result"],
        [
            ["", "as it is", f"{source.size_bytes / 1e6:,.1f}", "1.00", "0", "0 %", ""],
            *(_row(r, found) for r in found.rows),
        ],
        caption="CPU: of a typical request, against the model as it is; "
        "* beaten by no other in size, cost and divergence at once",
    )
    console.note(_baseline(found.baseline))
    best = next((r for r in found.rows if r.candidate is found.best), None)
    if best is not None and best.gated is not None:
        console.table(
            f"Gate: {console.plain(best.candidate.label)}",
            ["check", "verdict", "what"],
            [[console.plain(cell) for cell in row] for row in best.gated.rows],
        )
    console.note(_bill(found))


def _row(row: Row, found: Search) -> list[str]:
    look = row.look
    mark = "->" if row.candidate is found.best else "*" if row.pareto else ""
    cells = ["", "", "", ""] if look is None or look.error else _measured(look)
    return [
        mark,
        _label(row.candidate),
        *cells,
        console.plain(row.fate),
    ]


def _label(candidate: CompressionCandidate) -> str:
    """Return what a row calls a recipe; only how an unusual one was chosen is said."""
    label = console.plain(candidate.label)
    return label if candidate.origin is Origin.PREDICTED else f"{candidate.origin}: {label}"


def _measured(look: Look) -> list[str]:
    return [
        f"{look.file_bytes / 1e6:,.1f}",
        f"{look.cost_ratio:.2f}",
        f"{look.kl_nats.value:.3f}\n{look.kl_nats.low:.3f} to {look.kl_nats.high:.3f}",
        f"{look.flips.value:.1%}",
    ]


def _planned(candidate: CompressionCandidate, parent: Predicted) -> list[str]:
    return [
        _label(candidate),
        *_predicted(candidate.predicted, parent),
    ]


def _predicted(predicted: Predicted, parent: Predicted) -> list[str]:
    return [
        f"{predicted.file_bytes / 1e6:,.1f}",
        f"{predicted.cpu_s / parent.cpu_s:.2f}" if parent.cpu_s > 0 else "",
        f"{predicted.error:.3f}",
    ]


def _change(before: Prediction, after: Prediction) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of what changed."""
    pairs = [
        ("file", before.file_bytes, after.file_bytes, 1e6, "MB"),
        (
            "read per decoded token",
            before.bytes_per_decoded_token,
            after.bytes_per_decoded_token,
            1e6,
            "MB",
        ),
        ("computed per token", before.flop_per_token, after.flop_per_token, 1e6, "MFLOP"),
        ("weights", before.parameters, after.parameters, 1e6, "M"),
    ]
    rows = [
        [name, f"{a / scale:,.1f}", f"{b / scale:,.1f}", f"{unit}, {_percent(a, b)}"]
        for name, a, b, scale, unit in pairs
    ]
    return ["", ">before", ">after", "what"], rows


def _percent(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %" if before else ""


def _verdict(shown: str, what: str) -> str:
    return what if what.startswith(shown) else f"{shown}: {what}"


def _payback(bill: Payback) -> str:
    if isinstance(bill.spent_cpu_s, Missing):
        return f"what making it cost is not known: {bill.spent_cpu_s.reason}"
    spent = f"making it cost {bill.spent_cpu_s:,.1f} CPU-s"
    if isinstance(bill.requests, Missing):
        return f"{spent}; when that is paid back is not known: {bill.requests.reason}"
    return f"{spent}, paid back after {math.ceil(bill.requests):,} typical requests"


def _bill(found: Search) -> str:
    spent = found.spent
    energy = (
        f"energy not known: {spent.energy_j.reason}"
        if isinstance(spent.energy_j, Missing)
        else f"{spent.energy_j / J_PER_WH:,.2f} Wh"
    )
    text = f"the search cost {spent.cpu_s:,.0f} CPU-s in {_duration(spent.wall_s)} ({energy})"
    if found.resumed:
        text += f", {found.resumed} measurements of an earlier one included"
    if not found.complete:
        text += "; the budget ended it before it was complete: the same command goes on from here"
    if isinstance(found.pays_after, Missing):
        return f"{text}; {found.pays_after.reason}"
    return f"{text}; it is paid back after {math.ceil(found.pays_after):,} typical requests"


def _baseline(baseline: Baseline | Missing) -> str:
    if isinstance(baseline, Missing):
        return f"random search beside it: not measured, {baseline.reason}"
    return (
        f"random search beside it: {baseline.each} random recipes cover "
        f"{baseline.random_volume:.0%} of the space below the model as it is, as many predicted "
        f"ones {baseline.predicted_volume:.0%}"
    )


def _budget(budget: Budget) -> str:
    parts = []
    if math.isfinite(budget.seconds):
        parts.append(_duration(budget.seconds))
    if math.isfinite(budget.joules):
        parts.append(f"{budget.joules / J_PER_WH:g} Wh")
    return " and ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 2 * _MINUTE_S else f"{seconds / _MINUTE_S:.0f} min"
