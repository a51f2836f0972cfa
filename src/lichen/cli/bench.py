"""``lichen bench``: run a task through solutions and show what they buy and cost."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from lichen.benchmark.run import run as run_benchmark
from lichen.cli import console, stored
from lichen.cli.observing import Advancing
from lichen.compose.build import Workbench, make_catalog, workbench
from lichen.compose.controls import with_controls
from lichen.compose.settings import region as default_region
from lichen.compose.settings import store_url
from lichen.compose.spec import load
from lichen.core.record import RunRecord
from lichen.footprint import factor_set, relevant
from lichen.report import terminal

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("bench")
@click.argument("files", nargs=-1, type=_FILE)
@click.option("--model", "-m", "models", multiple=True, help="Add a solution: this model, plain.")
@click.option("--green", is_flag=True, help="Beside each --model, the same one accelerated.")
@click.option(
    "--recipe", "recipes", multiple=True, help="Beside each --model, the same one made by a recipe."
)
@click.option("--task", "-t", default=None, help="Task; see  lichen tasks list.")
@click.option("--limit", "-n", type=int, default=None, help="Only so many problems, spread evenly.")
@click.option("--samples", type=int, default=None, help="Attempts per problem.")
@click.option("--slots", type=int, default=None, help="Requests that run at once.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Any key of the spec.")
@click.option("--region", default=None, help="Grid to price for, e.g. DNK, USA, WORLD.")
@click.option("--store", "url", default=None, help="Store URL; default: LICHEN_STORE.")
@click.option("--fresh", is_flag=True, help="Do not resume an interrupted run of the same spec.")
@click.option("--report", "page", type=_FILE, default=None, help="Where to write the page.")
@click.option("--no-report", is_flag=True, help="Write no page.")
@click.option("--open", "show_page", is_flag=True, help="Open the page in a browser.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(  # noqa: PLR0913 (one parameter per documented option)
    *,
    files: tuple[Path, ...],
    models: tuple[str, ...],
    green: bool,
    recipes: tuple[str, ...],
    task: str | None,
    limit: int | None,
    samples: int | None,
    slots: int | None,
    sets: tuple[str, ...],
    region: str | None,
    url: str | None,
    fresh: bool,
    page: Path | None,
    no_report: bool,
    show_page: bool,
    as_json: bool,
) -> None:
    """Run a task through solutions: quality beside six costs.

    FILES are solution files (or one run file); --model adds a plain solution of a model, and
    --green a second one beside it with the settings of the preset that ships with lichen;
    --recipe adds one whose model a compression recipe makes first, with those settings too if
    --green is there. With two or more solutions, blocks are interleaved and compared. The same
    command resumes an interrupted run.
    """
    flags = {
        "task.name": task,
        "task.limit": limit,
        "samples": samples,
        "engine.slots": slots,
    }
    presets = ("green",) if green else ()
    spec = with_controls(
        load(files, models=models, presets=presets, recipes=recipes, flags=flags, sets=sets)
    )
    factors = relevant(factor_set(region or default_region()))
    catalog = make_catalog(console.download_progress())
    with workbench(spec, store_url=url or store_url(), catalog=catalog, fresh=fresh) as bench:
        run = _run(bench)
        bench.store.add_factors(run.id, factors)
        one = stored.loaded(bench.store, run)
    summary = stored.summarised(one, factors, margin=spec.margin)
    written = None if no_report else stored.write_page(one, summary, page)
    if as_json:
        console.emit_json({"run": run.id, "summary": summary, "report": str(written or "")})
    else:
        console.show(*terminal.render(run, summary, width=console.out().width))
    if written is not None:
        console.note(f"report: {written}")
        if show_page:
            webbrowser.open(written.resolve().as_uri())


def _run(bench: Workbench) -> RunRecord:
    total = len(bench.head.problem_ids) * bench.plan.samples * len(bench.solutions)
    verb = "resuming" if bench.resume else "run"
    console.note(f"{verb} {bench.head.id}: {bench.head.task}, {total} attempts")
    with console.progress(bench.head.task, total) as advance:
        return run_benchmark(
            bench.head,
            bench.solutions,
            bench.task,
            plan=bench.plan,
            meter=bench.meter,
            sink=bench.store,
            observer=Advancing(advance),
            resume=bench.resume,
        )
