"""``lichen accelerate``: find the strategies that pay here, keep them, and prove it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click

from lichen.acceleration.candidates import RUN_EXAMPLES
from lichen.acceleration.racing import Rules
from lichen.acceleration.search import search
from lichen.acceleration.searched import Budget, Found, in_words
from lichen.acceleration.slot_screening import SlotScreening
from lichen.benchmark.summarise import StoredRun
from lichen.benchmark.tasks import facts
from lichen.catalog import Catalog
from lichen.cli import accelerate_story as story
from lichen.cli import accelerate_view as view
from lichen.cli import console
from lichen.cli.observing import Advancing
from lichen.cli.stored import summarised, write_page
from lichen.compose import acceleration as compose
from lichen.compose.build import make_catalog
from lichen.compose.candidates import Wanted, candidates, charged, planned
from lichen.compose.engine_tuning import tune_engine
from lichen.compose.rounds import Rounds, rounds_for, spent_on
from lichen.compose.settings import region as default_region
from lichen.compose.settings import store_url
from lichen.compose.solution_file import check_writable, write_solution
from lichen.compose.spec import RunSpec, load
from lichen.core.interval import Interval
from lichen.core.summary import Summary
from lichen.footprint import factor_set, relevant

_FILE = click.Path(dir_okay=False, path_type=Path)

_UNITS_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def _duration(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read seconds, or a number with s, m or h."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip())
    if found is None or float(found[1]) <= 0:
        raise click.BadParameter(
            f"{value!r} is no duration above 0 such as 90s, 10m or 1h", param=param
        )
    return float(found[1]) * _UNITS_S[found[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for, resolved."""

    spec: RunSpec
    wanted: Wanted
    rules: Rules
    budget: Budget
    fresh: bool
    target: Path
    region: str
    url: str
    page: Path | None
    no_report: bool


@click.command("accelerate")
@click.argument("file", required=False, type=_FILE, metavar="[SOLUTION.toml]")
@click.option("--model", "-m", default=None, help="Accelerate this model, plain.")
@click.option("--task", "-t", default=None, help="Task; see  lichen tasks list.")
@click.option(
    "--keep-quality",
    "margin",
    type=click.FloatRange(0, 1),
    default=None,
    help="How much worse quality may be; default: the spec's margin, 0.02.",
)
@click.option(
    "--max-latency",
    metavar="DURATION",
    callback=_duration,
    default=None,
    help="Longest wait for an answer, kept for 9 in 10.",
)
@click.option(
    "--budget",
    "seconds",
    metavar="DURATION",
    callback=_duration,
    default="1h",
    show_default=True,
    help="Time for all of it: the verification's is set aside, the search has the rest.",
)
@click.option("--output", "-o", type=_FILE, default=Path("green.toml"), show_default=True)
@click.option("--limit", "-n", type=int, default=None, help="Most problems of each half.")
@click.option(
    "--round", "size", type=click.IntRange(1), default=8, show_default=True, help="Problems a look."
)
@click.option("--draft", default="", help="Draft model: speculation with it is tried too.")
@click.option(
    "--first", default="", help="Small model, or its solution file, that a cascade asks first."
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    help="Compression recipe, by name or file: the model made by it is tried too.",
)
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Any key of the spec.")
@click.option("--region", default=None, help="Grid to price for, e.g. DNK, USA, WORLD.")
@click.option("--store", "url", default=None, help="Store URL; default: LICHEN_STORE.")
@click.option("--engine-only", is_flag=True, help="Only tune slots and threads; no task is run.")
@click.option("--fresh", is_flag=True, help="Leave aside what was searched or tuned before.")
@click.option("--report", "page", type=_FILE, default=None, help="Where to write the page.")
@click.option("--no-report", is_flag=True, help="Write no page.")
@click.option("--dry-run", is_flag=True, help="Say what would be tried and for how long.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(  # noqa: PLR0913 (one parameter per documented option)
    *,
    file: Path | None,
    model: str | None,
    task: str | None,
    margin: float | None,
    max_latency: float | None,
    seconds: float,
    output: Path,
    limit: int | None,
    size: int,
    draft: str,
    first: str,
    recipes: tuple[str, ...],
    sets: tuple[str, ...],
    region: str | None,
    url: str | None,
    engine_only: bool,
    fresh: bool,
    page: Path | None,
    no_report: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Find the strategies that pay here, keep them, and prove it.

    SOLUTION.toml (or a plain --model) is run beside candidates on the task's even problems;
    candidates that are beaten leave the race. The winner is written as a solution file and
    verified against the solution on the odd problems. The same command goes on where it was
    stopped; --fresh starts anew.
    """
    flags = {"task.name": task, "task.limit": limit, "margin": margin}
    spec = load([file] if file else [], models=[model] if model else [], flags=flags, sets=sets)
    for path in (output, _unproven(output)):
        check_writable(path)
    wish = Wish(
        spec=spec,
        wanted=Wanted(
            barred=_barred(spec),
            draft=draft,
            first=first,
            recipes=recipes,
            latency=max_latency is not None,
            seconds=seconds,
        ),
        rules=Rules(margin=spec.margin, max_latency_s=max_latency),
        budget=Budget(seconds=seconds, problems_per_round=size),
        fresh=fresh,
        target=output,
        region=region or default_region(),
        url=url or store_url(),
        page=page,
        no_report=no_report,
    )
    catalog = make_catalog(console.download_progress())
    if engine_only:
        _engine_only(wish, catalog, dry_run=dry_run, as_json=as_json)
        return
    both = compose.halves(spec, catalog)
    wish = replace(
        wish, budget=replace(wish.budget, proof=len(both.verification) * wish.spec.samples)
    )
    if dry_run:
        _plan(wish, catalog, both, as_json=as_json)
        return
    with rounds_for(spec, store_url=wish.url, catalog=catalog, fresh=fresh) as rounds:
        _accelerate(wish, rounds, both, as_json=as_json)


def _plan(wish: Wish, catalog: Catalog, both: compose.Halves, *, as_json: bool) -> None:
    choices, slots = planned(wish.spec, catalog, both, wish.wanted)
    plan = view.plan(choices, slots, wish.rules, wish.budget, both)
    console.emit_json(plan) if as_json else view.show_plan(plan)


def _barred(spec: RunSpec) -> frozenset[str]:
    """Return the strategies that are not tried on this task, and say why."""
    known = facts(spec.task.name)
    if known is not None and known.self_check_is_oracle:
        console.note(
            f"the questions of {spec.task.name} show the tests that decide: strategies that run a "
            f"question's examples are not tried ({', '.join(sorted(RUN_EXAMPLES))})"
        )
        return RUN_EXAMPLES
    return frozenset()


def _accelerate(wish: Wish, rounds: Rounds, both: compose.Halves, *, as_json: bool) -> None:
    found, screening = _searched(wish, rounds, both)
    if not found.best:
        if as_json:
            console.emit_json({"search": found, "slots": screening, "written": ""})
        else:
            view.show_search(found, screening)
            view.show_nothing(found)
        return
    base = compose.base_of(wish.spec)
    green = compose.solution_of(base, found.best, compose.GREEN)
    remarks = view.remarks(found, wish.spec)
    unproven = _unproven(wish.target)
    write_solution(unproven, green, [*remarks, "Not verified."])
    if not as_json:
        view.show_search(found, screening)
    stored, summary = _verified(wish, rounds, both, found)
    kept = _kept(summary, wish.rules.margin)
    if kept:
        write_solution(wish.target, green, [*remarks, *view.verdict(stored, summary)])
    unproven.unlink(missing_ok=True)
    bill = story.Bill.of(found, summary, spent_on(stored))
    told = story.sentences(found, bill)
    page = _written_page(wish, rounds, stored, summary, told)
    if as_json:
        document = {"search": found, "slots": screening, "verification": summary}
        written = {"written": str(wish.target) if kept else "", "report": str(page or "")}
        console.emit_json({**document, "run": stored.run.id, "bill": bill, **written})
        return
    run = replace(stored.run, notes=story.told_before(stored.run.notes, told))
    summary = replace(summary, notes=story.told_before(summary.notes, told))
    view.show_verification(run, summary, bill)
    if page is not None:
        console.note(f"report: {page}")
    if kept:
        console.note(f"written: {wish.target}{story.doubt(_quality(summary), wish.rules.margin)}")
    else:
        console.note(
            "its quality is lower than --keep-quality allows on problems that the search had not "
            f"seen, so {wish.target} was not written"
        )


def _searched(
    wish: Wish, rounds: Rounds, both: compose.Halves
) -> tuple[Found, SlotScreening | None]:
    with _shares("search", wish.budget.seconds) as progress:
        progress("slots, on the engine alone", 0.0)
        choices, screening = candidates(rounds, wish.spec, both, wish.wanted)
        # A round with fewer problems than slots could not show what the slots save.
        slots = [v for c in choices for k, v in c.options if k == "slots" and isinstance(v, int)]
        size = max([wish.budget.problems_per_round, *slots])
        found = search(
            compose.BenchmarkEvaluate(spec=wish.spec, rounds=rounds),
            choices,
            both.calibration,
            rules=wish.rules,
            budget=replace(wish.budget, problems_per_round=size),
            seed=wish.spec.seed,
            before=charged(screening),
            progress=progress,
        )
    return found, screening


def _unproven(target: Path) -> Path:
    """Return where the winner is kept until it is verified, in case that is interrupted."""
    return target.with_name(f"{target.stem}.unverified.toml")


def _verified(
    wish: Wish, rounds: Rounds, both: compose.Halves, found: Found
) -> tuple[StoredRun, Summary]:
    """Run plain against green on the other half; with ablation rows if that fits the budget."""
    left_s = wish.budget.seconds - found.spent_s
    ablation = view.verification_s(found, wish.budget.proof) <= left_s
    proof = compose.verification(wish.spec, found.best, both.verification, ablation=ablation)
    total = len(both.verification) * proof.samples * len(proof.solutions)
    console.note(f"verifying on {len(both.verification)} other problems: {total} attempts")
    with console.progress("verify", total) as advance:
        stored = rounds.prove(proof, fresh=wish.fresh, observer=Advancing(advance))
    factors = relevant(factor_set(wish.region))
    return stored, summarised(stored, factors, margin=wish.rules.margin)


def _written_page(
    wish: Wish, rounds: Rounds, stored: StoredRun, summary: Summary, told: Sequence[str]
) -> Path | None:
    """Keep the story of the search with the verification's run, and write the page of both."""
    rounds.ground.store.finish_run(
        stored.run.id, stored.run.state, story.told_before(told, stored.run.notes)
    )
    if wish.no_report:
        return None
    notes = tuple(dict.fromkeys((*stored.run.notes, *told)))
    whole = replace(stored, run=replace(stored.run, notes=notes))
    return write_page(whole, summary, wish.page)


def _kept(summary: Summary, margin: float) -> bool:
    """Whether verification left the promise standing: quality is not shown to be lower."""
    return _quality(summary).high >= -margin


def _quality(summary: Summary) -> Interval:
    return next(c for c in summary.comparisons if c.b == compose.GREEN).quality_difference


def _engine_only(wish: Wish, catalog: Catalog, *, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        text = "slots, threads, threads_batch, ubatch and batch, one after the other"
        plan = {"tries": text, "at_most_s": wish.budget.seconds}
        console.emit_json(plan) if as_json else console.note(
            f"would race {text}, for at most {in_words(wish.budget.seconds)}"
        )
        return
    with _shares("tune", wish.budget.seconds) as progress:
        tuned = tune_engine(
            wish.spec,
            catalog,
            budget_s=wish.budget.seconds,
            max_latency_s=wish.rules.max_latency_s,
            fresh=wish.fresh,
            progress=progress,
        )
    write_solution(wish.target, tuned.solution, ["Tuned for this machine; no task was run."])
    if as_json:
        console.emit_json(
            {"tuning": tuned.tuning, "stored": tuned.stored, "written": str(wish.target)}
        )
        return
    view.show_tuning(tuned.tuning, stored=tuned.stored)
    console.note(f"written: {wish.target}")


@contextmanager
def _shares(label: str, seconds: float) -> Iterator[Callable[[str, float], None]]:
    """Show a bar that is told the share of the budget used so far."""
    with console.progress(label, seconds) as advance:
        done = 0.0

        def progress(what: str, share: float) -> None:
            nonlocal done
            advance((share - done) * seconds, what)
            done = share

        yield progress
