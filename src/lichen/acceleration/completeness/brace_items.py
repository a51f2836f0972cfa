"""Follow code with braces while it is written, until the wanted definition is complete.

A line may end the code where no bracket is open after it: if it ends with ``}`` or ``;``, or if the
next line begins something new at the margin. Only then, and only if the wanted name has been seen,
is the stretch since the last such place parsed. A stretch that is no correct code yet is tried
again when it has grown by half, so that the work stays linear.
"""

from __future__ import annotations

import re
from typing import Final

from lichen.acceleration.completeness.brace_grammar import Grammar, StretchFacts
from lichen.acceleration.completeness.brace_lines import BraceLines

_GROWTH: Final = 1.5
"""A failed stretch is parsed again at this multiple of its size: a geometric series."""

_NEW: Final = re.compile(r"[A-Za-z_$@`]|//|/\*|#")
"""How a line starts that begins something new; operators, brackets and dots go on."""


class BraceItems:
    """See the module. Offsets are the caller's: ends of lines in the whole text.

    Args:
        language: a key of ``brace_grammar.GRAMMARS``.
        entry_point: the wanted name, ``Class.method`` for a method, "" if any code will do.
        after: what ends at or before this offset is not the answer (it was given).
    """

    def __init__(self, language: str, entry_point: str, *, after: int) -> None:
        self._language = language
        self._entry = entry_point
        self._name = entry_point.rpartition(".")[2]
        self._word = re.compile(rf"(?<!\w){re.escape(self._name)}(?!\w)")
        self._after = after
        self._grammar = Grammar(language)
        self._facts_so_far = StretchFacts()
        self._missing: frozenset[str] = frozenset()
        self._complete: int | None = None
        self._spent = 0
        self._lexer = BraceLines(language)
        self._lines: list[str] = []
        self._size = self._kept = self._end = 0
        self._named = self._peeked = False
        self._retry_at = 0.0

    @property
    def in_string(self) -> bool:
        """Whether the next line begins inside a comment or string: a fence in it is no fence."""
        return self._lexer.inside

    @property
    def work(self) -> int:
        """Steps of the lexer plus characters parsed so far."""
        return self._lexer.work + self._spent

    @property
    def waits_for(self) -> frozenset[str]:
        """Names that the finished definition calls and that have not come yet."""
        return self._missing if self._complete is not None else frozenset()

    def peek(self, line: str) -> int | None:
        """Look at the beginning of a line; return how much to keep if it shows the end.

        The answer is the same for every longer beginning of the same line.
        """
        if self._lexer.open or not self._end or not line or self._peeked:
            return None
        if line[0] == "/" and len(line) == 1:
            return None  # a comment or a division: the next character tells
        self._peeked = True
        return self._try(by_value=True) if _NEW.match(line) else None

    def line(self, line: str, end: int) -> int | None:
        """Read a whole line that ends at offset ``end``; return how much to keep, if complete."""
        keep = self.peek(line)
        if keep is not None:
            return keep
        self._peeked = False
        self._lines.append(line)
        self._size += len(line) + 1
        self._named = self._named or bool(self._name and self._word.search(line))
        if self._lexer.read(line):
            self._end, self._kept = end, len(self._lines)
            if not self._lexer.open and self._lexer.last in "};":
                return self._try(by_value=self._lexer.last == ";")
        return None

    def close(self) -> int | None:
        """End the code here; return how much to keep if the wanted definition is there."""
        if self._end:
            self._retry_at = 0.0
            facts = self._facts()
            there = facts is not None and (not self._entry or self._name in facts.defined)
            if there and self._end > self._after:
                self._complete = self._end
        self._lexer = BraceLines(self._language)
        self._begin()
        return self._complete

    def _begin(self) -> None:
        self._lines = []
        self._size = self._kept = self._end = 0
        self._named = self._peeked = False
        self._retry_at = 0.0

    def _facts(self) -> StretchFacts | None:
        self._spent += self._size
        return self._grammar.facts_of("\n".join(self._lines[: self._kept]) + "\n", self._entry)

    def _try(self, *, by_value: bool) -> int | None:
        """See whether the stretch so far completes the wanted code."""
        relevant = self._named or self._complete is not None
        if not relevant or not self._entry or self._size < self._retry_at:
            return None
        facts = self._facts()
        if facts is None:
            self._retry_at = self._size * _GROWTH
            return None
        if self._name in facts.by_value and not by_value:
            return None
        defines = self._name in facts.defined and self._end > self._after
        came = bool(self._missing & facts.defined)
        self._facts_so_far |= facts
        if defines or came:
            self._complete = self._end
        self._missing = self._grammar.missing(self._facts_so_far)
        self._begin()
        return None if self._missing else self._complete
