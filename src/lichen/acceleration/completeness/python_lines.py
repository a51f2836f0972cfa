"""Where logical lines of Python end: strings, brackets and continuations, one line at a time.

A lexer that never looks back: each character is read once. It needs no valid program, since half
of what it reads is not finished yet. See "Lexical analysis" in the Python language reference.
"""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = re.compile(r"""[^'"#()\[\]{}\\]+""")
_IN_STRING: Final = {
    mark: re.compile(r"\\.|" + mark, re.DOTALL) for mark in ("'", '"', "'''", '"""')
}


class PythonLines:
    """The state between two physical lines.

    Attributes:
        quote: delimiter of the string that the next line begins in, "" if none.
        depth: open brackets.
        last: the last character of the logical line that is neither space nor comment.
        work: steps taken so far; grows linearly with the text.
    """

    __slots__ = ("_continued", "depth", "last", "quote", "work")

    def __init__(self) -> None:
        self.quote = ""
        self.depth = 0
        self.last = ""
        self.work = 0
        self._continued = False

    @property
    def open(self) -> bool:
        """Whether the logical line goes on in the next physical line."""
        return bool(self.quote) or self.depth > 0 or self._continued

    @property
    def in_string(self) -> bool:
        """Whether the next line begins inside a triple-quoted string."""
        return len(self.quote) > 1

    def read(self, line: str) -> None:
        """Read one physical line, without its line end."""
        if not self.open:
            self.last = ""
        self._continued = False
        at = self._end_of_string(line, 0) if self.quote else 0
        while at < len(line):
            self.work += 1
            plain = _PLAIN.match(line, at)
            if plain:
                self.last = plain[0].rstrip()[-1:] or self.last
                at = plain.end()
                continue
            char = line[at]
            if char == "#":
                return
            if char in "'\"":
                self.quote = char * 3 if line.startswith(char * 3, at) else char
                at = self._end_of_string(line, at + len(self.quote))
                self.last = char
                continue
            if char == "\\" and not line[at + 1 :].strip():
                self._continued = True
                return
            self.depth = max(self.depth + (char in "([{") - (char in ")]}"), 0)
            self.last = char
            at += 1

    def _end_of_string(self, line: str, at: int) -> int:
        """Return where the open string ends; the line's end if it does not, or is broken off."""
        while found := _IN_STRING[self.quote].search(line, at):
            self.work += 1
            at = found.end()
            if found[0] == self.quote:
                self.quote = ""
                return at
        if len(self.quote) == 1 and not line[at:].endswith("\\"):
            self.quote = ""  # a string that its line breaks off: a syntax error, not our business
        return len(line)
