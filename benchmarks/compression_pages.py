"""Fill the "measured" sections of the compression pages; ``--check`` compares.

    python benchmarks/compression_pages.py [--check]

Reads what ``recipes.py`` put into ``benchmarks/results/compression.json``. Writes what follows
the marker line of every page in ``docs/explanation/compression`` that has one, the whole of
``measured.md`` there, and a picture per model in ``docs/images``. What was not measured says so,
with the reason; no number comes from anywhere else.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from compression_picture import Point, picture
from compression_rows import COMBINED, TABLE, Row, rows_of

ROOT: Final = Path(__file__).resolve().parents[1]
MARKER: Final = "<!-- measured: filled from benchmarks/recipes.py -->"
MODELS: Final = ("smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
"""Said to be not measured where they are not; others are shown if they are."""

WIDTH: Final = 110
"""Characters in a line of text, as in the pages."""

_PAGES: Final = Path("docs/explanation/compression")
_IMAGES: Final = Path("docs/images")

_HEAD: Final = (
    "Every recipe alone on the model as it is published, held against that model on held-out code "
    "and run in turns with it. *Request* is the CPU time of a typical one (160 tokens of prompt, "
    "220 of answer) from the two columns after it; like them and *file* it is a ratio to the "
    "parent, and below 1 is a saving. *KL* and *next token changed* say how far the next-token "
    "distributions are apart, position by position; perplexity is the parent's, then the child's, "
    "on the same text. Brackets are 95 % intervals: KL and changed tokens over documents, CPU "
    "ratios over turns; the request's combine those of both phases at their ends. *Made in* is "
    "wall time and CPU time, without what was stored for an earlier row of the same command and "
    "only taken over. How well a model still solves tasks is another question: "
    "[the gate](gate.md) asks it. This page is written by `benchmarks/compression_pages.py`."
)
_PICTURE: Final = (
    "Left and down is better. Filled points are beaten by no other in both; thin bars are "
    "intervals. The height grows with the square root of the divergence."
)
_COLUMNS: Final = (
    *("recipe", "file", "request", "prefill", "decode"),
    *("KL, nats", "next token changed", "perplexity", "made in"),
)
_ROW_HEAD: Final = (f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|")

Rows = Mapping[str, Mapping[str, Any]]
"""Label -> what was measured of it, for one model."""


def render(results: Mapping[str, Any], pages: Mapping[str, str]) -> dict[str, str]:
    """Return the text of every file that follows from the results, by its path in the repository.

    Args:
        results: what ``recipes.py`` wrote, by model; empty if it never ran.
        pages: the pages as they are, by name without ``.md``; those without the marker stay.

    Raises:
        ValueError: a page with several markers, or one whose rows are not known.
    """
    found = {}
    for name, text in pages.items():
        if text.count(MARKER) > 1:
            raise ValueError(f"{name}.md has the line {MARKER!r} more than once")
        if name != "measured" and MARKER in text:
            own = _section(rows_of(name), results)
            found[str(_PAGES / f"{name}.md")] = f"{text.partition(MARKER)[0]}{MARKER}\n\n{own}"
    found[str(_PAGES / "measured.md")] = _measured(results)
    for model in _models(results):
        if points := _points(_rows(results, model)):
            found[str(_IMAGES / _image(model))] = picture(model, points)
    return found


def _section(rows: Sequence[Row], results: Mapping[str, Any]) -> str:
    """Return what was measured of some rows, model by model."""
    parts = []
    missing = []
    for model in _models(results):
        everything = _rows(results, model)
        stored = {r.label: everything[r.label] for r in rows if r.label in everything}
        if stored:
            parts += [f"{model}:", *_table(rows, stored)]
        else:
            missing.append(model)
    if missing:
        parts.append(_not_measured(missing, results))
    if len(missing) < len(_models(results)):
        parts.append("What the columns are, and all recipes: [measured](measured.md).")
    return "\n\n".join(parts) + "\n"


def _measured(results: Mapping[str, Any]) -> str:
    parts = ["# What each compression recipe does", _text(_HEAD)]
    for model in _models(results):
        stored = _rows(results, model)
        parts.append(f"## {model}")
        if not stored:
            parts.append(_not_measured([model], results))
            continue
        if points := _points(stored):
            alt = f"{model}: KL divergence against CPU time and file size of {len(points)} recipes"
            parts += [f"![{alt}](../../images/{_image(model)})", _text(_PICTURE)]
        parts += _table(TABLE, stored)
        if took := results[model].get("moments"):
            said = (
                "Letting the model read what compensation needs, once for all rows of a command: "
                f"{_seconds(took)}."
            )
            parts.append(_text(said))
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row], stored: Rows) -> list[str]:
    """Return one model's table, what is missing in it, and the commands that made it."""
    there = [(r, stored[r.label]) for r in rows if r.label in stored]
    numbers = [(r, row) for r, row in there if "agreement" in row]
    parts = []
    if numbers:
        parts.append("\n".join([*_ROW_HEAD, *(_row(r, row) for r, row in numbers)]))
    said = [f"- {r.label}: {_why_not(row)}" for r, row in there if "agreement" not in row]
    said += [
        f"- {r.label}: not measured: the command left it out (`--only`)"
        for r in rows
        if r.label not in stored
    ]
    said += [f"- {r.label}: {_remark(row)}" for r, row in numbers if _remark(row)]
    return [*parts, *(["\n".join(map(_item, said))] if said else []), *_commands(there)]


def _row(r: Row, row: Mapping[str, Any]) -> str:
    cost, agreement = row["cost"], row["agreement"]
    name = r.label if r.method == COMBINED else f"[{r.label}]({r.method}.md)"
    cells = (
        name,
        f"{row['bytes'] / 1e6:.1f} MB ({row['bytes'] / row['parent_bytes']:.3f})",
        *(_interval(cost[k]) for k in ("request", "prefill", "decode")),
        _interval(agreement["kl_nats"], ".4f"),
        f"{_interval({k: 100 * v for k, v in agreement['flips'].items()}, '.1f')} %",
        f"{agreement['parent_perplexity']:.2f} to {agreement['child_perplexity']:.2f}",
        _made(row["made"]),
    )
    return f"| {' | '.join(cells)} |"


def _made(made: Mapping[str, Any]) -> str:
    taken = made["taken_over"]
    return _seconds(made) + (f", {100 * taken:.0f} % taken over" if taken >= 0.005 else "")  # noqa: PLR2004 (shown as 1 %)


def _seconds(took: Mapping[str, Any]) -> str:
    return f"{took['wall_s']:.0f} s ({took['cpu_s']:.0f} CPU-s)"


def _interval(value: Mapping[str, float], form: str = ".3f") -> str:
    return f"{value['value']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def _why_not(row: Mapping[str, Any]) -> str:
    if "not_applicable" in row:
        return f"not applicable: {row['not_applicable']}"
    return f"not measured: {row.get('failed', 'the stored row has no numbers')}"


def _remark(row: Mapping[str, Any]) -> str:
    """Return what the methods and the comparison had to say; "" if nothing."""
    return "; ".join(filter(None, [*row["notes"], row["agreement"]["note"]]))


def _commands(there: Sequence[tuple[Row, Mapping[str, Any]]]) -> list[str]:
    """Return how rows were made: a paragraph and the command, with labels if there are several."""
    keys = ("command", "date", "machine", "tokens", "rounds", "lichen")
    runs: dict[tuple[Any, ...], list[tuple[Row, Mapping[str, Any]]]] = {}
    for r, row in there:
        runs.setdefault(tuple(row[k] for k in keys), []).append((r, row))
    parts = []
    for (command, date, machine, tokens, rounds, version), members in runs.items():
        loads = [row["load_average"] for _, row in members]
        load = f"{min(loads)}" if min(loads) == max(loads) else f"{min(loads)} to {max(loads)}"
        whose = "" if len(runs) == 1 else f"{'; '.join(r.label for r, _ in members)}: "
        said = (
            f"{whose}{tokens:,} tokens of held-out code, {rounds} turns; {machine}; load average "
            f"before each row {load}; lichen {version}; {date}."
        )
        parts += [_text(said), f"`{command}`"]
    return parts


def _not_measured(models: Sequence[str], results: Mapping[str, Any]) -> str:
    said = []
    for model in models:
        command = f"`python benchmarks/recipes.py --model {model}`"
        left_out = "the command left it out (`--only`)"
        said.append(left_out if _rows(results, model) else f"{command} has not been run")
    if len(models) == 1:
        return f"{models[0]} is not measured: {said[0]}."
    listed = (f"- {model}: {why}" for model, why in zip(models, said, strict=True))
    return "\n".join(["Not measured:", "", *listed])


def _points(stored: Rows) -> list[Point]:
    """Return what can be drawn."""
    order = [r.label for r in TABLE if "agreement" in stored.get(r.label, {})]
    return [
        Point(
            label=label,
            cpu=_triple(stored[label]["cost"]["request"]),
            size=stored[label]["bytes"] / stored[label]["parent_bytes"],
            kl=_triple(stored[label]["agreement"]["kl_nats"]),
        )
        for label in order
    ]


def _triple(value: Mapping[str, float]) -> tuple[float, float, float]:
    return (value["low"], value["value"], value["high"])


def _models(results: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*MODELS, *results]))


def _rows(results: Mapping[str, Any], model: str) -> Rows:
    rows: Rows = results.get(model, {}).get("rows", {})
    return rows


def _image(model: str) -> str:
    return f"compression-{re.sub(r'[^A-Za-z0-9._-]', '-', model)}.svg"


def _text(words: str) -> str:
    return textwrap.fill(words, WIDTH, break_long_words=False, break_on_hyphens=False)


def _item(words: str) -> str:
    return textwrap.fill(
        words, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def results_path(root: Path = ROOT) -> Path:
    """Return where the results are."""
    return root / "benchmarks" / "results" / "compression.json"


def main(words: list[str] | None = None) -> int:
    """Write or check all pages and pictures; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository")
    given = parser.parse_args(words)
    stored = results_path(given.root)
    results = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    files = sorted((given.root / _PAGES).glob("*.md"))
    new = render(results, {f.stem: f.read_text(encoding="utf-8") for f in files})
    stale = []
    for name, text in new.items():
        target = given.root / name
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        stale.append(target.name)
        if not given.check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    if given.check and stale:
        sys.stderr.write(
            f"stale: {', '.join(stale)}; run  python benchmarks/compression_pages.py\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
