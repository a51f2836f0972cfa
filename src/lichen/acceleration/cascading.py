"""An engine of several levels: ask the cheap one, check, hand on what is not good enough.

Engines of different levels do not decode at the same time, unless ``overlap`` asks for it: on few
cores they would only slow each other down. Requests are taken lazily at the first level; when
``batch`` of them wait to be handed on, the first level is drained and the next one works them off.

All that was spent is in the answer: ``usage`` sums over levels, and the ledger has a step per
level with the tokens it wasted, what its check said, and what the check cost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from lichen.acceleration.break_even import BreakEven
from lichen.acceleration.cascade_cases import Case, Feed, Try, nothing
from lichen.acceleration.cascade_costs import in_cpu, in_time
from lichen.acceleration.cascade_report import CascadeReport, LevelReport
from lichen.acceleration.cascade_steps import NAME, NOTHING_TO_CHECK, SWITCHED_OFF, End, asked
from lichen.acceleration.examples import Example
from lichen.acceleration.levels import Level
from lichen.acceleration.per_request import shut
from lichen.acceleration.self_check import Assessment, Outcome, SelfCheck
from lichen.acceleration.self_tests import read_tests, tests_request
from lichen.acceleration.several_answers import timings_of
from lichen.acceleration.strategy import EngineAround
from lichen.core.errors import LichenError
from lichen.core.generation import Capability, Completion, Delta, Finish, Request, Step, Timings
from lichen.core.measurement import Usage

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeSettings:
    """How requests move; see ``lichen.acceleration.strategies.cascade.CascadeOptions``."""

    batch: int = 16
    overlap: bool = False
    by_time: bool = False
    self_tests: int = 0
    most_tokens: int = 0
    switch: bool = True
    recheck_every: int = 50
    unchecked_last: bool = False

    def shortens(self, request: Request) -> bool:
        """Whether an answer below the last level may have fewer tokens than were asked for."""
        return 0 < self.most_tokens < request.max_tokens


@dataclass(slots=True)
class _Counts:
    attempts: int = 0
    accepted: int = 0
    escalated: int = 0
    failed: int = 0


_Item = Delta | Completion | None
"""What a phase yields; None where it only made progress."""


class CascadeEngine(EngineAround):
    """See the module. ``inner`` is level 0.

    Args:
        levels: all of them, level 0 first.
        check: decides about answers.
        cpu_s, clock: CPU-seconds of this process tree; monotonic seconds.
    """

    __slots__ = ("_balance", "_check", "_clock", "_counts", "_cpu_s", "_levels", "_set", "_taken")

    def __init__(
        self,
        levels: tuple[Level, ...],
        check: SelfCheck,
        settings: CascadeSettings,
        balance: BreakEven,
        *,
        cpu_s: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(levels[0].open(), NAME)
        self._levels = levels
        self._check = check
        self._set = settings
        self._balance = balance
        self._cpu_s = cpu_s
        self._clock = clock
        self._counts = [_Counts() for _ in levels]
        self._taken = 0

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests; see ``lichen.core.ports.Engine``."""
        feed = Feed(requests, self._case)
        waiting: list[list[Case]] = [[] for _ in self._levels]
        active: list[tuple[int, Iterator[_Item]]] = []
        try:
            while True:
                self._begin(feed, waiting, active)
                if not active:
                    return
                for entry in list(active):
                    try:
                        item = next(entry[1])
                    except StopIteration:
                        active.remove(entry)
                        continue
                    if item is not None:
                        yield item
        finally:
            for _, phase in active:
                phase.close()  # type: ignore[attr-defined]  # phases are generators

    def close(self) -> None:
        """Close every level that was opened."""
        for level in self._levels:
            level.close()

    def report(self) -> CascadeReport:
        """Return what the cascade did so far and whether it pays."""
        balances = self._balance.balance()
        skipped = [b.skipped for b in balances]
        state = "on" if not any(skipped) else "off" if all(skipped[:-1]) else "partly"
        return CascadeReport(
            levels=tuple(
                LevelReport(
                    name=level.name,
                    attempts=c.attempts,
                    accepted=c.accepted,
                    escalated=c.escalated,
                    failed=c.failed,
                    balance=b,
                    note=level.failure or self._balance.why(k),
                )
                for k, (level, c, b) in enumerate(
                    zip(self._levels, self._counts, balances, strict=True)
                )
            ),
            state=state,
            unit="s" if self._set.by_time else "CPU-s",
        )

    def _case(self, request: Request) -> Case:
        """Decide where a request begins, when it is taken."""
        self._taken += 1
        skips = any(self._balance.skipped(k) for k in range(len(self._levels) - 1))
        recheck = not (self._set.switch and skips) or self._taken % self._set.recheck_every == 0
        start = 0 if recheck else self._balance.start
        unchecked = self._check.why_no_examples(request) if self._set.unchecked_last else ""
        if unchecked:
            start = len(self._levels) - 1
        while start > 0 and not self._levels[start].available():
            start -= 1
        last = self._above(start, recheck=recheck) is None
        live = request.stream and last
        apart = bool(unchecked) and start > 0
        case = Case(request, self._clock(), start, recheck, live, apart=apart)
        if apart:
            case.before.append(Step(actor=NAME, action=NOTHING_TO_CHECK, detail=unchecked))
        elif start > 0:
            detail = "; ".join(
                f"{level.name}: {self._balance.why(k)}"
                for k, level in enumerate(self._levels[:start])
            )
            case.before.append(Step(actor=NAME, action=SWITCHED_OFF, detail=detail))
        return case

    def _above(self, level: int, *, recheck: bool) -> int | None:
        """Return the next level up that works and pays."""
        for k in range(level + 1, len(self._levels)):
            if not self._levels[k].failure and (recheck or not self._balance.skipped(k)):
                return k
        return None

    def _begin(
        self,
        feed: Feed,
        waiting: list[list[Case]],
        active: list[tuple[int, Iterator[_Item]]],
    ) -> None:
        """Start the phases that may run now: one at a time, or one per level if they overlap."""

        def full() -> bool:
            return sum(map(len, waiting)) >= self._set.batch

        def wait(case: Case) -> None:
            waiting[case.start].append(case)

        first = feed.first(full, wait) if self._set.overlap or not active else None
        for k, cases in enumerate(waiting):
            busy = any(level == k for level, _ in active) if self._set.overlap else bool(active)
            if cases and not busy:
                waiting[k] = []
                active.append((k, self._handed(k, cases, waiting)))
        fed = any(level < 0 for level, _ in active)
        if fed or (active and not self._set.overlap):
            return
        if first is not None:
            group = feed.group(first.start, full, wait)
            active.append((-1, self._phase(first.start, group, waiting, {})))

    def _handed(self, level: int, cases: list[Case], waiting: list[list[Case]]) -> Iterator[_Item]:
        """Run a phase of cases from below; a level that breaks gives them their lower answers."""
        open_cases: dict[str, Case] = {}
        rest = iter(cases)
        try:
            if not self._levels[level].available():
                raise self._levels[level].error()
            yield from self._phase(level, rest, waiting, open_cases)
        except LichenError as exc:
            _LOG.warning("level %s of the cascade failed: %s", self._levels[level].name, exc)
            for case in (*open_cases.values(), *rest):
                yield from self._lost(case, level, str(exc), Usage(), waiting)

    def _phase(
        self,
        level: int,
        cases: Iterator[Case],
        waiting: list[list[Case]],
        running: dict[str, Case],
    ) -> Iterator[_Item]:
        """Ask one level; yields an item, or None, for everything it says."""
        done: list[Try] = []
        spent = 0.0

        def asking() -> Iterator[Request]:
            for case in cases:
                running[case.request.id] = case
                yield self._asked(case, level)

        answers = self._levels[level].open().generate(asking())
        try:
            while True:
                begun = self._cpu_s()
                item = next(answers, None)
                # What the check and the caller do between two items is not this level's cost.
                spent += max(self._cpu_s() - begun, 0.0)
                if item is None:
                    break
                if isinstance(item, Delta):
                    yield item if running[item.id].live else None
                    continue
                case = running[item.id]
                yield None
                yield from self._ended(case, level, item, waiting, done)
                del running[item.id]
        finally:
            shut(answers)
        self._charge(level, done, spent)

    def _asked(self, case: Case, level: int) -> Request:
        request = replace(case.request, stream=case.live)
        if self._set.shortens(request) and self._above(level, recheck=case.recheck) is not None:
            request = replace(request, max_tokens=self._set.most_tokens)
        if self._check.wants_logprobs and not request.logprobs:
            request = replace(request, logprobs=1)
        return request

    def _ended(
        self,
        case: Case,
        level: int,
        answer: Completion,
        waiting: list[list[Case]],
        done: list[Try],
    ) -> Iterator[_Item]:
        self._counts[level].attempts += 1
        if answer.finish is Finish.ERROR:
            if case.tries:
                yield from self._lost(
                    case, level, answer.error, answer.usage, waiting, answer.ledger
                )
                return
            self._counts[level].failed += 1
            step = Step(actor=NAME, action=asked(self._levels[level].name, End.FAILED))
            ledger = (*case.before, *answer.ledger, step)
            yield from self._say(case, replace(answer, ledger=ledger))
            return
        above = self._above(level, recheck=case.recheck)
        attempt = self._judged(case, level, answer, last=above is None)
        case.tries.append(attempt)
        done.append(attempt)
        if attempt.assessment.outcome is Outcome.ACCEPTED or above is None:
            self._counts[level].accepted += attempt.assessment.outcome is Outcome.ACCEPTED
            yield from self._finish(case)
        else:
            self._counts[level].escalated += 1
            waiting[above].append(case)

    def _judged(self, case: Case, level: int, answer: Completion, *, last: bool) -> Try:
        """Check an answer; the last one only if there is another to choose instead."""
        extra: list[Usage] = []

        def tests() -> tuple[Example, ...]:
            return () if last else self._own_tests(case.request, level, extra)

        if answer.finish is Finish.LENGTH and not last and self._set.shortens(case.request):
            why = f"it needs more than {self._set.most_tokens} new tokens"
            return Try(level, answer, Assessment(outcome=Outcome.REJECTED, why=why), Usage())
        choice = any(t.assessment.outcome > Outcome.REJECTED for t in case.tries)
        if last and not choice:
            assessment = Assessment(outcome=Outcome.ACCEPTED, why="there is no level above")
        else:
            assessment = self._check.assess(case.request, answer, tests)
        return Try(level, answer, assessment, sum(extra, Usage()))

    def _own_tests(self, request: Request, level: int, extra: list[Usage]) -> tuple[Example, ...]:
        count = self._set.self_tests
        ask = tests_request(request, count=count) if count else None
        if ask is None or request.hints is None:
            return ()
        for item in self._levels[level].open().generate([ask]):
            if isinstance(item, Completion):
                extra.append(item.usage)
                return read_tests(item.text, request.hints.entry_point, count=count)
        return ()

    def _lost(
        self,
        case: Case,
        level: int,
        error: str,
        usage: Usage,
        waiting: list[list[Case]],
        ledger: tuple[Step, ...] = (),
    ) -> Iterator[_Item]:
        """Go on after a level failed for a case: further up, or with the best answer so far."""
        self._counts[level].failed += 1
        case.lost += usage
        action = asked(self._levels[level].name, End.FAILED)
        case.after += ledger
        case.after.append(Step(actor=NAME, action=action, usage=usage, detail=error))
        above = self._above(level, recheck=case.recheck)
        if above is not None:
            waiting[above].append(case)
        else:
            yield from self._finish(case)

    def _finish(self, case: Case) -> Iterator[_Item]:
        """Give the best answer, the highest level's among equals, with all that it took."""
        if not case.tries:
            yield from self._say(case, nothing(case, self._clock()))
            return
        chosen = max(case.tries, key=lambda t: (t.assessment.outcome, t.level))
        steps: list[Step] = []
        for t in case.tries:
            steps += t.completion.ledger
            steps.append(self._step(t, given=t is chosen))
        answer = replace(
            chosen.completion,
            usage=sum((t.usage for t in case.tries), case.lost),
            timings=self._timings(case, chosen),
            draft_tokens=sum(t.completion.draft_tokens for t in case.tries),
            draft_accepted=sum(t.completion.draft_accepted for t in case.tries),
            ledger=(*case.before, *steps, *case.after),
        )
        yield from self._say(case, answer)

    def _say(self, case: Case, answer: Completion) -> Iterator[_Item]:
        """Give an answer, its text first where it is streamed; no log-probabilities unasked."""
        if not case.request.logprobs:
            answer = replace(answer, logprobs=())
        if case.request.stream and not case.live and answer.text:
            yield Delta(id=answer.id, text=answer.text, logprobs=answer.logprobs)
        yield answer

    def _step(self, t: Try, *, given: bool) -> Step:
        tokens = f"{t.usage.prompt} prompt and {t.usage.completion} new tokens"
        cpu = "" if t.engine_cpu_s is None else f", {t.engine_cpu_s:.3g} CPU-s in the engine"
        tests = f" ({t.extra.completion} for tests)" if t.extra.completion else ""
        return Step(
            actor=NAME,
            action=asked(self._levels[t.level].name, End.GAVE if given else End.SET_ASIDE),
            usage=t.extra if given else t.usage,
            cpu_s=t.assessment.cpu_s,
            detail=f"{t.assessment.why}; {tokens}{tests}{cpu}",
            engine_cpu_s=t.engine_cpu_s,
            score=t.assessment.score,
            answer="" if given else t.completion.text,
        )

    def _timings(self, case: Case, chosen: Try) -> Timings:
        own = chosen.completion.timings
        if len(case.tries) == 1 and chosen.level == case.start and not case.lost.prompt:
            return own
        parts = [t.completion.timings for t in case.tries]
        return timings_of(parts, own, total_s=max(self._clock() - case.taken_s, own.total_s))

    def _charge(self, level: int, done: list[Try], spent: float) -> None:
        """Share out what a phase cost, and tell the break-even."""
        seen = Capability.IN_PROCESS in self._levels[level].open().capabilities
        costs = in_time(done) if self._set.by_time else in_cpu(done, spent if seen else None)
        for t, cost in zip(done, costs, strict=True):
            before = self._balance.skipped(level)
            escalated = t.assessment.outcome is not Outcome.ACCEPTED
            self._balance.observe(level, cost=cost, escalated=escalated)
            if self._set.switch and self._balance.skipped(level) is not before:
                name, why = self._levels[level].name, self._balance.why(level)
                _LOG.info("the cascade switches %s %s", name, f"off: {why}" if why else "on again")
