"""``lichen compare``: what two stored solutions allow one to say of each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click

from lichen.acceleration.cascade_replay import routes
from lichen.benchmark.summarise import StoredRun, summarise_runs
from lichen.cli import console, stored
from lichen.core.errors import ConfigError, StoreError
from lichen.core.record import RunRecord
from lichen.report import terminal
from lichen.store import Store


@click.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--margin", type=float, default=None, help="Loss of quality that still counts as 0.")
@click.option("--region", default=None, help="Grid to price for, e.g. DNK.")
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Also write the page of this comparison.",
)
@click.option("--store", "url", default=None, help="Store URL; default: LICHEN_STORE.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    *,
    a: str,
    b: str,
    margin: float | None,
    region: str | None,
    page: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Compare two solutions or runs, with intervals.

    A and B are each RUN:SOLUTION, a run with one solution, or the name of a solution in the
    latest run. The margin is the one set before A's run unless --margin states another.
    """
    store = stored.opened(url)
    sides = [_resolve(store, text) for text in (a, b)]
    runs = _joined(store, *sides)
    regions = () if region is None else (region,)
    factors = stored.factor_sets(store, sides[0].run, regions, year=None, pue=None)[0]
    wanted = stored.margin_of(sides[0].run) if margin is None else margin
    merged = _merged(runs)
    summary = replace(
        summarise_runs(runs, factors, margin=wanted), routes=routes(merged.run, merged.samples)
    )
    if not summary.comparisons:
        raise ConfigError(f"one of {a} and {b} has no attempt stored yet: there is nothing to say")
    if as_json:
        console.emit_json(summary)
    else:
        headline = terminal.Headline(summary=summary, width=console.out().width)
        full = (item for c in summary.comparisons for item in terminal.comparison(c))
        ways = (item for r in summary.routes for item in terminal.way(r))
        console.show(headline, *full, *ways, *terminal.not_measured(summary))
    if page is not None:
        console.note(f"report: {stored.write_page(merged, summary, page)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    run: RunRecord
    solution: str


def _resolve(store: Store, text: str) -> _Side:
    """Find the solution that a text means; ConfigError or StoreError say what it could mean."""
    prefix, colon, name = text.partition(":")
    if colon and (run := _found(store, prefix)) is not None:
        return _Side(run=run, solution=_named(run, name))
    latest = store.latest()
    if latest is not None and text in [s.name for s in latest.solutions]:
        return _Side(run=latest, solution=text)
    run = store.find(text)
    if len(run.solutions) != 1:
        names = ", ".join(f"{run.id}:{s.name}" for s in run.solutions)
        raise ConfigError(f"run {run.id} has several solutions: say which, of {names}")
    return _Side(run=run, solution=run.solutions[0].name)


def _found(store: Store, prefix: str) -> RunRecord | None:
    try:
        return store.find(prefix)
    except StoreError:
        return None  # the colon may belong to a solution's name


def _named(run: RunRecord, name: str) -> str:
    names = [s.name for s in run.solutions]
    if name not in names:
        raise ConfigError(f"run {run.id} has no solution {name!r}; it has {', '.join(names)}")
    return name


def _joined(store: Store, a: _Side, b: _Side) -> list[StoredRun]:
    """Load both sides as runs that hold nothing else, with names that differ."""
    if (a.run.id, a.solution) == (b.run.id, b.solution):
        raise ConfigError(f"{a.solution} of run {a.run.id} is given twice: name two solutions")
    if a.run.id == b.run.id:
        return [
            _only(stored.loaded(store, a.run), {a.solution: a.solution, b.solution: b.solution})
        ]
    clash = a.solution == b.solution
    return [
        _only(
            stored.loaded(store, side.run),
            {side.solution: f"{side.solution} ({side.run.id})" if clash else side.solution},
        )
        for side in (a, b)
    ]


def _only(run: StoredRun, names: dict[str, str]) -> StoredRun:
    """Keep the solutions in ``names`` (old name -> new name), in that order."""
    records = {s.name: s for s in run.run.solutions}
    kept = tuple(replace(records[old], name=new) for old, new in names.items())
    return StoredRun(
        run=replace(run.run, solutions=kept),
        samples=[
            replace(s, solution=names[s.solution]) for s in run.samples if s.solution in names
        ],
        blocks=[replace(b, solution=names[b.solution]) for b in run.blocks if b.solution in names],
    )


def _merged(runs: list[StoredRun]) -> StoredRun:
    """Return one head for a page over several runs: the first one's, with all solutions."""
    first = runs[0].run
    notes = (
        ()
        if len(runs) == 1
        else tuple(
            f"solutions of run {r.run.id}: {', '.join(s.name for s in r.run.solutions)}; "
            f"environment and specification shown are those of run {first.id}"
            for r in runs[1:]
        )
    )
    return StoredRun(
        run=replace(
            first,
            solutions=tuple(s for r in runs for s in r.run.solutions),
            notes=(*first.notes, *notes),
        ),
        samples=[s for r in runs for s in r.samples],
        blocks=[b for r in runs for b in r.blocks],
    )
