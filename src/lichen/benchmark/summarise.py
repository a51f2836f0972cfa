"""Turn stored records into a ``Summary``: every number a report shows, with its uncertainty.

Nothing is run or measured here, so a stored run can be summarised again for another grid, margin
or confidence. The first solution is the baseline that the others are compared with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lichen.benchmark.attempts import Table, tabulate
from lichen.benchmark.compare import Finding, Side, compare, corrected
from lichen.benchmark.costs import Sampling, all_columns, costs, stages, waste_share
from lichen.benchmark.latency import decode_tokens_per_s, finished, percentiles
from lichen.benchmark.paired import pareto_front
from lichen.benchmark.passk import mean_in_unit_range, pass_at_k_all
from lichen.core.errors import ConfigError
from lichen.core.footprint import FactorSet, Footprint
from lichen.core.generation import Finish
from lichen.core.interval import Interval
from lichen.core.measurement import Measurement, Missing, missing_fields
from lichen.core.record import BlockRecord, RunRecord, RunState, SampleRecord
from lichen.core.summary import Dimension, SolutionSummary, Summary
from lichen.footprint import price as default_price

Price = Callable[[Measurement, FactorSet], Footprint]

_KS: Final = (1, 2, 5, 10, 20, 50, 100)
_FEWEST_DRAWS: Final = 100
"""A 95 % interval is read from the tails: two or three draws each, at the very least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as the store gives it back."""

    run: RunRecord
    samples: Sequence[SampleRecord]
    blocks: Sequence[BlockRecord]


def summarise(  # noqa: PLR0913 (a run's three kinds of records, and the settings by name)
    run: RunRecord,
    samples: Sequence[SampleRecord],
    blocks: Sequence[BlockRecord],
    factors: FactorSet,
    *,
    confidence: float = 0.95,
    margin: float = 0.02,
    draws: int = 2000,
    seed: int = 0,
    price: Price = default_price,
) -> Summary:
    """Summarise one run, finished or not. The settings are those of ``summarise_runs``.

    Raises:
        ConfigError: there is no sample yet, or a setting is out of range.
    """
    return summarise_runs(
        [StoredRun(run=run, samples=samples, blocks=blocks)],
        factors,
        confidence=confidence,
        margin=margin,
        draws=draws,
        seed=seed,
        price=price,
    )


def summarise_runs(
    runs: Sequence[StoredRun],
    factors: FactorSet,
    *,
    confidence: float = 0.95,
    margin: float = 0.02,
    draws: int = 2000,
    seed: int = 0,
    price: Price = default_price,
) -> Summary:
    """Summarise runs of one task together; the first solution of the first run is the baseline.

    Solutions of different runs are compared on the problems both attempted, as not interleaved.

    Args:
        runs: at least one, with their records.
        factors: what energy and machine time are priced with.
        confidence: of every interval, in (0, 1).
        margin: how much worse quality may be and still count as not worse, in [0, 1].
        draws: bootstrap resamples, >= 100.
        seed: of the resampling; the same seed gives the same summary.
        price: prices a measurement; linear in energy and in machine time.

    Raises:
        ConfigError: no run or no sample, a setting out of range, or the runs differ in task,
            version, metric or data.
    """
    if not 0 < confidence < 1 or not 0 <= margin <= 1 or draws < _FEWEST_DRAWS:
        raise ConfigError(
            f"a summary needs 0 < confidence < 1, 0 <= margin <= 1 and draws >= {_FEWEST_DRAWS}; "
            f"got {confidence}, {margin}, {draws}"
        )
    how = Sampling(confidence=confidence, draws=draws, seed=seed)
    first = _same_task(runs)
    sides = [_side(table, factors, price) for table in _tables(runs)]
    summaries = tuple(_solution(side, footprint, how) for side, footprint in sides)
    findings = _findings([side for side, _ in sides], how, margin)
    return Summary(
        run_ids=tuple(r.run.id for r in runs),
        task=first.task,
        metric=first.metric,
        solutions=summaries,
        comparisons=corrected(findings, confidence=confidence),
        pareto=_pareto(summaries),
        factors=factors,
        confidence=confidence,
        not_measured=_not_measured(sides),
        notes=_notes(runs, findings),
    )


def _same_task(runs: Sequence[StoredRun]) -> RunRecord:
    if not runs:
        raise ConfigError("there is no run to summarise")
    first = runs[0].run
    for other in (r.run for r in runs[1:]):
        for field in ("task", "task_version", "metric", "data_sha256"):
            mine, theirs = getattr(first, field), getattr(other, field)
            if mine != theirs:
                raise ConfigError(
                    f"runs {first.id} and {other.id} cannot be compared: their "
                    f"{field.replace('_', ' ')} differs ({mine} and {theirs})"
                )
    return first


def _tables(runs: Sequence[StoredRun]) -> list[Table]:
    used = Counter(s.name for r in runs for s in r.run.solutions)
    tables = []
    for stored in runs:
        run = stored.run
        samples = [s for s in stored.samples if s.run_id == run.id]
        blocks = [b for b in stored.blocks if b.run_id == run.id]
        present = {s.solution for s in samples}
        for solution in run.solutions:
            if solution.name in present:
                name = solution.name if used[solution.name] == 1 else f"{solution.name} ({run.id})"
                tables.append(tabulate(run, solution.name, samples, blocks, name=name))
    if not tables:
        ids = ", ".join(r.run.id for r in runs)
        raise ConfigError(f"no attempt is stored for {ids}: run or resume it first")
    return tables


def _side(table: Table, factors: FactorSet, price: Price) -> tuple[Side, Footprint]:
    footprint = price(table.whole, factors)
    return Side(table=table, columns=all_columns(table, footprint)), footprint


def _solution(side: Side, footprint: Footprint, how: Sampling) -> SolutionSummary:
    table = side.table
    answered = finished(table.samples)
    usage = [s.usage for s in table.samples]
    return SolutionSummary(
        name=table.name,
        metric=table.run.metric,
        problems=len(table.problem_ids),
        attempts=len(table.samples),
        solved=int(np.sum(table.solved)),
        quality=mean_in_unit_range(table.mean_quality, confidence=how.confidence),
        pass_at_k=_pass_at_k(table, how.confidence),
        costs=costs(table, side.columns, footprint, how),
        stages=stages(table),
        ttft_s=percentiles(s.timings.ttft_s for s in answered),
        tpot_s=percentiles(s.timings.tpot_s(s.usage.completion) for s in answered),
        latency_s=percentiles(s.timings.total_s for s in answered),
        decode_tokens_per_s=decode_tokens_per_s(answered),
        prompt_tokens=sum(u.prompt for u in usage),
        completion_tokens=sum(u.completion for u in usage),
        waste_share=waste_share(table),
        verdicts=_verdicts(table.samples),
        errors=sum(s.finish is Finish.ERROR for s in table.samples),
    )


def _pass_at_k(table: Table, confidence: float) -> tuple[tuple[int, Interval], ...]:
    if not table.pass_fail:
        return ()
    attempts = [int(n) for n in table.attempts_per_problem]
    passed = [int(c) for c in table.per_problem(table.solved)]
    return tuple(
        (k, mean_in_unit_range(pass_at_k_all(attempts, passed, k), confidence=confidence))
        for k in _KS
        if k <= min(attempts)
    )


def _verdicts(samples: Sequence[SampleRecord]) -> tuple[tuple[str, int], ...]:
    counts = Counter(
        "scored" if (v := s.score.verdict) is None else f"{v.status} {v.kind}".strip()
        for s in samples
    )
    return tuple(counts.most_common())


def _findings(sides: Sequence[Side], how: Sampling, margin: float) -> list[Finding]:
    baseline, *others = sides
    for other in others:
        if not frozenset(baseline.table.problem_ids) & frozenset(other.table.problem_ids):
            raise ConfigError(
                f"{baseline.table.name} and {other.table.name} have no problem in common"
            )
    return [compare(baseline, o, how, margin=margin) for o in others]


def _pareto(summaries: Sequence[SolutionSummary]) -> tuple[str, ...]:
    for d in (Dimension.ENERGY, Dimension.CPU_TIME):
        points = {
            s.name: (s.quality.value, c.value)
            for s in summaries
            if isinstance(c := s.cost(d).per_attempt, Interval)
        }
        if len(points) == len(summaries):
            return pareto_front(points)
    return ()


def _not_measured(sides: Sequence[tuple[Side, Footprint]]) -> tuple[tuple[str, str], ...]:
    found: dict[tuple[str, str], None] = {}
    for side, _ in sides:
        table = side.table
        found.update(dict.fromkeys(missing_fields(table.generation)))
        known = {field for field, _ in found}
        if table.judging is None:
            found["judging", "the answers were not judged in a window of their own"] = None
        else:
            judging = missing_fields(table.judging)
            found.update({(f"judging {f}", why): None for f, why in judging if f not in known})
        if table.run.idle is None:
            found["idle", "no idle baseline was taken"] = None
        if all(s.timings.ttft_s is None for s in table.samples):
            found["ttft_s", "the engine does not report the first token"] = None
    for side, footprint in sides:
        energy = side.columns[Dimension.ENERGY]
        for name in ("carbon_g", "water_l", "electricity_cost"):
            value = getattr(footprint, name)
            if isinstance(value, Missing) and not isinstance(energy, Missing):
                found[name, value.reason] = None
    return tuple(found)


def _notes(runs: Sequence[StoredRun], findings: Sequence[Finding]) -> tuple[str, ...]:
    notes = list(dict.fromkeys(note for r in runs for note in r.run.notes))
    for stored in runs:
        run = stored.run
        expected = len(run.problem_ids) * run.samples_per_problem * len(run.solutions)
        if len(stored.samples) < expected or run.state is not RunState.FINISHED:
            notes.append(
                f"run {run.id} is {run.state}: {len(stored.samples)} of {expected} attempts"
            )
    styles = sorted({r.run.prompt_style for r in runs})
    if len(styles) > 1:
        notes.append(f"the runs word their prompts differently: {', '.join(styles)}")
    if len(findings) > 1:
        notes.append(
            f"claims and McNemar p-values are Holm-corrected over {len(findings)} comparisons; "
            "intervals are not"
        )
    notes += [
        f"{f.comparison.b} is cheaper per solved problem than {f.comparison.a} with probability "
        f"{f.p_cheaper:.2f} ({f.headline.replace('_', ' ')})"
        for f in findings
        if f.p_cheaper is not None and f.headline is not None
    ]
    return tuple(notes)
