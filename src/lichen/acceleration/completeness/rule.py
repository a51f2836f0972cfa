"""The stop rule: Markdown or plain code in, a cut as soon as the wanted code is complete.

It stops when

(a) a fenced block closes after the wanted definition (blocks before it do not stop, nor does a
    fence inside a multi-line string of the code),
(b) the wanted top-level definition has ended, with the helpers it calls, and something else begins
    (in Python already at the ``return`` after which nothing in the function could run),
(c) the text goes in circles (``repetition``).

The decision depends on the text alone and is the same however the text arrives: only whole lines
are read, except for the first characters of a line and for looks at fixed lengths of a long line.
Work is linear in the text; ``work`` counts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from lichen.acceleration.completeness.brace_grammar import GRAMMARS
from lichen.acceleration.completeness.brace_items import BraceItems
from lichen.acceleration.completeness.python_items import PythonItems
from lichen.acceleration.completeness.python_names import defines_function, known_names
from lichen.acceleration.completeness.repetition import Repetition
from lichen.core.generation import Request

_FENCE: Final = re.compile(r"([ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?)(`{3,}|~{3,})([^`\n]*)")
"""A fence line (CommonMark 0.31, 4.5); a list marker before it is what models add."""

_PEEK: Final = 80
"""Characters of an unfinished line that are looked at; the decision needs the first word."""

ALIASES: Final = {
    "py": "python", "python3": "python", "python2": "python", "pycon": "python",
    "js": "javascript", "jsx": "javascript", "node": "javascript", "mjs": "javascript",
    "ts": "typescript", "golang": "go", "rs": "rust", "h": "c",
    "c++": "cpp", "cc": "cpp", "cxx": "cpp", "hpp": "cpp",
}  # fmt: skip
"""What fences call a language -> its name here."""

LANGUAGES: Final = frozenset({"python", *GRAMMARS})
"""Languages whose code is followed."""

_STARTS: Final = {
    "python": re.compile(
        r"(?:async\s+)?def\s+\w+\s*\(|class\s+\w+\s*[(:]|@[A-Za-z_][\w.]*\s*(?:\(|$)"
        r"|from\s+[\w.]+\s+import\b|import\s+[\w.]+\s*(?:$|,|as\b|#)"
    ),
    "": re.compile(
        r"(?:export|import|package|public|private|static|class|interface|struct|enum|impl|trait"
        r"|function|async function|const|let|var|func|fn|pub|use|type|template|using|#include"
        r"|#define|namespace|void|int|long|float|double|char|bool|unsigned|std::|@\w+)\b[^.]*$"
        r"|.*[{;]\s*$"
    ),
}
"""How code begins where no fence says so; "" for all languages with braces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the answer should hold.

    Args:
        language: name or alias; code of others is not followed. "" follows what a fence names.
        entry_point: the definition that is asked for; "" if any code will do.
        given: code of the question; its imports and helpers count as there.
        prefix: beginning of the answer that the rule will not be shown.
        in_code: whether the text begins within code, without a fence (a raw continuation).
    """

    language: str = ""
    entry_point: str = ""
    given: str = ""
    prefix: str = ""
    in_code: bool = False


def wanted_of(request: Request) -> Wanted:
    """Return what the answer to ``request`` should hold, and where it begins."""
    hints = request.hints
    if hints is None or request.kind == "infill":
        return Wanted(language="none")
    given, prompt = hints.given.strip(), request.prompt or ""
    in_code = bool(given) and prompt.rstrip().endswith(given)
    return Wanted(
        language=hints.language,
        entry_point=hints.entry_point,
        given=hints.given,
        prefix=prompt[prompt.rfind(given) :] if in_code else request.answer_prefix,
        in_code=in_code,
    )


class Items(Protocol):
    """Follows the code of one language; ``python_items`` and ``brace_items`` say what each does."""

    @property
    def in_string(self) -> bool:
        """Whether the next line begins inside a string or comment."""

    @property
    def work(self) -> int:
        """Steps taken."""

    @property
    def waits_for(self) -> frozenset[str]:
        """Names that the finished definition waits for."""

    def peek(self, line: str) -> int | None:
        """Look at the beginning of a line; return how much to keep, if complete."""

    def line(self, line: str, end: int) -> int | None:
        """Read a line that ends at offset ``end``; return how much to keep, if complete."""

    def close(self) -> int | None:
        """End the block; return how much to keep if it holds what is wanted."""


class CompleteCode:
    """See the module. One instance serves one request.

    Args:
        wanted: what the answer should hold.
        follow: makes what follows code of a language (by its name here), None for a language that
            is not followed; by default what this package has.
        loops: whether to stop a text that goes in circles.

    Attributes:
        reason: why it stopped: ``complete``, ``fence closed`` or ``repetition``; "" so far.
    """

    def __init__(
        self,
        wanted: Wanted,
        *,
        follow: Callable[[str], Items | None] | None = None,
        loops: bool = True,
    ) -> None:
        self.wanted = wanted
        self._make = follow or self._follow
        self._watch_loops = loops
        self._seen = ""
        self._restart()

    @property
    def work(self) -> int:
        """Steps taken for the text so far: lexing, parsing, comparing lines."""
        return self._repetition.work + (self._items.work if self._items else 0)

    @property
    def waits_for(self) -> frozenset[str]:
        """Names that the finished definition still waits for."""
        return self._items.waits_for if self._items else frozenset()

    def cut(self, text: str) -> int | None:
        """Return how many characters of ``text`` to keep, None to go on."""
        if not text.startswith(self._seen):
            self._restart()
        if self._keep is None:
            self._seen = text
            self._text = self.wanted.prefix + text
            self._advance()
        return None if self._keep is None else max(self._keep - len(self.wanted.prefix), 0)

    def _restart(self) -> None:
        self.reason = ""
        self._keep: int | None = None
        self._seen = ""
        self._text = self.wanted.prefix
        self._start = self._searched = 0
        self._fence: tuple[int, str] | None = None
        self._repetition = Repetition()
        language = ALIASES.get(self.wanted.language.lower(), self.wanted.language.lower())
        self._language = language
        self._items: Items | None = self._make(language)
        self._in_code = self.wanted.in_code
        if self.wanted.prefix:
            self._advance()

    def _follow(self, language: str) -> Items | None:
        if language not in LANGUAGES:
            return None
        entry, after = self.wanted.entry_point, len(self.wanted.prefix)
        if language == "python":
            given = self.wanted.given
            methods = not defines_function(given, entry)
            return PythonItems(entry, known=known_names(given), after=after, methods=methods)
        return BraceItems(language, entry, after=after)

    def _advance(self) -> None:
        """Read what has come: whole lines, then the beginning of the last one."""
        text = self._text
        while self._keep is None:
            end = text.find("\n", self._searched)
            if end < 0:
                self._searched = len(text)
                self._begins(text[self._start : self._start + _PEEK])
                self._loops(self._start, len(text))
                return
            line = text[self._start : end].removesuffix("\r")
            self._begins(line[:_PEEK])
            self._loops(self._start, end)
            if self._keep is None:
                content_end = self._start + len(line)
                self._line(line, content_end)
                if self._watch_loops and end >= len(self.wanted.prefix):
                    self._stop(self._repetition.line(line, content_end), "repetition")
            self._start = self._searched = end + 1

    def _stop(self, keep: int | None, reason: str) -> None:
        if keep is not None and self._keep is None:
            self._keep, self.reason = keep, reason

    def _loops(self, start: int, end: int) -> None:
        if self._watch_loops and self._keep is None and start >= len(self.wanted.prefix):
            self._stop(self._repetition.within(self._text, start, end), "repetition")

    def _begins(self, line: str) -> None:
        if self._in_code and self._items is not None and self._keep is None:
            self._stop(self._items.peek(self._inner(line)), "complete")

    def _inner(self, line: str) -> str:
        """Return a line without the indentation of the fence that it is in."""
        indent = self._fence[0] if self._fence else 0
        return line[min(indent, len(line) - len(line.lstrip(" \t"))) :]

    def _line(self, line: str, end: int) -> None:
        fence = _FENCE.fullmatch(line)
        if fence is not None and not (self._in_code and self._items and self._items.in_string):
            self._fence_line(len(fence[1]), fence[2], fence[3].strip())
        elif self._in_code and self._items is not None:
            self._stop(self._items.line(self._inner(line), end), "complete")
        elif self._fence is None and self._items is not None:
            starts = _STARTS.get(self._language, _STARTS[""])
            if starts.match(line):
                self._in_code = True
                self._stop(self._items.line(line, end), "complete")

    def _fence_line(self, indent: int, mark: str, info: str) -> None:
        if self._fence is not None and not info and not mark.startswith(self._fence[1]):
            return  # a shorter or other fence inside a longer one
        was_open = self._fence is not None
        if self._in_code and self._items is not None:
            self._stop(self._items.close(), "fence closed")
        self._fence, self._in_code = None, False
        if info or not was_open:
            self._fence = (indent, mark)
            words = info.lower().split()
            said = words[0].strip("{}.:,") if words else self._language
            language = ALIASES.get(said, said)
            if not self._language and language in LANGUAGES:
                self._language, self._items = language, self._make(language)
            self._in_code = language == self._language
