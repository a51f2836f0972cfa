"""Pieces of source that can be masked: a line, a function body, a run of statements.

Boundaries are those of statements; a piece starts at the first character of a statement (its
indentation stays in front) and ends at the last one of a line. It does not choose among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lichen.benchmark.corpus.blocks import Block


class SpanKind(StrEnum):
    """What is masked."""

    LINE = "line"
    BODY = "body"
    SPAN = "span"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of a text: byte offsets of its UTF-8 form; ``indent`` is its column in characters."""

    kind: SpanKind
    start: int
    end: int
    indent: int


MAX_SPAN_STATEMENTS: Final = 4
MIN_CHARS: Final = 10
"""Shorter pieces (``pass``, ``return x``, ``i += 1``) say nothing about a model."""

MAX_CHARS: Final = 1_200
MAX_LINES: Final = 30
"""Longer ones outgrow the token limits of small models."""


def spans(source: bytes, found: list[Block]) -> Iterator[Span]:
    """Yield the maskable pieces of a file in order, each once."""
    seen: set[tuple[SpanKind, int, int]] = set()
    for block in found:
        for kind, start, end in _pieces(block):
            span = _whole_lines(source, kind, start, end)
            if span is not None and (kind, start, end) not in seen:
                seen.add((kind, start, end))
                yield span


def _pieces(block: Block) -> Iterator[tuple[SpanKind, int, int]]:
    statements = block.statements
    if block.function:
        yield SpanKind.BODY, statements[0][0], statements[-1][1]
    for i, (start, end) in enumerate(statements):
        yield SpanKind.LINE, start, end
        for j in range(i + 1, min(i + MAX_SPAN_STATEMENTS, len(statements))):
            if not (block.function and i == 0 and j == len(statements) - 1):
                yield SpanKind.SPAN, start, statements[j][1]


def _whole_lines(source: bytes, kind: SpanKind, start: int, end: int) -> Span | None:
    """Return the span if it fills whole lines and its size is reasonable."""
    before = source[source.rfind(b"\n", 0, start) + 1 : start]
    line_end = source.find(b"\n", end)
    after = source[end : len(source) if line_end < 0 else line_end]
    if before.strip() or after.strip():
        return None
    middle = source[start:end].decode()
    lines = middle.count("\n") + 1
    if (lines == 1) != (kind is SpanKind.LINE) or lines > MAX_LINES:
        return None
    if not MIN_CHARS <= len(middle) <= MAX_CHARS:
        return None
    indent = len(before.decode())
    rest = [line for line in middle.split("\n")[1:] if line.strip()]
    if any(len(line) - len(line.lstrip()) < indent for line in rest):
        return None  # a text that leaves its indentation cannot be told from its end
    return Span(kind=kind, start=start, end=end, indent=indent)
