"""The decision rule of speculation, fed with costs that are known."""

from __future__ import annotations

import pytest

from lichen.acceleration.speculation_switch import Block, Mode, SpeculationSwitch, SwitchRules

RULES = SwitchRules(gain=0.05, min_pairs=3, max_pairs=5, min_tokens=50, recheck_after=40)


def block(mode: Mode, ratio: float, accepted: int = 50, load: float = 1.0) -> Block:
    """A block of 100 tokens; plain costs 1 CPU-s, speculative ``ratio``."""
    speculative = mode is Mode.SPECULATIVE
    return Block(
        mode=mode,
        cpu_s=ratio if speculative else 1.0,
        work=100.0,
        tokens=100,
        accepted=accepted if speculative else 0,
        load=load,
    )


def probe(switch: SpeculationSwitch, *ratios: float, accepted: int = 50) -> list[Mode]:
    """Feed blocks as the switch asks for them until it settles; returns the modes it asked for."""
    modes: list[Mode] = []
    while switch.probing:
        ratio = ratios[min(len(modes) // 2, len(ratios) - 1)]
        modes.append(switch.mode)
        switch.observe(block(switch.mode, ratio, accepted))
    return modes


def run(switch: SpeculationSwitch, requests: int, *, accepted: int = 50, load: float = 1.0) -> int:
    """Let settled requests pass until a probe begins; returns how many it took."""
    for n in range(requests):
        if switch.probing:
            return n
        switch.saw(tokens=100, accepted=accepted if switch.verdict.on else 0, load=load)
    return requests


def test_it_is_off_until_measured() -> None:
    """Nothing is believed before it was compared, and the first block is plain."""
    switch = SpeculationSwitch(RULES)
    assert not switch.verdict.on
    assert switch.probing
    assert switch.mode is Mode.PLAIN


def test_the_order_of_a_pair_alternates() -> None:
    """Drift of the machine falls on both modes: plain first, then speculative first."""
    p, s = Mode.PLAIN, Mode.SPECULATIVE
    assert probe(SpeculationSwitch(RULES), 0.8)[:6] == [p, s, s, p, p, s]


def test_a_clear_saving_switches_on() -> None:
    """A fifth cheaper in every pair is enough after the least number of pairs."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 0.80, 0.78, 0.82)
    assert switch.verdict.on
    assert switch.verdict.pairs == 3
    assert switch.verdict.ratio is not None
    assert switch.verdict.ratio.high < 0.95
    assert switch.mode is Mode.SPECULATIVE


def test_a_clear_loss_stays_off() -> None:
    """What costs more is not used, whatever share of drafts is accepted."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 1.5, 1.6, 1.4, accepted=95)
    assert not switch.verdict.on
    assert "1.5" in switch.verdict.reason


def test_a_draft_that_never_agrees_is_switched_off_without_a_clock() -> None:
    """The bound on savings decides: one block suffices even if the clock says it was cheap."""
    switch = SpeculationSwitch(RULES)
    modes = probe(switch, 0.1, accepted=0)
    assert not switch.verdict.on
    assert modes.count(Mode.SPECULATIVE) == 1
    assert "0.0% of the tokens were accepted drafts" in switch.verdict.reason


def test_a_saving_that_is_too_small_is_not_worth_it() -> None:
    """Two percent cheaper does not reach the gain of five."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 0.98, 0.981, 0.979)
    assert not switch.verdict.on


def test_noise_that_hides_the_answer_leaves_it_off() -> None:
    """Undecided after the most pairs means plain."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 0.5, 1.6, 0.6, 1.5, 0.7)
    assert switch.verdict.pairs == RULES.max_pairs
    assert not switch.verdict.on
    assert "not clearly" in switch.verdict.reason


def test_once_on_it_needs_a_reason_to_go_off() -> None:
    """Hysteresis: a re-check that finds a small saving, or noise around one, keeps it on."""
    for ratios in ((0.98, 0.981, 0.979), (0.6, 1.3, 0.7, 1.2, 0.8)):
        switch = SpeculationSwitch(RULES)
        probe(switch, 0.8)
        run(switch, 1000)
        probe(switch, *ratios)
        assert switch.verdict.on


def test_once_on_it_goes_off_when_it_costs_more() -> None:
    """A re-check whose best estimate is a loss switches off."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 0.8)
    run(switch, 1000)
    probe(switch, 1.1, 1.12, 1.08)
    assert not switch.verdict.on


def test_a_verdict_is_doubted_after_a_while_and_ever_more_rarely() -> None:
    """Re-checks come after ``recheck_after`` requests, doubling while nothing changes."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 1.5)
    waits = []
    for _ in range(3):
        waits.append(run(switch, 10_000))
        probe(switch, 1.5)
    assert waits == [40, 80, 160]


def test_fewer_accepted_drafts_bring_an_early_recheck() -> None:
    """If drafts stop being accepted, the verdict is doubted long before its time."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 0.8, accepted=60)
    assert run(switch, 1000, accepted=10) < RULES.recheck_after


def test_another_load_brings_an_early_recheck() -> None:
    """What pays alone may not pay in a batch: the load doubling is a reason to look again."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 0.8)
    assert run(switch, 1000, load=4.0) < RULES.recheck_after


def test_the_same_load_brings_none() -> None:
    """Steady conditions are left alone until the re-check is due."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 0.8)
    assert run(switch, 1000) == RULES.recheck_after


def test_the_probe_is_charged() -> None:
    """The verdict says what the speculative blocks cost above plain ones."""
    switch = SpeculationSwitch(RULES)
    probe(switch, 1.5, 1.5, 1.5)
    assert switch.verdict.excess_s == pytest.approx(3 * 0.5)


def test_giving_up_is_plain() -> None:
    """If the second instance cannot be had, the verdict is plain, with the reason."""
    switch = SpeculationSwitch(RULES)
    switch.give_up("no memory")
    assert not switch.probing
    assert switch.mode is Mode.PLAIN
    assert switch.verdict.reason == "no memory"
    assert switch.verdict.excess_s is None


def test_blocks_without_work_prove_nothing() -> None:
    """A block without tokens or cost is not compared."""
    switch = SpeculationSwitch(RULES)
    switch.observe(Block(mode=Mode.PLAIN, cpu_s=0.0, work=10.0))
    switch.observe(Block(mode=Mode.PLAIN, cpu_s=1.0, work=0.0))
    assert switch.mode is Mode.PLAIN


def test_blocks_of_one_mode_in_a_row_are_joined() -> None:
    """What others ran meanwhile is not lost: the pair is made of joined blocks."""
    switch = SpeculationSwitch(RULES)
    for mode in (Mode.PLAIN, Mode.PLAIN, Mode.SPECULATIVE) * 3:
        switch.observe(block(mode, 0.8))
    assert switch.verdict.on
    assert switch.verdict.pairs == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"gain": 0.0},
        {"gain": 1.0},
        {"min_pairs": 1},
        {"min_pairs": 7, "max_pairs": 6},
        {"min_tokens": 0},
        {"recheck_after": 0},
    ],
)
def test_rules_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """Rules that could never decide are not accepted."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SwitchRules(**wrong)  # type: ignore[arg-type]
