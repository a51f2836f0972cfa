"""Replay editor-like typing through the answer cache and print hit rates as JSON.

    python benchmarks/answer_cache.py [--files 6] [--keystrokes 3000] [--seed 0] [--model NAME]

A deterministic "author" types real source text (by default lichen's own): character by character,
with pauses, after which the editor asks for a completion at the cursor; sometimes a typing mistake
is deleted again, a proposal is accepted, or the cursor goes back to a place visited before. The
same trace runs through a cache with exact hits only and one with the defaults.

Without ``--model`` a scripted engine answers with the rest of the author's line, or something else.
Right and wrong go together as they do for a model: a share of lines (``--right``) is foreseen from
their beginning, each other one from a random point in it on. Hit rates depend on that share, so
they are printed for several. Joules are printed only with a real engine, from the meter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lichen.acceleration.strategies.answer_cache import make
from lichen.acceleration.strategy import StrategyContext
from lichen.core.generation import Completion, Request
from lichen.core.measurement import Measurement, Missing, Usage
from lichen.core.ports import Engine
from lichen.testing.engine import ScriptedEngine, words

MAX_TOKENS = 32
CONTEXT_LINES = 60
"""Lines before and after the cursor that the editor sends. Whole lines: with a window of so many
*characters* each keystroke would move its beginning, and no prefix would ever be continued."""

PAUSE = 0.25
"""The editor asks after one in four keystrokes: people type in bursts."""

MISTAKE = 0.02
BACK = 0.004
"""Shares of keystrokes that are wrong and deleted again, and after which the cursor goes back."""

SETTINGS: dict[str, dict[str, object]] = {"exact only": {"typed": 0}, "defaults": {}}


@dataclass(frozen=True)
class Ask:
    """One request of the editor, with what the author will write next."""

    request: Request
    ahead: str


def trace(text: str, name: str, keystrokes: int, rng: random.Random) -> Iterator[Ask]:
    """Yield what an editor asks while ``text`` is typed from a random line on.

    The rest of the file stands after the cursor. The editor asks after a pause, and always at
    the end of a line.
    """
    lines = text.splitlines(keepends=True)
    at = sum(map(len, lines[: rng.randrange(max(len(lines) // 2, 1))]))
    end = min(at + keystrokes, len(text))
    rest = "".join(text[end:].splitlines(keepends=True)[:CONTEXT_LINES])
    visited: list[int] = []
    n = 0

    def ask(before: str, ahead: str) -> Ask:
        nonlocal n
        n += 1
        request = Request(
            id=f"{name}:{n}",
            prefix="".join(before.splitlines(keepends=True)[-CONTEXT_LINES:]),
            suffix=rest,
            max_tokens=MAX_TOKENS,
            stop_strings=("\n",),
        )
        return Ask(request, ahead)

    while at < end:
        at += 1
        before, ahead = text[:at], text[at:end]
        if rng.random() < PAUSE or before.endswith("\n"):
            visited.append(at)
            yield ask(before, ahead)
        if rng.random() < MISTAKE:  # a wrong key, seen, deleted; the editor asks after each
            wrong = rng.choice("abcdefghijklmnopqrstuvwxyz")
            if not ahead.startswith(wrong):
                yield ask(before + wrong, ahead)
                yield ask(before, ahead)
        if visited and rng.random() < BACK:  # back to an earlier place, and on from here
            back = rng.choice(visited[-50:])
            yield ask(text[:back], text[back:end])


def share(text: str) -> float:
    """A number in [0, 1) that is the text's own, so that a trace is always answered alike."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def author(asks: Iterable[Ask], right: float) -> Callable[[Request], str]:
    """Return a script that foresees lines; see the module."""
    ahead = {a.request.id: a.ahead for a in asks}

    def answer(request: Request) -> str:
        before = (request.prefix or "").rpartition("\n")[2]
        coming = ahead[request.id].partition("\n")[0]
        line = before + coming
        foreseen_after = 0.0 if share(f"foreseen {line}") < right else share(f"point {line}")
        known = len(before) >= foreseen_after * len(line)
        return coming if known and coming.strip() else f"pass  # {len(before)}: something else"

    return answer


def run(asks: list[Ask], engine: Engine, options: dict[str, object]) -> dict[str, object]:
    """Replay a trace, one request at a time as an editor does."""
    with tempfile.TemporaryDirectory() as folder:
        context = StrategyContext(data_dir=Path(folder), cpu_s=time.process_time)
        cache = make({"model": "benchmark", **options}, context).wrap(engine)
        spent, overhead = Usage(), 0.0
        for a in asks:
            for item in cache.generate([a.request]):
                if isinstance(item, Completion):
                    spent += item.usage
                    overhead += item.ledger[-1].cpu_s or 0.0
        counts = cache.report()
        cache._store.close()  # noqa: SLF001 (the engine is used again)
    n = len(asks)
    computed = spent.prefilled + spent.completion
    saved = counts.saved.prefilled + counts.saved.completion
    return {
        "requests": n,
        "hit_rate": round(counts.hits / n, 4),
        "exact": counts.exact,
        "prefix": counts.prefix,
        "tokens_computed": computed,
        "tokens_saved": saved,
        "saved_share": round(saved / max(saved + computed, 1), 4),
        "cache_cpu_ms_per_request": round(1000 * overhead / n, 3),
    }


def joules(measured: Measurement) -> dict[str, object]:
    """Return the energy of a window with its interval, or why there is none."""
    energy = measured.it_energy_j
    if isinstance(energy, Missing):
        return {"energy_j": None, "why": energy.reason}
    value = energy.value
    return {"energy_j": [value.low, value.value, value.high], "method": energy.method.value}


def real(asks: list[Ask], model: str) -> dict[str, object]:
    """Run the trace without a cache and with one, on a real model, metered."""
    from lichen.compose.build import make_catalog
    from lichen.engines import ENGINES
    from lichen.meter import open_meter

    engine = ENGINES.get("llama_cpp")(make_catalog().model(model), {"slots": 1})
    results: dict[str, object] = {}
    try:
        with open_meter() as meter:
            window = meter.window("plain")
            for a in asks:
                list(engine.generate([a.request]))
            results["plain"] = joules(window.close())
            window = meter.window("cached")
            found = run(asks, engine, {"keep_cut": True})
            results["cached"] = {**found, **joules(window.close())}
    finally:
        engine.close()
    return results


def main() -> None:
    """Parse the command line, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument("--keystrokes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--right", type=float, nargs="*", default=[0.1, 0.3, 0.5])
    parser.add_argument("--source", type=Path, default=Path(__file__).parent.parent / "src")
    parser.add_argument("--model")
    given = parser.parse_args()
    rng = random.Random(given.seed)  # noqa: S311 (a reproducible trace, no secret)
    files = rng.sample(sorted(given.source.rglob("*.py")), given.files)
    asks = [a for f in files for a in trace(f.read_text(), f.stem, given.keystrokes, rng)]
    document: dict[str, object] = {
        "files": [f.name for f in files],
        "keystrokes_per_file": given.keystrokes,
        "scripted": {
            f"proposals right: {right:.0%}": {
                name: run(asks, ScriptedEngine(author(asks, right), split=words), options)
                for name, options in SETTINGS.items()
            }
            for right in given.right
        },
    }
    if given.model:
        document["real"] = {given.model: real(asks, given.model)}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
