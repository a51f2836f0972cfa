"""Second ways of an answer: where to leave the first one, and what becomes of what is found.

A *turn* is a place in an answer where the model considered another token. Turns are ranked by how
little the taken token was ahead (difference of log-probabilities). Only the first answer is turned,
once per way, so all ways differ from it by one choice of the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lichen.acceleration.examples import runnable
from lichen.acceleration.self_check import Assessment, Outcome, SelfCheck
from lichen.acceleration.several_answers import timings_of
from lichen.core.generation import (
    Completion,
    Delta,
    Finish,
    Request,
    Step,
    TokenLogprob,
)
from lichen.core.measurement import Usage
from lichen.engines.transcript import confidence

ALTERNATIVES: Final = 5
"""Tokens that are asked for at every place, the taken one among them."""

_ROOM: Final = 32
"""New tokens that a second way may have beyond twice what the first answer had."""

_LONGEST: Final = 65_536
"""Characters of an answer whose tokens are placed; looking takes the square of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A place to leave an answer.

    Args:
        gap: by how much the taken token was ahead, in nats; near 0 is a toss-up.
        place: characters of the answer that are kept.
        tokens: generated tokens that are kept.
        taken, instead: the token that was taken there, and the one to take.
        logprob: of ``instead``.
    """

    gap: float
    place: int
    tokens: int
    taken: str
    instead: str
    logprob: float


@dataclass(slots=True)
class _Way:
    """One answer, whole, and what its check said; ``turn`` is None for the first."""

    completion: Completion
    assessment: Assessment
    turn: Turn | None


@dataclass(slots=True)
class Case:
    """One request and its ways so far.

    Args:
        request: as the caller put it.
        taken_s: when it was taken, monotonic seconds.
        unfit: why it is passed on as it is, "" if its answer can be checked.
        turns: still to be tried, the best first.
    """

    request: Request
    taken_s: float
    unfit: str
    turns: list[Turn] = field(default_factory=list)
    ways: list[_Way] = field(default_factory=list)
    lost: list[Step] = field(default_factory=list)
    turn: Turn | None = None

    def asked(self) -> Request:
        """Return what to ask the engine now."""
        request = self.request
        if self.unfit:
            return request
        wanted = replace(request, stream=False, logprobs=max(request.logprobs, ALTERNATIVES))
        if self.turn is None:
            return wanted
        first = self.ways[0].completion
        kept = first.text[: self.turn.place] + self.turn.instead
        # Its own id: the first answer's is used up within one call of the engine.
        wanted = replace(
            wanted,
            id=f"{request.id}\x1f{len(self.ways) + len(self.lost)}",
            max_tokens=min(request.max_tokens, 2 * first.usage.completion + _ROOM),
        )
        if request.kind == "raw":
            return replace(wanted, prompt=f"{request.prompt}{kept}")
        return replace(wanted, answer_prefix=request.answer_prefix + kept)


class SecondWays:
    """Decides what becomes of answers.

    Args:
        actor: the strategy, for ledgers.
        check: runs the question's examples.
        tries: ways besides the first at most.
        clock: monotonic seconds.
    """

    def __init__(
        self, actor: str, check: SelfCheck, tries: int, clock: Callable[[], float]
    ) -> None:
        self._actor = actor
        self._check = check
        self._tries = tries
        self._clock = clock

    def case(self, request: Request) -> Case:
        """Take a request."""
        return Case(request, self._clock(), _unfit(request))

    def ended(self, case: Case, completion: Completion) -> bool:
        """Take an answer of the engine; return whether another way is to be asked for."""
        if case.turn is None:
            self._first(case, completion)
        else:
            self._second(case, completion, case.turn)
        tried = len(case.ways) + len(case.lost) > self._tries
        done = any(w.assessment.outcome is not Outcome.REJECTED for w in case.ways)
        if done or tried or not case.turns:
            return False
        case.turn = case.turns.pop(0)
        return True

    def answer(self, case: Case) -> Iterable[Delta | Completion]:
        """Return what the caller hears at the end: the first way that passes, else the first."""
        chosen = next(
            (w for w in case.ways if w.assessment.outcome is not Outcome.REJECTED), case.ways[0]
        )
        whole = chosen.completion
        request = case.request
        if not case.unfit:
            whole = _as_asked(whole, request.logprobs)
        usage = sum((w.completion.usage for w in case.ways), Usage())
        timings = whole.timings
        if len(case.ways) + len(case.lost) > 1:
            parts = [w.completion.timings for w in case.ways]
            total_s = max(self._clock() - case.taken_s, timings.total_s)
            timings = timings_of(parts, timings, total_s=total_s)
        steps = [step for w in case.ways for step in w.completion.ledger]
        answer = replace(
            whole,
            id=request.id,
            usage=sum((step.usage for step in case.lost), usage),
            timings=timings,
            ledger=(*steps, *case.lost, *self._steps(case, chosen)),
        )
        if not case.unfit and request.stream and answer.text:
            return (Delta(id=answer.id, text=answer.text, logprobs=answer.logprobs), answer)
        return (answer,)

    def _first(self, case: Case, completion: Completion) -> None:
        passed_on = bool(case.unfit) or completion.finish is Finish.ERROR
        if passed_on:
            assessment = Assessment(outcome=Outcome.ACCEPTED, why=case.unfit or "it failed")
        else:
            assessment = self._check.assess(case.request, completion, _no_tests)
        case.ways.append(_Way(completion, assessment, None))
        # What ran into the limit would do so again, at the price of a whole answer.
        if assessment.outcome is Outcome.REJECTED and completion.finish is not Finish.LENGTH:
            case.turns = turns_of(completion)[: self._tries]

    def _second(self, case: Case, completion: Completion, turn: Turn) -> None:
        if completion.finish is Finish.ERROR:
            step = Step(
                actor=self._actor,
                action="a second way failed",
                usage=completion.usage,
                detail=completion.error,
            )
            case.lost.append(step)
            return
        first = case.ways[0].completion
        turned = TokenLogprob(text=turn.instead, logprob=turn.logprob)
        logprobs = (*first.logprobs[: turn.tokens], turned, *completion.logprobs)
        whole = replace(
            completion,
            text=first.text[: turn.place] + turn.instead + completion.text,
            logprobs=logprobs,
            confidence=confidence(list(logprobs)),
        )
        case.ways.append(_Way(whole, self._check.assess(case.request, whole, _no_tests), turn))

    def _steps(self, case: Case, chosen: _Way) -> tuple[Step, ...]:
        if case.unfit:
            step = Step(actor=self._actor, action="passed on unchanged", detail=case.unfit)
            return (step,)
        return tuple(
            Step(
                actor=self._actor,
                action=_action(way, given=way is chosen),
                usage=Usage() if way is chosen else way.completion.usage,
                cpu_s=way.assessment.cpu_s,
                detail=_said(way),
            )
            for way in case.ways
        )


def turns_of(completion: Completion) -> list[Turn]:
    """Return the turns of an answer, the least certain first; none if its tokens cannot be placed.

    A token that differs from the taken one by white space alone is no other choice.
    """
    tokens = completion.logprobs
    place = _begin(completion.text, tokens)
    turns: list[Turn] = []
    for number, token in enumerate(tokens):
        if place is None or place >= len(completion.text):
            break
        turns += (
            Turn(
                gap=token.logprob - logprob,
                place=place,
                tokens=number,
                taken=token.text,
                instead=text,
                logprob=logprob,
            )
            for text, logprob in token.top
            if _is_another(text, token.text)
        )
        place += len(token.text)
    return sorted(turns, key=lambda turn: (turn.gap, turn.place))


def _is_another(text: str, taken: str) -> bool:
    # Half a character cannot be asked for.
    return bool(text.strip()) and text.strip() != taken.strip() and "\ufffd" not in text


def _as_asked(completion: Completion, alternatives: int) -> Completion:
    """Return it with as many alternatives as the caller wanted; no log-probabilities unasked."""
    if not alternatives:
        return replace(completion, logprobs=(), confidence=None)
    kept = tuple(replace(t, top=t.top[:alternatives]) for t in completion.logprobs)
    return replace(completion, logprobs=kept)


def _begin(text: str, tokens: Sequence[TokenLogprob]) -> int | None:
    """Return where the generated part of an answer begins; what is before it was given.

    The answer may have been cut, so its end is a beginning of what was generated.
    """
    if len(text) > _LONGEST:
        return None
    said = "".join(token.text for token in tokens)
    starts = range(max(len(text) - len(said), 0), len(text))
    return next((start for start in starts if said.startswith(text[start:])), None)


def _unfit(request: Request) -> str:
    if request.stop is not None:
        return "it has a stop rule, which follows one answer only; put this strategy outside"
    _, why_none = runnable(request)
    return why_none


def _action(way: _Way, *, given: bool) -> str:
    which = "first answer" if way.turn is None else "second way"
    return f"{which}: {'given' if given else 'set aside'}"


def _said(way: _Way) -> str:
    if way.turn is None:
        return way.assessment.why
    turn = way.turn
    return (
        f"{turn.instead!r} instead of {turn.taken!r}, {turn.gap:.2f} behind; {way.assessment.why}"
    )


def _no_tests() -> tuple[()]:
    return ()
