"""Fenced code blocks in Markdown as models write it: unclosed, nested, tilded, tagged.

CommonMark 0.31 section 4.5 says what a fence is; models break it in known ways (a block inside a
block, a fence that is never closed), so every plausible reading is offered, the strict one first.
It does not judge the contents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_FENCE: Final = re.compile(r"[ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?(`{3,}|~{3,})([^`\n]*)")
"""A fence line; a list marker before it is tolerated, because models number their answers."""

MAX_FENCES: Final = 64
"""Fence lines that are looked at: an answer is one function, so a handful is already odd."""

_MAX_CLOSERS: Final = 4


@dataclass(frozen=True, slots=True)
class _Fence:
    line: int
    mark: str
    info: str

    def closes(self, opener: _Fence) -> bool:
        return not self.info and self.mark.startswith(opener.mark)


def is_fence(line: str) -> bool:
    """Whether a line opens or closes a block."""
    return _FENCE.fullmatch(line) is not None


def fenced_blocks(text: str) -> Iterator[str]:
    """Yield the contents of every reading of the fences in ``text``, most literal first.

    First the blocks as CommonMark reads them (an unclosed one runs to the end), then blocks that
    open inside those, then blocks that reach past a closing fence to a later one (code whose
    docstring holds a fence). At most ``64 * 4`` contents come.
    """
    lines = text.split("\n")
    fences = _fences(lines)
    strict = list(_strict(fences, len(lines)))
    for start, end in strict:
        yield "\n".join(lines[start:end])
    seen = set(strict)
    openers = [f for f in fences if f.info or any(f.line + 1 == start for start, _ in strict)]
    for opener in openers:
        later = [f for f in fences if f.line > opener.line and f.closes(opener)]
        for closer in later[:_MAX_CLOSERS]:
            reading = (opener.line + 1, closer.line)
            if reading not in seen:
                seen.add(reading)
                yield "\n".join(lines[reading[0] : reading[1]])


def _fences(lines: list[str]) -> list[_Fence]:
    found: list[_Fence] = []
    for number, line in enumerate(lines):
        match = _FENCE.fullmatch(line)
        if match:
            found.append(_Fence(number, match[1], match[2].strip()))
            if len(found) == MAX_FENCES:
                break
    return found


def _strict(fences: list[_Fence], end: int) -> Iterator[tuple[int, int]]:
    opener: _Fence | None = None
    for fence in fences:
        if opener is None:
            opener = fence
        elif fence.closes(opener):
            yield opener.line + 1, fence.line
            opener = None
    if opener is not None:
        yield opener.line + 1, end
