"""Babbling suppression: stop as soon as the code so far passes the question's own examples.

After Solovyeva and Castor, arXiv 2604.06755: at line ends, while the model still writes, run the
examples; when all pass, the rest is babble. Here an attempt is made only where the wanted function
is closed (it cannot end without a ``return`` or ``raise``, or something else has begun), because
half a function passes half its examples by luck. Attempts are few and further and further apart.
What they cost in the sandbox is charged in the ledger.

Examples come from the question alone (``lichen.acceleration.examples``), never from hidden tests;
where a data set's tests *are* its examples (mxeval's MBPP), passing them is an oracle and the
benchmark says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from lichen.acceleration.completeness import CompleteCode, wanted_of
from lichen.acceleration.completeness.passing import PassingItems
from lichen.acceleration.completeness.python_names import code_before
from lichen.acceleration.examples import Example, check_source, runnable
from lichen.acceleration.per_request import Follower, PassedOn, following, with_step
from lichen.acceleration.stop_rules import FirstOf
from lichen.acceleration.strategy import Layer, StrategyContext
from lichen.core.errors import SandboxError
from lichen.core.generation import Capability, Completion, Finish, Hints, Request, Step
from lichen.core.ports import Engine, Sandbox
from lichen.core.task import Limits, Trial
from lichen.engines.options import read_options

NAME: Final = "stop_when_passing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be set.

    Args:
        max_runs: attempts per request, >= 1.
        cpu_s: CPU-seconds that one attempt may take, > 0.
        min_examples: questions with fewer are passed on, >= 1.
    """

    max_runs: int = 6
    cpu_s: float = 2.0
    min_examples: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_runs < 1 or self.min_examples < 1 or not self.cpu_s > 0:
            msg = "max_runs and min_examples must be at least 1, cpu_s above 0"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWhenPassing:
    """The strategy; see the module. ``cpu_s`` reads CPU-seconds, ``lock`` keeps attempts apart."""

    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.TEXT
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.CANCEL})
    options: Options
    sandbox: Sandbox
    cpu_s: Callable[[], float]
    lock: threading.Lock

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return the engine's options as they are."""
        return dict(options)

    def wrap(self, engine: Engine) -> Engine:
        """Return an engine that stops each request when its examples pass."""
        return following(engine, NAME, self._follow)

    def _follow(self, request: Request) -> Follower:
        examples, reason = runnable(request)
        if examples and len(examples) < self.options.min_examples:
            reason = f"the question shows {len(examples)} examples that can be run"
        if reason:
            return PassedOn(request, actor=NAME, reason=reason)
        return _Trying(request, _Attempts(self, request.hints or Hints(), examples))


def make(options: Mapping[str, object], context: StrategyContext) -> StopWhenPassing:
    """Build the strategy; for ``options`` see ``Options``.

    Raises:
        ConfigError: an unknown option, a value out of range, or no sandbox to run code in.
    """
    read = read_options(Options, options, who=f"the strategy {NAME}")
    return StopWhenPassing(
        options=read, sandbox=context.sandbox_for(NAME), cpu_s=context.cpu_s, lock=threading.Lock()
    )


class _Attempts:
    """Runs the examples of one request, a few times at most; asked in one engine thread."""

    def __init__(self, by: StopWhenPassing, hints: Hints, examples: tuple[Example, ...]) -> None:
        self._by = by
        self._entry = hints.entry_point
        self._check = check_source(examples, hints.entry_point)
        self.before = code_before(hints.given, hints.entry_point)
        self.examples = len(examples)
        self.runs = 0
        self.cpu_s = 0.0
        self.last = ""
        self._known: dict[str, bool] = {}
        self._lines_at_last = 0

    def passes(self, code: str) -> bool:
        """Whether all examples pass; False without a look while it is too early to ask again."""
        key = code.rstrip()
        if key in self._known:
            return self._known[key]
        grown = code.count("\n") - self._lines_at_last
        patience = 2 ** (self.runs - 1) if self.runs else 0  # lines: 1, 2, 4 ...
        if self.runs >= self._by.options.max_runs or grown < patience:
            return False
        self._lines_at_last = code.count("\n")
        self.runs += 1
        passed = self._known[key] = self._judge(code)
        return passed

    def _judge(self, code: str) -> bool:
        limits = Limits(cpu_s=self._by.options.cpu_s, wall_s=10 * self._by.options.cpu_s)
        trial = Trial(
            id=f"examples-{self.runs}",
            solution=code,
            entry_point=self._entry,
            check=self._check,
            limits=limits,
        )
        with self._by.lock:
            begun = self._by.cpu_s()
            try:
                verdicts = [verdict for _, verdict in self._by.sandbox.judge([trial])]
            except SandboxError as exc:
                self.runs = self._by.options.max_runs
                self.last = f"the sandbox failed: {exc}"
                return False
            finally:
                here = self._by.cpu_s() - begun
        (verdict,) = verdicts
        self.cpu_s += here if verdict.cpu_s is None else verdict.cpu_s
        self.last = verdict.kind or verdict.status.value
        return verdict.passed


class _Trying(Follower):
    def __init__(self, request: Request, attempts: _Attempts) -> None:
        hints = request.hints or Hints()
        wanted = wanted_of(request)
        before = "" if wanted.prefix else attempts.before

        def follow(language: str) -> PassingItems | None:
            del language
            return PassingItems(
                hints.entry_point,
                after=len(wanted.prefix),
                passes=lambda code: attempts.passes(before + code),
            )

        self._attempts = attempts
        self._rule = CompleteCode(wanted, follow=follow, loops=False)
        self._rules = FirstOf(self._rule, request.stop)
        super().__init__(replace(request, stop=self._rules))

    def ended(self, completion: Completion) -> tuple[Completion]:
        """Say how often the examples were run, how it ended, and what that cost."""
        tried = self._attempts
        stopped = completion.finish is Finish.RULE and self._rules.winner is self._rule
        action = "stopped: examples pass" if stopped else "let it run"
        detail = f"{tried.examples} examples, run {tried.runs} times"
        if tried.last and not stopped:
            detail += f", last: {tried.last}"
        step = Step(actor=NAME, action=action, cpu_s=tried.cpu_s, detail=detail)
        return (with_step(completion, step),)
