"""Follow the top-level statements ("items") of Python code while it is written.

An item ends where the next one begins: at the first character of a line at the margin that is not a
comment, outside strings, brackets and continuations, and no ``else``, ``except`` ... of the same
statement. Each item is parsed once when it ends (and at most once more, at a ``return`` that closes
the wanted function), so the work is linear in the text.

The wanted code is complete when an item has defined the wanted name for real and every name that
it needs, directly or through helpers, is bound, built in, or known from the question.
"""

from __future__ import annotations

import re
from typing import Final

from lichen.acceleration.completeness.python_lines import PythonLines
from lichen.acceleration.completeness.python_names import ItemFacts, Names, facts_of

_CLAUSES: Final = ("else", "elif", "except", "finally")
_WITH_CLAUSES: Final = frozenset({"if", "for", "while", "try", "async", *_CLAUSES})
_COMPOUND: Final = _WITH_CLAUSES | {"def", "class", "with", "@"}
_WORD: Final = re.compile(r"@|\w*")
_DEF: Final = re.compile(r"(?:async[ \t]+)?def[ \t]+(\w+)")
_GIVES: Final = re.compile(r"return\b[ \t]*[^\s#;]")
_GUARD: Final = re.compile(r"\s*if\s*\(?\s*__name__\b")


class PythonItems:
    """See the module. Offsets are the caller's: ends of lines in the whole text.

    Args:
        entry_point: the wanted name, "" if any code will do.
        known: names that are there without being written.
        after: an item that ends at or before this offset is not the answer (it was given).
        methods: whether the wanted name, without a class before it, may be a method.
    """

    def __init__(
        self, entry_point: str, *, known: frozenset[str], after: int, methods: bool = True
    ) -> None:
        self._entry = entry_point
        self._methods = methods
        self._after = after
        self._names = Names(known=known)
        self._lexer = PythonLines()
        self._spent = 0
        self._complete: int | None = None
        self._last_end = 0
        self._begin_item()

    @property
    def in_string(self) -> bool:
        """Whether the next line begins inside a string, so that a fence in it is no fence."""
        return self._lexer.in_string

    @property
    def work(self) -> int:
        """Steps of the lexer plus lines parsed so far."""
        return self._lexer.work + self._spent

    @property
    def waits_for(self) -> frozenset[str]:
        """Names that the finished definition needs and that have not come yet."""
        return frozenset(self._names.missing) if self._complete is not None else frozenset()

    def peek(self, line: str) -> int | None:
        """Look at the beginning of a line; return how much to keep if it shows the end.

        The answer is the same for every longer beginning of the same line.
        """
        if self._lexer.open or not self._end or not line or line[0].isspace() or line[0] == "#":
            return None
        if self._header == "@":
            return None
        word = _WORD.match(line)[0]  # type: ignore[index]  # matches the empty string too
        if self._header in _WITH_CLAUSES and (
            word in _CLAUSES or (word == line and any(c.startswith(word) for c in _CLAUSES))
        ):
            return None
        return self._finish()

    def line(self, line: str, end: int) -> int | None:
        """Read a whole line that ends at offset ``end``; return how much to keep, if complete."""
        keep = self.peek(line)
        if keep is not None:
            return keep
        starts = not self._lexer.open
        self._take(line)
        if starts:
            said = line.strip()
            if not said or said[0] == "#":
                return None
            self._first_line = said
            self._margin = line[: len(line) - len(line.lstrip())]
            if not self._margin:
                self._note_header(said)
        self._lexer.read(line)
        return None if self._lexer.open else self._statement_ended(end)

    def close(self) -> int | None:
        """End the code here; return how much to keep if the wanted definition is there.

        Names that are still missing do not count: no more code of this block will come.
        """
        end = self._end or self._last_end
        if self._end:
            self._finish()
        self._lexer = PythonLines()
        self._begin_item()
        return self._complete if self._entry or self._complete is None else end

    def _take(self, line: str) -> None:
        self._lines.append(line)

    def _begin_item(self) -> None:
        self._lines: list[str] = []
        self._end = 0
        self._header = ""
        self._defines = ""
        self._margin = ""
        self._body: str | None = None
        self._first_line = ""
        self._tried = False

    def _note_header(self, said: str) -> None:
        if self._header in ("", "@"):
            word = _WORD.match(said)[0]  # type: ignore[index]  # matches the empty string too
            named = _DEF.match(said)
            self._header = "def" if named else word
            self._defines = named[1] if named else self._defines

    def _statement_ended(self, end: int) -> int | None:
        self._end = end
        if not self._margin:
            whole = self._lexer.last != ":"  # no block follows
            compound = self._header in _COMPOUND or not whole
            if not compound or (whole and self._header in ("def", "class")):
                return self._finish()
            return None
        if self._header != "def" or self._tried:
            return None
        if self._body is None:
            self._body = self._margin
        awaited = self._defines == self._entry or self._defines in self.waits_for
        if awaited and self._margin == self._body and _GIVES.match(self._first_line):
            return self._finish_early()
        return None

    def _facts(self, name: str = "") -> ItemFacts | None:
        self._spent += len(self._lines)
        return facts_of("\n".join(self._lines), name or self._entry, methods=self._methods)

    def _finish_early(self) -> int | None:
        """At ``return value`` in the function's own block: whatever follows in it cannot run."""
        self._tried = True
        facts = self._facts(self._defines)
        if facts is None or not (facts.defines and facts.returns) or self._end <= self._after:
            return None
        return None if self._names.would_miss(facts) else self._end

    def _finish(self) -> int | None:
        facts, end, guard = self._facts(), self._end, _GUARD.match(self._lines_text())
        self._begin_item()
        done = self._complete is not None
        self._last_end = end
        if facts is None:  # what is no Python at the margin comes after the program
            return self._complete if self._entry else None
        redefined = facts.defines and end > self._after
        if done and not redefined and not guard and facts.uses:
            return self._complete  # it is called: names that are missing now stay missing
        hit = self._names.add(facts)
        if redefined or (not self._entry and facts.code):
            self._complete = end
            self._names.need(facts.reads if self._entry else ())
        elif done and hit:
            self._complete = end
        if self._complete is None or self._names.missing or not self._entry:
            return None
        return self._complete

    def _lines_text(self) -> str:
        return next((line for line in self._lines if line.strip() and line[0] != "#"), "")
