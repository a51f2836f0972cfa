"""Each strategy alone against plain, same model, all interleaved in one stored run.

    python benchmarks/strategies.py --model qwen2.5-coder-1.5b --first qwen2.5-coder-0.5b
    python benchmarks/strategies.py --model smollm2-135m --problems 3 --strategies answer_prefix
    python benchmarks/strategies.py --from-run 20260101-120000-abcd1234

Plain is the model as it comes: one request at a time, engine defaults, the whole answer. Beside it
runs every row of the search's own table of strategies, and with ``--first`` a cascade that asks
that smaller model first. The run is a usual one: the same command takes an interrupted one up
again, and ``lichen report`` shows it. All models stay loaded, so memory bounds how many strategies
can be compared at once; ``--strategies`` splits the work.

The result goes to ``benchmarks/results/strategies.json``: a setting that was measured again
replaces its old row, others stay. ``strategy_pages.py`` then fills the documentation; call that
script alone to do only this, or with ``--check`` to see whether the pages are up to date.

The answer cache is not here: a benchmark never asks twice. ``answer_cache.py`` replays typing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import strategy_pages

from lichen.acceleration.candidates import EXITS, Choice, default_candidates
from lichen.acceleration.strategies import early_exit
from lichen.benchmark.run import run as run_benchmark
from lichen.benchmark.summarise import StoredRun, summarise
from lichen.compose.acceleration import PLAIN, base_of, solution_of
from lichen.compose.build import EXITS_EARLY, make_catalog, workbench
from lichen.compose.settings import store_url
from lichen.compose.spec import RunSpec, load
from lichen.core.errors import ConfigError, LichenError
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.record import SampleRecord, SolutionRecord
from lichen.core.summary import Comparison, CostRatio, Dimension
from lichen.footprint import factor_set, relevant
from lichen.store import open_store

SLOTS: Final = (4, 8)
"""Settings of ``concurrency``: the search's own follow from the free CPUs, a table's must not."""

RESULTS: Final = strategy_pages.RESULTS / "strategies.json"


class Said:
    """Tells on stderr how the run goes."""

    def __init__(self, attempts: int) -> None:
        self._attempts, self._done = attempts, 0

    def stage(self, text: str) -> None:
        """Say what begins."""
        sys.stderr.write(f"{text}\n")

    def advanced(self, attempts: int, text: str) -> None:
        """Say how far it is."""
        self._done += attempts
        sys.stderr.write(f"{self._done}/{self._attempts} {text}\n")


def chosen(
    names: Sequence[str], *, draft: str = "", first: str = "", exits: bool = False
) -> tuple[Choice, ...]:
    """Return the settings to measure, those of ``names`` only if there are any.

    Raises:
        ConfigError: one of the names is no strategy that can be measured in this way.
    """
    slots = [Choice(strategy="concurrency", options=(("slots", n),)) for n in SLOTS]
    firsts = [first] if first else []
    choices = default_candidates(slots=slots, draft=draft, firsts=firsts, exits=exits)
    if exits:
        idle = [(("controller", c), ("threshold", early_exit.NEVER)) for c, _ in EXITS]
        choices = (*choices, *(Choice(strategy="early_exit", options=o) for o in idle))
    missing = set(names) - {c.strategy for c in choices}
    if missing:
        known = ", ".join(dict.fromkeys(c.strategy for c in choices))
        raise ConfigError(
            f"--strategies: {min(missing)!r} is not among {known}; "
            "a cascade needs --first, and the answer cache has a benchmark of its own"
        )
    return tuple(c for c in choices if not names or c.strategy in names)


def spec_of(given: argparse.Namespace) -> RunSpec:
    """Return the run: plain, then every setting alone."""
    flags = {"task.limit": given.problems, "task.half": given.half, "task.style": given.style}
    spec = load([], models=[given.model], flags=flags, sets=given.sets)
    base = base_of(spec)
    choices = chosen(
        given.strategies or (),
        draft=given.draft,
        first=given.first,
        exits=base.engine.name in EXITS_EARLY,
    )
    solutions = [base.model_copy(update={"name": PLAIN})]
    solutions += [solution_of(base, (c,), c.label) for c in choices]
    return spec.model_copy(update={"solutions": tuple(solutions)})


def measured(spec: RunSpec, *, fresh: bool) -> StoredRun:
    """Run a spec, or the rest of it, and return its records."""
    with workbench(spec, store_url=store_url(), catalog=make_catalog(), fresh=fresh) as bench:
        attempts = len(bench.head.problem_ids) * spec.samples * len(bench.solutions)
        sys.stderr.write(f"{'resuming' if bench.resume else 'run'} {bench.head.id}\n")
        done = run_benchmark(
            bench.head,
            bench.solutions,
            bench.task,
            plan=bench.plan,
            meter=bench.meter,
            sink=bench.store,
            observer=Said(attempts),
            resume=bench.resume,
        )
        return StoredRun(
            run=done, samples=bench.store.samples(done.id), blocks=bench.store.blocks(done.id)
        )


def stored(run_id: str) -> StoredRun:
    """Return the records of a run that was made before."""
    store = open_store(store_url())
    try:
        return StoredRun(
            run=store.run(run_id), samples=store.samples(run_id), blocks=store.blocks(run_id)
        )
    finally:
        store.close()


def results(found: StoredRun, command: str) -> dict[str, Any]:
    """Return what a run showed: how it was made, and one row per setting."""
    summary = summarise(found.run, found.samples, found.blocks, relevant(factor_set("WORLD")))
    plain = summary.solutions[0]
    made_of = {s.name: s for s in found.run.solutions}
    return {
        "run": {
            "id": found.run.id,
            "command": command,
            "date": found.run.created_at[:10],
            "model": _model(made_of[PLAIN]),
            "task": found.run.task,
            "style": found.run.prompt_style,
            "half": json.loads(found.run.spec)["task"]["half"],
            "problems": plain.problems,
            "machine": strategy_pages.machine(found.run.environment),
            "notes": list(found.run.notes),
            "plain": {
                "quality": _three(plain.quality),
                "cpu_s_per_problem": _three(plain.cost(Dimension.CPU_TIME).per_attempt),
                "tokens": plain.completion_tokens,
            },
        },
        "rows": [
            {
                "strategy": dict(made_of[c.b].settings)["strategies.0"],
                "setting": c.b,
                "tokens": s.completion_tokens,
                **_compared(c, found.samples),
            }
            for c, s in zip(summary.comparisons, summary.solutions[1:], strict=True)
        ],
    }


def _compared(c: Comparison, samples: Sequence[SampleRecord]) -> dict[str, Any]:
    cpu = next(r for r in c.ratios if r.dimension is Dimension.CPU_TIME)
    solved = {(s.solution, s.problem_id) for s in samples if s.score.solved}
    problems = list(dict.fromkeys(s.problem_id for s in samples))
    a, b = ([(name, p) in solved for p in problems] for name in (c.a, c.b))
    return {
        "cpu_ratio": _ratio(cpu),
        "claim": cpu.claim.value,
        "quality_difference": _three(c.quality_difference),
        "lost": [p for p, was, now in zip(problems, a, b, strict=True) if was and not now],
        "won": [p for p, was, now in zip(problems, a, b, strict=True) if now and not was],
        "errors": [
            {"problem": s.problem_id, "error": s.error}
            for s in samples
            if s.solution == c.b and s.error
        ],
    }


def _ratio(ratio: CostRatio) -> dict[str, Any]:
    found = ratio.per_attempt
    return {"missing": found.reason} if isinstance(found, Missing) else _three(found)


def _three(value: Interval | Missing) -> dict[str, Any]:
    if isinstance(value, Missing):
        return {"missing": value.reason}
    return {k: round(getattr(value, k), 4) for k in ("low", "value", "high")}


def _model(solution: SolutionRecord) -> str:
    return solution.model.name if solution.model is not None else "unknown"


def command_of(given: argparse.Namespace) -> str:
    """Return the command that measures this again."""
    words = ["python", "benchmarks/strategies.py", "--model", given.model]
    plain = {"problems": None, "half": "all", "style": None, "first": "", "draft": ""}
    for name, default in plain.items():
        value = getattr(given, name)
        words += [f"--{name}", str(value)] if value != default else []
    words += ["--strategies", *given.strategies] if given.strategies else []
    words += [w for s in given.sets for w in ("--set", s)]
    return shlex.join(words)


def merged(document: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Put a run's rows in the place of older ones of the same setting, and drop empty runs."""
    runs = {**document.get("runs", {}), new["run"]["id"]: new["run"]}

    def key(row: dict[str, Any]) -> tuple[str, ...]:
        run = runs[row["run"]]
        return (*(run[k] for k in ("model", "task", "style", "half")), row["setting"])

    rows = {key(r): r for r in document.get("rows", [])}
    rows |= {key(r): r for r in ({"run": new["run"]["id"], **row} for row in new["rows"])}
    used = {r["run"] for r in rows.values()}
    return {
        "runs": {i: r for i, r in runs.items() if i in used},
        "rows": list(rows.values()),
    }


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--problems", type=int, help="so many, spread evenly; default: all")
    parser.add_argument("--half", choices=("all", "even", "odd"), default="all")
    parser.add_argument("--strategies", nargs="+", help="only these; default: all")
    parser.add_argument("--style", help="how the task words its question; default: the task's")
    parser.add_argument("--first", default="", help="smaller model for a cascade")
    parser.add_argument("--draft", default="", help="draft model for speculation")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--fresh", action="store_true", help="take no interrupted run up again")
    parser.add_argument("--from-run", help="read this stored run instead of making one")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the result goes")
    return parser.parse_args()


def main() -> int:
    """Run, write the result, fill the pages if the result is the documentation's."""
    given = arguments()
    try:
        if given.from_run:
            found, command = stored(given.from_run), f"(stored run {given.from_run})"
        else:
            found, command = measured(spec_of(given), fresh=given.fresh), command_of(given)
    except LichenError as exc:
        sys.stderr.write(f"{exc}\n")
        return exc.exit_code
    old = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else {}
    document = merged(old, results(found, command))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"result: {given.json}\n")
    return strategy_pages.main([]) if given.json == RESULTS else 0


if __name__ == "__main__":
    sys.exit(main())
