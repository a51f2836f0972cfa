"""``lichen report``: the table and page of a stored run, priced again for any grid."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from lichen.cli import console, stored
from lichen.report import terminal
from lichen.report.cells import Basis


@click.command("report")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--region", "regions", multiple=True, help="Grid, e.g. DNK; give it several times.")
@click.option("--year", type=int, default=None, help="Year of the grid's factors.")
@click.option("--pue", default=None, help="PUE of the facility: a number or a profile's name.")
@click.option("--per-attempt", is_flag=True, help="Show costs per attempt, not per solved task.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Where to write the page; default: reports/RUN.html.",
)
@click.option("--open/--no-open", "show_page", default=False, help="Open the page in a browser.")
@click.option("--store", "url", default=None, help="Store URL; default: LICHEN_STORE.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(  # noqa: PLR0913 (one parameter per documented option)
    *,
    run_id: str | None,
    regions: tuple[str, ...],
    year: int | None,
    pue: str | None,
    per_attempt: bool,
    output: Path | None,
    show_page: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Write the page of a run; re-price it for another grid.

    RUN is a run's id or the beginning of one; the latest run without it. Nothing is run again:
    with several regions, energy stays and carbon, water and money change.
    """
    store = stored.opened(url)
    one = stored.loaded(store, stored.chosen(store, run_id))
    sets = stored.factor_sets(store, one.run, regions, year=year, pue=pue)
    margin = stored.margin_of(one.run)
    first, *others = (stored.summarised(one, factors, margin=margin) for factors in sets)
    if not as_json:
        basis = Basis.ATTEMPT if per_attempt else Basis.SOLVED
        console.show(*terminal.render(one.run, first, width=console.out().width, basis=basis))
        if others:
            console.show(terminal.priced((first, *others)))
    page = stored.write_page(one, first, output, elsewhere=others)
    if as_json:
        summaries = (first, *others)
        console.emit_json({"run": one.run.id, "summaries": summaries, "report": str(page)})
    console.note(f"report: {page}")
    if show_page:
        webbrowser.open(page.resolve().as_uri())
