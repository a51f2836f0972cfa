"""Fill the "measured" sections of the strategies' pages from stored results; ``--check`` compares.

    python benchmarks/strategy_pages.py [--check]

Reads ``benchmarks/results/strategies.json`` (``strategies.py`` writes it) and ``answer_cache.json``
(``answer_cache.py --json``). Writes what follows the marker line of every page in
``docs/explanation/strategies`` and the whole of ``measured.md`` there. What was not measured says
so, with the reason; no number comes from anywhere else.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lichen.acceleration import STRATEGIES

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
PAGES: Final = ROOT / "docs" / "explanation" / "strategies"
MARKER: Final = "<!-- measured: filled from benchmarks/strategies.py -->"

CACHE: Final = "answer_cache"

WIDTH: Final = 110
"""Characters in a line of text, as in the pages."""

_NO_CACHE: Final = "`python benchmarks/answer_cache.py --json` has not been run"

_HEAD: Final = (
    "Every strategy alone against plain: the same model, one request at a time, engine defaults, "
    "the whole answer. All of a run's solutions answer the same problems in interleaved blocks. A "
    "ratio below 1 is a saving. Both intervals are 95 %; *says* is what the run allows one to "
    "claim about CPU time, held to Holm's correction over all rows of the run. What strategies do "
    "together is another question: `lichen accelerate` tries combinations. This page is written "
    "by `benchmarks/strategy_pages.py`."
)

_ROW_HEAD: Final = (
    "| setting | CPU-seconds per problem, ratio | quality difference | says |",
    "|---|---|---|---|",
)


def render(
    measured: Mapping[str, Any], cache: Mapping[str, Any] | None, pages: Mapping[str, str]
) -> dict[str, str]:
    """Return the text of every page, by its name without ``.md``.

    Args:
        measured: the document of ``strategies.py``; {} if there is none.
        cache: the document of ``answer_cache.py``, None if there is none.
        pages: the strategies' pages as they are, by strategy.

    Raises:
        ValueError: a page has no marker line, or more than one.
    """
    found = {}
    for name, text in pages.items():
        if text.count(MARKER) != 1:
            raise ValueError(f"{name}.md needs the line {MARKER!r} once")
        own = _cache_section(cache) if name == CACHE else _section(name, measured)
        found[name] = f"{text.partition(MARKER)[0]}{MARKER}\n\n{own}"
    return {**found, "measured": _table(measured, cache, list(pages))}


def _section(name: str, measured: Mapping[str, Any]) -> str:
    """Return what was measured of one strategy, run by run."""
    parts = []
    for id_, run in measured.get("runs", {}).items():
        rows = [r for r in measured["rows"] if r["run"] == id_ and r["strategy"] == name]
        if rows:
            lines = [*_ROW_HEAD, *map(_row, rows)]
            parts += [_about(run), "\n".join(lines), *filter(None, map(_changed, rows))]
    if not parts:
        return f"Not measured: {_why_not(name, measured)}.\n"
    return "\n\n".join([*parts, "All strategies: [measured](measured.md)."]) + "\n"


def _table(measured: Mapping[str, Any], cache: Mapping[str, Any] | None, names: list[str]) -> str:
    parts = ["# What each strategy does alone", _text(_HEAD)]
    for id_, run in measured.get("runs", {}).items():
        rows = [r for r in measured["rows"] if r["run"] == id_]
        title = f"## {run['model']}, {run['task']} ({run['style']})"
        lines = [*_ROW_HEAD, *map(_row, rows)]
        parts += [title, _about(run), "\n".join(lines)]
    seen = {r["strategy"] for r in measured.get("rows", [])}
    missing = [
        f"- [{n}]({n}.md): not measured: {_why_not(n, measured)}" for n in names if n not in seen
    ]
    missing = [line for line in missing if not line.startswith(f"- [{CACHE}]")]
    if missing:
        parts += ["## Not measured", "\n".join(missing)]
    parts += ["## answer_cache", _cache_line(cache)]
    return "\n\n".join(parts) + "\n"


def _why_not(name: str, measured: Mapping[str, Any]) -> str:
    if not measured.get("runs"):
        return "`python benchmarks/strategies.py` has not been run"
    if name == "cascade":
        return "the command had no `--first`, the smaller model that a cascade asks first"
    return "the command left it out (`--strategies`)"


def _about(run: Mapping[str, Any]) -> str:
    """Say how a run was made and what plain did in it."""
    plain = run["plain"]
    half = "" if run["half"] == "all" else f" (the {run['half']} half)"
    said = (
        f"{run['model']}, {run['task']} in the wording *{run['style']}*, {run['problems']} "
        f"problems{half}; {run['machine']}; {run['date']}. Plain: quality "
        f"{_interval(plain['quality'])}, {_interval(plain['cpu_s_per_problem'])} CPU-seconds per "
        "problem."
    )
    notes = (_text(f"Note of the run: {note}.") for note in run["notes"])
    return "\n\n".join([_text(said), f"`{run['command']}`", *notes])


def _text(words: str) -> str:
    return textwrap.fill(words, WIDTH, break_long_words=False, break_on_hyphens=False)


def _row(row: Mapping[str, Any]) -> str:
    ratio = row["cpu_ratio"]
    name = row["strategy"]
    setting = row["setting"].replace(name, f"[{name}]({name}.md)", 1)
    cells = [setting, _interval(ratio), _interval(row["quality_difference"], sign=True)]
    return f"| {' | '.join([*cells, row['claim']])} |"


def _changed(row: Mapping[str, Any]) -> str:
    """Name the problems whose verdict changed; "" if none did."""
    said = []
    for key, what in (("lost", "solved by plain only"), ("won", "solved with it only")):
        if row[key]:
            said.append(f"{what}: {', '.join(row[key])}")
    if row["errors"]:
        first = row["errors"][0]
        said.append(f"{len(row['errors'])} failed, the first: {first['error']}")
    return f"{row['setting']}: {'; '.join(said)}." if said else ""


def _interval(value: Mapping[str, Any], *, sign: bool = False) -> str:
    if "missing" in value:
        return f"not measured: {value['missing']}"
    form = "+.3f" if sign else ".3f"
    return f"{value['value']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def _cache_section(cache: Mapping[str, Any] | None) -> str:
    """Return what the replayed trace showed: hits, tokens, and joules with their method."""
    if cache is None:
        return f"Not measured: {_NO_CACHE}.\n"
    asked = next(iter(next(iter(cache["scripted"].values())).values()))["requests"]
    how = (
        f"Replayed typing: {len(cache['files'])} files, {cache['keystrokes_per_file']} keystrokes "
        f"each, {asked} requests; {cache['machine']}; {cache['date']}."
    )
    scripted = (
        "A scripted engine foresees a share of lines from their beginning and every other line "
        "from some point on; tokens are words. How many lines are foreseen is an assumption here, "
        "not a measurement. Editors that keep proposals themselves send fewer such requests."
    )
    table = "\n".join(_scripted_rows(cache["scripted"]))
    parts = [_text(how), f"`{cache['command']}`", _text(scripted), table]
    for model, found in cache.get("real", {}).items():
        parts.append(
            _text(f"With {model}, which answers for real, on {found['requests']} requests:")
        )
        parts.append("\n".join(_real_rows(found)))
        parts.append(_text(f"{_saved(found['saved_energy'])} {_agreement(found)}"))
    return "\n\n".join(parts) + "\n"


def _scripted_rows(scripted: Mapping[str, Any]) -> list[str]:
    lines = [
        "| lines foreseen | exact only: hits | defaults: hits | tokens saved | CPU per request |",
        "|---|---|---|---|---|",
    ]
    for share, by in scripted.items():
        exact, default = by["exact only"], by["defaults"]
        cells = (
            share,
            f"{exact['hit_rate']:.1%}",
            f"{default['hit_rate']:.1%}",
            f"{default['saved_share']:.0%}",
            f"{default['cache_cpu_ms_per_request']:.1f} ms",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _real_rows(found: Mapping[str, Any]) -> list[str]:
    lines = ["| | hits | tokens computed | CPU-seconds | energy |", "|---|---|---|---|---|"]
    for name in ("plain", "cached"):
        part = found[name]
        hits = f"{part['hit_rate']:.1%}" if "hit_rate" in part else "none"
        cells = (
            name,
            hits,
            str(part["tokens_computed"]),
            _cpu(part["cpu"]),
            _energy(part["energy"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cpu(cpu: Mapping[str, Any]) -> str:
    return cpu.get("missing") or f"{cpu['value']:.1f} ({cpu['method']})"


def _energy(energy: Mapping[str, Any]) -> str:
    if "missing" in energy:
        return f"not measured: {energy['missing']}"
    return (
        f"{energy['value']:.0f} J [{energy['low']:.0f}, {energy['high']:.0f}] ({energy['method']})"
    )


def _saved(energy: Mapping[str, Any]) -> str:
    return f"Energy saved: {_energy(energy)}."


def _agreement(found: Mapping[str, Any]) -> str:
    return (
        f"Of {found['hits']} hits, {found['hits_equal']} gave the very text that the model alone "
        "gave to the same request; the others continue an earlier proposal where the model, asked "
        "again, goes on differently."
    )


def _cache_line(cache: Mapping[str, Any] | None) -> str:
    where = f"[{CACHE}]({CACHE}.md) is measured by `benchmarks/answer_cache.py` on a replayed trace"
    if cache is None:
        return _text(f"{where}. Not measured: {_NO_CACHE}.")
    rates = [by["defaults"]["hit_rate"] for by in cache["scripted"].values()]
    said = f"{where} of typing: {min(rates):.0%} to {max(rates):.0%} hits with a scripted model"
    for model, found in cache.get("real", {}).items():
        said += f", {found['cached']['hit_rate']:.0%} with {model}"
    return _text(f"{said} ({cache['date']}; `{cache['command']}`).")


def read(path: Path) -> dict[str, Any] | None:
    """Return a result, None if there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def main(words: list[str] | None = None) -> int:
    """Write or check all pages; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check = parser.parse_args(words).check
    old = {n: (PAGES / f"{n}.md").read_text(encoding="utf-8") for n in STRATEGIES}
    new = render(read(RESULTS / "strategies.json") or {}, read(RESULTS / f"{CACHE}.json"), old)
    stale = []
    for name, text in new.items():
        target = PAGES / f"{name}.md"
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        stale.append(target.name)
        if not check:
            target.write_text(text, encoding="utf-8")
    if check and stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run  python benchmarks/strategy_pages.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
