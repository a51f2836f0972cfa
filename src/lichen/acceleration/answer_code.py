"""Find the code in an answer, well enough to ask whether it is broken and to run examples on it.

A cautious reading for decisions on the way: what it cannot read counts as broken, and costs an
escalation, not a verdict. What is scored in the end is read by the task, not here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from lichen.acceleration.completeness.python_names import (
    MAX_ITEM_CHARS,
    code_before,
    definitions,
    does_nothing,
    dumped,
    facts_of,
    parse,
)
from lichen.acceleration.completeness.repetition import Repetition
from lichen.acceleration.indentation import in_spaces

_FENCE: Final = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*$", re.MULTILINE)
_DEFINITION: Final = re.compile(
    r"^(?:import\s|from\s+[\w.]+\s+import\b|@\w|(?:async\s+)?def\s|class\s)", re.MULTILINE
)
_MAX_BLOCKS: Final = 16


def python_answer(text: str, *, entry_point: str, given: str) -> tuple[str, str]:
    """Return the Python code that defines ``entry_point``, and "" or why it is not usable.

    Args:
        text: the whole answer, Markdown or plain code.
        entry_point: the wanted definition.
        given: code of the question; its imports and helpers are put in front, and an answer that
            is only the body is put under it.

    Returns:
        (code, ""), or ("", reason) where the reason is ``stub``, ``no <entry point>`` or
        ``syntax``.
    """
    reason = "syntax"
    for block in _readings(text[:MAX_ITEM_CHARS], given):
        tree = parse(block)
        if tree is None:
            continue
        found = definitions(tree, entry_point)
        if any(not does_nothing(d) for d in found):
            return _complete(tree, block, entry_point, given), ""
        if reason == "syntax":
            reason = "stub" if found else f"no {entry_point}"
    return "", reason


def goes_in_circles(text: str) -> bool:
    """Whether a text repeats itself as programs do not."""
    loops, end = Repetition(), 0
    for line in text[:MAX_ITEM_CHARS].split("\n"):
        begin, end = end, end + len(line)
        if loops.within(text, begin, end) is not None or loops.line(line, end) is not None:
            return True
        end += 1
    return False


def _readings(text: str, given: str) -> Iterator[str]:
    """Yield what may be the code, best first: all of it, fenced blocks, from a definition on."""
    text = text.replace("\r\n", "\n")
    blocks = list(_blocks(text))
    if not blocks:
        yield text
        start = _DEFINITION.search(text)
        if start is not None:
            yield from _shrinking(text[start.start() :])
    yield from blocks
    for block in blocks or [text]:
        if given.strip():
            for head in dict.fromkeys((given, in_spaces(given))):
                yield f"{head.rstrip()}\n{block}"


def _blocks(text: str) -> Iterator[str]:
    """Yield the insides of fences; a last one may be unclosed."""
    opened: tuple[int, str] | None = None
    count = 0
    for match in _FENCE.finditer(text):
        mark = match[1]
        if opened is None:
            opened = (match.end() + 1, mark)
        elif mark.startswith(opened[1]):
            yield text[opened[0] : match.start()]
            opened, count = None, count + 1
            if count == _MAX_BLOCKS:
                return
    if opened is not None:
        yield text[opened[0] :]


def _shrinking(text: str) -> Iterator[str]:
    """Yield code with less and less of the paragraphs after it, which may be prose."""
    parts = text.split("\n\n")[:_MAX_BLOCKS]
    for count in range(len(parts), 0, -1):
        yield "\n\n".join(parts[:count])


def _complete(tree: ast.Module, code: str, entry_point: str, given: str) -> str:
    """Put the question's imports and helpers in front, unless the answer binds them itself."""
    before = code_before(given, entry_point)
    needed, have = facts_of(before, ""), facts_of(code, "")
    if not before or needed is None or have is None or needed.bound <= have.bound:
        return code
    future = [s for s in tree.body if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    at = max((s.end_lineno or 0 for s in future), default=0)
    lines = code.split("\n")
    return "\n".join([*lines[:at], before.rstrip("\n"), *lines[at:]])


def same_answer(a: str, b: str) -> bool:
    """Whether two answers say the same: equal text, or fenced Python with equal syntax trees."""
    return a.strip() == b.strip() or _trees(a) == _trees(b) != []


def _trees(text: str) -> list[str | None]:
    trees = [parse(block) for block in _blocks(text[:MAX_ITEM_CHARS].replace("\r\n", "\n"))]
    said = [None if tree is None else dumped(tree) for tree in trees]
    return [] if None in said else said
