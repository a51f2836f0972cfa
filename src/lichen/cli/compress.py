"""``lichen compress``: a smaller, cheaper model, and proof that it is still the same for code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from lichen.cli import compress_view as view
from lichen.cli import console
from lichen.compose import compression as compose
from lichen.compose import compression_search as searching
from lichen.compose import making
from lichen.compose.build import make_catalog
from lichen.compose.settings import store_url
from lichen.compose.spec import RunSpec, load
from lichen.compression.applying import apply_recipe, methods_of
from lichen.compression.corpus import open_corpus
from lichen.compression.gate import Level
from lichen.compression.method import predict
from lichen.compression.model_file import open_model
from lichen.compression.recipe import Recipe
from lichen.compression.searched import Budget
from lichen.core.model import ModelArtifact
from lichen.core.units import J_PER_WH, S_PER_HOUR

_FILE = click.Path(dir_okay=False, path_type=Path)

_UNITS: Final = {
    "": (1.0, "seconds"),
    "s": (1.0, "seconds"),
    "m": (60.0, "seconds"),
    "h": (S_PER_HOUR, "seconds"),
    "Wh": (J_PER_WH, "joules"),
    "kWh": (1000 * J_PER_WH, "joules"),
    "J": (1.0, "joules"),
}
"""Unit of a budget -> (factor, field of ``Budget``)."""

NOT_BETTER: Final = 1
"""Exit code when the gate failed; that a search found nothing better is no failure."""


def _budget(_ctx: click.Context, param: click.Parameter, value: str) -> Budget:
    """Read seconds, a number with s, m or h, or an energy in J, Wh or kWh."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value.strip())
    if found is None or found[2] not in _UNITS or not float(found[1]) > 0:
        raise click.BadParameter(f"{value!r} is no budget such as 30m, 1h or 5Wh", param=param)
    factor, name = _UNITS[found[2]]
    return Budget(**{name: float(found[1]) * factor})


def _size(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a size such as 300MB."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(kB|MB|GB|)", value.strip(), re.IGNORECASE)
    if found is None or not float(found[1]) > 0:
        raise click.BadParameter(f"{value!r} is no size such as 300MB", param=param)
    return int(float(found[1]) * {"": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9}[found[2].lower()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for, resolved."""

    spec: RunSpec
    source: ModelArtifact
    out: Path
    task: bool
    level: Level
    wanted: making.Wanted
    as_json: bool


@click.command("compress")
@click.argument("model")
@click.option("--recipe", "-r", default=None, help="Recipe file, or the name of a shipped one.")
@click.option(
    "--out", "-o", type=_FILE, default=None, help="The new file; default: MODEL-small.gguf."
)
@click.option(
    "--gate",
    "level",
    type=click.Choice([str(x) for x in Level]),
    default="normal",
    show_default=True,
    help="How strict the comparison with MODEL is; report stops nothing.",
)
@click.option(
    "--budget",
    metavar="LIMIT",
    callback=_budget,
    default="30m",
    show_default=True,
    help="Time (30m) or energy (5Wh) that a search may use.",
)
@click.option("--max-size", callback=_size, default=None, help="Largest file, e.g. 300MB.")
@click.option("--task", "-t", default=None, help="Task for the gate; see  lichen tasks list.")
@click.option("--half", type=click.Choice(["all", "even", "odd"]), default=None, help="Problems.")
@click.option("--limit", "-n", type=int, default=None, help="Most problems.")
@click.option(
    "--corpus",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Your code, to choose tokens and importance by; default: what Python has installed.",
)
@click.option(
    "--importance",
    default="measure",
    show_default=True,
    metavar="measure|none|FILE",
    help="Importance matrix: measured on the corpus, none, or a file of llama.cpp.",
)
@click.option("--candidates", type=click.IntRange(1), default=8, show_default=True, help="Tried.")
@click.option("--random", type=click.IntRange(0), default=2, show_default=True, help="Baseline.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Any key of the spec.")
@click.option("--store", "url", default=None, help="Store URL; default: LICHEN_STORE.")
@click.option("--dry-run", is_flag=True, help="Say what would come out, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(  # noqa: PLR0913 (one parameter per documented option)
    *,
    model: str,
    recipe: str | None,
    out: Path | None,
    level: str,
    budget: Budget,
    max_size: int | None,
    task: str | None,
    half: str | None,
    limit: int | None,
    corpus: tuple[Path, ...],
    importance: str,
    candidates: int,
    random: int,
    sets: tuple[str, ...],
    url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make MODEL smaller and cheaper, and prove that it is still the same model.

    With a recipe: apply it and hold the result against MODEL. Without one: search for the cheapest
    recipe that the gate lets through, under the budget. A file that fails the gate is kept, and the
    command then exits with 1.
    """
    flags = {"task.name": task, "task.half": half, "task.limit": limit}
    spec = load([], models=[model], flags=flags, sets=sets)
    made = making.find_recipe(recipe) if recipe is not None else None
    if made is not None:
        methods_of(made)  # a mistake in an option is said before anything is fetched
    catalog = make_catalog(console.download_progress())
    source = catalog.model(model)
    target = out or Path(f"{Path(source.path).stem}-small.gguf")
    if not dry_run:
        making.check_target(target, Path(source.path))
    with _measuring("importance") as progress, _measuring("how inputs vary together") as reading:
        wish = Wish(
            spec=spec,
            source=source,
            out=target,
            task=task is not None,
            level=Level(level),
            wanted=making.Wanted(
                corpus=corpus,
                importance=making.importance_from(importance, progress),
                reading=reading,
                note=console.note,
            ),
            as_json=as_json,
        )
        judging = compose.Judging(catalog=catalog, store_url=url or store_url())
        if made is not None:
            _with_recipe(wish, made, judging, dry_run=dry_run)
            return
        limits = searching.Limits(
            budget=budget, most_bytes=max_size, candidates=candidates, random=random
        )
        _search(wish, limits, judging, dry_run=dry_run)


def _with_recipe(wish: Wish, recipe: Recipe, judging: compose.Judging, *, dry_run: bool) -> None:
    source = Path(wish.source.path)
    before = predict(open_model(source))
    if dry_run:
        methods = making.methods_in(recipe, writing=False)
        context = making.context_of(wish.source, methods, wish.wanted)
        after = predict(apply_recipe(open_model(source), recipe, context))
        plan = {"before": before, "after": after, "recipe": recipe.to_toml()}
        console.emit_json(plan) if wish.as_json else view.show_prediction(before, after)
        return
    with console.progress(f"writing {wish.out}", None) as advance:
        artifact, context = making.made(wish.source, recipe, wish.out, wish.wanted, _bytes(advance))
    held_out = (context.corpus or open_corpus(wish.wanted.corpus)).held_out
    verdict = judging.verdict(wish.spec, wish.level, wish.out, held_out, task=wish.task)
    after = predict(open_model(wish.out))
    bill = view.Payback.of(artifact.cost, verdict)
    if wish.as_json:
        console.emit_json(
            {
                "artifact": artifact,
                "before": before,
                "after": after,
                "gate": verdict.report,
                "passed": verdict.report.passed,
                "payback": bill,
            }
        )
    else:
        view.show_result(before, after, verdict, bill)
        console.note(f"written: {wish.out}  (SHA-256 {artifact.sha256})")
    if not verdict.report.passed:
        console.note(f"{verdict.report.sentence}; the file is kept")
        raise click.exceptions.Exit(NOT_BETTER)


def _search(
    wish: Wish, limits: searching.Limits, judging: compose.Judging, *, dry_run: bool
) -> None:
    plan = searching.plan_search(wish.source, wish.wanted, limits, console.note)
    if dry_run:
        if wish.as_json:
            console.emit_json({"parent": plan.parent, "candidates": plan.candidates})
        else:
            view.show_plan(plan, limits)
        return
    target = searching.SearchTarget(spec=wish.spec, level=wish.level, out=wish.out, task=wish.task)
    with _shares("search") as progress:
        found, written = searching.run_search(plan, limits, judging, target, progress)
    if wish.as_json:
        console.emit_json({"search": found, "written": written})
        return
    view.show_search(found, wish.source)
    if written is None:
        console.note("nothing better found: keep the model as it is; no file was written")
    else:
        console.note(f"written: {wish.out}  (SHA-256 {written.sha256})")


@contextmanager
def _measuring(what: str) -> Iterator[Callable[[int, int], None]]:
    """Say how far a measurement on texts is, once it begins."""
    shown = -1

    def report(done: int, total: int) -> None:
        nonlocal shown
        tenth = 10 * done // max(total, 1)
        if tenth > shown:
            shown = tenth
            console.note(f"measuring {what}: {done:,} of {total:,} tokens")

    yield report


def _bytes(advance: Callable[[float, str], None]) -> Callable[[int, int], None]:
    """Turn (bytes done, bytes in all) into steps of a bar without a total."""
    last = 0

    def report(done: int, _total: int) -> None:
        nonlocal last
        advance(done - last, f"{done / 1e6:,.0f} MB")
        last = done

    return report


@contextmanager
def _shares(label: str) -> Iterator[Callable[[str, float], None]]:
    """Show a bar that is told the share of the budget used so far."""
    with console.progress(label, 1.0) as advance:
        done = 0.0

        def progress(what: str, share: float) -> None:
            nonlocal done
            advance(max(share - done, 0.0), what)
            done = max(share, done)

        yield progress
