"""Replay editor-like typing through the answer cache and print hit rates as JSON.

    python benchmarks/answer_cache.py --files 6 --keystrokes 500
    python benchmarks/answer_cache.py --model smollm2-135m --real-requests 120 --write

A deterministic "author" types real source text (by default lichen's own): character by character,
with pauses, after which the editor asks for a completion at the cursor; sometimes a typing mistake
is deleted again, a proposal is accepted, or the cursor goes back to a place visited before. The
same trace runs through a cache with exact hits only and one with the defaults.

Without ``--model`` a scripted engine answers with the rest of the author's line, or something else.
Right and wrong go together as they do for a model: a share of lines (``--right``) is foreseen from
their beginning, each other one from a random point in it on. Hit rates depend on that share, so
they are printed for several. Joules come from the meter and need a real engine (``--model``): plain
and cached take turns, chunk by chunk of the trace, in alternating order. Where the cache answers,
does what the model alone said begin with that text? A model that cannot fill in gets the text
before the cursor alone. ``--write`` puts the result into the documentation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import strategy_pages

from lichen.acceleration.strategies.answer_cache import make
from lichen.acceleration.strategy import StrategyContext
from lichen.core.generation import Capability, Completion, Request
from lichen.core.measurement import Measurement, Missing, Quantity, Usage, total
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

CHUNK = 20
"""Requests of a turn, with and without cache: a window of some seconds with a small model."""

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


class Replay:
    """One cache over one engine, and what it did so far."""

    def __init__(self, engine: Engine, options: dict[str, object], folder: Path) -> None:
        context = StrategyContext(data_dir=folder, cpu_s=time.process_time)
        self.cache = make({"model": "benchmark", **options}, context).wrap(engine)
        self.done: list[Completion] = []

    def ask(self, asks: Iterable[Ask]) -> None:
        """Replay a part of a trace, one request at a time as an editor does."""
        for a in asks:
            self.done += completions(self.cache, a.request)

    def found(self) -> dict[str, Any]:
        """Return the counts so far."""
        counts, n = self.cache.report(), len(self.done)
        computed = tokens(self.done)
        saved = counts.saved.prefilled + counts.saved.completion
        overhead = sum(c.ledger[-1].cpu_s or 0.0 for c in self.done)
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


def completions(engine: Engine, request: Request) -> list[Completion]:
    """Ask one thing."""
    return [c for c in engine.generate([request]) if isinstance(c, Completion)]


def tokens(done: Iterable[Completion]) -> int:
    """Tokens that a model processed."""
    return sum(c.usage.prefilled + c.usage.completion for c in done)


def scripted(asks: list[Ask], right: float, options: dict[str, object]) -> dict[str, Any]:
    """Replay the trace with a scripted engine."""
    with tempfile.TemporaryDirectory() as folder:
        engine = ScriptedEngine(author(asks, right), split=words)
        replay = Replay(engine, options, Path(folder))
        replay.ask(asks)
        found = replay.found()
        replay.cache.close()
    return found


def in_words(quantity: Quantity) -> dict[str, Any]:
    """Return a quantity with its bounds and its method, or why there is none."""
    if isinstance(quantity, Missing):
        return {"missing": quantity.reason}
    v = quantity.value
    return {"low": v.low, "value": v.value, "high": v.high, "method": quantity.method.value}


def saved(plain: Quantity, cached: Quantity) -> dict[str, Any]:
    """Return the difference of two energies of one machine.

    Their bounds are those of one power model (or counter), which errs in the same direction on
    both, so low is taken from low.
    """
    for quantity in (plain, cached):
        if isinstance(quantity, Missing):
            return {"missing": quantity.reason}
    a, b = in_words(plain), in_words(cached)
    bounds = sorted(a[k] - b[k] for k in ("low", "high"))
    middle = a["value"] - b["value"]
    return {"low": bounds[0], "value": middle, "high": bounds[1], "method": a["method"]}


def fitting(asks: list[Ask], engine: Engine) -> list[Ask]:
    """Return the trace as the engine can be asked it; see the module."""
    if Capability.INFILL in engine.capabilities:
        return asks
    return [
        replace(a, request=replace(a.request, prefix=None, suffix=None, prompt=a.request.prefix))
        for a in asks
    ]


def real(asks: list[Ask], model: str, threads: int) -> dict[str, Any]:
    """Run the trace without a cache and with one, on a real model, metered, in turns."""
    from lichen.compose.build import make_catalog
    from lichen.engines import ENGINES
    from lichen.meter import open_meter

    engine = ENGINES.get("llama_cpp")(make_catalog().model(model), {"slots": 1, "threads": threads})
    asks = fitting(asks, engine)
    alone: list[Completion] = []
    windows: dict[str, list[Measurement]] = {"plain": [], "cached": []}
    with tempfile.TemporaryDirectory() as folder, open_meter() as meter:
        replay = Replay(engine, {"keep_cut": True}, Path(folder))
        completions(engine, asks[0].request)  # the first pass over the weights is nobody's
        for number, at in enumerate(range(0, len(asks), CHUNK)):
            chunk = asks[at : at + CHUNK]
            names = ("plain", "cached")
            for name in names if number % 2 == 0 else names[::-1]:
                with meter.window(name) as window:
                    if name == "plain":
                        alone += [c for a in chunk for c in completions(engine, a.request)]
                    else:
                        replay.ask(chunk)
                    windows[name].append(window.close())
            sys.stderr.write(f"{at + len(chunk)}/{len(asks)}\n")
        found = replay.found()
        hits = [
            (mine, theirs)
            for mine, theirs in zip(replay.done, alone, strict=True)
            if mine.usage == Usage()
        ]
        replay.cache.close()  # the engine too
    plain, cached = (total(windows[n]) for n in ("plain", "cached"))
    return {
        "requests": len(asks),
        "errors": sum(bool(c.error) for c in (*alone, *replay.done)),
        "plain": {
            "tokens_computed": tokens(alone),
            "cpu": in_words(plain.cpu_s),
            "energy": in_words(plain.it_energy_j),
        },
        "cached": {
            **found,
            "cpu": in_words(cached.cpu_s),
            "energy": in_words(cached.it_energy_j),
        },
        "saved_energy": saved(plain.it_energy_j, cached.it_energy_j),
        "hits": len(hits),
        "hits_agree": sum(theirs.text.startswith(mine.text) for mine, theirs in hits),
    }


def main() -> None:
    """Parse the command line, replay, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument("--keystrokes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--right", type=float, nargs="*", default=[0.1, 0.3, 0.5])
    parser.add_argument("--source", type=Path, default=Path(__file__).parent.parent / "src")
    parser.add_argument("--model")
    parser.add_argument("--real-requests", type=int, default=200, help="of the trace, for --model")
    parser.add_argument("--threads", type=int, default=0, help="of the engine; 0: its default")
    parser.add_argument("--write", action="store_true", help="also into the documentation")
    given = parser.parse_args()
    rng = random.Random(given.seed)  # noqa: S311 (a reproducible trace, no secret)
    files = rng.sample(sorted(given.source.rglob("*.py")), given.files)
    asks = [a for f in files for a in trace(f.read_text(), f.stem, given.keystrokes, rng)]
    document: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/answer_cache.py", *sys.argv[1:]]),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": strategy_pages.machine(),
        "load_average": round(os.getloadavg()[0], 1),
        "files": [f.name for f in files],
        "keystrokes_per_file": given.keystrokes,
        "scripted": {
            f"{right:.0%}": {
                name: scripted(asks, right, options) for name, options in SETTINGS.items()
            }
            for right in given.right
        },
    }
    if given.model:
        document["real"] = {
            given.model: real(asks[: given.real_requests], given.model, given.threads)
        }
    if given.write:
        strategy_pages.write_result("answer_cache", "replayed typing", document)
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
