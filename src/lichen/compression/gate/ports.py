"""What the gate needs of the world: measurements that take an engine, a task or a sandbox.

Each port takes the parent's file and the child's and returns one value, already paired. Where there
is none, a ``Missing`` says why, and the check is not run. The gate itself never runs a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lichen.compression.corpus import Document
from lichen.core.interval import Interval
from lichen.core.measurement import Missing, Quantity


class Tokenises(Protocol):
    """The tokenizer of one model file, as the engine runs it."""

    def encode(self, text: str) -> list[int]:
        """Return token ids, without special tokens added."""

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes that token ids stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementValue:
    """How alike parent and child continue held-out code, position by position.

    Args:
        kl_nats: mean KL divergence of the child's next-token distribution from the parent's.
        flips: share of positions whose most likely token differs.
        parent_perplexity, child_perplexity: on the same text.
        tokens: positions compared, >= 1.
        note: what the comparison had to leave out, "" if nothing.
    """

    kl_nats: Interval
    flips: Interval
    parent_perplexity: float
    child_perplexity: float
    tokens: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityValue:
    """The user's task, solved by both: ``difference`` is child minus parent, in [-1, 1]."""

    metric: str
    problems: int
    parent_solved: int
    child_solved: int
    only_parent: int
    only_child: int
    difference: Interval
    mcnemar_p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersValue:
    """The shape of those answers: how long, and how they ended.

    Args:
        answers: pairs compared, >= 1.
        length_ratio: the child's tokens over the parent's, summed over the same problems.
        parent_truncated, child_truncated: answers that the token limit cut.
        truncated_excess: share of the child's minus share of the parent's, in [-1, 1].
        finishes: (how answers ended, the parent's count, the child's count).
    """

    answers: int
    length_ratio: Interval
    parent_truncated: int
    child_truncated: int
    truncated_excess: Interval
    finishes: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskValue:
    """What one interleaved run of the task says."""

    quality: QualityValue
    answers: AnswersValue


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipsValue:
    """Verdicts that changed when a question was rewritten without changing what it asks.

    ``excess`` is the child's share minus the parent's, over pairs (problem, rewrite); ``only_*``
    count the pairs in which the verdict changed for one of the two alone.
    """

    rewrites: tuple[str, ...]
    pairs: int
    parent_flips: int
    child_flips: int
    only_parent: int
    only_child: int
    excess: Interval
    mcnemar_p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CostValue:
    """What running each costs, measured in turns. Ratios are child over parent.

    Args:
        prefill, decode: of CPU-seconds per token.
        load: of CPU-seconds from nothing to the first token.
        memory: of resident bytes after the first token, each in a process of its own.
        rounds: how often the two took turns, >= 1.
        parent_prefill_s, child_prefill_s, parent_decode_s, child_decode_s: CPU-seconds per token.
    """

    prefill: Interval
    decode: Interval
    load: Interval
    memory: Quantity
    rounds: int
    parent_prefill_s: float
    child_prefill_s: float
    parent_decode_s: float
    child_decode_s: float


MeasureAgreement = Callable[[Path, Path], AgreementValue]
MeasureTask = Callable[[Path, Path], TaskValue]
MeasureFlips = Callable[[Path, Path], FlipsValue]
MeasureCost = Callable[[Path, Path], CostValue]
OpenTokenizer = Callable[[Path], Tokenises]
RenderChats = Callable[[Path], Sequence[str]]
"""Renders a fixed set of conversations with a model file's chat template, as the engine does.

Raises LichenError when the template cannot be rendered.
"""

_NOT_ASKED = Missing(reason="it was not asked for")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePorts:
    """Everything the checks may use; ``Missing`` where something is not to be had.

    ``held_out`` is code that the compression has not seen.
    """

    held_out: tuple[Document, ...] = ()
    tokenizer: OpenTokenizer | Missing = _NOT_ASKED
    chats: RenderChats | Missing = _NOT_ASKED
    agreement: MeasureAgreement | Missing = _NOT_ASKED
    task: MeasureTask | Missing = _NOT_ASKED
    flips: MeasureFlips | Missing = _NOT_ASKED
    cost: MeasureCost | Missing = _NOT_ASKED
