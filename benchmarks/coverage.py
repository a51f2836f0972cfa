"""How often do the intervals contain the truth, and how often does A/A find a difference?

Simulates comparisons whose truth is known (``lichen.testing.worlds``) and prints one JSON document:
coverage of each interval at nominal 95 %, the rate of false claims where the two solutions are the
same, and median widths. ``cost`` is the interval lichen uses; ``cost_problems_only`` is the plain
percentile bootstrap over problems, which forgets that attempts share measuring windows.

Run:  python benchmarks/coverage.py [repetitions]     (400 take about six minutes of one core)
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict

import numpy as np

from lichen.benchmark.bootstrap import bca, percentile, resampled_sums
from lichen.benchmark.pair import Pair
from lichen.benchmark.paired import mean_difference
from lichen.benchmark.passk import mean_in_unit_range
from lichen.core.interval import Interval
from lichen.core.summary import Dimension
from lichen.testing.worlds import World, repeat

CPU = Dimension.CPU_TIME
DRAWS = 500

WORLDS = {
    f"{kind} n={n} samples={k} blocks={b}": World(
        problems=n, samples=k, blocks=b, cost_ratio=ratio, scatter=scatter, block_noise=noise
    )
    for n, counts in ((20, (2, 5, 16)), (164, (2, 5, 16, 41)))
    for k in (1, 5)
    for b in counts
    for kind, ratio, scatter, noise in (
        ("same tokens", 1.0, 0.0, 0.05),
        ("same solution", 1.0, 0.3, 0.05),
        ("20 % less", 0.8, 0.3, 0.1),
    )
}
"""Every layout with every kind: greedy A/A, sampled A/A, and a true saving under heavy noise."""

EXTREME = {
    f"quality={q} n={n} samples={k}": World(problems=n, samples=k, blocks=min(n, 16), quality=q)
    for q in (0.1, 0.55, 0.95)
    for n in (20, 164)
    for k in (1, 5)
}


def cost_intervals(pair: Pair, confidence: float) -> dict[str, Interval]:
    """Return the candidate intervals of the log cost ratio, and of the quality difference."""
    ratio = pair.ratio(CPU, "attempts")
    found = {"cost": percentile(ratio.draws, ratio.estimate, confidence=confidence)}
    rng = pair.how.rng()
    features = np.stack([arm.per_problem(arm.costs[CPU]) for arm in (pair.a, pair.b)], 1)
    sums = resampled_sums(features, draws=DRAWS, rng=rng)
    plain = np.log(sums[:, 1] / sums[:, 0])
    found["cost_problems_only"] = percentile(plain, ratio.estimate, confidence=confidence)
    if pair.both_solved_some:
        solved = pair.ratio(CPU, "solved")
        found["cost_per_solved"] = percentile(solved.draws, solved.estimate, confidence=confidence)
    return found


def quality_intervals(pair: Pair, confidence: float) -> dict[str, Interval]:
    """Return the candidate intervals of A's quality and of the paired difference."""
    values, differences = pair.a.mean_quality(), pair.quality_differences()
    rng = pair.how.rng()
    n = values.size
    draws = resampled_sums(np.stack([values, differences], 1), draws=DRAWS, rng=rng) / n
    left_out = (values.sum() - values) / (n - 1)
    mean, difference = float(values.mean()), float(differences.mean())
    return {
        "quality": mean_in_unit_range(values, confidence=confidence),
        "quality_percentile": percentile(draws[:, 0], mean, confidence=confidence),
        "quality_bca": bca(draws[:, 0], mean, left_out, confidence=confidence),
        "difference": mean_difference(differences, confidence=confidence),
        "difference_percentile": percentile(draws[:, 1], difference, confidence=confidence),
    }


def study(world: World, repetitions: int, *, seed: int = 1) -> dict[str, dict[str, float]]:
    """Return coverage and median width per interval."""
    truth = defaultdict(lambda: math.log(world.cost_ratio))
    truth |= {"quality": world.quality, "quality_percentile": world.quality}
    truth |= {"quality_bca": world.quality, "difference": 0.0, "difference_percentile": 0.0}
    hits: dict[str, list[bool]] = defaultdict(list)
    widths: dict[str, list[float]] = defaultdict(list)
    for pair in repeat(world, times=repetitions, draws=DRAWS, seed=seed):
        found = cost_intervals(pair, 0.95) | quality_intervals(pair, 0.95)
        for name, interval in found.items():
            hits[name].append(interval.contains(truth[name]))
            widths[name].append(interval.width)
    return {
        name: {
            "coverage": round(float(np.mean(hits[name])), 3),
            "median_width": round(float(np.median(widths[name])), 3),
        }
        for name in hits
    }


def main() -> None:
    """Print the study as JSON."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    results = {name: study(world, repetitions) for name, world in WORLDS.items()}
    same = {name: r for name, r in results.items() if name.startswith("same")}
    document = {
        "nominal": 0.95,
        "repetitions": repetitions,
        "draws": DRAWS,
        "false_difference_rate": {
            name: round(1.0 - r["cost"]["coverage"], 3) for name, r in same.items()
        },
        "comparisons": results,
        "quality": {
            name: {k: v for k, v in study(world, repetitions).items() if "cost" not in k}
            for name, world in EXTREME.items()
        },
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
