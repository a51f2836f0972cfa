"""What each compression recipe does to a model: size, next-token agreement, CPU time.

    python benchmarks/recipes.py --model smollm2-135m
    python benchmarks/recipes.py --model qwen2.5-coder-0.5b --tokens 2048 --only retie
    python benchmarks/recipes.py --check

Every row of ``compression_rows.TABLE``, or those that ``--only`` names by label or method, is made
in a temporary folder, held against its parent on held-out code, run in turns with it, and deleted.
Matrices that several rows store alike are computed once, and the row says how much it took over.
Importance and second moments are measured before the first row that needs them; what that takes is
kept apart from the rows.

Each row goes to ``benchmarks/results/compression.json`` as soon as it is there. A row with the same
recipe, model, tokens, rounds and version is not measured again without ``--again``. A recipe that
the model does not allow is a row too, with the reason. Afterwards ``compression_pages.py`` fills
the documentation; ``--check`` only says whether it is up to date.

Load time and memory are not measured here: ``lichen compress`` does so in the gate.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import compression_pages
import strategy_pages
from compression_bench import Found, open_bench, prepare
from compression_rows import TABLE, Row, chosen

import lichen
from lichen.compose import settings
from lichen.compose.build import make_catalog
from lichen.core.errors import LichenError
from lichen.meter import open_meter

TOKENS: Final = 4096
ROUNDS: Final = 4


class Results:
    """The file of results: model -> its rows, each written as soon as it is there."""

    def __init__(self, path: Path, model: str, sha256: str) -> None:
        self._path, self._model, self._sha256 = path, model, sha256

    def row(self, label: str) -> Mapping[str, Any]:
        """Return a stored row, empty if there is none."""
        rows: Mapping[str, Mapping[str, Any]] = self._own(self._read())["rows"]
        return rows.get(label, {})

    def put(self, label: str, row: Found) -> None:
        """Store a row in the place of its last one."""
        document = self._read()
        own = self._own(document)
        rows = {**own["rows"], label: row}
        known = [r.label for r in TABLE]
        own["rows"] = {k: rows[k] for k in known if k in rows}
        self._write({**document, self._model: own})

    def moments(self, took: Found) -> None:
        """Store what reading for compensation took."""
        document = self._read()
        self._write({**document, self._model: {**self._own(document), "moments": took}})

    def _own(self, document: Found) -> Found:
        """Return the model's part; rows of another file of that name are no results of it."""
        own: Found = document.get(self._model, {})
        if own.get("sha256") != self._sha256:
            return {"sha256": self._sha256, "rows": {}}
        return own

    def _read(self) -> Found:
        # Read anew each time: another process may measure another model.
        if not self._path.exists():
            return {}
        document: Found = json.loads(self._path.read_text(encoding="utf-8"))
        return document

    def _write(self, document: Found) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        part.replace(self._path)


def measure_rows(
    rows: Sequence[Row],
    results: Results,
    facts: Mapping[str, object],
    made_with: Mapping[str, object],
    measured: Callable[[Row], Found],
) -> None:
    """Measure rows and store each at once.

    Args:
        rows: to measure.
        results: where they go.
        facts: what decides, beside the recipe, whether a row must be measured anew.
        made_with: the command and the machine.
        measured: makes and measures one.
    """
    for number, row in enumerate(rows, 1):
        _say(f"{number}/{len(rows)} {row.label}")
        now = {
            "date": datetime.now(UTC).date().isoformat(),
            "load_average": round(os.getloadavg()[0], 1),
        }
        results.put(row.label, {**_key(row, facts), **made_with, **now, **measured(row)})


def left(rows: Sequence[Row], results: Results, facts: Mapping[str, object]) -> tuple[Row, ...]:
    """Return the rows that are not stored with the same facts, or failed."""
    found = []
    for row in rows:
        stored = results.row(row.label)
        if "failed" in stored or any(stored.get(k) != v for k, v in _key(row, facts).items()):
            found.append(row)
    return tuple(found)


def _key(row: Row, facts: Mapping[str, object]) -> Found:
    return {"recipe": row.recipe.to_toml(), **facts}


def measure_model(given: argparse.Namespace) -> Path:
    """Measure what is wanted of a model and not there yet; return where the results are."""
    source = make_catalog().model(given.model)
    path = compression_pages.results_path(given.root)
    results = Results(path, source.name, source.sha256)
    facts = {"tokens": given.tokens, "rounds": given.rounds, "lichen": lichen.__version__}
    rows = given.rows if given.again else left(given.rows, results, facts)
    _say(f"{len(given.rows) - len(rows)} of {len(given.rows)} rows are there")
    if not rows:
        return path
    made_with = {"command": command_of(given), "machine": strategy_pages.machine()}
    scratch = settings.cache_dir() / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with open_meter() as meter, tempfile.TemporaryDirectory(dir=scratch) as folder:
        _say("reading texts, and measuring importance if it is needed and not known")
        bench = open_bench(
            source, rows, Path(folder), meter, tokens=given.tokens, rounds=given.rounds
        )
        if any(r.compensated for r in rows):
            _say("measuring moments for compensation")
            results.moments(prepare(bench.context, source, meter))
        measure_rows(rows, results, facts, made_with, bench.measured)
    return path


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def command_of(given: argparse.Namespace) -> str:
    """Return the command that measures this again."""
    words = ["python", "benchmarks/recipes.py", "--model", given.model]
    for name, default in (("tokens", TOKENS), ("rounds", ROUNDS)):
        value = getattr(given, name)
        words += [f"--{name}", str(value)] if value != default else []
    words += ["--only", *given.only] if given.only else []
    return shlex.join(words)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="held-out tokens to compare on")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of the cost measurement")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="labels or methods; default: all")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    parser.add_argument("--check", action="store_true", help="measure nothing: are pages right?")
    parser.add_argument("--root", type=Path, default=compression_pages.ROOT, help="of the output")
    given = parser.parse_args()
    if given.tokens < 2 or given.rounds < 2:  # noqa: PLR2004 (the fewest that say something)
        parser.error("--tokens and --rounds are at least 2")
    try:
        given.rows = chosen(given.only)
    except ValueError as exc:
        parser.error(str(exc))
    return given


def main() -> int:
    """Measure, write the results, fill the pages."""
    given = arguments()
    root = ["--root", str(given.root)]
    if given.check:
        return compression_pages.main([*root, "--check"])
    try:
        path = measure_model(given)
    except LichenError as exc:
        _say(str(exc))
        return exc.exit_code
    _say(f"result: {path}")
    return compression_pages.main(root)


if __name__ == "__main__":
    sys.exit(main())
