"""Find the Python function a model wrote in its answer, and make it stand alone.

The steps, in order; the first that yields something decides (``EXTRACTION_VERSION`` names them):

1. The whole text, if it parses and defines the entry point.
2. The first fenced block that parses and defines the entry point with a real body.
3. In a block, else in the text, the lines around ``def entry_point`` up to the first line that is
   not code (prose after code, an unclosed fence, no fence at all).
4. A block, else the text, that is only the *body*: it is put under the stub of the question.
5. The first reading that defines the entry point as an empty stub.
6. Text from the first line of code on that names ``def entry_point`` but does not parse: it is
   judged as it is and gives the verdict ``syntax``.
7. The first block (else the text) that parses and states something; else nothing.

What the model wrote is never changed or cut inside a step's reading; statements of the question's
stub that come before the entry point (imports, helpers) are put in front when the answer does not
bind their names itself. Indentation common to all lines goes; line ends become newlines.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from typing import Final

from lichen.benchmark.answers.fences import fenced_blocks, is_fence
from lichen.benchmark.answers.syntax import (
    answers,
    bound_names,
    dumped,
    first_line,
    function_named,
    is_stub,
    parse,
)

EXTRACTION_VERSION: Final = "1"
"""Raise it whenever the same text could give another candidate."""

MAX_ANSWER_CHARS: Final = 100_000
"""Text beyond this is not read: about 25,000 tokens, far above any sensible answer's length."""

_MAX_READINGS: Final = 32
_MAX_STARTS: Final = 8

_CODE_LINE: Final = re.compile(
    r"(?:import\s+\w|from\s+[\w.]+\s+import\b|@\w|(?:async\s+)?def\s+\w|class\s+\w|#"
    r"|[A-Za-z_]\w*\s*(?::[^=]+)?=[^=]|if\s+__name__\b|assert\b|print\(|[)\]}])"
)
"""How a line at the margin of a program starts, where prose does not."""


def extract_function(text: str, *, entry_point: str, stub: str = "") -> str:
    """Return source that should define ``entry_point``, "" if the text holds no code.

    Args:
        text: what the model wrote; any text at all.
        entry_point: name of the function that was asked for.
        stub: the code of the question, up to and including the signature and docstring; its
            imports and helpers complete the answer. "" if the question showed none.
    """
    text = _tidy(text)
    whole = _dedented(text)
    tree = parse(whole)
    if tree is not None and _defines(tree, entry_point) and not is_stub(tree, entry_point):
        return with_preamble(whole, entry_point=entry_point, stub=stub)
    blocks = _blocks(text)
    code = (
        _real_definition(blocks, entry_point)
        or _definition_in_prose([*blocks, whole], entry_point)
        or _under_stub([*blocks, whole], entry_point, stub)
        or _stub_definition([*blocks, whole], entry_point)
        or _broken_definition([*blocks, whole], entry_point)
        or _any_code([*blocks, whole])
    )
    return with_preamble(code, entry_point=entry_point, stub=stub) if code else ""


def with_preamble(code: str, *, entry_point: str, stub: str) -> str:
    """Put the stub's imports and helpers that ``code`` does not bind itself in front of it.

    They follow ``from __future__`` imports of the code, which must stay first. Code or a stub that
    does not parse is returned unchanged.
    """
    tree, given = parse(code), preamble(stub, entry_point=entry_point)
    given_tree = parse(given)
    if tree is None or not given_tree or not given_tree.body:
        return code
    bound, dumps = bound_names(tree.body), {dumped(s) for s in tree.body} - {""}
    lines, missing = given.split("\n"), []
    for statement in given_tree.body:
        names = bound_names([statement])
        absent = names - bound if names - {"*"} else dumped(statement) not in dumps
        if absent:
            missing.append("\n".join(lines[first_line(statement) - 1 : statement.end_lineno]))
    if not missing:
        return code
    at = max((s.end_lineno or 0 for s in tree.body if _is_future(s)), default=0)
    own = code.split("\n")
    program = "\n".join([*own[:at], *dict.fromkeys(missing), "", "", *own[at:]])
    return program.rstrip() + "\n"


def preamble(stub: str, *, entry_point: str) -> str:
    """Return the part of a stub before its entry point: imports, constants, helpers."""
    tree = parse(stub) or parse(stub.rstrip() + "\n    pass\n")
    function = function_named(tree, entry_point) if tree else None
    if tree is None or function is None:
        return ""
    before = [s for s in tree.body if s.lineno < function.lineno and not _is_future(s)]
    lines = stub.split("\n")
    parts = ["\n".join(lines[first_line(s) - 1 : s.end_lineno]) for s in before]
    return "\n".join(parts) + "\n" if parts else ""


def _tidy(text: str) -> str:
    text = text[:MAX_ANSWER_CHARS].lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates fit in no file


def _dedented(code: str) -> str:
    stripped = textwrap.dedent(code.strip("\n")).rstrip()
    return stripped.strip("\n") + "\n" if stripped else ""


def _blocks(text: str) -> list[str]:
    found: list[str] = []
    for content in fenced_blocks(text):
        block = _dedented(content)
        if block and block not in found:
            found.append(block)
        if len(found) == _MAX_READINGS:
            break
    return found


def _defines(tree: ast.Module, name: str) -> bool:
    return name in bound_names(tree.body)


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _real_definition(readings: list[str], name: str) -> str:
    for code in readings:
        tree = parse(code) if name in code else None
        if tree is not None and _defines(tree, name) and not is_stub(tree, name):
            return code
    return ""


def _stub_definition(readings: list[str], name: str) -> str:
    for code in readings:
        tree = parse(code) if name in code else None
        if tree is not None and _defines(tree, name):
            return code
    return ""


def _definition_in_prose(readings: list[str], name: str) -> str:
    for text in readings:
        found = _real_definition(list(_cuts(text.split("\n"), name)), name)
        if found:
            return found
    return ""


def _definition_line(lines: list[str], name: str) -> int | None:
    head = re.compile(rf"\s*(?:async\s+)?def\s+{re.escape(name)}\s*\(")
    return next((i for i, line in enumerate(lines) if head.match(line)), None)


def _cuts(lines: list[str], name: str) -> Iterator[str]:
    """Yield spans of lines around ``def name``: from each plausible start to each plausible end."""
    at = _definition_line(lines, name)
    if at is None:
        return
    margin = len(lines[at]) - len(lines[at].lstrip())
    starts = [i for i in range(at + 1) if _is_code(lines[i], margin)][-_MAX_STARTS:]
    outside = [i for i in range(at + 1, len(lines)) if _at_margin(lines[i], margin)]
    prose = next((i for i in outside if not _is_code(lines[i], margin)), len(lines))
    ends = dict.fromkeys([prose, next(iter(outside), len(lines))])
    for end in ends:
        for start in starts:
            yield _dedented("\n".join(lines[start:end]))


def _at_margin(line: str, margin: int) -> bool:
    return bool(line.strip()) and len(line) - len(line.lstrip()) <= margin


def _is_code(line: str, margin: int) -> bool:
    return _at_margin(line, margin) and bool(_CODE_LINE.match(line.lstrip()))


def _under_stub(readings: list[str], name: str, stub: str) -> str:
    if not stub.strip():
        return ""
    head = stub.rstrip() + "\n"
    margin = re.match(r"[ \t]*", head.rstrip("\n").rpartition("\n")[2])
    indent = (margin[0] if margin else "") or "    "
    for text in readings:
        for body in (
            _bodies(text, indent) if _definition_line(text.split("\n"), name) is None else ()
        ):
            tree = parse(head + body)
            function = function_named(tree, name) if tree else None
            if function is not None and answers(function):
                return head + body
    return ""


def _bodies(text: str, indent: str) -> Iterator[str]:
    """Yield ways to read text as a function body.

    As it is; with a first line whose indentation was the question's; up to the first line that
    leaves the body.
    """
    text = text.strip("\n")
    first, _, rest = text.partition("\n")
    yield textwrap.indent(_dedented(text), indent)
    yield textwrap.indent(_dedented(first.lstrip() + "\n" + textwrap.dedent(rest)), indent)
    lines = text.split("\n")
    end = next((i for i, line in enumerate(lines) if i and _at_margin(line, 0)), len(lines))
    yield textwrap.indent(_dedented("\n".join(lines[:end])), indent)


def _broken_definition(readings: list[str], name: str) -> str:
    for text in readings:
        lines = text.split("\n")
        at = _definition_line(lines, name)
        if at is not None:
            fences = [i for i, line in enumerate(lines) if is_fence(line)]
            top = max((i + 1 for i in fences if i < at), default=0)
            end = min((i for i in fences if i > at), default=len(lines))
            margin = len(lines[at]) - len(lines[at].lstrip())
            start = next((i for i in range(top, at) if _is_code(lines[i], margin)), at)
            return _dedented("\n".join(lines[start:end]))
    return ""


def _any_code(readings: list[str]) -> str:
    for code in readings:
        tree = parse(code)
        if tree is not None and any(not isinstance(s, ast.Expr) for s in tree.body):
            return code
    return ""
