"""Which strategies pay here, on this task? A race, never a grid.

1. *Opening*: the strategies that leave a model's answers alone race together against plain. They
   nearly always pay, and what is raced on top of them costs a fraction of what it costs alone.
2. *Screening*: every other choice of the table runs on top of the best so far (alone, if that is
   plain), side by side with it, a few problems per round. It leaves the race once it is dearer,
   worse, too slow or beaten by another setting of the same strategy with confidence (``racing``).
3. *Forward*: what pays is joined in the order of what it saved; each addition must pay on top of
   the best so far. Then comes what nobody looked at yet, and last what was still open.
4. *Backward*: each strategy of the winner is left out once; what is not missed goes.

With k choices of s strategies that costs in the order of k + 2 s races, not a product. Plain, the
dearest of all, answers a problem only where it is the one to beat, or where it is not known yet how
good its answer is. Nothing is run here: everything comes through the port ``Evaluate``. Every
measurement is reported, and the search pays its own bill: CPU-seconds spent, and after how many
requests they are paid back.

The search is a function of its arguments and of what ``Evaluate`` returns; it looks at no clock.
Time is what the rounds say they took, so that one whose rounds are stored goes the same way again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from lichen.acceleration.candidates import CandidateSet, Choice, label, opening, with_choice
from lichen.acceleration.log_ratio import as_ratio
from lichen.acceleration.racing import (
    Rules,
    Standing,
    Track,
    beaten,
    broken_promise,
    cost_against,
    cost_along,
    judged,
    missed,
)
from lichen.acceleration.searched import (
    Budget,
    Evaluate,
    Found,
    Look,
    Pace,
    Progress,
    Race,
    Round,
    Spending,
    pays_after,
    plain_quality,
    too_small,
)
from lichen.core.errors import ConfigError
from lichen.core.interval import Interval
from lichen.core.measurement import Missing

SCREENING_SHARE: Final = 0.6
"""Part of the time after the opening that screening may use, so that some is left for joining what
pays. As long as nothing pays there is nothing to join to, and screening may use all of it."""

LEAST_PROBLEMS: Final = 4
"""Problems in a round at least: with fewer, settings that run requests together cannot show it."""

_PILOT: Final = 2
"""Problems that plain answers first, to see how long things take."""

_SCREENING: Final = "screening"


def search(  # noqa: PLR0913 (one verb: its values, then its ports by name)
    evaluate: Evaluate,
    choices: Sequence[Choice],
    problems: Sequence[str],
    *,
    rules: Rules | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    before: Sequence[Round] = (),
    progress: Progress = lambda _what, _share: None,
) -> Found:
    """Find the cheapest set of strategies that keeps the quality.

    Args:
        evaluate: see ``Evaluate``.
        choices: what to screen, see ``default_candidates``.
        problems: ids of the calibration problems; taken in random order, again from the start
            when they run out.
        rules: when a race is decided.
        budget: what may be spent.
        seed: of the problems' order.
        before: what was run to choose the choices; it is paid from the same budget.
        progress: see ``Progress``.

    Raises:
        ConfigError: no problem to calibrate on, or the budget cannot hold the verification and one
            round.
        LichenError: plain itself cannot be run.
    """
    if not problems:
        raise ConfigError("there is no problem to calibrate on; raise --limit")
    shuffled = list(problems)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 (an order is no secret)
    state = _Search(evaluate, shuffled, rules or Rules(), budget or Budget(), progress)
    state.rounds += before
    state.pilot(len(choices))
    state.open(opening(choices))
    state.screen(choices)
    state.forward()
    state.backward()
    return state.found()


class _OutOfBudgetError(Exception):
    """No further round fits; the search ends with what it knows."""


@dataclass(slots=True)
class _Search:
    evaluate: Evaluate
    problems: list[str]
    rules: Rules
    budget: Budget
    progress: Progress
    tracks: dict[CandidateSet, Track] = field(default_factory=dict)
    screened: dict[CandidateSet, Choice] = field(default_factory=dict)
    standings: dict[CandidateSet, Standing] = field(default_factory=dict)
    errors: dict[CandidateSet, str] = field(default_factory=dict)
    races: list[Race] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    bests: list[CandidateSet] = field(default_factory=lambda: [()])
    base: CandidateSet = ()
    plain: dict[str, float] = field(default_factory=dict)
    complete: bool = True
    round: int = 0
    size: int = 1
    position: int = 0
    rounds: list[Round] = field(default_factory=list)
    reserved_s: float = 0.0
    opened_s: float = 0.0
    pace: Pace = field(default_factory=Pace)

    @property
    def best(self) -> CandidateSet:
        """The cheapest that keeps the promises so far; plain is the first of ``bests``."""
        return self.bests[-1]

    # -- stages --------------------------------------------------------------------------------

    def pilot(self, choices: int) -> None:
        """Let plain answer a little; set time aside for the proof, and size the rounds.

        Raises:
            ConfigError: no round would fit beside the verification.
        """
        self.size = _PILOT
        ids = self._next_problems()
        self.progress("pilot: plain", 0.0)
        ran = self._evaluated([()], ids)
        (plain,) = ran.observed
        answer_s = plain.wall_s / len(ids)
        load_s = self.pace.load_s
        if self.budget.proof:
            self.reserved_s = 2 * (self.budget.proof * answer_s + load_s)
        together = self.budget.together
        answers = choices + math.ceil(choices / together)
        fitting = self._screening_s / 2 / max(answer_s * answers, 1e-9)
        most = self.budget.problems_per_round
        self.size = min(most, max(LEAST_PROBLEMS, int(min(max(fitting, 0.0), most))))
        self.rules = self.rules.for_problems(math.ceil(len(self.problems) / self.size))
        beside = min(choices, together)
        guess_s = answer_s * self.size * (beside + 1) + load_s * beside
        if self.spent_s + guess_s > self._screening_s:
            needed = self.reserved_s + (self.spent_s + guess_s) / SCREENING_SHARE
            look = Spending(answer_s, self.reserved_s, guess_s, needed)
            raise ConfigError(too_small(self.budget, look, stored=ran.stored))

    @property
    def spent_s(self) -> float:
        """Seconds that all rounds took so far."""
        return math.fsum(r.seconds for r in self.rounds)

    @property
    def _screening_s(self) -> float:
        """Seconds at which screening has to end once something pays."""
        rest_s = self.budget.seconds - self.reserved_s - self.opened_s
        return self.opened_s + rest_s * SCREENING_SHARE

    def _until(self, stage: str) -> float:
        """Return the seconds at which a stage has to end."""
        if stage == _SCREENING and self.best_known:
            return self._screening_s
        return self.budget.seconds - self.reserved_s

    def open(self, together: CandidateSet) -> None:
        """Race what leaves answers alone against plain: two solutions, so rounds may be larger."""
        usual, self.size = self.size, min(2 * self.size, self.budget.problems_per_round)
        judge = partial(self._judged, same_answers=True)
        if together and self._duel("opening", together, (), until=judge) is Standing.PAYS:
            self.bests.append(together)
        self.size = usual

    def screen(self, choices: Sequence[Choice]) -> None:
        """Race choices on top of the best, and settings of one strategy among each other."""
        base = self.base = self.best
        self.position = 0  # first the problems that plain has answered
        self.opened_s = self.spent_s
        self.screened = {with_choice(base, c): c for c in choices if c not in base}
        alive = list(self.screened)
        self.standings = dict.fromkeys(alive, Standing.OPEN)
        try:
            while alive:
                ids = self._next_problems()
                # As many in memory as when plain runs beside: it comes along for new problems.
                step = self.budget.together - (bool(base) and not self._known(ids))
                for start in range(0, len(alive), step):
                    self._run([base, *alive[start : start + step]], ids, _SCREENING)
                for candidate in alive:
                    self.standings[candidate] = self._judged(candidate, base)
                self._drop_beaten()
                alive = [c for c in alive if self.standings[c] is Standing.OPEN]
        except _OutOfBudgetError:
            self.complete = False
        for candidate in self.standings:
            self._note(_SCREENING, candidate, base, self.standings[candidate])

    def forward(self) -> None:
        """Join what pays, the best first; then what nobody looked at, then what was left open."""
        for choice in self._by_saving():
            challenger, screened = with_choice(self.best, choice), with_choice(self.base, choice)
            if screened not in self.tracks:
                if not self._fits([self.best, challenger, ()], self.size, "joining"):
                    continue
                self.races = [r for r in self.races if r.candidate != screened]  # looked at now
            paid = self.best == self.base and self.standings[challenger] is Standing.PAYS
            if paid or self._duel("joining", challenger, self.best) is Standing.PAYS:
                self.bests.append(challenger)

    def backward(self) -> None:
        """Leave out each strategy once; keep the smaller set where nothing is lost."""
        for choice in self.best:
            if len(self.best) == 1:
                return
            smaller = tuple(c for c in self.best if c != choice)
            self._duel("leaving out", smaller, self.best, until=self._missed)
            if self._may_go(smaller):
                self.bests.append(smaller)

    def found(self) -> Found:
        """Return the result."""
        ratio = cost_along(self.tracks, self.bests) if self.best else None
        contributions = tuple((c, self._contribution(c)) for c in self.best)
        spent = math.fsum(r.cpu_s for r in self.rounds)
        nothing = Missing(reason="nothing that was tried pays")
        return Found(
            best=self.best,
            ratio=as_ratio(ratio) if ratio is not None else nothing,
            quality=self.tracks[self.best].quality() if self.best else nothing,
            contributions=contributions,
            races=tuple(self.races),
            looks=tuple(self.looks),
            spent_cpu_s=spent,
            spent_s=self.spent_s,
            reserved_s=self.reserved_s,
            rounds=sum(bool(r.observed) for r in self.rounds),
            stored_rounds=sum(bool(r.observed) and r.stored for r in self.rounds),
            pays_after=nothing if ratio is None else pays_after(self.looks, spent, ratio),
            complete=self.complete,
        )

    # -- races ---------------------------------------------------------------------------------

    def _duel(
        self,
        stage: str,
        challenger: CandidateSet,
        incumbent: CandidateSet,
        until: Callable[[CandidateSet, CandidateSet], Standing] | None = None,
    ) -> Standing:
        """Race two candidates until it is decided; rounds that both ran before count."""
        judge = until or self._judged
        standing = judge(challenger, incumbent) if challenger in self.tracks else Standing.OPEN
        try:
            while standing is Standing.OPEN:
                self._run([incumbent, challenger], self._next_problems(), stage)
                standing = judge(challenger, incumbent)
        except _OutOfBudgetError:
            self.complete = False
        self._note(stage, challenger, incumbent, standing)
        return standing

    def _judged(
        self, challenger: CandidateSet, incumbent: CandidateSet, *, same_answers: bool = False
    ) -> Standing:
        if challenger in self.errors:
            return Standing.FAILED
        return judged(self.tracks, challenger, incumbent, self.rules, same_answers=same_answers)

    def _missed(self, smaller: CandidateSet, whole: CandidateSet) -> Standing:
        if smaller in self.errors:
            return Standing.FAILED
        return missed(self.tracks, smaller, whole, self.rules)

    def _may_go(self, smaller: CandidateSet) -> bool:
        """Whether a strategy is not missed, and the set without it keeps what was promised."""
        if smaller in self.errors or smaller not in self.tracks:
            return False
        track = self.tracks[smaller]
        kept = broken_promise(track, self.rules) is None
        good = track.quality().value >= -self.rules.margin
        return kept and good and self._missed(smaller, self.best) is Standing.PAYS

    def _drop_beaten(self) -> None:
        for candidate, standing in self.standings.items():
            if standing in (Standing.OPEN, Standing.PAYS):
                kin = [
                    other
                    for other, how in self.standings.items()
                    if self.screened[other].strategy == self.screened[candidate].strategy
                    and how in (Standing.OPEN, Standing.PAYS)
                ]
                if candidate in self.tracks and beaten(self.tracks, candidate, kin):
                    self.standings[candidate] = Standing.BEATEN

    def _by_saving(self) -> list[Choice]:
        """Return choices worth joining: those that pay, then unseen ones, then open ones."""
        maybe = (Standing.OPEN, Standing.NO_BETTER) if self.best_known else ()
        worth: list[tuple[int, float, Choice]] = []
        for candidate, how in self.standings.items():
            cost, choice = cost_against(self.tracks, self.base, candidate), self.screened[candidate]
            if cost is None:
                if how in maybe:
                    worth.append((1, 0.0, choice))
            elif how is Standing.PAYS or (how in maybe and cost.value < 0):
                worth.append((0 if how is Standing.PAYS else 2, cost.value, choice))
        return [choice for *_, choice in sorted(worth, key=lambda w: w[:2])]

    @property
    def best_known(self) -> bool:
        """Whether something pays, so that joining has something to join to."""
        return bool(self.best) or Standing.PAYS in self.standings.values()

    def _contribution(self, choice: Choice) -> Interval | Missing:
        smaller = tuple(c for c in self.best if c != choice)
        cost = cost_against(self.tracks, self.best, smaller)
        if cost is None:
            return Missing(reason="the budget ended before it was left out once")
        return as_ratio(cost)

    # -- running -------------------------------------------------------------------------------

    def _next_problems(self) -> tuple[str, ...]:
        size = min(self.size, len(self.problems))
        start, self.position = self.position, self.position + size
        self.round += 1
        return tuple(self.problems[(start + i) % len(self.problems)] for i in range(size))

    def _fits(self, group: Sequence[CandidateSet], problems: int, stage: str) -> bool:
        """Whether a round would end before its stage has to."""
        return self.spent_s + self.pace.expects(group, problems) <= self._until(stage)

    def _known(self, ids: Sequence[str]) -> bool:
        """Whether plain has answered all of these."""
        return self.plain.keys() >= set(ids)

    def _run(self, group: Sequence[CandidateSet], ids: tuple[str, ...], stage: str) -> None:
        """Run a round of some candidates, the incumbent first, unless it would not end in time."""
        if not (self._known(ids) or () in group):
            group = [*group, ()]
        if not self._fits(group, len(ids), stage):
            raise _OutOfBudgetError
        names = ", ".join(label(c) for c in group if c)
        self.progress(f"{stage}: {names}", min(1.0, self.spent_s / self._until("")))
        self._evaluated(group, ids)

    def _evaluated(self, group: Sequence[CandidateSet], ids: tuple[str, ...]) -> Round:
        ran = self.evaluate(group, ids)
        self.rounds.append(ran)
        self.pace.learn(group, ran, len(ids))
        looks = [
            Look(round=self.round, candidate=c, problems=ids, observed=seen)
            for c, seen in zip(group, ran.observed, strict=True)
        ]
        self.looks += looks
        self.plain |= plain_quality(looks)
        first, plain = ran.observed[0], {i: self.plain[i] for i in ids}
        for c, seen in zip(group, ran.observed, strict=True):
            if seen.error:
                self.errors[c] = seen.error
            elif not first.error:  # without the one to beat a round says nothing
                self.tracks.setdefault(c, Track()).add(self.round, seen, first, plain)
        return ran

    def _note(
        self, stage: str, candidate: CandidateSet, against: CandidateSet, standing: Standing
    ) -> None:
        track = self.tracks.get(candidate)
        cost = cost_against(self.tracks, against, candidate)
        unseen = Missing(reason=self.errors.get(candidate) or "the budget ended before it ran")
        self.races.append(
            Race(
                stage=stage,
                candidate=candidate,
                against=against,
                standing=standing,
                ratio=as_ratio(cost) if cost is not None else unseen,
                quality=track.quality() if track is not None else unseen,
                rounds=len(track.logs) if track is not None else 0,
                detail=self.errors.get(candidate, ""),
            )
        )
