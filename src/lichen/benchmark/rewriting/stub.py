"""The code that a question shows, taken apart: signature, docstring, and where they lie.

Positions are those of Python's own parser; nothing is run.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Final

from lichen.benchmark.answers.syntax import Function, function_named, is_docstring, parse

_QUOTES: Final = ('"""', "'''", '"', "'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """A function whose body is its docstring, with whatever stands before it.

    Args:
        source: all of it.
        tree: of ``source``.
        function: the entry point.
        docstring: the docstring as written, quotes included, "" if there is none.
        start, end: where ``docstring`` lies in ``source``, in characters.
    """

    source: str
    tree: ast.Module
    function: Function
    docstring: str
    start: int
    end: int

    def with_docstring(self, text: str) -> str:
        """Return the source with another docstring (quotes included) in the same place."""
        return self.source[: self.start] + text + self.source[self.end :]

    @property
    def quotes(self) -> str:
        """The marks around the docstring, "" for a prefixed one (``r'''``), which is left alone."""
        return next((q for q in _QUOTES if self.docstring.startswith(q)), "")

    @property
    def text(self) -> str:
        """The docstring between its quotes, as written."""
        n = len(self.quotes)
        return self.docstring[n:-n] if n else self.docstring


def read_stub(source: str, entry_point: str) -> Stub | None:
    """Take a stub apart; None if it does not parse or does not define ``entry_point``."""
    tree = parse(source)
    function = function_named(tree, entry_point) if tree is not None else None
    if tree is None or function is None:
        return None
    first = function.body[0]
    if not is_docstring(first):
        return Stub(source=source, tree=tree, function=function, docstring="", start=0, end=0)
    start = offset(source, first.lineno, first.col_offset)
    end = offset(source, first.end_lineno or first.lineno, first.end_col_offset or 0)
    return Stub(
        source=source,
        tree=tree,
        function=function,
        docstring=source[start:end],
        start=start,
        end=end,
    )


def offset(source: str, line: int, column: int) -> int:
    """Return the character at a 1-based line and a column in UTF-8 bytes, as ``ast`` counts."""
    lines = source.splitlines(keepends=True)
    before = sum(map(len, lines[: line - 1]))
    return before + len(lines[line - 1].encode()[:column].decode("utf-8", "replace"))
