"""Rewrite: lay the same code out differently.

A stub gets its parameters one to a line, two spaces of indentation, the other kind of docstring
quotes, and its docstring's text begins on the other line. Assertions that a question shows are
written by Python itself, or gain parentheses. The syntax tree must stay the same, except for the
docstring's white space, which ``inspect.cleandoc`` removes from both before they are compared.
"""

from __future__ import annotations

import ast
import inspect
import random
import re
from dataclasses import replace
from typing import Final

from lichen.benchmark.answers.syntax import Function, is_docstring, parse
from lichen.benchmark.rewriting.stub import Stub, offset, read_stub
from lichen.core.task import Problem

_OTHER: Final = {'"""': "'''", "'''": '"""'}
_INDENT: Final = "  "


def rewrite(problem: Problem, rng: random.Random) -> Problem | None:
    """Return the problem laid out differently, None if the layout could not be changed safely."""
    source = problem.fields.get("stub", "")
    if not source:
        return _tests_reformatted(problem)
    if problem.prompt != source:
        return None
    fresh = _stub_reformatted(source, problem.entry_point, rng)
    reference = _unparsed(problem.reference)
    if fresh == source or not _same_meaning(source, fresh) or (problem.reference and not reference):
        return None
    return replace(
        problem, prompt=fresh, reference=reference, fields={**problem.fields, "stub": fresh}
    )


def _stub_reformatted(source: str, entry_point: str, rng: random.Random) -> str:
    """Apply the changes one after the other, each where it can be; one, by lot, is left out."""
    changes = [_requoted, _text_moved, _signature_spread, _reindented]
    changes.pop(rng.randrange(len(changes)))
    for change in changes:
        stub = read_stub(source, entry_point)
        if stub is None:
            return source
        fresh = change(stub)
        if _same_meaning(source, fresh):
            source = fresh
    return source


def _requoted(stub: Stub) -> str:
    other = _OTHER.get(stub.quotes)
    text = stub.text
    if other is None or other[0] * 3 in text or text.endswith((other[0], "\\")):
        return stub.source
    return stub.with_docstring(other + text + other)


def _text_moved(stub: Stub) -> str:
    """Begin the docstring's text on the line of the quotes, or on the next one."""
    if stub.quotes not in _OTHER:
        return stub.source
    margin = " " * stub.function.body[0].col_offset
    text = stub.text
    moved = (" " if text[:1] == "\n" else "\n" + margin) + text.lstrip()
    return stub.with_docstring(stub.quotes + moved + stub.quotes)


def _signature_spread(stub: Stub) -> str:
    """Put each parameter on a line of its own; comments and defaults over lines are left alone."""
    function, source = stub.function, stub.source
    arguments = function.args
    parts = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    simple = not (arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg)
    if not parts or not simple or arguments.kwarg or arguments.defaults:
        return source
    start = offset(source, parts[0].lineno, parts[0].col_offset)
    end = offset(source, parts[-1].end_lineno or 0, parts[-1].end_col_offset or 0)
    shown = [ast.get_source_segment(source, p) or "" for p in parts]
    open_at = source.rfind("(", 0, start)
    if re.sub(r"\s", "", source[start:end]) != re.sub(r"\s", "", ",".join(shown)):
        return source
    close_at = source.find(")", end)
    inside = "".join(f"\n    {part}," for part in shown) + "\n"
    return source[: open_at + 1] + inside + source[close_at:]


def _reindented(stub: Stub) -> str:
    """Halve the indentation of the entry point's body; its docstring moves along."""
    body = stub.function.body[0]
    old = body.col_offset
    if old <= len(_INDENT) or not stub.docstring:
        return stub.source
    start = offset(stub.source, body.lineno, 0)
    margin = stub.source[start : stub.start]
    if margin.strip(" "):
        return stub.source
    block = stub.source[start:]
    cut = " " * (old - len(_INDENT))
    lines = [line.removeprefix(cut) if line.startswith(margin) else line for line in _lines(block)]
    return stub.source[:start] + "".join(lines)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _same_meaning(before: str, after: str) -> bool:
    a, b = _meaning(before), _meaning(after)
    return a is not None and a == b


def _meaning(source: str) -> str | None:
    tree = parse(source)
    if tree is None:
        return None
    for node in ast.walk(tree):
        if isinstance(node, Function) and is_docstring(node.body[0]):
            constant = node.body[0].value  # type: ignore[attr-defined]  # is_docstring says so
            constant.value = inspect.cleandoc(constant.value).strip()
    return ast.dump(tree)


def _unparsed(source: str) -> str:
    tree = parse(source)
    return ast.unparse(tree) + "\n" if tree is not None and source else ""


def _tests_reformatted(problem: Problem) -> Problem | None:
    tests = problem.fields.get("tests", "")
    tree = parse(tests)
    if tree is None or not all(isinstance(s, ast.Assert) for s in tree.body):
        return None
    fresh = "\n".join(map(ast.unparse, tree.body))
    if fresh == tests:
        bare = [s.test for s in tree.body if isinstance(s, ast.Assert) and s.msg is None]
        fresh = "\n".join(f"assert ({ast.unparse(test)})" for test in bare)
    if fresh == tests or not _same_meaning(tests, fresh):
        return None
    return replace(problem, fields={**problem.fields, "tests": fresh, "check": fresh + "\n"})
