"""Which recipe makes this model smaller and cheaper and keeps it the same model?

1. *Rounds*: candidates are made and measured beside the parent (divergence on held-out code, CPU
   time of a request); one in three goes on, by non-dominated rank, and is measured for longer.
   What would fail the gate anyway, or is dearer than the parent, leaves.
2. *Gate*: the finalists are held against the parent in full, the cheapest first.
3. The cheapest one that the gate lets through is recommended; if there is none, nothing is.

Nothing is run here: everything comes through the port ``Workshop``. Every finished evaluation goes
into a ledger first, so an interrupted search goes on where it was.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from lichen.compression.candidates import CompressionCandidate, Origin
from lichen.compression.halving import fronts, hypervolume, ranked, schedule
from lichen.compression.ledger import Ledger
from lichen.compression.search_records import gated_from, look_from, plain_gated, plain_look
from lichen.compression.searched import (
    LONGER,
    QUICK,
    Baseline,
    Bill,
    Budget,
    Foreseen,
    Gated,
    Look,
    Row,
    Rules,
    Search,
    Workshop,
)
from lichen.core.errors import ConfigError
from lichen.core.measurement import Missing

ROUNDS_SHARE: Final = 0.6
"""Part of the budget that rounds may use at most, so that the gate can still be asked."""

_LEAST_ROUNDS: Final = 0.25
"""Part of the budget that rounds need beside one gate; where the gate takes more, it is refused."""

_DRAWS: Final = 200
"""Draws of predicted candidates that the baseline's volume is averaged over."""

Progress = Callable[[str, float], None]
"""Told what is done next, and the share of the budget that is used."""


def search(  # noqa: PLR0913 (one verb: its values, then its ports by name)
    workshop: Workshop,
    candidates: Sequence[CompressionCandidate],
    *,
    parent_bytes: int,
    rules: Rules,
    budget: Budget,
    ledger: Ledger,
    prepared: Bill | None = None,
    progress: Progress = lambda _what, _share: None,
) -> Search:
    """Find the cheapest candidate that the gate lets through.

    Args:
        workshop: see ``Workshop``.
        candidates: what to measure, see ``candidates.shortlist``; random ones among them.
        parent_bytes: size of the parent's file.
        rules: see ``Rules``.
        budget: what may be spent; what an earlier search spent on finished work does not count.
        ledger: of finished evaluations.
        prepared: what choosing the candidates cost; part of what is spent.
        progress: see ``Progress``.

    Raises:
        ConfigError: no candidate.
    """
    if not candidates:
        raise ConfigError("there is nothing to try: no candidate fits the limits that were given")
    state = _Search(workshop, candidates, rules, budget, ledger, progress)
    state.now += prepared or Bill()
    finalists = state.rounds()
    state.gates(finalists)
    return state.found(parent_bytes)


@dataclass(slots=True)
class _Search:
    workshop: Workshop
    candidates: Sequence[CompressionCandidate]
    rules: Rules
    budget: Budget
    ledger: Ledger
    progress: Progress
    looks: dict[str, Look] = field(default_factory=dict)
    first: dict[str, Look] = field(default_factory=dict)
    gated: dict[str, Gated] = field(default_factory=dict)
    fates: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    longest: dict[str, Bill] = field(default_factory=dict)
    now: Bill = field(default_factory=Bill)
    before: Bill = field(default_factory=Bill)
    resumed: int = 0
    complete: bool = True
    foreseen: Foreseen | None = None

    # -- stages --------------------------------------------------------------------------------

    def rounds(self) -> list[CompressionCandidate]:
        """Halve the candidates until the finalists are left."""
        alive = list(self.candidates)
        sizes = schedule(len(alive), finalists=self.rules.finalists)
        # The last round cuts nobody: finalists are looked at for longer before the gate.
        for number, keep in enumerate([*sizes[1:], sizes[-1]]):
            for c in alive:
                self._looked(c, QUICK if number == 0 else LONGER)
            if number == 0:
                self.first = dict(self.looks)
            alive = [c for c in alive if self._stays(c)]
            kept = ranked([self.looks[c.key].objectives for c in alive])[:keep]
            for i, c in enumerate(alive):
                if i not in kept:
                    self._leave(c, "others cover its place")
            alive = [alive[i] for i in kept]
        return alive

    def gates(self, finalists: Sequence[CompressionCandidate]) -> None:
        """Hold finalists against the gate, the cheapest first, until it lets one through."""
        order = sorted(finalists, key=self._preference)
        for place, c in enumerate(order):
            if not self._gate(c):
                self._leave(c, f"not held against the gate: {self._lacking(c)}")
            elif self.gated[c.key].passed:
                self.fates[c.key] = "passed the gate"
                for dearer in order[place + 1 :]:
                    self._leave(dearer, "not held against the gate: a cheaper one passed")
                return
            else:
                self._leave(c, f"the gate stopped it: {self.gated[c.key].stopped_by}")

    def found(self, parent_bytes: int) -> Search:
        """Return the result."""
        passed = (c for c in self.candidates if c.key in self.gated and self.gated[c.key].passed)
        best = next(passed, None)
        spent = self.now + self.before
        return Search(
            best=best,
            rows=self._rows(),
            baseline=self._baseline(parent_bytes),
            spent=spent,
            resumed=self.resumed,
            pays_after=self._pays_after(best, spent),
            complete=self.complete,
        )

    # -- single evaluations --------------------------------------------------------------------

    def _looked(self, c: CompressionCandidate, level: int) -> None:
        """Measure a candidate, or take what is known; nothing if the budget forbids it."""
        key = f"look {level} {c.key}"
        if key in self.done:
            return
        kept = self.ledger.get(key)
        look = look_from(kept) if kept is not None else None
        if look is not None:
            self.resumed += 1
            self.before += look.bill
        elif not self._fits(self._look_takes(level), self._rounds_share()):
            return
        else:
            self._say(f"measuring {c.label}")
            look = self.workshop.look(c, level)
            self.ledger.put(key, plain_look(look))
            self._charge(f"look {level}", look.bill)
            if level > QUICK:
                self.made.add(c.key)
        self.done.add(key)
        self.looks[c.key] = look
        if self.foreseen is None and not look.error:
            self._foresee(look, resumed=kept is not None)

    def _foresee(self, look: Look, *, resumed: bool) -> None:
        """Set aside what the gate will take, by the first look.

        Raises:
            ConfigError: one gate alone would take most of the budget. Not where a search goes on
                that was begun with it: its gate may be in the ledger.
        """
        self.foreseen = foreseen = self.workshop.foresee(look)
        share = self.budget.share(foreseen.making + foreseen.gate)
        if share > 1 - _LEAST_ROUNDS and not resumed:
            fewer = ", or ask fewer problems with --limit" if foreseen.answers else ""
            enough = self.budget.scaled(share / (1 - ROUNDS_SHARE))
            raise ConfigError(
                f"holding one file against the model ({foreseen.answers} answers of each) would "
                f"take about {share:.0%} of the budget of {self.budget}: give --budget "
                f"{enough}{fewer}"
            )

    def _rounds_share(self) -> float:
        later = self.foreseen or Foreseen()
        return min(ROUNDS_SHARE, 1 - self.budget.share(later.making + later.gate))

    def _look_takes(self, level: int) -> Bill:
        later = self.foreseen
        return self._expected(
            f"look {level}", later.making + later.longer if later and level > QUICK else None
        )

    def _gate_takes(self, c: CompressionCandidate) -> Bill:
        """Return what holding it against the parent is expected to take, its file included."""
        later = self.foreseen
        if later is None:
            return self._expected("gate")
        made = c.key in self.made
        return self._expected("gate", later.gate if made else later.making + later.gate)

    def _lacking(self, c: CompressionCandidate) -> str:
        takes, used = self.budget.share(self._gate_takes(c)), self.budget.share(self.now)
        return f"{takes:.0%} of the budget expected, {max(0.0, 1 - used):.0%} left"

    def _gate(self, c: CompressionCandidate) -> bool:
        key = f"gate {c.key}"
        kept = self.ledger.get(key)
        gated = gated_from(kept) if kept is not None else None
        if gated is not None:
            self.resumed += 1
            self.before += gated.bill
        elif not self._fits(self._gate_takes(c), 1.0):
            return False
        else:
            self._say(f"gate: {c.label}")
            gated = self.workshop.gate(c)
            self.ledger.put(key, plain_gated(gated))
            self._charge("gate", gated.bill)
        self.gated[c.key] = gated
        return True

    def _expected(self, what: str, foreseen: Bill | None = None) -> Bill:
        """Return the longest of its kind; before the first what was foreseen, or any other's."""
        others = max(self.longest.values(), key=lambda b: b.wall_s, default=Bill())
        return self.longest.get(what) or foreseen or others

    def _fits(self, expected: Bill, share: float) -> bool:
        """Whether what is expected to take that much would end within that share of the budget."""
        fits = self.budget.share(self.now + expected) <= share
        self.complete = self.complete and fits
        return fits

    def _charge(self, what: str, bill: Bill) -> None:
        self.now += bill
        longest = self.longest.get(what, Bill())
        self.longest[what] = bill if bill.wall_s > longest.wall_s else longest

    def _say(self, what: str) -> None:
        self.progress(what, min(self.budget.share(self.now), 1.0))

    # -- judging -------------------------------------------------------------------------------

    def _stays(self, c: CompressionCandidate) -> bool:
        look, rules = self.looks.get(c.key), self.rules
        why = ""
        if look is None:
            why = "not measured: the budget was used up"
        elif look.error:
            why = look.error
        elif look.kl_nats.value > rules.most_kl:
            why = f"diverges by {look.kl_nats.value:.3f} nats (at most {rules.most_kl:g})"
        elif look.flips.value > rules.most_flips:
            why = f"flips {look.flips.value:.1%} of tokens (at most {rules.most_flips:.0%})"
        elif rules.most_bytes is not None and look.file_bytes > rules.most_bytes:
            why = f"is larger than {rules.most_bytes:,} bytes"
        elif look.cost_ratio > rules.most_cost:
            why = f"costs {look.cost_ratio:.2f} times what the parent does"
        if why:
            self._leave(c, why)
        return not why

    def _leave(self, c: CompressionCandidate, why: str) -> None:
        self.fates[c.key] = why
        self.workshop.discard(c)

    def _preference(self, c: CompressionCandidate) -> tuple[float, float]:
        look = self.looks[c.key]
        return (look.cost_ratio, float(look.file_bytes))

    # -- the result ----------------------------------------------------------------------------

    def _rows(self) -> tuple[Row, ...]:
        measured = [c for c in self.candidates if c.key in self.looks]
        points = [self.looks[c.key].objectives for c in measured]
        front = {measured[i].key for i in (fronts(points)[0] if points else [])}
        rows = [
            Row(
                candidate=c,
                look=self.looks.get(c.key),
                gated=self.gated.get(c.key),
                fate=self.fates.get(c.key, "not reached"),
                pareto=c.key in front and not self.looks[c.key].error,
            )
            for c in self.candidates
        ]

        def order(row: Row) -> tuple[bool, bool, bool, float]:
            cost = row.look.cost_ratio if row.look is not None else math.inf
            passed = row.gated is not None and row.gated.passed
            return (not passed, row.gated is None, not row.pareto, cost)

        return tuple(sorted(rows, key=order))

    def _baseline(self, parent_bytes: int) -> Baseline | Missing:
        """Compare sets of equal size; more draws of the larger one, so that luck averages out."""
        limit = self.rules.most_kl if math.isfinite(self.rules.most_kl) else 1.0
        scale = (float(parent_bytes), 1.0, limit)
        sets: dict[Origin, list[tuple[float, ...]]] = {Origin.PREDICTED: [], Origin.RANDOM: []}
        for c in self.candidates:
            if c.key in self.first and c.origin in sets:
                point = self.first[c.key].objectives
                sets[c.origin].append(tuple(x / s for x, s in zip(point, scale, strict=True)))
        guided, drawn = sets[Origin.PREDICTED], sets[Origin.RANDOM]
        each = min(len(guided), len(drawn))
        if not each:
            return Missing(reason="no predicted and random candidates were measured side by side")
        rng = random.Random(0)  # noqa: S311 (an average over draws is no secret)

        def volume(points: list[tuple[float, ...]]) -> float:
            draws = 1 if len(points) == each else _DRAWS
            reference = (1.0, 1.0, 1.0)
            return statistics.fmean(
                hypervolume(rng.sample(points, each), reference) for _ in range(draws)
            )

        return Baseline(each=each, predicted_volume=volume(guided), random_volume=volume(drawn))

    def _pays_after(self, best: CompressionCandidate | None, spent: Bill) -> float | Missing:
        if best is None:
            return Missing(reason="nothing is recommended, so nothing is paid back")
        look = self.looks[best.key]
        saved = look.parent_request_s - look.child_request_s
        if saved <= 0:
            return Missing(reason="nothing is saved per request, so it is never paid back")
        return spent.cpu_s / saved
