"""How often does lichen claim a difference between a solution and itself? Real runs, real meter.

    python benchmarks/aa.py --repetitions 20 --problems 16 --model smollm2-135m

Each repetition is a complete interleaved run of two equal solutions (two instances of one model)
with a seed of its own. Prints one JSON document: per repetition the cost ratios with their
intervals and the claims, and the share of repetitions that claim a difference in any dimension
that may be claimed. Answers are short: the meter is on trial, not the model.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory

from lichen.benchmark.run import run
from lichen.benchmark.summarise import summarise
from lichen.compose.build import make_catalog, workbench
from lichen.compose.spec import load
from lichen.core.interval import Interval
from lichen.core.summary import Claim, Dimension
from lichen.footprint import factor_set, relevant

CLAIMED = (Dimension.TIME, Dimension.CPU_TIME, Dimension.ENERGY)


@dataclass(frozen=True)
class Repetition:
    """One A/A run: the ratio of CPU time per attempt, and what was claimed."""

    seed: int
    cpu_ratio: tuple[float, float, float] | None
    claims: dict[str, str]
    conclusion: str
    foreign_cpu_note: bool


def repeat(seed: int, arguments: argparse.Namespace, url: str) -> Repetition:
    """Run one comparison of the model with itself."""
    spec = load(
        [],
        models=[arguments.model, arguments.model],
        flags={"task.limit": arguments.problems, "engine.slots": arguments.slots, "seed": seed},
        sets=[
            "idle_s=0",
            f"engine.threads={arguments.threads}",
            "engine.context=1024",
            f"generation.max_tokens={arguments.tokens}",
        ],
    )
    with workbench(spec, store_url=url, catalog=make_catalog(), fresh=True) as bench:
        done = run(
            bench.head,
            bench.solutions,
            bench.task,
            plan=bench.plan,
            meter=bench.meter,
            sink=bench.store,
        )
        store = bench.store
        summary = summarise(
            done, store.samples(done.id), store.blocks(done.id), relevant(factor_set("WORLD"))
        )
    comparison = summary.comparisons[0]
    ratios = {r.dimension: r for r in comparison.ratios}
    cpu = ratios[Dimension.CPU_TIME].per_attempt
    return Repetition(
        seed=seed,
        cpu_ratio=(cpu.low, cpu.value, cpu.high) if isinstance(cpu, Interval) else None,
        claims={d.value: ratios[d].claim.value for d in CLAIMED if d in ratios},
        conclusion=comparison.conclusion,
        foreign_cpu_note=any("other processes" in n for n in done.notes),
    )


def main() -> int:
    """Run the repetitions and print the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    arguments = parser.parse_args()
    found = []
    with TemporaryDirectory() as folder:
        for i in range(arguments.repetitions):
            found.append(repeat(arguments.seed + i, arguments, f"sqlite:///{folder}/aa.sqlite"))
            sys.stderr.write(f"{i + 1}/{arguments.repetitions}: {found[-1].cpu_ratio}\n")
    differing = [r for r in found if {Claim.LESS.value, Claim.MORE.value} & set(r.claims.values())]
    document = {
        "settings": vars(arguments),
        "repetitions": [asdict(r) for r in found],
        "claimed_a_difference": len(differing),
        "share": len(differing) / len(found),
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
