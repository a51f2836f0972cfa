"""B against A: ratios, tests, and what they allow one to claim.

Nothing is claimed about cost from a single block, since one window cannot show its own noise, and
nothing about machine costs of solutions that did not run interleaved. Computation is exempt: it
follows from tokens and the architecture, which windows do not disturb.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lichen.benchmark.attempts import Table
from lichen.benchmark.conclude import conclusion
from lichen.benchmark.costs import Sampling
from lichen.benchmark.pair import Pair, Side, is_interleaved
from lichen.benchmark.paired import FEWEST_BLOCKS, holm, mcnemar, mean_difference
from lichen.core.footprint import Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Missing, Reading
from lichen.core.summary import Claim, Comparison, CostRatio, Dimension


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
    pair = Pair(a, b, how)
    interleaved = is_interleaved(pair.a.table, pair.b.table)
    quality = mean_difference(
        pair.b.table.mean_quality - pair.a.table.mean_quality, confidence=how.confidence
    )
    only_a, only_b, mcnemar_p = _first_samples(pair.a.table, pair.b.table)
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
            ratios=tuple(_ratio(pair, d, interleaved=interleaved) for d in Dimension),
            p_dominates=pair.p_dominates(headline) if headline is not None else 0.0,
            interleaved=interleaved,
            conclusion="",
        ),
        p_values={d: pair.ratio(d, "attempts").p_value for d in pair.known},
        headline=headline,
        p_cheaper=_p_cheaper(pair, headline),
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


def _ratio(pair: Pair, d: Dimension, *, interleaved: bool) -> CostRatio:
    if d is Dimension.MEMORY:
        return _memory(pair.a.table, pair.b.table, interleaved=interleaved)
    if d not in pair.known:
        why = next(
            (c for s in (pair.a, pair.b) if isinstance(c := s.columns[d], Missing)),
            Missing(reason="one of the two cost nothing, so there is no ratio"),
        )
        return _no_ratio(d, why)
    per_attempt = pair.ratio(d, "attempts")
    interval = per_attempt.interval(pair.how.confidence)
    per_solved: Priced = Missing(reason="one of the two solved nothing, so there is no ratio")
    if min(float(s.table.solved.sum()) for s in (pair.a, pair.b)) > 0:
        per_solved = pair.ratio(d, "solved").interval(pair.how.confidence)
    undisturbed = d is Dimension.COMPUTATION
    claimable = undisturbed or (interleaved and per_attempt.spread.blocks >= FEWEST_BLOCKS)
    return CostRatio(
        dimension=d,
        per_attempt=interval,
        per_solved=per_solved,
        claim=_claim(interval) if claimable else Claim.NOT_COMPARABLE,
    )


def _memory(a: Table, b: Table, *, interleaved: bool) -> CostRatio:
    """Compare peaks; the bounds are the extreme ratios of any two blocks' peaks."""
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
        claim=_claim(ratio) if interleaved else Claim.NOT_COMPARABLE,
    )


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


def _p_cheaper(pair: Pair, headline: Dimension | None) -> float | None:
    solved = min(float(s.table.solved.sum()) for s in (pair.a, pair.b))
    return None if headline is None or solved == 0 else pair.ratio(headline, "solved").p_less


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
