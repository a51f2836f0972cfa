"""B against A: ratios, tests, and what they allow one to claim.

Nothing is claimed about cost from a single block, since one window cannot show its own noise, and
nothing about machine costs of solutions that did not run interleaved. Computation is exempt: it
follows from tokens and the architecture, which windows do not disturb. On a machine that was busy
with something else nothing is claimed about wall time, nor about energy that was counted for the
whole machine (``docs/lab-notes.md``: real A/A runs beside other work).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lichen.benchmark.attempts import Indices, Table
from lichen.benchmark.bootstrap import Array
from lichen.benchmark.conclude import conclusion
from lichen.benchmark.costs import Sampling
from lichen.benchmark.pair import Arm, Pair
from lichen.benchmark.paired import FEWEST_BLOCKS, holm, mcnemar, mean_difference
from lichen.core.footprint import Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Method, Missing, Reading
from lichen.core.summary import Claim, Comparison, CostRatio, Dimension
from lichen.meter import disturbances

_FROM_ENERGY = (Dimension.ENERGY, Dimension.WATER, Dimension.CARBON, Dimension.MONEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One solution of a comparison: its attempts and their additive costs."""

    table: Table
    columns: Mapping[Dimension, Array | Missing]

    def only(self, problem_ids: Sequence[str]) -> Side:
        """Return the side on these problems alone."""
        wanted = frozenset(problem_ids)
        rows = [i for i, s in enumerate(self.table.samples) if s.problem_id in wanted]
        columns = {d: c if isinstance(c, Missing) else c[rows] for d, c in self.columns.items()}
        return Side(table=self.table.only(problem_ids), columns=columns)

    def arm(self, block: Indices) -> Arm:
        """Return what is resampled."""
        return Arm(
            problem=self.table.problem,
            block=block,
            quality=self.table.quality,
            solved=self.table.solved,
            costs={d: c for d, c in self.columns.items() if not isinstance(c, Missing)},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A comparison before correction for how many there are.

    ``p_values`` are those of the per-attempt ratios; ``headline`` is the dimension that stands for
    cost (energy where both have it, else CPU time) and ``p_cheaper`` the probability that B costs
    less of it per solved problem.
    """

    comparison: Comparison
    p_values: dict[Dimension, float]
    headline: Dimension | None
    p_cheaper: float | None


def compare(a: Side, b: Side, how: Sampling, *, margin: float) -> Finding:
    """Compare B with A on the problems both attempted, of which there must be one at least."""
    shared = frozenset(b.table.problem_ids)
    common = tuple(p for p in a.table.problem_ids if p in shared)
    a, b = a.only(common), b.only(common)
    blocks_a, blocks_b = _paired_blocks(a.table, b.table)
    pair = Pair(a.arm(blocks_a), b.arm(blocks_b), how)
    interleaved = _interleaved(a.table, b.table)
    shared_with_others = _disturbed(a.table, b.table)
    quality = mean_difference(pair.quality_differences(), confidence=how.confidence)
    only_a, only_b, mcnemar_p = _first_samples(a.table, b.table)
    headline = next((d for d in (Dimension.ENERGY, Dimension.CPU_TIME) if d in pair.known), None)
    return Finding(
        comparison=Comparison(
            a=a.table.name,
            b=b.table.name,
            quality_difference=quality,
            margin=margin,
            non_inferior=quality.low > -margin,
            mcnemar_p=mcnemar_p,
            only_a=only_a,
            only_b=only_b,
            ratios=tuple(
                _memory(a.table, b.table)
                if d is Dimension.MEMORY
                else _ratio(pair, d, fair=interleaved and d not in shared_with_others)
                if d in pair.known
                else _no_ratio(d, _why(d, a, b))
                for d in Dimension
            ),
            p_dominates=pair.p_dominates(headline) if headline is not None else 0.0,
            interleaved=interleaved,
            conclusion="",
        ),
        p_values={d: pair.ratio(d, "attempts").p_value for d in pair.known},
        headline=headline,
        p_cheaper=pair.ratio(headline, "solved").p_less
        if headline is not None and pair.both_solved_some
        else None,
    )


def corrected(findings: Sequence[Finding], *, confidence: float) -> tuple[Comparison, ...]:
    """Hold the claims of several comparisons to Holm's correction, then write the conclusions.

    McNemar's p-values become adjusted ones, and a claim that does not survive becomes "no
    difference"; intervals stay those of a single comparison.
    """
    comparisons = [f.comparison for f in findings]
    if len(findings) > 1:
        tested = [i for i, c in enumerate(comparisons) if c.mcnemar_p is not None]
        adjusted = holm([comparisons[i].mcnemar_p or 0.0 for i in tested])
        for i, p in zip(tested, adjusted, strict=True):
            comparisons[i] = replace(comparisons[i], mcnemar_p=p)
        for d in Dimension:
            held = [i for i, f in enumerate(findings) if d in f.p_values]
            for i, p in zip(held, holm([findings[i].p_values[d] for i in held]), strict=True):
                if p > 1.0 - confidence:
                    comparisons[i] = _withdrawn(comparisons[i], d)
    return tuple(
        replace(c, conclusion=conclusion(c, f.headline, confidence=confidence))
        for c, f in zip(comparisons, findings, strict=True)
    )


def _ratio(pair: Pair, d: Dimension, *, fair: bool) -> CostRatio:
    per_attempt = pair.ratio(d, "attempts")
    interval = per_attempt.interval(pair.how.confidence)
    per_solved: Priced = Missing(reason="one of the two solved nothing, so there is no ratio")
    if pair.both_solved_some:
        per_solved = pair.ratio(d, "solved").interval(pair.how.confidence)
    undisturbed = d is Dimension.COMPUTATION
    claimable = undisturbed or (fair and per_attempt.spread.blocks >= FEWEST_BLOCKS)
    return CostRatio(
        dimension=d,
        per_attempt=interval,
        per_solved=per_solved,
        claim=_claim(interval) if claimable else Claim.NOT_COMPARABLE,
    )


def _memory(a: Table, b: Table) -> CostRatio:
    """Compare peaks; the bounds are the extreme ratios of any two blocks' peaks.

    Nothing is claimed: which of a process's pages are whose is an account (``resident``), no count.
    """
    quantities = (*a.peaks_bytes, *b.peaks_bytes)
    missing = next((q for q in quantities if isinstance(q, Missing)), None)
    of_a, of_b = ([q.value.value for q in t.peaks_bytes if isinstance(q, Reading)] for t in (a, b))
    if missing is not None or min(*of_a, *of_b) <= 0:
        return _no_ratio(Dimension.MEMORY, missing or Missing(reason="a peak of 0 was read"))
    ratio = Interval(
        low=min(of_b) / max(of_a), value=max(of_b) / max(of_a), high=max(of_b) / min(of_a)
    )
    return CostRatio(
        dimension=Dimension.MEMORY,
        per_attempt=ratio,
        per_solved=ratio,
        claim=Claim.NOT_COMPARABLE,
    )


def _why(d: Dimension, a: Side, b: Side) -> Missing:
    missing = (c for s in (a, b) if isinstance(c := s.columns[d], Missing))
    return next(missing, Missing(reason="one of the two cost nothing, so there is no ratio"))


def _no_ratio(d: Dimension, why: Missing) -> CostRatio:
    return CostRatio(dimension=d, per_attempt=why, per_solved=why, claim=Claim.NOT_COMPARABLE)


def _claim(ratio: Interval) -> Claim:
    if ratio.high < 1.0:
        return Claim.LESS
    return Claim.MORE if ratio.low > 1.0 else Claim.NO_DIFFERENCE


def _withdrawn(c: Comparison, d: Dimension) -> Comparison:
    ratios = tuple(
        replace(r, claim=Claim.NO_DIFFERENCE)
        if r.dimension is d and r.claim in {Claim.LESS, Claim.MORE}
        else r
        for r in c.ratios
    )
    return replace(c, ratios=ratios)


def _first_samples(a: Table, b: Table) -> tuple[int, int, float | None]:
    if not (a.pass_fail and b.pass_fail):
        return 0, 0, None
    first: list[dict[str, bool]] = []
    for table in (a, b):
        seen: dict[str, bool] = {}
        for s in table.samples:  # ordered by sample within a problem
            seen.setdefault(s.problem_id, s.score.solved)
        first.append(seen)
    of_a, of_b = first
    only_a = sum(of_a[p] and not of_b[p] for p in of_a)
    only_b = sum(of_b[p] and not of_a[p] for p in of_a)
    return only_a, only_b, mcnemar(only_a, only_b)


def _disturbed(a: Table, b: Table) -> frozenset[Dimension]:
    """Return the dimensions that other processes' load has falsified, if there was much of it."""
    if not any(disturbances(t.generation, t.run.environment.usable_cpus) for t in (a, b)):
        return frozenset()
    energies = (a.generation.it_energy_j, b.generation.it_energy_j)
    counted = any(isinstance(e, Reading) and e.method is not Method.MODELLED for e in energies)
    return frozenset({Dimension.TIME, *(_FROM_ENERGY if counted else ())})


def _interleaved(a: Table, b: Table) -> bool:
    """Whether two solutions took turns within one run.

    One block each is a turn; of several, neither solution's may all come before the other's.
    """
    if a.run.id != b.run.id:
        return False
    first, second = ({s.block for s in t.samples} for t in (a, b))
    if len(first) == len(second) == 1:
        return True
    return not (max(first) < min(second) or max(second) < min(first))


def _paired_blocks(a: Table, b: Table) -> tuple[Indices, Indices]:
    """Number the blocks of A's rows and of B's, so that windows on the same attempts share one.

    Blocks are joined when they hold the same (problem, sample), directly or through others.
    """
    leader: dict[tuple[int, int], tuple[int, int]] = {}

    def find(block: tuple[int, int]) -> tuple[int, int]:
        while leader.setdefault(block, block) != block:
            block = leader[block]
        return block

    held: dict[tuple[str, int], tuple[int, int]] = {}
    rows: list[tuple[int, int]] = []
    for side, table in enumerate((a, b)):
        for s in table.samples:
            block = (side, s.block)
            rows.append(block)
            other = held.setdefault((s.problem_id, s.sample), block)
            one, two = sorted((find(block), find(other)))
            leader[two] = one
    number: dict[tuple[int, int], int] = {}
    found = np.array([number.setdefault(find(r), len(number)) for r in rows], dtype=np.intp)
    return found[: len(a.samples)], found[len(a.samples) :]
