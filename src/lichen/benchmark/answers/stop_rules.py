"""Stop rules for code that fills a hole: pure predicates on the text so far.

Both keep their promise when asked at any split of the text into deltas: once they cut, a longer
text is cut at the same place.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LineStop:
    """Stops at the end of the first line that says something."""

    def cut(self, text: str) -> int | None:
        """Return the position of the first newline after a visible character."""
        start = len(text) - len(text.lstrip())
        at = text.find("\n", start)
        return None if at < 0 else at


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStop:
    """Stops where the text leaves its block or repeats the line that follows the hole.

    Args:
        indent: column of the block in characters; a line that starts left of it has left.
        next_line: the first visible line after the hole, without white space around; a complete
            line equal to it ends the text. "" for none.
    """

    indent: int
    next_line: str = ""

    def cut(self, text: str) -> int | None:
        """Return the position of the newline before the first line that is outside."""
        at = text.find("\n")
        while at >= 0:
            end = text.find("\n", at + 1)
            line = text[at + 1 :] if end < 0 else text[at + 1 : end]
            visible = line.strip()
            if visible and len(line) - len(line.lstrip()) < self.indent:
                return at
            if end >= 0 and self.next_line and visible == self.next_line:
                return at
            at = end
        return None
