r"""Compare speculative with plain decoding on one model, prompt by prompt, and print JSON.

    python benchmarks/speculation.py --model qwen2.5-coder-0.5b --prompts 50
    python benchmarks/speculation.py --model qwen2.5-coder-1.5b --draft qwen2.5-coder-0.5b \
        --ngram ""

Greedy, one request at a time, both instances loaded, each prompt on both in alternating order.
Reports how many answers are identical, for the others the margin between the two most likely
tokens where they part, the share of drafted tokens that was accepted, and CPU-seconds per token as
a ratio (speculative to plain) with the 90 % interval of the mean log-ratio over prompts.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from lichen.acceleration.divergence import NEAR_TIE, divergence
from lichen.acceleration.log_ratio import as_ratio, log_ratio
from lichen.compose.build import make_catalog
from lichen.core.generation import Completion, Message, Request, Role
from lichen.core.ports import Engine
from lichen.engines.llama_cpp import open_engine


def load_prompts(path: Path, count: int) -> list[tuple[str, str]]:
    """Return (id, prompt) of problems spread evenly over a HumanEval file."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    step = max(1, len(rows) // count)
    return [(row["task_id"], row["prompt"]) for row in rows[::step][:count]]


def ask(engine: Engine, request: Request) -> tuple[Completion, float]:
    """Run one request; returns its completion and the CPU-seconds it took."""
    began = time.process_time()
    (done,) = (c for c in engine.generate([request]) if isinstance(c, Completion))
    return done, time.process_time() - began


def compare(plain: Engine, drafting: Engine, request: Request, *, first: bool) -> dict[str, Any]:
    """Run one request on both engines, ``first`` the speculating one first."""
    order = [("speculative", drafting), ("plain", plain)]
    done = {name: ask(engine, request) for name, engine in (order if first else order[::-1])}
    (mine, mine_cpu), (theirs, theirs_cpu) = done["speculative"], done["plain"]
    row: dict[str, Any] = {
        "id": request.id,
        "identical": mine.text == theirs.text,
        "tokens": [theirs.usage.completion, mine.usage.completion],
        "cpu_s": [round(theirs_cpu, 3), round(mine_cpu, 3)],
        "drafted": mine.draft_tokens,
        "accepted": mine.draft_accepted,
        "error": mine.error or theirs.error,
    }
    if not row["identical"] and not row["error"]:
        again, _ = ask(plain, _with_alternatives(request))
        parted = divergence(again, mine.text)
        row["parted_at"] = parted.at if parted else None
        row["margin"] = parted.margin if parted else None
        row["explained"] = parted.explained if parted else None
    return row


def _with_alternatives(request: Request) -> Request:
    return Request(
        id=request.id, messages=request.messages, max_tokens=request.max_tokens, logprobs=2
    )


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
        "different_but_near_tie": sum(bool(r["explained"]) for r in different),
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


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--draft", default="", help="a smaller model of the same family")
    parser.add_argument("--draft-max", type=int, default=3)
    parser.add_argument("--ngram", default="simple")
    parser.add_argument("--ngram-size", type=int, default=4)
    parser.add_argument("--ngram-draft", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--ask", default="Complete the following Python function. Return it in a code block."
    )
    given = parser.parse_args()
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
    options = {"context": 2048, "threads": given.threads}
    rows = []
    load = os.getloadavg()[0]
    with (
        contextlib.closing(open_engine(catalog.model(given.model), options)) as plain,
        contextlib.closing(plain.reopened(drafting)) as speculative,
    ):
        for engine in (plain, speculative):
            ask(engine, Request(id="warm", prompt="def f", max_tokens=4))
        with contextlib.suppress(KeyboardInterrupt):  # what was measured by then is printed
            for i, (name, prompt) in enumerate(prompts):
                content = f"{given.ask}\n\n```python\n{prompt}```"
                request = Request(
                    id=name,
                    messages=(Message(role=Role.USER, content=content),),
                    max_tokens=given.max_tokens,
                )
                rows.append(compare(plain, speculative, request, first=i % 2 == 1))
                sys.stderr.write(f"{i + 1}/{len(prompts)}\n")
    document = {"settings": vars(given), "load_average": load, **summary(rows), "rows": rows}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
