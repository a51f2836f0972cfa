"""Compute a prompt's beginning once: keep it in its slot and reuse it for the same user.

What a request shares with the last one of its user (a system prompt, a file, the turns of a
conversation so far) is not prefilled again. Causal attention makes this exact: keys and values of
a token depend on the tokens before it only (Pope et al., 2022, arXiv:2211.05102; shared across
requests: Zheng et al., 2023, arXiv:2312.07104).

It does not reorder or route requests: the llama.cpp adapter already seats a request on the free
slot of its user with the longest common prefix, and copies a beginning into a slot that lacks it
(``lichen.engines.llama_cpp.beginnings``). It never shares across users, and it does not turn
on llama.cpp's host-RAM cache, which can bring back another conversation (llama.cpp issue 27148).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from lichen.acceleration.strategy import Layer, StrategyContext
from lichen.acceleration.watching import watched
from lichen.core.generation import Capability, Completion, Step
from lichen.core.ports import Engine
from lichen.engines.options import read_options

NAME: Final = "prefix_cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixCacheOptions:
    """There is nothing to choose: caching per user is the only safe way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixCache:
    """Sets the engine option ``prompt_cache`` to "user" and reports what was reused."""

    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.ENGINE
    needs: ClassVar[frozenset[Capability]] = frozenset()

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Let slots keep their user's last prompt."""
        return {**options, "prompt_cache": "user"}

    def wrap(self, engine: Engine) -> Engine:
        """Write into each ledger how much of the prompt was not computed again."""
        return watched(engine, NAME, _note)


def make(options: Mapping[str, object], context: StrategyContext) -> PrefixCache:  # noqa: ARG001 (a factory's shape)
    """Return the strategy; it has no options."""
    read_options(PrefixCacheOptions, options, who=f"strategy {NAME}")
    return PrefixCache()


def _note(completion: Completion) -> Step:
    usage = completion.usage
    return Step(
        actor=NAME,
        action="reused" if usage.cached else "computed",
        detail=f"{usage.cached} of {usage.prompt} prompt tokens were reused",
    )
