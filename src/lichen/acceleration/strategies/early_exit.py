"""Leave the model's later layers out where an earlier one knows the next token already.

After each tested layer a controller decides for the token that is being made: go on, exit or stop.
``confidence`` is CALM's (Schuster et al., 2022, arXiv:2207.07061): exit where the most likely token
is likely enough. ``linear`` is SEC's (Sun et al., 2024, arXiv:2401.09964), made for code: one
classifier of hidden states, fitted on code when the model is first loaded, which can also end an
answer that no layer knows how to go on with. Thresholds above 1 never let it: what the tests alone
cost. The engine does the work (``lichen.engines.early_exit``).
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Final

from lichen.acceleration.strategy import Layer, StrategyContext
from lichen.acceleration.watching import watched
from lichen.core.errors import ConfigError
from lichen.core.generation import Capability, Completion, Step
from lichen.core.ports import Engine
from lichen.engines.early_exit import EarlyExitOptions
from lichen.engines.options import read_options

NAME: Final = "early_exit"

NEVER: Final = 2.0
"""A threshold that no probability reaches."""

_MOST_TEXTS: Final = 64
"""Files that a classifier is fitted on at most; a window of each is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be set; for controller, thresholds, first and every see the engine's options.

    Args:
        texts: folder or file of code that ``linear`` is fitted on; "" takes Python's standard
            library.
        fit_tokens: tokens of it.
        model: what identifies the model's classifier (its hash); filled in by lichen.
    """

    controller: str = "confidence"
    threshold: float = 0.9
    stop_threshold: float = 2.0
    first: float = 0.75
    every: int = 1
    texts: str = ""
    fit_tokens: int = 2048
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExit:
    """Sets the engine's option and tells the ledger which controller was on."""

    options: EarlyExitOptions
    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.ENGINE
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.EARLY_EXIT})

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Set when the engine leaves the model."""
        return {**options, "early_exit": asdict(self.options)}

    def wrap(self, engine: Engine) -> Engine:
        """Write the setting into each ledger."""
        return watched(engine, NAME, self._note)

    @property
    def _idle(self) -> bool:
        return min(self.options.threshold, self.options.stop_threshold) > 1

    def _note(self, completion: Completion) -> Step:
        done = next((s.detail for s in completion.ledger if s.action.startswith("left layers")), "")
        return Step(
            actor=NAME,
            action=f"controller {self.options.controller}{', never exits' * self._idle}",
            detail=done or f"threshold {self.options.threshold:g}",
        )


def make(options: Mapping[str, object], context: StrategyContext) -> EarlyExit:
    """Return the strategy; for ``options`` see ``Options``.

    Raises:
        ConfigError: an unknown option, a value out of range, or no texts to fit on.
    """
    o = read_options(Options, options, who=f"strategy {NAME}")
    engine: dict[str, object] = {
        name: getattr(o, name)
        for name in ("controller", "threshold", "stop_threshold", "first", "every", "fit_tokens")
    }
    if o.controller == "linear":
        texts = _texts(o.texts)
        known = f"{o.model}\0{o.texts}\0{o.first}\0{o.every}\0{o.fit_tokens}\0{texts}"
        key = hashlib.sha256(known.encode()).hexdigest()[:16]
        weights = context.data_dir / "early_exit" / f"{key}.npy"
        engine |= {"texts": texts, "weights": str(weights)}
    return EarlyExit(options=read_options(EarlyExitOptions, engine, who=f"strategy {NAME}"))


def can_exit(options: Mapping[str, object]) -> bool:
    """Whether the strategy with these options may leave layers out or end an answer.

    Raises:
        ConfigError: an unknown option, or a value of the wrong type.
    """
    o = read_options(Options, options, who=f"strategy {NAME}")
    return min(o.threshold, o.stop_threshold) <= 1


def never(options: Mapping[str, object]) -> dict[str, object]:
    """Return the options of the same strategy that tests in the same way and never exits."""
    return {**options, "threshold": NEVER, "stop_threshold": NEVER}


def _texts(where: str) -> tuple[str, ...]:
    """Return the files to fit on, in an order that is the same everywhere."""
    root = Path(where) if where else Path(sysconfig.get_path("stdlib"))
    if root.is_file():
        return (str(root),)
    # One level deep: the standard library's tests are a level further down.
    files = sorted(p for p in root.glob("*.py" if not where else "**/*.py") if p.is_file())
    if not files:
        raise ConfigError(f"strategy {NAME}: no Python files under {root} to fit a controller on")
    step = max(1, len(files) // _MOST_TEXTS)
    return tuple(str(p) for p in files[::step][:_MOST_TEXTS])
