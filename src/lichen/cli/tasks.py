"""``lichen tasks``: list tasks and their data sets; score stored samples without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lichen.cli import console

if TYPE_CHECKING:
    from lichen.benchmark.stored import StoredScores

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


@click.group("tasks")
def command() -> None:
    """List tasks and their data sets; score stored samples."""


@command.command("list")
@_JSON
def list_tasks(as_json: bool) -> None:
    """List the tasks: what they measure, on which data, and what a solution must be able to do."""
    rows = _facts()
    if as_json:
        console.emit_json(rows)
        return
    shown = ("task", "metric", "data", "licence", "needs")
    console.table(
        "Tasks",
        list(shown),
        [[console.plain(row[column]) for column in shown] for row in rows],
        caption="Styles and options: lichen tasks list --json, docs/reference/tasks.md",
    )


@command.command("score")
@click.argument("samples", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--task", "name", default="humaneval", show_default=True, help="Task of the samples.")
@click.option("--data", default=None, help="Data set: a name, a path or an address.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Programs judged at a time.")
@click.option("--unsafe-sandbox", is_flag=True, help="Run even where programs cannot be contained.")
@_JSON
def score(
    samples: Path,
    name: str,
    data: str | None,
    workers: int | None,
    unsafe_sandbox: bool,
    as_json: bool,
) -> None:
    """Score SAMPLES (JSON Lines) without a model.

    Rows are {task_id, solution} as evalplus writes them or {task_id, completion} as human-eval
    does; each is run as its own scorer would. The reference solutions run first.
    """
    from lichen.benchmark.stored import score_samples
    from lichen.benchmark.tasks import DATA_SETS, facts
    from lichen.compose.build import make_catalog, make_task
    from lichen.compose.spec import TaskSpec
    from lichen.core.errors import ConfigError
    from lichen.sandbox import open_sandbox

    known = facts(name)
    if name not in DATA_SETS:
        raise ConfigError(
            f"samples of the task {name!r} are no programs: use one of {', '.join(DATA_SETS)}"
        )
    # the samples say which problems they are of, so no split is left out
    options = {"split": "all"} if known is not None and "split" in known.options else {}
    sandbox = open_sandbox(workers=workers, unsafe=unsafe_sandbox)
    try:
        task = make_task(TaskSpec(name=name, data=data, options=options), make_catalog(), sandbox)
        with console.progress("judging", None) as advance:
            result = score_samples(task, samples, advance=lambda n: advance(n, ""))
    finally:
        sandbox.close()
    if as_json:
        console.emit_json(result)
    else:
        _print(result)


def _facts() -> list[dict[str, Any]]:
    from lichen.benchmark.tasks import DATA_SETS, TASKS, facts
    from lichen.catalog.entries import builtin_entries

    licences = {e.name: e.licence for e in builtin_entries()}
    rows: list[dict[str, Any]] = []
    for name in TASKS.names():
        data = DATA_SETS.get(name, "")
        known = facts(name)
        rows.append(
            {
                "task": name,
                "metric": known.metric if known else "not stated",
                "data": data or "git repository",
                "licence": licences.get(data, "not stated") if data else "its own",
                "needs": _needs(name),
                "styles": [s.name for s in known.styles] if known else [],
                "options": list(known.options) if known else [],
            }
        )
    return rows


def _needs(name: str) -> str:
    from lichen.benchmark.tasks import facts

    known = facts(name)
    if known is None:
        return "not stated"
    if known.either:
        return " or ".join(sorted(known.either))
    return ", ".join(sorted(known.needs))


def _print(result: StoredScores) -> None:
    rows = [
        ["problems", f"{result.problems} ({result.unanswered} of the task without a sample)"],
        ["samples", str(len(result.samples))],
        *(
            [f"pass@{k}", f"{v.value:.3f}  [{v.low:.3f}, {v.high:.3f}]"]
            for k, v in result.pass_at_k
        ),
        *([console.plain(kind), str(n)] for kind, n in result.verdicts),
        ["references", f"{result.oracle.passed} of {result.oracle.problems} pass"],
    ]
    title = f"{result.task} {result.task_version}, data {result.data_sha256[:12]}"
    console.table(console.plain(title), ["", ""], rows)
    for problem, why in result.oracle.failures:
        console.note(f"the reference of {problem} does not pass: {why}")
