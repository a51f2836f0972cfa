"""Ask a small model first; go to a larger one only with what the small one cannot do.

A cascade of models after FrugalGPT (Chen et al., 2023, arXiv 2305.05176), for code after Chen et
al., 2024 (arXiv 2405.15842). What decides is what the answer does, before what the model thinks of
it: the question's examples are run; calibrated log-probabilities where there are none. Levels may
be another form of the same prompt before they are a larger model.

The cascade charges the small model's wasted runs to itself and switches a level off that does not
pay (``lichen.acceleration.break_even``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from lichen.acceleration.break_even import BreakEven
from lichen.acceleration.cascade_steps import NAME
from lichen.acceleration.cascading import CascadeEngine, CascadeSettings
from lichen.acceleration.confidence import STATISTICS, Calibration
from lichen.acceleration.levels import levels_of
from lichen.acceleration.self_check import SIGNALS, SelfCheck
from lichen.acceleration.strategy import Layer, StrategyContext
from lichen.core.errors import ConfigError
from lichen.core.generation import Capability
from lichen.core.ports import Engine
from lichen.engines.options import read_options

COSTS: Final = ("cpu", "time")
UNCHECKED: Final = ("give", "last")
_POINT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeOptions:
    """What can be set.

    Args:
        levels: descriptions of the levels above the wrapped engine, from cheap to dear: a solution
            (name, model, engine, strategies), or ``without``: names of the text strategies that the
            wrapped engine leaves out there (another prompt form of the same model), and perhaps
            ``strategies`` that take their place.
        signal: ``examples``, ``confidence`` or ``examples_or_confidence``.
        unchecked: what becomes of questions without examples that can be run: ``give`` an answer
            that nothing else rejects, or ask the ``last`` level at once.
        threshold: probability of being right below which an answer is handed on, in [0, 1].
        statistic: log-probability that stands for an answer, ``mean`` or ``min``.
        calibration: points (log-probability, probability of being right), as
            ``lichen.acceleration.confidence`` fits them; none: see ``SelfCheck``.
        self_tests: tests that a level writes for itself where the question has none; 0 for none.
        most_tokens: new tokens that an answer below the last level may have, 0 for as many as the
            request allows; one that needs more is handed on. Long answers are rarely right, and
            one that rambles alone, beside empty slots, is dear.
        batch: answers that may wait to be handed on before the next level works them off, >= 1.
        overlap: let levels decode at the same time; needs ``cost = "time"``, since CPU-seconds
            cannot be told apart then.
        cost: what the break-even counts: ``cpu``, or ``time`` for engines that run elsewhere.
        switch: whether a level that does not pay is skipped.
        minimum: attempts before a level may be skipped, >= 1.
        recheck_every: one in so many requests tries skipped levels again, >= 2.
    """

    levels: tuple[Mapping[str, object], ...]
    signal: str = "examples"
    unchecked: str = "give"
    threshold: float = 0.5
    statistic: str = "mean"
    calibration: tuple[tuple[float, ...], ...] = ()
    self_tests: int = 0
    most_tokens: int = 0
    batch: int = 16
    overlap: bool = False
    cost: str = "cpu"
    switch: bool = True
    minimum: int = 20
    recheck_every: int = 50

    def __post_init__(self) -> None:
        """Check names, ranges and combinations."""
        chosen = (
            ("signal", self.signal, SIGNALS),
            ("unchecked", self.unchecked, UNCHECKED),
            ("statistic", self.statistic, STATISTICS),
            ("cost", self.cost, COSTS),
        )
        for what, value, known in chosen:
            if value not in known:
                msg = f"{what} must be one of {', '.join(known)}, got {value!r}"
                raise ValueError(msg)
        if not self.levels:
            raise ValueError("levels must name at least one level above the wrapped engine")
        if not 0 <= self.threshold <= 1:
            msg = f"threshold is a probability, got {self.threshold}"
            raise ValueError(msg)
        if min(self.self_tests, self.most_tokens) < 0:
            raise ValueError("self_tests and most_tokens must be 0 or more")
        if min(self.batch, self.minimum) < 1 or self.recheck_every <= 1:
            raise ValueError("batch >= 1, minimum >= 1, recheck_every >= 2")
        if self.overlap and self.cost != "time":
            raise ValueError("overlap needs cost = 'time': shared CPU-seconds cannot be told apart")
        if self.unchecked == "last" and self.signal == "confidence":
            raise ValueError("unchecked = 'last' needs a signal that runs the question's examples")
        self.fitted()

    def fitted(self) -> Calibration | None:
        """Return the calibration, None if none was given."""
        if not self.calibration:
            return None
        if any(len(p) != _POINT for p in self.calibration):
            raise ValueError("calibration points are pairs (log-probability, probability)")
        return Calibration(points=tuple((p[0], p[1]) for p in self.calibration))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """The strategy; see the module."""

    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.ROUTE
    options: CascadeOptions
    context: StrategyContext

    @property
    def needs(self) -> frozenset[Capability]:
        """Log-probabilities, if they decide."""
        wants = self.options.signal != "examples"
        return frozenset({Capability.LOGPROBS}) if wants else frozenset()

    @property
    def in_hand(self) -> int:
        """Requests that it gathers before the next level is asked."""
        return self.options.batch

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return the engine's options as they are."""
        return dict(options)

    def wrap(self, engine: Engine) -> CascadeEngine:
        """Return an engine whose first level is ``engine``; the others open when needed.

        Raises:
            ConfigError: a level's description cannot be used.
        """
        chosen = self.options
        levels = levels_of(engine, chosen.levels, self.context)
        check = SelfCheck(
            signal=chosen.signal,
            threshold=chosen.threshold,
            statistic=chosen.statistic,
            calibration=chosen.fitted(),
            sandbox=self.context.sandbox,
            cpu_s=self.context.cpu_s,
        )
        settings = CascadeSettings(
            batch=chosen.batch,
            overlap=chosen.overlap,
            by_time=chosen.cost == "time",
            self_tests=chosen.self_tests,
            most_tokens=chosen.most_tokens,
            switch=chosen.switch,
            recheck_every=chosen.recheck_every,
            unchecked_last=chosen.unchecked == "last",
        )
        return CascadeEngine(
            levels,
            check,
            settings,
            BreakEven(len(levels), minimum=chosen.minimum, window=10 * chosen.minimum),
            cpu_s=self.context.cpu_s,
            clock=self.context.clock,
        )


def make(options: Mapping[str, object], context: StrategyContext) -> Cascade:
    """Build the strategy; for ``options`` see ``CascadeOptions``.

    Raises:
        ConfigError: an option that is unknown, out of range or of the wrong kind; no sandbox where
            examples are to be run.
    """
    read = read_options(CascadeOptions, options, who=f"the strategy {NAME}")
    runs_code = read.signal != "confidence"
    if runs_code and context.sandbox is None:
        raise ConfigError(
            f"the strategy {NAME!r} runs the question's examples and needs a sandbox, but there is "
            "none: open one, or set signal = 'confidence'"
        )
    return Cascade(options=read, context=context)
