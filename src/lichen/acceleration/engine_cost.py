"""What one setting of an engine costs: CPU-seconds per prefilled and per decoded token.

Prefill and decode are measured apart, because they depend on different settings, and joined for a
workload of P prompt and D generated tokens per request:
``cost = (P * prefill + D * decode) / (P + D)`` CPU-seconds per token. The texts are synthetic code;
what an engine computes depends on their length, not on their sense. Requests of one measurement
share no beginning, so that no cache of prompts makes them look cheap.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from lichen.core.errors import EngineError
from lichen.core.generation import Completion, Finish, Request
from lichen.core.measurement import Missing
from lichen.core.ports import Engine, Meter


class Phase(StrEnum):
    """Which half of a request is measured."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetting:
    """The options that decide how the engine uses the machine; see ``LlamaCppOptions``."""

    slots: int = 1
    threads: int = 1
    threads_batch: int = 1
    batch: int = 512
    ubatch: int = 512

    def options(self) -> dict[str, object]:
        """Return them as engine options."""
        return dict(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a typical request is made of, in tokens.

    The defaults are those of a code model on HumanEval, asked for one function.
    """

    prompt_tokens: int = 160
    completion_tokens: int = 200

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.prompt_tokens < 1 or self.completion_tokens < 1:
            msg = f"a workload has at least one token of each kind: {self}"
            raise ValueError(msg)

    def cost(self, prefill_s: float, decode_s: float) -> float:
        """Return CPU-seconds per token of this mix."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return (prompt * prefill_s + completion * decode_s) / (prompt + completion)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSample:
    """One measurement.

    Args:
        setting: of the engine.
        phase: what was measured.
        cpu_s: CPU-seconds of the process tree, >= 0.
        tokens: prefilled or decoded, >= 1.
        token_s: wall-clock seconds per generated token of one request (decode only), else None.
    """

    setting: EngineSetting
    phase: Phase
    cpu_s: float
    tokens: int
    token_s: float | None = None

    @property
    def cpu_s_per_token(self) -> float:
        """CPU-seconds per token."""
        return self.cpu_s / self.tokens


DECODE_TOKENS: Final = 48
"""Tokens decoded per measurement at least, over all slots: 1 to 3 s of a small model."""

LEAST_DECODE: Final = 12
"""Tokens per request at least, so that the short prompts do not dominate a decode measurement."""

SHORT_PROMPT: Final = "def f"


def measure(
    engine: Engine, setting: EngineSetting, phase: Phase, workload: Workload, meter: Meter
) -> CostSample:
    """Run one measurement on an open engine.

    Raises:
        EngineError: requests failed, or CPU time cannot be measured here.
    """
    requests = _requests(setting, phase, workload)
    with meter.window(f"{phase} of {setting}") as window:
        done = [c for c in engine.generate(requests) if isinstance(c, Completion)]
    cpu_s = window.close().cpu_s
    failed = next((c for c in done if c.finish is Finish.ERROR), None)
    if failed is not None:
        raise EngineError(f"a request failed while the engine was measured: {failed.error}")
    if isinstance(cpu_s, Missing):
        raise EngineError(f"CPU time cannot be measured here: {cpu_s.reason}")
    if phase is Phase.PREFILL:
        tokens = sum(c.usage.prefilled for c in done)
    else:
        tokens = sum(c.usage.completion for c in done)
    if tokens == 0:
        raise EngineError(f"the engine reported no tokens for the {phase} that was measured")
    return CostSample(
        setting=setting,
        phase=phase,
        cpu_s=cpu_s.value.value,
        tokens=tokens,
        token_s=_token_s(done) if phase is Phase.DECODE else None,
    )


def warm(engine: Engine) -> None:
    """Run one short request, so that pages of the model are mapped before anything is measured."""
    for _ in engine.generate([Request(id="warm", prompt=SHORT_PROMPT, max_tokens=2)]):
        pass


def _requests(setting: EngineSetting, phase: Phase, workload: Workload) -> Sequence[Request]:
    if phase is Phase.PREFILL:
        count, length = max(2, setting.slots), 1
        texts = [synthetic_code(i, workload.prompt_tokens) for i in range(count)]
    else:
        count, length = setting.slots, max(LEAST_DECODE, DECODE_TOKENS // setting.slots)
        texts = [f"{SHORT_PROMPT}{i}" for i in range(count)]
    return [
        Request(id=str(i), prompt=text, max_tokens=length, user=f"tuning {i}")
        for i, text in enumerate(texts)
    ]


def synthetic_code(number: int, tokens: int) -> str:
    """Return about ``tokens`` tokens of code-like text that begins differently for each number."""
    # A line of this shape has about 16 tokens in the vocabularies of code models.
    return "\n".join(
        f"{number}.{i}: def step(x):  return x * {i + 2} + {number}"
        for i in range(max(1, tokens // 16))
    )


def _token_s(done: Sequence[Completion]) -> float | None:
    """Return the median time per generated token of a request; None if nothing tells."""
    times = []
    for c in done:
        spent = c.timings.decode_s if c.timings.decode_s is not None else c.timings.total_s
        if c.usage.completion:
            times.append(spent / c.usage.completion)
    return statistics.median(times) if times else None


def setting_from(options: Mapping[str, object]) -> EngineSetting:
    """Read a setting back from plain values.

    Raises:
        ValueError: an entry is lacking, unknown, or no whole number >= 1.
    """
    values = dict(options)
    if set(values) != set(asdict(EngineSetting())):
        msg = f"not an engine setting: {sorted(map(str, values))}"
        raise ValueError(msg)
    numbers = {k: v for k, v in values.items() if type(v) is int and v >= 1}
    if numbers.keys() != values.keys():
        msg = f"an engine setting has whole numbers from 1: {values}"
        raise ValueError(msg)
    return EngineSetting(**numbers)
