"""Is an answer good enough to be given? What can be told without knowing the right one.

In the order of what they are worth (first trial, 0.5B on 99 HumanEval problems): the question's own
examples (50 of 53 right when they pass, 1 of 25 when they fail), signs that an answer is broken,
the model's log-probabilities (AUROC 0.71). See docs/explanation/strategies/cascade.md.

Costs are charged: sandbox time as the sandbox reports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from lichen.acceleration.answer_code import goes_in_circles, python_answer
from lichen.acceleration.confidence import Calibration, score_of
from lichen.acceleration.examples import Example, check_source, not_runnable, runnable
from lichen.core.errors import SandboxError
from lichen.core.generation import Completion, Finish, Hints, Request
from lichen.core.ports import Sandbox
from lichen.core.task import Limits, Trial

SIGNALS: Final = ("examples", "confidence", "examples_or_confidence")

Tests = Callable[[], tuple[Example, ...]]
"""Gives tests that the model wrote itself, on demand; they cost tokens."""


class Outcome(IntEnum):
    """How an answer came out of its check; higher is better."""

    REJECTED = 0
    """Broken, or an example of the question fails."""
    DOUBTFUL = 1
    """Below the threshold, or it fails tests that a model wrote."""
    ACCEPTED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What a check said, why, and the CPU-seconds that it took outside the engine.

    ``confidence`` is the probability that decided, None where something better did.
    """

    outcome: Outcome
    why: str
    cpu_s: float = 0.0
    confidence: float | None = None

    @property
    def score(self) -> float:
        """How sure the check is, 0 to 1: all or nothing where it did not go by confidence."""
        if self.confidence is not None:
            return self.confidence
        return 1.0 if self.outcome is Outcome.ACCEPTED else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """Checks answers; see the module.

    Args:
        signal: what decides about an answer that is not broken: ``examples``; ``confidence``; or
            the examples where the question has some, else the confidence.
        threshold: probability of being right below which an answer is doubtful.
        statistic: ``mean`` or ``min`` log-probability.
        calibration: from log-probability to probability; without one ``exp`` of it stands in,
            which is the (geometric mean, or least) probability of a *token*.
        sandbox: runs examples; needed unless ``signal`` is ``confidence``.
        cpu_s: CPU-seconds so far, for a sandbox that does not report its own.
        limit_cpu_s: CPU-seconds that one run of the examples may take.
    """

    signal: str
    threshold: float
    statistic: str
    calibration: Calibration | None
    sandbox: Sandbox | None
    cpu_s: Callable[[], float]
    limit_cpu_s: float = 2.0

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities can decide."""
        return self.signal != "examples"

    def why_no_examples(self, request: Request) -> str:
        """Return why no examples of the question will be run, "" if some will be."""
        return self._examples(request)[1]

    def assess(self, request: Request, answer: Completion, tests: Tests) -> Assessment:
        """Check one answer that did not fail.

        Args:
            request: what was asked.
            answer: what came.
            tests: asked only where neither a fault nor an example decides.
        """
        hints = request.hints or Hints()
        text = request.answer_prefix + answer.text
        code, fault = "", _fault(request, answer, text)
        if not (fault or not_runnable(request)):
            code, fault = python_answer(text, entry_point=hints.entry_point, given=hints.given)
        if fault:
            return Assessment(outcome=Outcome.REJECTED, why=f"it is broken: {fault}")
        examples = self._examples(request)[0] if code else ()
        if examples:
            return self._run(code, hints.entry_point, examples, written=False)
        asks = bool(code) and self.signal != "confidence" and self.sandbox is not None
        own = tests() if asks else ()
        if own:
            return self._run(code, hints.entry_point, own, written=True)
        if self.wants_logprobs:
            return self._by_confidence(answer)
        return Assessment(outcome=Outcome.ACCEPTED, why="there is nothing to check it by")

    def _examples(self, request: Request) -> tuple[tuple[Example, ...], str]:
        """Return the examples that will be run and, where there are none, why."""
        if self.signal == "confidence" or self.sandbox is None:
            return (), "examples are not run"
        return runnable(request)

    def _run(
        self, code: str, entry_point: str, examples: tuple[Example, ...], *, written: bool
    ) -> Assessment:
        what = f"{len(examples)} {'self-written tests' if written else 'examples'}"
        trial = Trial(
            id="examples",
            solution=code,
            entry_point=entry_point,
            check=check_source(examples, entry_point),
            limits=Limits(cpu_s=self.limit_cpu_s, wall_s=10 * self.limit_cpu_s),
        )
        sandbox = self.sandbox
        if sandbox is None:
            return Assessment(outcome=Outcome.ACCEPTED, why=f"no sandbox for its {what}")
        begun = self.cpu_s()
        try:
            ((_, verdict),) = sandbox.judge([trial])
        except SandboxError as exc:
            here = max(self.cpu_s() - begun, 0.0)
            why = f"the sandbox failed: {exc}"
            return Assessment(outcome=Outcome.DOUBTFUL, why=why, cpu_s=here)
        spent = verdict.cpu_s if verdict.cpu_s is not None else max(self.cpu_s() - begun, 0.0)
        if verdict.passed:
            return Assessment(outcome=Outcome.ACCEPTED, why=f"it passes {what}", cpu_s=spent)
        how = verdict.kind or verdict.status.value
        failed = Outcome.DOUBTFUL if written else Outcome.REJECTED
        return Assessment(outcome=failed, why=f"it fails {what} ({how})", cpu_s=spent)

    def _by_confidence(self, answer: Completion) -> Assessment:
        score = score_of(answer, self.statistic)
        if score is None:
            why = "the engine reported no log-probabilities"
            return Assessment(outcome=Outcome.DOUBTFUL, why=why)
        if self.calibration is None:
            p = math.exp(min(score, 0.0))
        else:
            p = self.calibration.probability(score)
        sure = p >= self.threshold
        return Assessment(
            outcome=Outcome.ACCEPTED if sure else Outcome.DOUBTFUL,
            why=f"confidence {p:.2f} {'reaches' if sure else 'is below'} {self.threshold:.2f}",
            confidence=p,
        )


def _fault(request: Request, answer: Completion, text: str) -> str:
    # A completion in an editor is cut by its limit as a rule, a chat answer is not.
    if request.kind == "chat" and answer.finish is Finish.LENGTH:
        return "cut at the token limit"
    return "it goes in circles" if goes_in_circles(text) else ""
