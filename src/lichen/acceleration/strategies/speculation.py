"""Draft tokens cheaply and let the model verify several at once, but only while that saves CPU.

Drafts come from a smaller model of the same family (Leviathan et al., 2023, arXiv:2211.17192), from
the text so far (prompt lookup: Saxena, 2023), or from both. Greedy output is the model's own up to
rounding: a batch of several positions is summed in another order than one position at a time, so
a near-tie between two tokens may fall the other way.

llama.cpp fixes speculation when a model is loaded and ignores it in requests. So the switch is two
instances of the model, plain and speculating: blocks of requests run on both in turn, the cheaper
one goes on (``speculation_switch``), the speculating one is closed when it does not pay and opened
again for a re-check. Blocks during which another call was running are not compared, since CPU time
cannot be told apart then. Requests for log-probabilities always run plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from lichen.acceleration.speculation_switch import SpeculationSwitch, SwitchRules
from lichen.acceleration.strategy import EngineAround, Layer, StrategyContext
from lichen.acceleration.switching import NAME, Reopens, SwitchingEngine, step_of
from lichen.acceleration.watching import watched
from lichen.core.errors import CapabilityError, ConfigError
from lichen.core.generation import Capability
from lichen.core.ports import Engine
from lichen.engines.options import read_options

LEAST_BLOCK: Final = 4
"""Requests: fewer differ too much among themselves to be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculationOptions:
    """How to draft, and when to believe that it pays.

    Args:
        draft: GGUF file of a small model with the same vocabulary; "" for none.
        draft_max, draft_min, draft_p_min: most and fewest tokens it drafts per step, and the least
            probability with which it goes on.
        ngram: draft from the text itself: "simple", "map_k", "map_k4v", "mod" or "" for not at all.
        ngram_size, ngram_draft: length of the looked-up n-gram and tokens drafted after a match.
        switch: "auto" measures and keeps the cheaper way; "on" speculates always (to measure it).
        block: requests per block of a comparison; 0 for twice the engine's slots, at least 4.
        gain, min_pairs, max_pairs, recheck_after: see ``SwitchRules``.
        force: allow "mod", whose pool of n-grams is shared between users.
    """

    draft: str = ""
    draft_max: int = 3
    draft_min: int = 0
    draft_p_min: float = 0.5
    ngram: str = "simple"
    ngram_size: int = 4
    ngram_draft: int = 8
    switch: str = "auto"
    block: int = 0
    gain: float = 0.03
    min_pairs: int = 4
    max_pairs: int = 8
    recheck_after: int = 400
    force: bool = False

    def __post_init__(self) -> None:
        """Check ranges and combinations; the engine checks the drafting options."""
        if not (self.draft or self.ngram):
            msg = "nothing to draft with: set draft to a GGUF file, or ngram to 'simple'"
            raise ValueError(msg)
        if self.switch not in ("auto", "on"):
            msg = f"switch must be 'auto' or 'on', got {self.switch!r}"
            raise ValueError(msg)
        if self.block < 0:
            msg = f"block cannot be negative, got {self.block}"
            raise ValueError(msg)
        if self.ngram == "mod" and not self.force:
            msg = (
                "ngram 'mod' keeps one pool of n-grams for all users, so one user's text can show "
                "in how another's is drafted; use 'simple', or set force = true for a single user"
            )
            raise ValueError(msg)
        _ = self.rules

    @property
    def rules(self) -> SwitchRules:
        """The decision rule's settings."""
        return SwitchRules(
            gain=self.gain,
            min_pairs=self.min_pairs,
            max_pairs=self.max_pairs,
            recheck_after=self.recheck_after,
        )

    @property
    def drafting(self) -> dict[str, object]:
        """The engine options that turn drafting on."""
        found: dict[str, object] = {}
        if self.draft:
            for name in ("draft", "draft_max", "draft_min", "draft_p_min"):
                found[name] = getattr(self, name)
        if self.ngram:
            for name in ("ngram", "ngram_size", "ngram_draft"):
                found[name] = getattr(self, name)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """Speculates always ("on"), or while it is measured to pay ("auto")."""

    options: SpeculationOptions
    context: StrategyContext
    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.ENGINE

    @property
    def needs(self) -> frozenset[Capability]:
        """The switch compares CPU time, which must be this process's."""
        return frozenset({Capability.IN_PROCESS} if self.options.switch == "auto" else ())

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Turn drafting on at load if it is to be on always; else load a plain engine.

        Raises:
            ConfigError: the engine's own options speculate already.
        """
        for name in ("draft", "ngram"):
            if options.get(name):
                raise ConfigError(
                    f"the engine's option {name!r} speculates already: "
                    f"give it to the strategy {NAME!r} instead"
                )
        return dict(options) | (self.options.drafting if self.options.switch == "on" else {})

    def wrap(self, engine: Engine) -> Engine:
        """Watch ("on"), or open the second instance and switch between the two ("auto").

        Raises:
            CapabilityError: the engine cannot be opened a second time.
            EngineError: the speculating instance cannot be loaded.
        """
        if self.options.switch == "on":
            return watched(engine, NAME, lambda c: step_of(c, "speculated"))
        base = _innermost(engine)
        if not isinstance(base, Reopens):
            raise CapabilityError(
                f"the strategy {NAME!r} compares two instances of a model, but the engine "
                f'{base.name!r} cannot be opened a second time; set switch = "on" to speculate '
                "without comparing"
            )
        return SwitchingEngine(
            inner=engine,
            title=NAME,
            reopen=lambda: base.reopened(self.options.drafting),
            context=self.context,
            switch=SpeculationSwitch(self.options.rules),
            block=self.options.block or max(LEAST_BLOCK, 2 * _slots(base)),
        )


def make(options: Mapping[str, object], context: StrategyContext) -> Speculation:
    """Return the strategy.

    Raises:
        ConfigError: options that cannot be used (see ``SpeculationOptions``).
    """
    settings = read_options(SpeculationOptions, options, who=f"strategy {NAME}")
    return Speculation(options=settings, context=context)


def _innermost(engine: Engine) -> Engine:
    while isinstance(engine, EngineAround):
        engine = engine.inner
    return engine


def _slots(engine: Engine) -> int:
    """Return how many requests an engine runs together, as far as it says so."""
    found = getattr(getattr(engine, "options", None), "slots", 1)
    return found if isinstance(found, int) else 1
