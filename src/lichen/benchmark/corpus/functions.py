"""Python functions of a repository with their docstrings taken out: queries and documents.

The filters follow CodeSearchNet (Husain et al. 2019, arXiv 1909.09436, section 2.1): no tests, no
dunder methods, at least three lines of code, queries of at least three words, no duplicates.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from lichen.benchmark.answers.syntax import Function, first_line, is_docstring, parse
from lichen.benchmark.corpus.repository import SourceFile

MIN_LINES: Final = 3
MIN_WORDS: Final = 3
"""Both from CodeSearchNet, section 2.1."""

MAX_FUNCTIONS: Final = 20_000
MAX_QUERY_CHARS: Final = 1_000
MAX_CODE_CHARS: Final = 4_000
"""What an embedder with a context of 1,024 tokens or so can take in; longer code is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFunction:
    """A function: ``id`` is ``path::Class.name``, ``query`` its docstring's first paragraph.

    ``code`` is its source without the docstring; ``query`` is "" where it is no usable question.
    """

    id: str
    query: str
    code: str


def functions(files: Iterable[SourceFile]) -> list[SourceFunction]:
    """Return the functions of a repository in order; one query belongs to one function only."""
    found: dict[str, SourceFunction] = {}
    seen_code: set[str] = set()
    for file in files:
        for function in _of_file(file):
            if function.id not in found and function.code not in seen_code:
                seen_code.add(function.code)
                found[function.id] = function
        if len(found) >= MAX_FUNCTIONS:
            break
    asked = Counter(f.query.lower() for f in found.values() if f.query)
    return [
        f if asked[f.query.lower()] == 1 else SourceFunction(id=f.id, query="", code=f.code)
        for f in list(found.values())[:MAX_FUNCTIONS]
    ]


def _of_file(file: SourceFile) -> Iterator[SourceFunction]:
    if re.search(r"(?:^|/)tests?(?:/|_)|_test\.py$|(?:^|/)conftest\.py$", file.path):
        return
    tree = parse(file.text)
    if tree is None:
        return
    lines = file.text.split("\n")
    todo: list[tuple[str, ast.stmt]] = [("", s) for s in reversed(tree.body)]
    while todo:
        owner, statement = todo.pop()
        if isinstance(statement, ast.ClassDef):
            todo.extend((f"{owner}{statement.name}.", s) for s in reversed(statement.body))
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = _function(f"{file.path}::{owner}{statement.name}", statement, lines)
            if function is not None:
                yield function


def _function(name: str, node: Function, lines: list[str]) -> SourceFunction | None:
    if "test" in node.name.lower() or (node.name.startswith("__") and node.name.endswith("__")):
        return None
    first, last = first_line(node), node.end_lineno or node.lineno
    kept = set(range(first, last + 1))
    if is_docstring(node.body[0]):
        kept -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    code = textwrap.dedent("\n".join(lines[i - 1] for i in sorted(kept))).strip("\n")
    if sum(bool(line.strip()) for line in code.split("\n")) < MIN_LINES:
        return None
    return SourceFunction(id=name, query=_query(node), code=code[:MAX_CODE_CHARS])


def _query(node: Function) -> str:
    paragraph = re.split(r"\n\s*\n", (ast.get_docstring(node) or "").strip(), maxsplit=1)[0]
    query = " ".join(paragraph.split())[:MAX_QUERY_CHARS]
    usable = len(re.findall(r"\w+", query)) >= MIN_WORDS and query.isprintable()
    return query if usable else ""
