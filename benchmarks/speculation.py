r"""Compare speculative with plain decoding on one model, prompt by prompt, and print JSON.

    python benchmarks/speculation.py --model qwen2.5-coder-0.5b --prompts 50 --max-tokens 96
    python benchmarks/speculation.py --model qwen2.5-coder-1.5b --draft qwen2.5-coder-0.5b \
        --ngram ""

Greedy, one request at a time, both instances loaded, each prompt on both in alternating order.
Answers are compared token by token, as they stream. Of those that differ it says which token each
had where they part and the margin between the two most likely ones there (``divergence``), and
further the share of drafted tokens that was accepted, and CPU-seconds per token as a ratio
(speculative to plain) with the 90 % interval of the mean log-ratio over prompts.

Every prompt is written down when it is done: the same command goes on where it was killed.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import strategy_pages

from lichen.acceleration.divergence import NEAR_TIE, divergence
from lichen.acceleration.log_ratio import as_ratio, log_ratio
from lichen.compose.build import make_catalog
from lichen.compose.settings import cache_dir
from lichen.core.generation import Completion, Delta, Message, Request, Role
from lichen.core.ports import Engine
from lichen.engines.llama_cpp import open_engine


class Journal:
    """Rows that are kept on disk as they come; a line that was cut off by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    self.rows.append(json.loads(line))
            self._path.write_text("".join(map(_line, self.rows)), encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def drop(self) -> None:
        """Forget all rows on disk."""
        self._path.unlink(missing_ok=True)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def load_prompts(path: Path, count: int) -> list[tuple[str, str]]:
    """Return (id, prompt) of problems spread evenly over a HumanEval file."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    count = min(count, len(rows))
    chosen = [rows[i * len(rows) // count] for i in range(count)]
    return [(row["task_id"], row["prompt"]) for row in chosen]


def ask(engine: Engine, request: Request) -> tuple[Completion, list[str], float]:
    """Run one request; returns its completion, its pieces, and the CPU-seconds it took."""
    began = time.process_time()
    items = list(engine.generate([request]))
    took = time.process_time() - began
    (done,) = (i for i in items if isinstance(i, Completion))
    return done, [i.text for i in items if isinstance(i, Delta)], took


def compare(plain: Engine, drafting: Engine, request: Request, *, first: bool) -> dict[str, Any]:
    """Run one request on both engines, ``first`` the speculating one first."""
    order = [("speculative", drafting), ("plain", plain)]
    done = {name: ask(engine, request) for name, engine in (order if first else order[::-1])}
    (mine, my_pieces, mine_cpu), (theirs, their_pieces, theirs_cpu) = (
        done["speculative"],
        done["plain"],
    )
    row: dict[str, Any] = {
        "id": request.id,
        "identical": my_pieces == their_pieces and mine.usage.completion == theirs.usage.completion,
        "same_text": mine.text == theirs.text,
        "tokens": [theirs.usage.completion, mine.usage.completion],
        "cpu_s": [round(theirs_cpu, 3), round(mine_cpu, 3)],
        "drafted": mine.draft_tokens,
        "accepted": mine.draft_accepted,
        "error": mine.error or theirs.error,
    }
    if not row["same_text"] and not row["error"]:
        again, _, _ = ask(plain, replace(request, stream=False, logprobs=2))
        parted = divergence(again, mine.text)
        at = next(
            (i for i, (a, b) in enumerate(zip(their_pieces, my_pieces, strict=False)) if a != b),
            min(len(their_pieces), len(my_pieces)),
        )
        row["parted_at_token"] = at
        row["said"] = [_at(their_pieces, at), _at(my_pieces, at)]
        row["margin"] = parted.margin if parted else None
        row["explained"] = parted.explained if parted else None
    return row


def _at(pieces: Sequence[str], at: int) -> str:
    return pieces[at] if at < len(pieces) else "(the end)"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all prompts without an error."""
    good = [r for r in rows if not r["error"] and min(r["tokens"]) > 0]
    if not good:
        return {"prompts": 0, "errors": len(rows)}
    pairs = [(r["cpu_s"][0] / r["tokens"][0], r["cpu_s"][1] / r["tokens"][1]) for r in good]
    ratio = as_ratio(log_ratio(pairs))
    drafted = sum(r["drafted"] for r in good)
    different = [r for r in good if not r["identical"]]
    return {
        "prompts": len(good),
        "errors": len(rows) - len(good),
        "identical": len(good) - len(different),
        "same_text_other_tokens": sum(r["same_text"] for r in different),
        "different_but_near_tie": sum(bool(r.get("explained")) for r in different),
        "unexplained": [r["id"] for r in different if not r["same_text"] and not r["explained"]],
        "near_tie_nats": NEAR_TIE,
        "acceptance": round(sum(r["accepted"] for r in good) / drafted, 3) if drafted else None,
        "accepted_share_of_tokens": round(
            sum(r["accepted"] for r in good) / sum(r["tokens"][1] for r in good), 3
        ),
        "cpu_per_token_ratio": {
            "low": round(ratio.low, 3),
            "value": round(ratio.value, 3),
            "high": round(ratio.high, 3),
        },
        "cpu_s": [round(sum(r["cpu_s"][i] for r in good), 1) for i in (0, 1)],
        "tokens": [sum(r["tokens"][i] for r in good) for i in (0, 1)],
    }


def measured(given: argparse.Namespace, journal: Path) -> tuple[list[dict[str, Any]], Journal]:
    """Compare all prompts that the journal does not have; returns the rows and the journal."""
    catalog = make_catalog()
    prompts = load_prompts(Path(catalog.data_set("humaneval").path), given.prompts)
    drafting: dict[str, object] = {}
    if given.draft:
        drafting |= {"draft": catalog.model(given.draft).path, "draft_max": given.draft_max}
    if given.ngram:
        drafting |= {
            "ngram": given.ngram,
            "ngram_size": given.ngram_size,
            "ngram_draft": given.ngram_draft,
        }
    kept = Journal(journal)
    known = {r["id"] for r in kept.rows}
    options = {"context": 2048, "threads": given.threads}
    with (
        contextlib.closing(open_engine(catalog.model(given.model), options)) as plain,
        contextlib.closing(plain.reopened(drafting)) as speculative,
    ):
        for engine in (plain, speculative):
            ask(engine, Request(id="warm", prompt="def f", max_tokens=4))
        for i, (name, prompt) in enumerate(prompts):
            if name not in known:
                content = f"{given.ask}\n\n```python\n{prompt}```"
                request = Request(
                    id=name,
                    messages=(Message(role=Role.USER, content=content),),
                    max_tokens=given.max_tokens,
                    stream=True,
                )
                kept.add(compare(plain, speculative, request, first=i % 2 == 1))
            sys.stderr.write(f"{i + 1}/{len(prompts)}\n")
    return kept.rows, kept


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--draft", default="", help="a smaller model of the same family")
    parser.add_argument("--draft-max", type=int, default=3)
    parser.add_argument("--ngram", default="simple")
    parser.add_argument("--ngram-size", type=int, default=4)
    parser.add_argument("--ngram-draft", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--ask", default="Complete the following Python function. Return it in a code block."
    )
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted measurement")
    parser.add_argument("--write", action="store_true", help="also into the documentation")
    return parser.parse_args()


def main() -> None:
    """Measure what is missing, print."""
    given = arguments()
    settings = {k: v for k, v in vars(given).items() if k not in ("fresh", "write")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    journal = cache_dir() / "benchmarks" / f"speculation-{digest}.jsonl"
    if given.fresh:
        Journal(journal).drop()
    load = os.getloadavg()[0]
    try:
        rows, kept = measured(given, journal)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on from here\n")
        sys.exit(130)
    document = {
        "command": shlex.join(["python", "benchmarks/speculation.py", *sys.argv[1:]]),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": strategy_pages.machine(),
        "settings": settings,
        "load_average": load,
        **summary(rows),
        "rows": rows,
    }
    if given.write:
        drafts = " and ".join(filter(None, (given.draft, given.ngram and "n-grams")))
        strategy_pages.write_result("speculation", f"{given.model}, drafts: {drafts}", document)
    kept.drop()
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
