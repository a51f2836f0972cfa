"""Brackets of languages with braces, one line at a time: strings and comments do not count.

A lexer that never looks back: each character is read once. Known gaps, all of which can only delay
a stop or are caught by the parser that checks it: template literals whose ``${...}`` holds another
template, and regular expressions that follow a closing parenthesis.
"""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = re.compile(r"""[^'"`/()\[\]{}rRu]+""")
_CHAR: Final = re.compile(r"'(?:\\(?:u\{?[0-9a-fA-F]+\}?|x[0-9a-fA-F]+|.)|[^\\'])'")
_LIFETIME: Final = re.compile(r"'(?:[A-Za-z_]\w*)?")
_RUST_RAW: Final = re.compile(r'r(#*)"')
_CPP_RAW: Final = re.compile(r'R"([^()\\\s]{0,16})\(')
_REGEX: Final = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\[])+/[a-z]*")
_WORD: Final = re.compile(r"\w+")
_BEFORE_REGEX: Final = frozenset("(,=:[!&|?{};+-*%<>~^") | {""}
_SCRIPTS: Final = frozenset({"javascript", "typescript"})


class BraceLines:
    """The state between two lines.

    Attributes:
        depth: open brackets of any kind.
        last: the last character of code so far, "" at the beginning.
        work: steps taken so far; grows linearly with the text.
    """

    __slots__ = ("_language", "_until", "_word", "depth", "last", "work")

    def __init__(self, language: str) -> None:
        self._language = language
        self._until = ""
        self._word = ""
        self.depth = 0
        self.last = ""
        self.work = 0

    @property
    def inside(self) -> bool:
        """Whether the next line begins in a comment or in a string other than a template."""
        return self._until not in ("", "`")

    @property
    def open(self) -> bool:
        """Whether the next line begins inside anything."""
        return bool(self._until) or self.depth > 0

    def read(self, line: str) -> bool:
        """Read one line, without its line end; return whether there was code in it."""
        at, code = 0, bool(self._until) and self._until != "*/"
        if self._until in ("'", '"'):
            self._until = ""  # such strings end with their line
        while at < len(line):
            self.work += 1
            if self._until:
                at = self._skip(line, at)
                continue
            if line.startswith("//", at):
                break
            if line.startswith("/*", at):
                self._until, at = "*/", at + 2
                continue
            step = self._code(line, at)
            code = code or not line[at:step].isspace()
            at = step
        return code

    def _skip(self, line: str, at: int) -> int:
        """Pass over a string or comment that ends with ``_until``; return where."""
        mark = self._until
        escapes = mark in ("'", '"') or (mark == "`" and self._language in _SCRIPTS)
        while at < len(line):
            self.work += 1
            if escapes and line[at] == "\\":
                at += 2
            elif line.startswith(mark, at):
                self._until = ""
                return at + len(mark)
            else:
                ends = [i for m in (mark, "\\") if (i := line.find(m, at + 1)) >= 0]
                at = min(ends, default=len(line))
        return len(line)

    def _code(self, line: str, at: int) -> int:
        """Read code from ``at``; return where to go on."""
        plain = _PLAIN.match(line, at) or _WORD.match(line, at)
        raw = self._raw_string(line, at)
        if raw:
            return raw
        if plain:
            words = _WORD.findall(plain[0])
            self._word = words[-1] if words and plain[0].rstrip().endswith(words[-1]) else ""
            self.last = plain[0].rstrip()[-1:] or self.last
            return plain.end()
        return self._mark(line, at)

    def _raw_string(self, line: str, at: int) -> int:
        before = line[at - 1] if at else " "
        if before.isalnum() or before == "_":
            return 0
        rust = self._language == "rust" and _RUST_RAW.match(line, at)
        cpp = self._language == "cpp" and _CPP_RAW.match(line, at)
        found = rust or cpp
        if not found:
            return 0
        self._until = f'"{found[1]}' if rust else f'){found[1]}"'
        self.last = '"'
        return found.end()

    def _mark(self, line: str, at: int) -> int:
        char = line[at]
        if char == "'":
            found = _CHAR.match(line, at)
            if found or self._language == "rust":
                self.last = "'"
                return (found or _LIFETIME.match(line, at)).end()  # type: ignore[union-attr]  # the latter always matches at a quote
        if char in "'\"" or (char == "`" and self._language in (*_SCRIPTS, "go")):
            self._until = self.last = char
            return at + 1
        if char == "/" and self._language in _SCRIPTS:
            regex = _REGEX.match(line, at)
            if regex and (self.last in _BEFORE_REGEX or self._word == "return"):
                self.last = "/"
                return regex.end()
        self.depth = max(self.depth + (char in "([{") - (char in ")]}"), 0)
        self.last, self._word = char, ""
        return at + 1
