"""A plausible summary without a run: for tests of reports. Nothing in it was measured."""

from __future__ import annotations

import math
from typing import Final

from lichen.core.footprint import Factor, FactorSet, Priced
from lichen.core.interval import Interval
from lichen.core.measurement import Method, Missing
from lichen.core.summary import (
    Claim,
    Comparison,
    Cost,
    CostRatio,
    Dimension,
    Percentiles,
    RouteLevel,
    RoutePoint,
    RouteSummary,
    SolutionSummary,
    StageShare,
    Summary,
)

_PER_ATTEMPT: Final[dict[Dimension, tuple[float, Method, float]]] = {
    Dimension.COMPUTATION: (3.1e11, Method.MODELLED, 0.1),
    Dimension.MEMORY: (7.6e8, Method.COUNTER, 0.0),
    Dimension.TIME: (4.9, Method.COUNTER, 0.0),
    Dimension.CPU_TIME: (15.2, Method.COUNTER, 0.0),
    Dimension.ENERGY: (17.4, Method.MODELLED, 0.6),
    Dimension.WATER: (1.9e-5, Method.MODELLED, 0.7),
    Dimension.CARBON: (2.4e-3, Method.MODELLED, 0.8),
    Dimension.MONEY: (7.2e-7, Method.MODELLED, 0.7),
}
"""Dimension -> (first solution's cost per attempt, method, systematic half-width)."""

NO_ENERGY: Final = Missing(reason="no RAPL in this virtual machine")
_PRICED: Final = {Dimension.ENERGY, Dimension.WATER, Dimension.CARBON, Dimension.MONEY}


def fake_summary(
    names: tuple[str, ...] = ("plain", "green"),
    *,
    run_id: str = "fake-0000",
    with_energy: bool = True,
    solved_share: float = 0.56,
    region: str = "WORLD",
) -> Summary:
    """Invent a summary of 40 problems; each solution costs 0.6 of the one before it.

    ``solved_share=0`` gives solutions that solve nothing (an unbounded cost per solved task);
    ``with_energy=False`` leaves energy and what follows from it ``Missing``.
    """
    solutions = tuple(
        _solution(name, 0.6**i, solved_share, with_energy=with_energy)
        for i, name in enumerate(names)
    )
    return Summary(
        run_ids=(run_id,),
        task="humaneval",
        metric="pass@1",
        solutions=solutions,
        comparisons=tuple(
            _comparison(names[0], b, 0.6 ** (i + 1), with_energy=with_energy)
            for i, b in enumerate(names[1:])
        ),
        pareto=names[-1:],
        factors=fake_factors(region),
        confidence=0.95,
        not_measured=(
            ("energy of the GPU", "no GPU in this machine"),
            *(() if with_energy else (("energy of the CPU", NO_ENERGY.reason),)),
        ),
        notes=("this summary is invented",),
    )


def fake_route(
    solution: str = "green", *, others: tuple[tuple[str, float, float], ...] = ()
) -> RouteSummary:
    """Invent a cascade of two levels with ten thresholds, which pays."""
    steps = [i / 10 for i in range(11)]
    return RouteSummary(
        solution=solution,
        levels=(
            RouteLevel(
                name="level 0",
                attempts=40,
                handed_on=10,
                cost_cpu_s=Interval(low=2.0, value=2.5, high=3.0),
                rate=Interval(low=0.16, value=0.25, high=0.38),
                limit=Interval(low=0.7, value=0.75, high=0.8),
            ),
            RouteLevel(
                name=solution,
                attempts=10,
                handed_on=0,
                cost_cpu_s=Interval(low=9.0, value=10.0, high=11.0),
                rate=Interval.exact(0.0),
                limit=Missing(reason="the last level hands nothing on"),
            ),
        ),
        attempts=40,
        skipped=0,
        points=tuple(
            RoutePoint(
                threshold=-math.inf if i == 0 else x,
                cost_cpu_s=2.5 + 2.5 * x,
                quality=0.4 + 0.16 * x,
                handed_on=0.25 * x,
            )
            for i, x in enumerate(steps)
        ),
        others=others,
        conclusion=f"It pays: {solution} is invented.",
    )


def fake_factors(region: str = "WORLD") -> FactorSet:
    """Invent a factor set of two, one with a hostile source."""
    return FactorSet(
        region=region,
        factors=(
            Factor(
                name="grid.carbon_intensity",
                value=Interval(low=400.0, value=445.0, high=490.0),
                unit="gCO2e/kWh",
                year=2024,
                source="https://example.org/grid?a=1&b=2",
                licence="CC-BY-4.0",
                region=region,
            ),
            Factor(
                name="facility.pue",
                value=Interval(low=1.1, value=1.3, high=1.6),
                unit="1",
                year=2023,
                source="javascript:alert(1) <b>Someone</b>, 2023",
                licence="CC0-1.0",
                note="a range over data centres",
            ),
        ),
    )


def _solution(name: str, scale: float, share: float, *, with_energy: bool) -> SolutionSummary:
    attempts = 40
    solved = round(share * attempts)
    spread = 0.075 if 0 < share < 1 else 0.0
    return SolutionSummary(
        name=name,
        metric="pass@1",
        problems=40,
        attempts=attempts,
        solved=solved,
        quality=Interval(low=share - spread, value=share, high=share + spread),
        pass_at_k=((1, Interval(low=share - spread, value=share, high=share + spread)),),
        costs=tuple(_cost(d, scale, solved / attempts, with_energy=with_energy) for d in Dimension),
        stages=_stages(608.0 * scale, with_energy=with_energy),
        ttft_s=Percentiles(n=40, mean=2.6, p50=2.4, p90=4.1, p95=4.8, p99=6.0),
        tpot_s=Percentiles(n=40, mean=0.055, p50=0.055, p90=0.062, p95=0.064, p99=0.07),
        latency_s=Percentiles(n=40, mean=12.0, p50=10.8, p90=19.0, p95=24.0, p99=30.0),
        decode_tokens_per_s=18.2,
        prompt_tokens=8_400,
        completion_tokens=round(7_100 * scale),
        waste_share=0.47,
        verdicts=(("passed", solved), ("failed", attempts - solved)),
        errors=0,
    )


def _cost(dimension: Dimension, scale: float, share: float, *, with_energy: bool) -> Cost:
    if dimension in _PRICED and not with_energy:
        return Cost(
            dimension=dimension,
            total=NO_ENERGY,
            per_attempt=NO_ENERGY,
            per_solved=NO_ENERGY,
            systematic=NO_ENERGY,
            method=None,
        )
    base, method, systematic = _PER_ATTEMPT[dimension]
    peak = dimension is Dimension.MEMORY
    value = base if peak else base * scale
    per_solved = _per_solved(value, 1.0 if peak else share)
    return Cost(
        dimension=dimension,
        total=Interval.around(value if peak else 40 * value, systematic),
        per_attempt=Interval.exact(value) if peak else Interval.around(value, 0.08),
        per_solved=Interval.exact(value) if peak else per_solved,
        systematic=Interval.around(per_solved.value, systematic)
        if math.isfinite(per_solved.value)
        else per_solved,
        method=method,
    )


def _per_solved(value: float, share: float) -> Interval:
    if not share:
        return Interval(low=value, value=math.inf, high=math.inf)
    return Interval(low=value / share * 0.86, value=value / share, high=value / share * 1.2)


def _stages(cpu_s: float, *, with_energy: bool) -> tuple[StageShare, ...]:
    shares = (("prefill", 0.22), ("decode", 0.71), ("sandbox", 0.03), ("idle", 0.04))
    return tuple(
        StageShare(
            stage=stage,
            cpu_s=Interval.around(cpu_s * part, 0.05),
            energy_j=Interval.around(4 * cpu_s * part, 0.5) if with_energy else NO_ENERGY,
        )
        for stage, part in shares
    )


def _comparison(a: str, b: str, ratio: float, *, with_energy: bool) -> Comparison:
    def ratios(dimension: Dimension) -> CostRatio:
        if dimension in _PRICED and not with_energy:
            return CostRatio(
                dimension=dimension,
                per_attempt=NO_ENERGY,
                per_solved=NO_ENERGY,
                claim=Claim.NOT_COMPARABLE,
            )
        if dimension is Dimension.MEMORY:
            same: Priced = Interval.exact(1.0)
            return CostRatio(
                dimension=dimension, per_attempt=same, per_solved=same, claim=Claim.NO_DIFFERENCE
            )
        return CostRatio(
            dimension=dimension,
            per_attempt=Interval.around(ratio, 0.07),
            per_solved=Interval.around(ratio, 0.16),
            claim=Claim.LESS,
        )

    return Comparison(
        a=a,
        b=b,
        quality_difference=Interval(low=-0.05, value=0.0, high=0.05),
        margin=0.05,
        non_inferior=True,
        mcnemar_p=1.0,
        only_a=3,
        only_b=3,
        ratios=tuple(ratios(d) for d in Dimension),
        p_dominates=0.62,
        interleaved=True,
        conclusion=(
            f"{b} uses less energy than {a} and is not worse by more than the margin of 0.05."
        ),
    )
