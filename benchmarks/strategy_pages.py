"""Fill the "measured" sections of the strategies' pages from stored results; ``--check`` compares.

    python benchmarks/strategy_pages.py [--check]

Reads from ``benchmarks/results`` what ``strategies.py`` and, with ``--write``, ``speculation.py``,
``answer_cache.py`` and ``stop_replay.py`` put there. Writes what follows the marker line of every
page in ``docs/explanation/strategies`` and the whole of ``measured.md`` there. What was not
measured says so, with the reason; no number comes from anywhere else.
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
from lichen.core.record import Environment
from lichen.meter.environment import capture

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
PAGES: Final = ROOT / "docs" / "explanation" / "strategies"
MARKER: Final = "<!-- measured: filled from benchmarks/strategies.py -->"

CACHE: Final = "answer_cache"

WIDTH: Final = 110
"""Characters in a line of text, as in the pages."""

_NO_CACHE: Final = "`python benchmarks/answer_cache.py --write` has not been run"

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


def render(results: Mapping[str, Mapping[str, Any]], pages: Mapping[str, str]) -> dict[str, str]:
    """Return the text of every page, by its name without ``.md``.

    Args:
        results: the documents that the scripts wrote, by script; one that is not there is missing.
        pages: the strategies' pages as they are, by strategy.

    Raises:
        ValueError: a page has no marker line, or more than one.
    """
    measured, cache = results.get("strategies", {}), results.get(CACHE, {})
    found = {}
    for name, text in pages.items():
        if text.count(MARKER) != 1:
            raise ValueError(f"{name}.md needs the line {MARKER!r} once")
        own = _cache_section(cache) if name == CACHE else _section(name, measured)
        if name == "speculation":
            own += "".join(map(_equality, results.get("speculation", {}).items()))
        if name == "stop_when_complete":
            own += "".join(map(_verdicts, results.get("stop_replay", {}).values()))
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


def _table(measured: Mapping[str, Any], cache: Mapping[str, Any], names: list[str]) -> str:
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
    said = (
        f"{run['model']}, {run['task']} in the wording *{run['style']}*, {run['problems']} "
        f"problems{_half(run)}; {run['machine']}; {run['date']}. Plain: quality "
        f"{_interval(plain['quality'])}, {_interval(plain['cpu_s_per_problem'])} CPU-seconds per "
        "problem."
    )
    notes = (_text(f"Note of the run: {note}.") for note in run["notes"])
    return "\n\n".join([_text(said), f"`{run['command']}`", *notes])


def _half(run: Mapping[str, Any]) -> str:
    """Name the half of the problems that a run was on, "" for all of them."""
    return "" if run["half"] == "all" else f" (the {run['half']} half)"


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


def _equality(item: tuple[str, Mapping[str, Any]]) -> str:
    """Say whether speculation said what the model says, and what it cost."""
    who, found = item
    cpu = found["cpu_per_token_ratio"]
    said = (
        f"Greedy equality, {who}, {found['settings']['max_tokens']} tokens at most: of "
        f"{found['prompts']} answers {found['identical']} are the same token by token, "
        f"{found['different_but_near_tie']} part at a near-tie (at most "
        f"{found['near_tie_nats']} nats), {len(found['unexplained'])} differ for no such reason. "
        f"Share of answer tokens that were accepted drafts: {found['accepted_share_of_tokens']}. "
        f"CPU-seconds per token, ratio to plain: {cpu['value']} [{cpu['low']}, {cpu['high']}] "
        f"(90 %). {found['machine']}; {found['date']}."
    )
    return f"\n{_text(said)}\n\n`{found['command']}`\n"


def _verdicts(found: Mapping[str, Any]) -> str:
    """Say which verdicts stopping changes, from a replay over whole answers."""
    lost, won = (", ".join(found[key]) or "none" for key in ("lost", "won"))
    share = found["characters_not_written"] / found["characters"] if found["characters"] else 0.0
    out = f" {found['not_whole']} more were not whole." if found["not_whole"] else ""
    said = (
        f"Verdicts, replayed over {found['answers']} whole answers of {found['model']}, "
        f"{found['task']} in the wording *{found['style']}*{_half(found)}: "
        f"{found['stopped']} would have been stopped, {share:.0%} of the characters not written; "
        f"{found['solved_whole']} solved whole, {found['solved_kept']} as kept. "
        f"Pass to fail: {lost}. Fail to pass: {won}.{out} Answers of {found['date']}."
    )
    return f"\n{_text(said)}\n\n`{found['command']}`\n"


def _cache_section(cache: Mapping[str, Any]) -> str:
    """Return what the replayed trace showed: hits, tokens, and joules with their method."""
    parts = [part for found in cache.values() for part in _replayed(found)]
    return "\n\n".join(parts or [f"Not measured: {_NO_CACHE}."]) + "\n"


def _replayed(cache: Mapping[str, Any]) -> list[str]:
    asked = next(iter(next(iter(cache["scripted"].values())).values()))["requests"]
    how = (
        f"Replayed typing: {len(cache['files'])} of this repository's files as they were, "
        f"{cache['keystrokes_per_file']} keystrokes each, {asked} requests; "
        f"{cache['machine']}, load average at the start "
        f"{cache['load_average']}; {cache['date']}."
    )
    scripted = (
        "A scripted engine foresees a share of lines from their beginning and every other line "
        "from some point on; tokens are words. How many lines are foreseen is an assumption here, "
        "not a measurement. Editors that keep proposals themselves send fewer such requests."
    )
    table = "\n".join(_scripted_rows(cache["scripted"]))
    parts = [_text(how), f"`{cache['command']}`", _text(scripted), table]
    if "real" not in cache:
        parts.append("Energy saved: not measured: the command had no `--model`.")
    for model, found in cache.get("real", {}).items():
        parts.append(
            _text(f"With {model}, which answers for real, on {found['requests']} requests:")
        )
        parts.append("\n".join(_real_rows(found)))
        parts.append(_text(f"{_saved(found['saved_energy'])} {_agreement(found)}"))
    return parts


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
        f"Of {found['hits']} hits, {found['hits_agree']} gave what the model alone said to the "
        "same request, as far as the hit goes; the others continue an earlier proposal where the "
        "model, asked again, goes on differently."
    )


def _cache_line(cache: Mapping[str, Any]) -> str:
    said = f"[{CACHE}]({CACHE}.md) is measured by `benchmarks/answer_cache.py` on a replayed trace"
    if not cache:
        return _text(f"{said}. Not measured: {_NO_CACHE}.")
    (found,) = cache.values()
    rates = [by["defaults"]["hit_rate"] for by in found["scripted"].values()]
    said += f" of typing: {min(rates):.0%} to {max(rates):.0%} hits with a scripted model"
    for model, real in found.get("real", {}).items():
        said += f", {real['cached']['hit_rate']:.0%} with {model}"
    return _text(f"{said} ({found['date']}; `{found['command']}`).")


def machine(environment: Environment | None = None) -> str:
    """Name the class of machine: processor, how many, memory, GPUs."""
    e = environment or capture()
    gpus = ", ".join(e.gpus) or "no GPU"
    return f"{e.cpu_model}, {e.usable_cpus} CPUs, {e.memory_bytes / 2**30:.0f} GiB, {gpus}"


def read() -> dict[str, dict[str, Any]]:
    """Return the results that are there, by script."""
    files = sorted(RESULTS.glob("*.json"))
    return {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in files}


def write_result(script: str, key: str, document: Mapping[str, Any]) -> None:
    """Put a script's result in the place of its last one of that key, and fill the pages."""
    everything = {**read().get(script, {}), key: document}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(everything, indent=1) + "\n"
    (RESULTS / f"{script}.json").write_text(text, encoding="utf-8")
    main([])


def main(words: list[str] | None = None) -> int:
    """Write or check all pages; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check = parser.parse_args(words).check
    old = {n: (PAGES / f"{n}.md").read_text(encoding="utf-8") for n in STRATEGIES}
    new = render(read(), old)
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
