"""Decide whether speculative decoding pays, from what plain and speculative blocks of work cost.

Speculation trades cheap verification of several tokens at once for drafts that may be thrown away
(Leviathan et al., 2023, arXiv:2211.17192). Faster is not the same as cheaper: on processors where a
batch costs in proportion to its size it uses *more* energy even when nearly every draft is accepted
(measured here; for GPUs see arXiv:2602.09113). So it stays off until measured otherwise:

- *Probe*: blocks of requests run in pairs, one plain and one speculative, in alternating order. The
  log-ratio of CPU-seconds per unit of work gets an interval (``log_ratio``). On: its upper end is
  below ``ln(1 - gain)``. Off: its lower end is above.
- *Bound*: each accepted draft token saves at most one decoding step, so the cost ratio is at least
  ``1 - accepted / generated``. A draft that never agrees is switched off by this without a clock.
- *Hysteresis*: once on, it stays on unless the best estimate says that it costs more than plain.
- *Re-check*: after a number of requests (twice as many each time nothing changed), when accepted
  drafts become half as frequent, or when the load has doubled or halved.

Pure: no clock, no engine. Not for concurrent use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from lichen.acceleration.log_ratio import as_ratio, log_ratio, shown
from lichen.core.interval import Interval

MAX_BACKOFF: Final = 16
"""Re-checks that change nothing become at most this many times rarer."""


class Mode(StrEnum):
    """How a block of requests is run."""

    PLAIN = "plain"
    SPECULATIVE = "speculative"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchRules:
    """When to believe a difference.

    Args:
        gain: least saving of CPU-seconds per unit of work worth having, in (0, 1).
        min_pairs, max_pairs: pairs of blocks before a decision may, and must, be made.
        min_tokens: drafted-mode tokens generated before the bound on savings is applied.
        recheck_after: requests after which a decision is doubted again.
    """

    gain: float = 0.03
    min_pairs: int = 4
    max_pairs: int = 8
    min_tokens: int = 64
    recheck_after: int = 400

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0 < self.gain < 1:
            msg = f"gain is a share between 0 and 1, got {self.gain:g}"
            raise ValueError(msg)
        if not 2 <= self.min_pairs <= self.max_pairs:  # noqa: PLR2004 (one pair has no spread)
            msg = f"2 <= min_pairs <= max_pairs, got {self.min_pairs} and {self.max_pairs}"
            raise ValueError(msg)
        if self.min_tokens < 1 or self.recheck_after < 1:
            msg = "min_tokens and recheck_after must be at least 1"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What some requests, run together in one mode, cost.

    Args:
        mode: how they were run.
        cpu_s: CPU-seconds of the process tree, > 0.
        work: tokens that the cost is divided by, > 0; prefilled tokens may count for less.
        tokens: generated tokens.
        accepted: of them, how many had been drafted.
        load: mean number of requests in flight, > 0.
    """

    mode: Mode
    cpu_s: float
    work: float
    tokens: int = 0
    accepted: int = 0
    load: float = 1.0

    def __add__(self, other: Block) -> Block:
        """Join two blocks of one mode; the load is the larger one."""
        return Block(
            mode=self.mode,
            cpu_s=self.cpu_s + other.cpu_s,
            work=self.work + other.work,
            tokens=self.tokens + other.tokens,
            accepted=self.accepted + other.accepted,
            load=max(self.load, other.load),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the last finished probe found.

    Args:
        on: whether to speculate.
        reason: one clause for people.
        ratio: CPU-seconds per work, speculative to plain, 90 % interval; None if never compared.
        accepted_share: share of generated tokens that had been drafted; None if unknown.
        pairs: pairs of blocks compared.
        excess_s: CPU-seconds that the probe's speculative blocks cost above what the same work
            would have cost plain; negative if they saved, None if there was no pair.
    """

    on: bool
    reason: str
    ratio: Interval | None = None
    accepted_share: float | None = None
    pairs: int = 0
    excess_s: float | None = None


@dataclass(slots=True)
class _Probe:
    """The comparison under way."""

    waiting: dict[Mode, Block] = field(default_factory=dict)
    pairs: list[tuple[Block, Block]] = field(default_factory=list)
    drafted: Block | None = None  # all speculative blocks joined

    @property
    def share(self) -> float | None:
        """Share of generated tokens that came from accepted drafts."""
        if self.drafted is None or self.drafted.tokens == 0:
            return None
        return self.drafted.accepted / self.drafted.tokens


class SpeculationSwitch:
    """See the module. Ask ``mode``, run, tell ``observe`` (probing) or ``saw`` (settled)."""

    def __init__(self, rules: SwitchRules | None = None) -> None:
        self.rules = rules or SwitchRules()
        self.verdict = Verdict(on=False, reason="not compared yet")
        self.probes = 0
        """How many comparisons have been finished."""
        self._probe: _Probe | None = _Probe()
        self._backoff = 1
        self._requests = 0
        self._recent_tokens = 0.0
        self._recent_accepted = 0.0
        self._load = 1.0
        self._decided_load = 1.0

    @property
    def probing(self) -> bool:
        """Whether blocks are being compared now; otherwise the verdict holds."""
        return self._probe is not None

    @property
    def mode(self) -> Mode:
        """How to run the next block: alternating within and between pairs while probing."""
        probe = self._probe
        if probe is None:
            return self.verdict_mode
        if probe.waiting:
            return Mode.SPECULATIVE if Mode.PLAIN in probe.waiting else Mode.PLAIN
        return Mode.SPECULATIVE if len(probe.pairs) % 2 else Mode.PLAIN

    @property
    def verdict_mode(self) -> Mode:
        """The mode that the last verdict asks for."""
        return Mode.SPECULATIVE if self.verdict.on else Mode.PLAIN

    def observe(self, block: Block) -> None:
        """Take in what a block cost while probing; a block without work or cost is ignored."""
        probe = self._probe
        if probe is None or block.cpu_s <= 0 or block.work <= 0:
            return
        if block.mode is Mode.SPECULATIVE:
            probe.drafted = block if probe.drafted is None else probe.drafted + block
        earlier = probe.waiting.get(block.mode)
        probe.waiting[block.mode] = block if earlier is None else earlier + block
        if len(probe.waiting) == len(Mode):
            probe.pairs.append((probe.waiting[Mode.PLAIN], probe.waiting[Mode.SPECULATIVE]))
            probe.waiting.clear()
        self._decide(probe)

    def saw(self, *, tokens: int, accepted: int, load: float = 1.0) -> None:
        """Take in one request that ran under a settled verdict; may begin a new probe.

        Args:
            tokens: generated.
            accepted: of them, drafted and accepted (0 when plain).
            load: mean number of requests in flight meanwhile, > 0.
        """
        if self._probe is not None:
            return
        self._requests += 1
        # An exponential window of about recheck_after / 8 requests.
        keep = 1 - 1 / max(1.0, self.rules.recheck_after / 8)
        self._recent_tokens = self._recent_tokens * keep + tokens
        self._recent_accepted = self._recent_accepted * keep + accepted
        self._load += (load - self._load) * (1 - keep)
        if self._requests >= self.rules.recheck_after * self._backoff or self._moved():
            self._probe = _Probe()

    def give_up(self, reason: str) -> None:
        """Settle on plain because speculation cannot be run."""
        self._settle(Verdict(on=False, reason=reason), None)

    def _moved(self) -> bool:
        """Whether the conditions of the verdict are gone; not asked within its first requests."""
        if self._requests < max(1, self.rules.recheck_after // 8):
            return False
        if self._load >= 2 * self._decided_load or self._load <= self._decided_load / 2:
            return True
        share = self.verdict.accepted_share
        if not self.verdict.on or not share or not self._recent_tokens:
            return False
        return self._recent_accepted / self._recent_tokens < share / 2

    def _decide(self, probe: _Probe) -> None:
        """Settle if the probe has shown enough."""
        least = math.log1p(-self.rules.gain)
        share, drafted = probe.share, probe.drafted
        if (
            drafted is not None
            and share is not None
            and drafted.tokens >= self.rules.min_tokens
            and share < self.rules.gain
        ):
            reason = (
                f"only {share:.1%} of the tokens were accepted drafts, and no more can be saved"
            )
            self._settle(self._found(probe, reason, on=False), probe)
            return
        if len(probe.pairs) < self.rules.min_pairs:
            return
        logs = log_ratio([(a.cpu_s / a.work, b.cpu_s / b.work) for a, b in probe.pairs])
        costs = f"speculative costs {shown(as_ratio(logs))} of plain"
        if logs.high < least or (self.verdict.on and logs.value < 0 and logs.low > least):
            self._settle(self._found(probe, costs, on=True), probe)
        elif logs.low > least:
            self._settle(self._found(probe, costs, on=False), probe)
        elif len(probe.pairs) >= self.rules.max_pairs:
            on = self.verdict.on and logs.value < 0
            undecided = f"{costs}: not clearly {self.rules.gain:.0%} cheaper"
            self._settle(self._found(probe, costs if on else undecided, on=on), probe)

    def _found(self, probe: _Probe, reason: str, *, on: bool) -> Verdict:
        pairs = [(a.cpu_s / a.work, b.cpu_s / b.work) for a, b in probe.pairs]
        plain_cpu = sum(a.cpu_s for a, _ in probe.pairs)
        plain_work = sum(a.work for a, _ in probe.pairs)
        excess = sum(b.cpu_s - b.work * plain_cpu / plain_work for _, b in probe.pairs)
        return Verdict(
            on=on,
            reason=reason,
            ratio=as_ratio(log_ratio(pairs)) if pairs else None,
            accepted_share=probe.share,
            pairs=len(pairs),
            excess_s=excess if pairs else None,
        )

    def _settle(self, verdict: Verdict, probe: _Probe | None) -> None:
        same = verdict.on == self.verdict.on and self.probes > 0
        self._backoff = min(self._backoff * 2, MAX_BACKOFF) if same else 1
        self.verdict = verdict
        self.probes += 1
        self._probe = None
        self._requests = 0
        self._recent_tokens = self._recent_accepted = 0.0
        loads = [b.load for pair in probe.pairs for b in pair] if probe else []
        self._load = self._decided_load = sum(loads) / len(loads) if loads else self._load
