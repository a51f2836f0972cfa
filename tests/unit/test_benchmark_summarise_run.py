"""A summary says what the records say, and refuses what they do not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lichen.benchmark.paired import holm
from lichen.benchmark.summarise import StoredRun, summarise, summarise_runs
from lichen.core.errors import ConfigError
from lichen.core.footprint import Footprint
from lichen.core.generation import Finish
from lichen.core.interval import Interval
from lichen.core.measurement import Component, Missing, Reading
from lichen.core.summary import Claim, Dimension
from lichen.footprint import factor_set, price
from lichen.testing.records import fake_run, fake_total

FACTORS = factor_set("DNK")


def summary_of(fake, **settings):
    """Summarise a fake run with few draws."""
    return summarise(fake.run, fake.samples, fake.blocks, FACTORS, **({"draws": 400} | settings))


def bounds(interval):
    """An interval's numbers, equal up to rounding."""
    return (interval.low, interval.value, interval.high)


def stored(fake):
    """A fake run as ``summarise_runs`` takes it."""
    return StoredRun(run=fake.run, samples=fake.samples, blocks=fake.blocks)


def ratio_of(summary, dimension, index=0):
    """One cost ratio of a comparison."""
    return next(r for r in summary.comparisons[index].ratios if r.dimension is dimension)


def renamed(fake, **change):
    """A fake run whose head is changed, id included everywhere."""
    run = replace(fake.run, **change)
    return replace(
        fake,
        run=run,
        samples=tuple(replace(s, run_id=run.id) for s in fake.samples),
        blocks=tuple(replace(b, run_id=run.id) for b in fake.blocks),
    )


@pytest.fixture(scope="module")
def fake():
    """A run of two solutions, three samples each."""
    return fake_run(samples=3, problems=32)


@pytest.fixture(scope="module")
def summary(fake):
    """Its summary."""
    return summary_of(fake)


def test_totals_are_the_sums_of_the_windows(fake, summary):
    """Energy and CPU time of a solution are those of all its blocks, judging included."""
    for solution in summary.solutions:
        whole = fake_total(fake, solution.name)
        assert bounds(solution.cost(Dimension.ENERGY).total) == pytest.approx(
            bounds(whole.it_energy_j.value)
        )
        assert bounds(solution.cost(Dimension.CPU_TIME).total) == pytest.approx(
            bounds(whole.cpu_s.value)
        )


def test_cost_per_solved_carries_all_attempts(summary):
    """Per solved is the total over the number solved, per attempt over the number of attempts."""
    for solution in summary.solutions:
        for cost in solution.costs:
            if cost.dimension is Dimension.MEMORY:
                continue
            assert cost.per_solved.value == pytest.approx(cost.total.value / solution.solved)
            assert cost.per_attempt.value == pytest.approx(cost.total.value / solution.attempts)


def test_computation_leaves_out_the_judge(fake, summary):
    """FLOP are the model's, although the judged programs' are not counted."""
    flop = sum(b.generation.flop.value.value for b in fake.blocks if b.solution == "plain")
    assert summary.solutions[0].cost(Dimension.COMPUTATION).total.value == pytest.approx(flop)


def test_the_two_uncertainties_stay_apart(summary):
    """A model of 2-8 W shows in the systematic bounds alone, the draw of problems in sampling."""
    energy = summary.solutions[0].cost(Dimension.ENERGY)
    assert energy.systematic.high / energy.systematic.value > 1.8
    assert energy.per_attempt.high / energy.per_attempt.value < 1.5
    assert summary.solutions[0].cost(Dimension.CPU_TIME).systematic.is_exact


def test_prices_are_those_of_the_total(fake, summary):
    """Carbon, water and money are priced once from the sum of the windows."""
    footprint = price(fake_total(fake, "plain"), FACTORS)
    plain = summary.solutions[0]
    assert bounds(plain.cost(Dimension.CARBON).total) == pytest.approx(bounds(footprint.carbon_g))
    assert bounds(plain.cost(Dimension.WATER).total) == pytest.approx(bounds(footprint.water_l))
    assert bounds(plain.cost(Dimension.MONEY).total) == pytest.approx(
        bounds(footprint.electricity_cost)
    )


def test_stages_add_up_to_the_whole(fake, summary):
    """Prefill, decode and sandbox share all CPU time; idle stands beside them."""
    plain = summary.solutions[0]
    spent = {s.stage: s.cpu_s.value for s in plain.stages}
    assert set(spent) == {"prefill", "decode", "sandbox", "idle"}
    assert spent["prefill"] + spent["decode"] + spent["sandbox"] == pytest.approx(
        plain.cost(Dimension.CPU_TIME).total.value
    )
    no_baseline = renamed(fake, idle=None)
    assert "idle" not in {s.stage for s in summary_of(no_baseline).solutions[0].stages}
    assert ("idle", "no idle baseline was taken") in summary_of(no_baseline).not_measured


def test_counts_are_counts(fake, summary):
    """Attempts, verdicts, errors, tokens and solved are those of the samples."""
    plain = summary.solutions[0]
    own = [s for s in fake.samples if s.solution == "plain"]
    assert plain.attempts == len(own) == sum(n for _, n in plain.verdicts)
    assert plain.solved == sum(s.score.solved for s in own) == dict(plain.verdicts)["passed"]
    assert plain.errors == sum(s.finish is Finish.ERROR for s in own)
    assert plain.completion_tokens == sum(s.usage.completion for s in own)
    assert plain.latency_s.n == plain.attempts - plain.errors


def test_pass_at_k_starts_with_the_quality(summary):
    """Pass@1 is the mean of the metric, and k goes as far as there are samples."""
    plain = summary.solutions[0]
    assert [k for k, _ in plain.pass_at_k] == [1, 2]
    assert plain.pass_at_k[0][1] == plain.quality
    assert plain.pass_at_k[1][1].value >= plain.quality.value


def test_the_same_solution_twice_has_ratio_one(fake):
    """A/A with identical records: every ratio is 1, nothing is claimed, nobody dominates."""
    first = [s for s in fake.samples if s.solution == "plain"]
    blocks = [b for b in fake.blocks if b.solution == "plain"]
    twins = renamed(
        replace(
            fake,
            samples=(*first, *(replace(s, solution="green") for s in first)),
            blocks=(*blocks, *(replace(b, solution="green") for b in blocks)),
        )
    )
    comparison = summary_of(twins).comparisons[0]
    for ratio in comparison.ratios:
        assert ratio.per_attempt.value == pytest.approx(1.0)
        if ratio.dimension is not Dimension.MEMORY:
            assert ratio.claim is Claim.NO_DIFFERENCE
    assert comparison.quality_difference.value == 0.0
    assert (comparison.mcnemar_p, comparison.only_a, comparison.only_b) == (1.0, 0, 0)
    assert comparison.p_dominates == 0.0
    assert "No difference in energy" in comparison.conclusion


def test_a_saving_at_equal_quality_is_said_with_its_numbers():
    """Many problems, many samples, 40 % fewer tokens: "uses less", not worse by the margin."""
    fake = fake_run(problems=160, samples=8, seed=2)
    summary = summary_of(fake, margin=0.05)
    comparison = summary.comparisons[0]
    assert ratio_of(summary, Dimension.ENERGY).claim is Claim.LESS
    assert comparison.non_inferior
    assert comparison.conclusion.startswith("green uses ")
    assert "% less energy per attempt than plain" in comparison.conclusion
    assert "not worse by more than 5 points" in comparison.conclusion


def test_a_saving_that_costs_quality_is_no_saving():
    """Cheaper and worse: the sentence takes the saving back."""
    fake = fake_run(problems=160, samples=4, quality=(0.7, 0.4))
    comparison = summary_of(fake).comparisons[0]
    assert not comparison.non_inferior
    assert "no saving yet" in comparison.conclusion
    assert "worse by more than 2 points" in comparison.conclusion
    assert comparison.mcnemar_p < 0.001
    assert comparison.p_dominates == 0.0


def test_without_energy_cpu_time_decides_and_nothing_is_zero():
    """Missing energy stays missing, in all that follows from it, with its reason."""
    summary = summary_of(fake_run(with_energy=False, problems=160, samples=8, seed=2))
    plain = summary.solutions[0]
    for d in (Dimension.ENERGY, Dimension.WATER, Dimension.CARBON, Dimension.MONEY):
        cost = plain.cost(d)
        for value in (cost.total, cost.per_attempt, cost.per_solved, cost.systematic):
            assert isinstance(value, Missing)
            assert "no RAPL" in value.reason
        assert ratio_of(summary, d).claim is Claim.NOT_COMPARABLE
    assert "CPU time" in summary.comparisons[0].conclusion
    assert ("energy_j[cpu]", "no RAPL in this virtual machine") in summary.not_measured
    assert plain.waste_share is not None


def test_a_single_block_allows_no_claim_about_cost():
    """One pair of windows cannot show its own noise; computation does not depend on it."""
    summary = summary_of(fake_run(problems=8, cost_ratio=0.1))
    assert ratio_of(summary, Dimension.ENERGY).claim is Claim.NOT_COMPARABLE
    assert ratio_of(summary, Dimension.COMPUTATION).claim is Claim.LESS
    assert "one window each" in summary.comparisons[0].conclusion


def test_nothing_is_claimed_about_wall_time_on_a_busy_machine():
    """Beside other work CPU time may be claimed and wall time may not; on a calm machine both."""
    calm = fake_run(problems=164, quality=(0.55, 0.55), cost_ratio=0.4)
    busy = replace(
        calm,
        blocks=tuple(
            replace(b, generation=replace(b.generation, foreign_cpu_s=b.generation.cpu_s))
            for b in calm.blocks
        ),
    )
    assert ratio_of(summary_of(calm), Dimension.TIME).claim is Claim.LESS
    assert ratio_of(summary_of(busy), Dimension.TIME).claim is Claim.NOT_COMPARABLE
    assert ratio_of(summary_of(busy), Dimension.CPU_TIME).claim is Claim.LESS
    assert ratio_of(summary_of(busy), Dimension.ENERGY).claim is Claim.LESS


def test_nothing_is_claimed_about_memory(summary):
    """Solutions that take turns in one process are all resident: the ratio is shown, no more."""
    memory = ratio_of(summary, Dimension.MEMORY)
    assert memory.per_attempt.contains(1.0)
    assert memory.claim is Claim.NOT_COMPARABLE


def test_solving_nothing_costs_infinitely_much_per_solved():
    """The best estimate is infinite, the low end finite, and no ratio is formed."""
    summary = summary_of(fake_run(quality=(-1.0, 0.5)))
    energy = summary.solutions[0].cost(Dimension.ENERGY)
    assert energy.per_solved.value == energy.per_solved.high == math.inf
    assert math.isfinite(energy.per_solved.low)
    assert isinstance(ratio_of(summary, Dimension.ENERGY).per_solved, Missing)
    assert summary.solutions[0].waste_share == 1.0


def test_scores_without_verdicts_have_no_pass_at_k(fake):
    """Edit similarity and the like: quality is a mean, and pass/fail statistics are absent."""
    scored = replace(
        fake,
        samples=tuple(
            replace(s, score=replace(s.score, verdict=None, value=0.25)) for s in fake.samples
        ),
    )
    summary = summary_of(scored)
    assert summary.solutions[0].pass_at_k == ()
    assert summary.solutions[0].quality.value == 0.25
    assert summary.comparisons[0].mcnemar_p is None
    assert summary.solutions[0].verdicts == (("scored", 96),)


def test_three_solutions_are_corrected_and_it_is_said():
    """Two comparisons with the baseline: p-values are adjusted, a note says so."""
    fake = fake_run(solutions=("plain", "green", "tiny"), quality=(0.6, 0.5, 0.4), problems=80)
    summary = summary_of(fake)
    assert [(c.a, c.b) for c in summary.comparisons] == [("plain", "green"), ("plain", "tiny")]
    assert any("Holm-corrected over 2 comparisons" in n for n in summary.notes)
    pairs = [
        summary_of(
            renamed(replace(fake, samples=tuple(s for s in fake.samples if s.solution != gone)))
        ).comparisons[0]
        for gone in ("tiny", "green")
    ]
    assert [c.mcnemar_p for c in summary.comparisons] == pytest.approx(
        holm([p.mcnemar_p for p in pairs])
    )


def test_an_unfinished_run_is_summarised_and_says_so(fake):
    """What is stored is used; the note tells how much is missing."""
    half = replace(fake, samples=fake.samples[: len(fake.samples) // 4])
    summary = summary_of(half)
    assert [s.name for s in summary.solutions] == ["plain"]
    assert summary.comparisons == ()
    assert any("48 of 192 attempts" in note for note in summary.notes)


def test_no_samples_is_one_sentence(fake):
    """A run that stored nothing yet cannot be summarised."""
    with pytest.raises(ConfigError, match="no attempt is stored for fake-0000"):
        summary_of(replace(fake, samples=()))


@pytest.mark.parametrize(
    "setting", [{"confidence": 1.0}, {"margin": -0.1}, {"draws": 10}, {"confidence": math.nan}]
)
def test_settings_out_of_range_are_refused(fake, setting):
    """One sentence names all three."""
    with pytest.raises(ConfigError, match="a summary needs"):
        summary_of(fake, **setting)


def test_the_same_seed_gives_the_same_summary(fake, summary):
    """Summaries are reproducible."""
    assert summary_of(fake) == summary


def test_runs_are_compared_but_not_as_interleaved():
    """Two runs of one task: both names are told apart, quality is compared, cost is not claimed."""
    one = fake_run(solutions=("plain",), problems=64, seed=0)
    two = fake_run(solutions=("plain",), problems=64, seed=0, quality=(0.9,))
    two = renamed(two, id="later")
    summary = summarise_runs([stored(one), stored(two)], FACTORS, draws=400)
    assert summary.run_ids == ("fake-0000", "later")
    assert [s.name for s in summary.solutions] == ["plain (fake-0000)", "plain (later)"]
    comparison = summary.comparisons[0]
    assert not comparison.interleaved
    assert "were not run interleaved" in comparison.conclusion
    assert "quality is higher" in comparison.conclusion
    assert ratio_of(summary, Dimension.ENERGY).claim is Claim.NOT_COMPARABLE


def test_all_of_a_before_all_of_b_is_not_interleaved(fake):
    """One run whose solutions did not take turns is not a paired measurement."""
    order = {"plain": 0, "green": 1000}
    moved = replace(
        fake,
        samples=tuple(replace(s, block=s.block + order[s.solution]) for s in fake.samples),
        blocks=tuple(replace(b, index=b.index + order[b.solution]) for b in fake.blocks),
    )
    assert not summary_of(moved).comparisons[0].interleaved
    assert summary_of(fake).comparisons[0].interleaved


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"task": "mbpp"}, "task"),
        ({"task_version": "2"}, "task version"),
        ({"metric": "mrr"}, "metric"),
        ({"data_sha256": "0" * 64}, "data sha256"),
    ],
)
def test_runs_of_different_tasks_are_refused(fake, change, word):
    """The sentence names the runs, what differs and both values."""
    other = renamed(fake, id="other", **change)
    with pytest.raises(ConfigError, match=f"fake-0000 and other cannot be compared: their {word}"):
        summarise_runs([stored(fake), stored(other)], FACTORS)


def test_runs_without_a_common_problem_are_refused():
    """There is nothing to pair."""
    one, two = fake_run(solutions=("plain",)), fake_run(solutions=("green",))
    moved = tuple(replace(s, problem_id=f"x{s.problem_id}", run_id="two") for s in two.samples)
    two = replace(renamed(two, id="two"), samples=moved)
    with pytest.raises(ConfigError, match="no problem in common"):
        summarise_runs([stored(one), stored(two)], FACTORS)
    with pytest.raises(ConfigError, match="no run"):
        summarise_runs([], FACTORS)


def test_pricing_is_asked_once_per_solution(fake):
    """Prices come from totals: a slow or remote pricing would be called twice here."""
    asked = []

    def counting(measurement, factors) -> Footprint:
        asked.append(measurement)
        return price(measurement, factors)

    summary_of(fake, price=counting)
    assert len(asked) == 2


def test_a_component_that_some_windows_lack_spoils_energy(fake):
    """One window without its CPU energy makes the energy of that solution unknown, not smaller."""
    first = fake.samples[0]
    lost = tuple(
        Missing(reason="the counter wrapped twice", component=e.component)
        if e.component is Component.CPU
        else e
        for e in first.generation.energy_j
    )
    broken = replace(first, generation=replace(first.generation, energy_j=lost))
    blocks = tuple(
        replace(b, generation=replace(b.generation, energy_j=lost)) if b.index == first.block else b
        for b in fake.blocks
    )
    summary = summary_of(replace(fake, samples=(broken, *fake.samples[1:]), blocks=blocks))
    assert isinstance(summary.solutions[0].cost(Dimension.ENERGY).per_attempt, Missing)
    assert isinstance(summary.solutions[1].cost(Dimension.ENERGY).per_attempt, Interval)


def test_fake_samples_sum_to_their_blocks(fake):
    """The invented shares of a block add up to its window, as real ones do."""
    for block in fake.blocks:
        parts = [s for s in fake.samples if s.block == block.index]
        assert isinstance(block.generation.cpu_s, Reading)
        assert np.isclose(
            sum(s.generation.cpu_s.value.value for s in parts), block.generation.cpu_s.value.value
        )
