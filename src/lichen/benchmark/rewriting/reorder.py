"""Rewrite: put independent things in another order.

What may change places: imports at the head of a stub (neighbours that bind different names), the
examples of a docstring (``>>>`` calls that keep no state between them), and the assertions that a
question shows. Each is rotated, so that nothing stays where it was.
"""

from __future__ import annotations

import ast
import random
from dataclasses import replace
from itertools import pairwise
from typing import Final, TypeVar

from lichen.benchmark.answers.syntax import bound_names, parse
from lichen.benchmark.rewriting.stub import read_stub
from lichen.core.task import Problem

T = TypeVar("T")

_PROMPT_MARK: Final = ">>>"
_CONTINUATION: Final = "..."


def rewrite(problem: Problem, rng: random.Random) -> Problem | None:
    """Return the problem with its independent parts rotated, None if it shows fewer than two."""
    stub = problem.fields.get("stub", "")
    if not stub:
        return _tests_reordered(problem, rng)
    fresh = _examples_reordered(_imports_reordered(stub, rng), problem.entry_point, rng)
    if fresh == stub or problem.prompt != stub:
        return None
    reference = problem.reference
    if reference.startswith(stub):
        reference = fresh + reference[len(stub) :]
    return replace(
        problem, prompt=fresh, reference=reference, fields={**problem.fields, "stub": fresh}
    )


def _rotated(items: list[T], rng: random.Random) -> list[T]:
    if len(items) < 2:  # noqa: PLR2004 (one thing has one order)
        return items
    by = rng.randrange(1, len(items))
    return items[by:] + items[:by]


def _imports_reordered(stub: str, rng: random.Random) -> str:
    tree = parse(stub)
    if tree is None:
        return stub
    run: list[ast.stmt] = []
    for statement in tree.body:
        plain = isinstance(statement, ast.Import | ast.ImportFrom)
        if not plain or getattr(statement, "module", "") == "__future__":
            break
        run.append(statement)
    names = [bound_names([s]) for s in run]
    bound = set().union(*names)
    # Two on a line, several lines each, or two that bind one name: order could matter, or layout.
    one_a_line = all(s.lineno == s.end_lineno for s in run) and all(
        a.lineno < b.lineno for a, b in pairwise(run)
    )
    if not one_a_line or len(bound) != sum(map(len, names)) or "*" in bound:
        return stub
    lines = stub.split("\n")
    places = [s.lineno - 1 for s in run]
    moved = _rotated([lines[p] for p in places], rng)
    for place, line in zip(places, moved, strict=True):
        lines[place] = line
    return "\n".join(lines)


def _examples_reordered(source: str, entry_point: str, rng: random.Random) -> str:
    stub = read_stub(source, entry_point)
    if stub is None or not stub.quotes:
        return source
    lines = stub.text.split("\n")
    runs = []
    at = 0
    while at < len(lines):
        examples, end = _run_of_examples(lines, at)
        runs.append((examples, at, end))
        at = max(end, at + 1)
    if not all(_keeps_no_state(example) for examples, _, _ in runs for example in examples):
        return source  # what one example keeps, any later one may use
    for examples, start, end in runs:
        lines[start:end] = [line for example in _rotated(examples, rng) for line in example]
    return stub.with_docstring(stub.quotes + "\n".join(lines) + stub.quotes)


def _run_of_examples(lines: list[str], start: int) -> tuple[list[list[str]], int]:
    """Return the examples that follow each other from a line on, and where they end."""
    examples: list[list[str]] = []
    at = start
    while at < len(lines) and lines[at].strip().startswith(_PROMPT_MARK):
        end = at + 1
        while end < len(lines) and _belongs(lines[end], last=end == len(lines) - 1):
            end += 1
        examples.append(lines[at:end])
        at = end
    return examples, at


def _belongs(line: str, *, last: bool) -> bool:
    """Whether a line continues the example above: more of its code, or what it prints."""
    stripped = line.strip()
    # The last line of a docstring holds the indentation of the closing quotes, nothing else.
    return bool(stripped) and not stripped.startswith(_PROMPT_MARK) and not last


def _keeps_no_state(example: list[str]) -> bool:
    code = [
        line.strip()[len(_PROMPT_MARK) :].strip()
        for line in example
        if line.strip().startswith((_PROMPT_MARK, _CONTINUATION))
    ]
    tree = parse("\n".join(code))
    return (
        len(example) > len(code)  # a call that prints nothing is there for its effect
        and tree is not None
        and len(tree.body) == 1
        and isinstance(tree.body[0], ast.Expr)
    )


def _tests_reordered(problem: Problem, rng: random.Random) -> Problem | None:
    tests = problem.fields.get("tests", "")
    tree = parse(tests)
    if tree is None or len(tree.body) < 2 or not all(isinstance(s, ast.Assert) for s in tree.body):  # noqa: PLR2004 (one has one order)
        return None
    lines = tests.split("\n")
    if len(lines) != len(tree.body):
        return None
    fresh = "\n".join(_rotated(lines, rng))
    if fresh == tests:
        return None
    return replace(problem, fields={**problem.fields, "tests": fresh, "check": fresh + "\n"})
