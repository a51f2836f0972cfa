"""Plausible records without a model: for tests of stores, summaries, reports and servers.

``fake_run`` invents what a benchmark of two solutions would have stored: log-normal answer lengths
that are correlated across solutions (long problems are long for everyone), CPU-seconds that follow
the tokens, modelled energy, a GPU that is not there, time-outs, failed generations, and hostile
answers (HTML, rich markup, terminal escapes, right-to-left marks, one very long text). Nothing here
was measured. The same arguments always give the same records.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import dataclass, replace
from typing import Final

from lichen.core.generation import Finish, Timings
from lichen.core.interval import Interval
from lichen.core.measurement import (
    Component,
    Measurement,
    Method,
    Missing,
    Quantity,
    Reading,
    Usage,
    exact,
    total,
)
from lichen.core.model import ModelArtifact, ModelShape
from lichen.core.record import (
    BlockRecord,
    Environment,
    OracleRecord,
    RunRecord,
    RunState,
    SampleRecord,
    SolutionRecord,
)
from lichen.core.task import Score, Status, Verdict

BLOCK_PROBLEMS: Final = 8
"""Problems that share a measuring window."""

SLOTS: Final = 4
"""Sequences decoded together; CPU time is that of two busy cores."""

CPU_S_PER_TOKEN: Final = 0.065
"""A half-billion-parameter model, 4 bits a weight, on two shared server cores."""

HOSTILE: Final = (
    "<script>alert(1)</script>",
    "[red]not markup[/red] [link=https://example.org]x[/link] [/",
    "\x1b[31mescape\x1b[0m \x07 \u202egnp.exe",
    "'; DROP TABLE samples; -- \u0000-free but rude",
    "</textarea><img src=x onerror=alert(2)>&amp;{{7*7}}${7*7}",
)
"""Answers that a page, a terminal and a database must survive."""

_FAILURES: Final = (
    (Status.FAILED, "assertion", "AssertionError: candidate(3) == 4"),
    (Status.FAILED, "assertion", "AssertionError"),
    (Status.ERROR, "exception", "TypeError: unsupported operand type(s)"),
    (Status.ERROR, "syntax", "SyntaxError: invalid syntax <b>line 3</b>"),
    (Status.ERROR, "no-entry", "the program does not define the function"),
    (Status.TIMEOUT, "cpu", "more than 10 CPU-seconds"),
)

_SHAPE: Final = ModelShape(
    architecture="qwen2",
    parameters=494_032_768,
    active_parameters=494_032_768,
    layers=24,
    embedding=896,
    heads=14,
    kv_heads=2,
    head_dim=64,
    feed_forward=4864,
    vocabulary=151_936,
    context=32_768,
    weight_bytes=395_000_000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRun:
    """A finished run with everything it stored, as the store would give it back."""

    run: RunRecord
    blocks: tuple[BlockRecord, ...]
    samples: tuple[SampleRecord, ...]


def fake_run(
    *,
    solutions: tuple[str, ...] = ("plain", "green"),
    problems: int = 40,
    samples: int = 1,
    seed: int = 0,
    quality: tuple[float, ...] = (0.55, 0.55),
    cost_ratio: float = 0.6,
    with_energy: bool = True,
) -> FakeRun:
    """Invent a finished, interleaved run.

    Args:
        solutions: names; the first one is the baseline.
        problems: how many, >= 1. Eight of them share a block.
        samples: attempts per problem and solution, >= 1.
        seed: of everything random here; it also makes the run's id.
        quality: expected pass rate per solution; the last one stands for all further solutions.
        cost_ratio: tokens of each solution over those of the one before it (0.6 = 40 % less).
        with_energy: False leaves every energy entry ``Missing``.

    Returns:
        The run, its blocks by index, its samples by (solution, problem, sample).

    Raises:
        ValueError: an argument is out of range.
    """
    if not solutions or problems < 1 or samples < 1 or not quality or cost_ratio <= 0:
        msg = "fake_run needs solutions, quality, problems >= 1, samples >= 1 and cost_ratio > 0"
        raise ValueError(msg)
    dice = random.Random(f"fake-run-{seed}")  # noqa: S311 (invented data, not cryptography)
    head = _head(solutions, problems, samples, seed, with_energy=with_energy)
    world = _World(dice, head, quality, cost_ratio, with_energy=with_energy)
    blocks: list[BlockRecord] = []
    found: list[SampleRecord] = []
    for start in range(0, problems, BLOCK_PROBLEMS):
        members = range(start, min(start + BLOCK_PROBLEMS, problems))
        order = list(range(len(solutions)))
        dice.shuffle(order)
        for s in order:
            block, its_samples = world.block(len(blocks), s, members)
            blocks.append(block)
            found.extend(its_samples)
    place = {p: i for i, p in enumerate(head.problem_ids)}
    rank = {name: i for i, name in enumerate(solutions)}
    found.sort(key=lambda r: (rank[r.solution], place[r.problem_id], r.sample))
    return FakeRun(run=head, blocks=tuple(blocks), samples=tuple(found))


class _World:
    """The hidden truth that attempts are drawn from: how long and how hard each problem is."""

    def __init__(
        self,
        dice: random.Random,
        head: RunRecord,
        quality: tuple[float, ...],
        cost_ratio: float,
        *,
        with_energy: bool,
    ) -> None:
        self.dice = dice
        self.head = head
        self.cost_ratio = cost_ratio
        self.with_energy = with_energy
        self.quality = [quality[min(i, len(quality) - 1)] for i in range(len(head.solutions))]
        n = len(head.problem_ids)
        self.length = [dice.lognormvariate(math.log(160), 0.5) for _ in range(n)]
        self.prompt = [round(dice.lognormvariate(math.log(190), 0.35)) + 20 for _ in range(n)]
        # Stratified, so that even a small run has easy and hard problems in known proportion.
        self.ease = [(i + 0.5) / n for i in range(n)]
        dice.shuffle(self.ease)

    def block(
        self, index: int, s: int, members: range
    ) -> tuple[BlockRecord, tuple[SampleRecord, ...]]:
        drafts = [
            self.attempt(index, s, p, k)
            for p in members
            for k in range(self.head.samples_per_problem)
        ]
        usage = sum((d.usage for d in drafts), Usage())
        noise = self.dice.lognormvariate(0.0, 0.05)
        work = [d.usage.prefilled * 0.3 + d.usage.completion for d in drafts]
        cpu_s = CPU_S_PER_TOKEN * sum(work) * noise
        generation = self.window(cpu_s, usage)
        judge_s = [d.score.verdict.cpu_s or 0.01 for d in drafts if d.score.verdict is not None]
        judging = replace(
            self.window(sum(judge_s), Usage()),
            flop=Missing(reason="the work of judged programs is not counted"),
            bytes_moved=Missing(reason="the work of judged programs is not counted"),
        )
        done = tuple(
            replace(
                d,
                generation=replace(generation.scaled(w / sum(work)), usage=d.usage),
                judging=judging.scaled(j / sum(judge_s)),
            )
            for d, w, j in zip(drafts, work, judge_s, strict=True)
        )
        record = BlockRecord(
            run_id=self.head.id,
            index=index,
            solution=self.head.solutions[s].name,
            generation=generation,
            judging=judging,
            started_at=f"2026-01-01T{index // 60 % 24:02d}:{index % 60:02d}:00Z",
        )
        return record, done

    def attempt(self, block: int, s: int, p: int, k: int) -> SampleRecord:
        dice = self.dice
        length = self.length[p] * self.cost_ratio**s * dice.lognormvariate(0.0, 0.25)
        cached = min(24, self.prompt[p] - 1) if block else 0
        usage = Usage(prompt=self.prompt[p], cached=cached, completion=min(512, round(length) + 2))
        failed_run = dice.random() < 0.01  # noqa: PLR2004 (one in a hundred requests breaks)
        text, finish = self.answer(p, usage, failed=failed_run)
        score = self.score(s, p, failed=failed_run)
        decode_s = usage.completion * 0.055 * dice.lognormvariate(0.0, 0.1)
        prefill_s = usage.prefilled * 0.012 * dice.lognormvariate(0.0, 0.1)
        ttft_s = prefill_s + dice.expovariate(2.0)
        seed = self.head.seed * 1_000_003 + p * 1009 + k
        problem = self.head.problem_ids[p]
        return SampleRecord(
            run_id=self.head.id,
            solution=self.head.solutions[s].name,
            problem_id=problem,
            sample=k,
            block=block,
            seed=seed,
            prompt_sha256=_digest(f"prompt of {problem}"),
            text=text,
            candidate="" if failed_run else _code(p),
            finish=finish,
            usage=usage,
            timings=Timings(
                total_s=ttft_s + decode_s, ttft_s=ttft_s, prefill_s=prefill_s, decode_s=decode_s
            ),
            score=score,
            generation=Measurement(),
            error="the server closed the connection" if failed_run else "",
        )

    def answer(self, p: int, usage: Usage, *, failed: bool) -> tuple[str, Finish]:
        if failed:
            return "", Finish.ERROR
        text = f"Here is the function:\n```python\n{_code(p)}```\n"
        if p == 1:
            text += "# so long\n" * 5_000
        elif p % 7 == 0:
            text += HOSTILE[p // 7 % len(HOSTILE)]
        return text, Finish.LENGTH if usage.completion >= 512 else Finish.STOP  # noqa: PLR2004 (limit)

    def score(self, s: int, p: int, *, failed: bool) -> Score:
        dice = self.dice
        # Problem difficulty is shared by the solutions: pass/fail correlates, as it really does.
        passes = self.ease[p] + dice.gauss(0.0, 0.15) < self.quality[s]
        cpu_s = dice.lognormvariate(math.log(0.04), 0.4)
        if passes and not failed:
            verdict = Verdict(status=Status.PASSED, cpu_s=cpu_s, wall_s=cpu_s * 1.5)
            return Score(metric=self.head.metric, value=1.0, verdict=verdict)
        status, kind, message = dice.choice(_FAILURES)
        if failed:
            status, kind, message = Status.ERROR, "no-entry", "there is no answer to judge"
        slow = status is Status.TIMEOUT
        cpu_s = 10.0 if slow else cpu_s
        verdict = Verdict(
            status=status,
            kind=kind,
            message=message,
            cpu_s=cpu_s,
            wall_s=cpu_s * 1.5,
            attempts=2 if slow else 1,
        )
        return Score(metric=self.head.metric, value=0.0, verdict=verdict)

    def window(self, cpu_s: float, usage: Usage) -> Measurement:
        return Measurement(
            wall_s=exact(cpu_s / 2, source="monotonic clock"),
            cpu_s=exact(cpu_s, source="process tree"),
            peak_memory_bytes=exact(760e6 + usage.prompt * 1e4, source="process tree RSS"),
            flop=_modelled(_SHAPE.flop(usage), 0.1, Component.PROCESS, "2 per weight and token"),
            bytes_moved=_modelled(
                _SHAPE.bytes_moved(usage, mean_batch=SLOTS), 0.3, Component.PROCESS, "weights + KV"
            ),
            energy_j=_energy(cpu_s, present=self.with_energy),
            foreign_cpu_s=exact(cpu_s * 0.05, component=Component.SYSTEM, source="/proc/stat"),
            steal_s=Missing(reason="the hypervisor does not say", component=Component.SYSTEM),
            usage=usage,
        )


def _head(
    solutions: tuple[str, ...], problems: int, samples: int, seed: int, *, with_energy: bool
) -> RunRecord:
    spec = json.dumps({"task": "humaneval", "seed": seed, "samples": samples, "fake": True})
    idle = Measurement(
        wall_s=exact(10.0, source="monotonic clock"),
        cpu_s=exact(0.05, source="process tree"),
        energy_j=_energy(1.0, present=with_energy),
    )
    return RunRecord(
        id=f"fake-{seed:04d}",
        created_at="2026-01-01T00:00:00Z",
        task="humaneval",
        task_version="1",
        prompt_style="chat",
        metric="pass@1",
        data_sha256=_digest("data"),
        problem_ids=tuple(f"HumanEval/{i}" for i in range(problems)),
        samples_per_problem=samples,
        seed=seed,
        spec=spec,
        spec_hash=_digest(spec),
        environment=_environment(),
        solutions=tuple(_solution(name) for name in solutions),
        oracle=OracleRecord(problems=problems, passed=problems),
        idle=idle,
        state=RunState.FINISHED,
        notes=("these records are invented",),
    )


def _environment() -> Environment:
    return Environment(
        lichen_version="0.1.0",
        python_version="3.11.2",
        os="Linux 6.1",
        machine="x86_64",
        cpu_model="Invented CPU @ 2.50GHz",
        logical_cpus=2,
        usable_cpus=2,
        memory_bytes=8 << 30,
        virtualisation="kvm",
        governor="unknown",
        load_average=1.25,
        versions=(("numpy", "2.0.0"), ("xllamacpp", "2026.10.1")),
    )


def _solution(name: str) -> SolutionRecord:
    return SolutionRecord(
        name=name,
        model=ModelArtifact(
            name="qwen2.5-coder-0.5b",
            path="models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            format="gguf",
            sha256=_digest("model"),
            size_bytes=491_400_064,
            shape=_SHAPE,
            licence="Apache-2.0",
        ),
        engine="llama_cpp",
        settings=(("engine.slots", str(SLOTS)), ("sampling.temperature", "0.2")),
        load=Measurement(
            wall_s=exact(1.5, source="monotonic clock"),
            cpu_s=exact(1.1, source="process tree"),
            usage=Usage(),
        ),
    )


def _energy(cpu_s: float, *, present: bool) -> tuple[Quantity, ...]:
    gpu = Missing(reason="no GPU in this machine", component=Component.GPU)
    if not present:
        reason = "no RAPL in this virtual machine"
        return (
            Missing(reason=reason, component=Component.CPU),
            Missing(reason=reason, component=Component.DRAM),
            gpu,
        )
    cores = Reading(
        value=Interval(low=2 * cpu_s, value=4 * cpu_s, high=8 * cpu_s),
        method=Method.MODELLED,
        component=Component.CPU,
        source="2-8 W per busy core",
    )
    return cores, _modelled(0.35 * cpu_s, 0.15, Component.DRAM, "0.3-0.4 W/GB in use"), gpu


def _modelled(value: float, relative: float, component: Component, source: str) -> Reading:
    return Reading(
        value=Interval.around(value, relative),
        method=Method.MODELLED,
        component=component,
        source=source,
    )


def _code(p: int) -> str:
    return f"def task_{p}(x):\n    return x + {p}\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fake_total(fake: FakeRun, solution: str) -> Measurement:
    """Sum the windows (generation and judging) of one solution's blocks."""
    windows = [
        w
        for b in fake.blocks
        if b.solution == solution
        for w in (b.generation, b.judging)
        if w is not None
    ]
    return total(windows)
