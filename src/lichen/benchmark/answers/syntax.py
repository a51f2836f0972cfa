"""Questions about Python source that is not trusted: does it parse, what does it bind.

Only ``ast.parse`` touches the text; nothing is compiled or run. Names are looked up at module
level only, through ``if``, ``try``, ``for``, ``while`` and ``with``, not inside functions.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Final

MAX_SOURCE_CHARS: Final = 400_000
"""Longer sources are not parsed: the largest file of CPython's own library is about this long."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def parse(source: str) -> ast.Module | None:
    """Return the syntax tree of ``source``, None if it is not Python (or too much of it)."""
    if len(source) > MAX_SOURCE_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in an answer is not our warning
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # ValueError: null bytes, lone surrogates; the last two: nesting made to exhaust the parser
        return None


def dumped(node: ast.AST) -> str:
    """Return syntax as text, "" where it is nested deeper than Python writes down.

    A model that repeats itself writes a thousand signs in a row: that is parsed, not dumped.
    """
    try:
        return ast.dump(node)
    except RecursionError:
        return ""


def bound_names(statements: list[ast.stmt]) -> set[str]:
    """Return the names that these statements bind in their own scope."""
    names: set[str] = set()
    for node in _own_scope(statements):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(a.asname or a.name.partition(".")[0] for a in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def used_names(source: str) -> set[str]:
    """Return every name that ``source`` reads, at any depth; nothing if it does not parse."""
    tree = parse(source)
    if tree is None:
        return set()
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def is_stub(tree: ast.Module, name: str) -> bool:
    """Whether ``name`` is a function whose last definition does nothing yet."""
    function = function_named(tree, name)
    return function is not None and all(_does_nothing(s) for s in function.body)


def answers(function: Function) -> bool:
    """Whether a function returns, yields or raises something itself (not in an inner function)."""
    return any(
        isinstance(n, (ast.Return, ast.Yield, ast.YieldFrom, ast.Raise))
        for n in _own_scope(function.body)
    )


def function_named(tree: ast.Module, name: str) -> Function | None:
    """Return the last module-level function of that name."""
    functions = [s for s in tree.body if isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return next((f for f in reversed(functions) if f.name == name), None)


def first_line(statement: ast.stmt) -> int:
    """Return the 1-based line where a statement starts, decorators included."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(d.lineno for d in decorators)])


def is_docstring(statement: ast.stmt) -> bool:
    """Whether a statement, standing first in a body, is its docstring."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _own_scope(statements: list[ast.stmt]) -> Iterator[ast.AST]:
    todo: list[ast.AST] = list(reversed(statements))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, _SCOPES):
            todo.extend(ast.iter_child_nodes(node))


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass):
        return True
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)  # a docstring or ``...``
    return isinstance(statement, ast.Raise) and "NotImplementedError" in dumped(statement)
