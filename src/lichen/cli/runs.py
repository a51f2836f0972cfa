"""``lichen runs``: list, show, remove, export and import runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from lichen.cli import console
from lichen.compose.parts import part_of
from lichen.compose.settings import store_url
from lichen.core.errors import ConfigError, StoreError
from lichen.core.record import RunRecord, RunState
from lichen.report import format as fmt
from lichen.store import Store, open_store
from lichen.store.transfer import export_evalplus, export_run, import_run

_STORE = click.option("--store", "url", default=None, help="Store URL; default: LICHEN_STORE.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


@click.group("runs")
def command() -> None:
    """List, show, remove, export and import runs."""


@command.command("list")
@click.argument("whole", metavar="[SEARCH]", default="")
@click.option("--all", "every", is_flag=True, help="Also each run that is part of a search.")
@_STORE
@_JSON
def list_runs(whole: str, every: bool, url: str | None, as_json: bool) -> None:
    """List the runs in the store, newest last; a search is one line.

    With the name of a SEARCH, list its runs.
    """
    runs = _open(url).runs()
    if whole:
        runs = [r for r in runs if part_of(r) == whole]
        if not runs:
            raise StoreError(f"the store has no search {whole!r}; see  lichen runs list")
    listed = [_row(r) for r in runs] if every or whole else _grouped(runs)
    if as_json:
        console.emit_json(listed)
        return
    if not listed:
        console.note("no runs yet; make one with  lichen bench")
        return
    rows = [[console.plain(cell) for cell in _cells(row)] for row in listed]
    console.table("Runs", ["id", "created (UTC)", "task", ">problems", "solutions", "state"], rows)


@command.command("show")
@click.argument("run_id")
@_STORE
@_JSON
def show_run(run_id: str, url: str | None, as_json: bool) -> None:
    """Show what a run was: spec, solutions, environment, counts. RUN_ID may be a prefix."""
    store = _open(url)
    if any(part_of(r) == run_id for r in store.runs()):
        raise StoreError(f"{run_id} is a search; its runs:  lichen runs list {run_id}")
    run = store.find(run_id)
    samples = store.samples(run.id)
    if as_json:
        console.emit_json({"run": run, "samples": len(samples)})
        return
    env = run.environment
    facts = [
        ("id", run.id),
        ("state", run.state.value),
        ("created", run.created_at),
        ("task", f"{run.task} {run.task_version}, prompt style {run.prompt_style}"),
        ("data", f"sha256 {run.data_sha256[:16]}..."),
        ("problems", f"{len(run.problem_ids)} x {run.samples_per_problem} samples"),
        ("stored", f"{len(samples)} samples"),
        ("oracle", f"{run.oracle.passed}/{run.oracle.problems}" if run.oracle else "not run"),
        ("spec hash", run.spec_hash),
        ("machine", f"{env.cpu_model}, {env.usable_cpus} usable CPUs, {env.virtualisation}"),
        ("lichen", env.lichen_version),
        *(("note", n) for n in run.notes),
    ]
    console.table("Run", ["", ""], [[k, console.plain(v)] for k, v in facts])
    for s in run.solutions:
        settings = [[console.plain(k), console.plain(v)] for k, v in s.settings]
        console.table(f"Solution {console.plain(s.name)}", ["setting", "value"], settings)


@command.command("rm")
@click.argument("run_ids", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_STORE
@_JSON
def remove_runs(run_ids: tuple[str, ...], yes: bool, url: str | None, as_json: bool) -> None:
    """Delete runs with their samples, or a search with all its runs."""
    store = _open(url)
    parts = [r for r in store.runs() if part_of(r) in run_ids]
    searches = {part_of(r) for r in parts}
    single = [store.find(r) for r in run_ids if r not in searches]
    runs = [*single, *(r for r in parts if r.id not in {s.id for s in single})]
    if not yes:
        names = [*(r.id for r in single), *(f"{s} and its runs" for s in sorted(searches))]
        click.confirm(f"Delete {', '.join(names)}?", abort=True, err=True)
    for run in runs:
        store.remove(run.id)
        console.note(f"removed {run.id}")
    if as_json:
        console.emit_json({"removed": [r.id for r in runs]})


@command.command("export")
@click.argument("run_id")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=None)
@click.option(
    "--format",
    "shape",
    type=click.Choice(["lichen", "evalplus", "human-eval"]),
    default="lichen",
    help="lichen: everything. evalplus, human-eval: one solution's samples, for their scorers.",
)
@click.option("--solution", default=None, help="Which solution's samples, if there are several.")
@_STORE
def export(
    run_id: str, output: Path | None, shape: str, solution: str | None, url: str | None
) -> None:
    """Write a run as JSON Lines to OUTPUT, or to stdout."""
    store = _open(url)
    run = store.find(run_id)
    if shape == "lichen":
        lines = export_run(store, run.id)
    else:
        lines = export_evalplus(store, run.id, _solution(run, solution), shape=shape)
    if output is None:
        for line in lines:
            console.line(line)
        return
    partial = output.with_name(output.name + ".part")
    with partial.open("w", encoding="utf-8") as f:
        count = sum(1 for line in lines if f.write(line + "\n"))
    partial.replace(output)
    console.note(f"wrote {count} lines to {output}")


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_STORE
@_JSON
def import_(file: Path, url: str | None, as_json: bool) -> None:
    """Store a run that  lichen runs export  wrote."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        run = import_run(_open(url), lines)
    if as_json:
        console.emit_json(_row(run))
    else:
        console.note(f"imported {run.id}")


def _open(url: str | None) -> Store:
    return open_store(url or store_url())


def _solution(run: RunRecord, wanted: str | None) -> str:
    names = [s.name for s in run.solutions]
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted not in names:
        raise ConfigError(f"run {run.id} has the solutions {', '.join(names)}: pick by --solution")
    return wanted


def _grouped(runs: Sequence[RunRecord]) -> list[dict[str, object]]:
    """Return a row per run that stands for itself and one per search, at its latest run."""
    places: dict[str, list[RunRecord]] = {}
    for run in runs:
        key = part_of(run) or run.id
        places[key] = [*places.pop(key, []), run]
    return [_row(rs[0]) if not part_of(rs[0]) else _search_row(rs) for rs in places.values()]


def _search_row(runs: Sequence[RunRecord]) -> dict[str, object]:
    going = [r for r in runs if r.state is RunState.RUNNING]
    return {
        "id": part_of(runs[0]),
        "created_at": runs[0].created_at,
        "task": runs[0].task,
        "problems": len({p for r in runs for p in r.problem_ids}),
        "runs": len(runs),
        "state": RunState.RUNNING if going else RunState.FINISHED,
    }


def _cells(row: dict[str, object]) -> list[str]:
    """Return the texts of a row of ``_row`` or ``_search_row``."""
    solutions = row.get("solutions")
    what = f"a search: {fmt.plural(int(str(row.get('runs', 0))), 'run')}"
    return [
        str(row["id"]),
        str(row["created_at"])[:16].replace("T", " "),
        str(row["task"]),
        str(row["problems"]),
        ", ".join(solutions) if isinstance(solutions, list) else what,
        str(row["state"]),
    ]


def _row(r: RunRecord) -> dict[str, object]:
    return {
        "id": r.id,
        "created_at": r.created_at,
        "task": r.task,
        "problems": len(r.problem_ids),
        "samples_per_problem": r.samples_per_problem,
        "solutions": [s.name for s in r.solutions],
        "state": r.state,
    }
