"""What names alone do not say: attributes of functions, classes in quoted hints, and first uses.

``symtable`` knows names. A function may also wait for ``f.cache = {}`` after it, or for the class
that a hint in quotes mentions; and it is used where it is called, not where it is merely named.
"""

from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from typing import Final

_TYPING: Final = frozenset(dir(typing))
"""Names that a quoted hint may use without importing them."""

_VERBATIM: Final = frozenset({"Literal", "Annotated"})
"""Hints whose strings are no hints."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def uses(tree: ast.Module, name: str) -> bool:
    """Whether running the statements calls ``name``, or hands it to a call that stands alone."""
    for statement in tree.body:
        for node in _at_once(statement):
            if not isinstance(node, ast.Call):
                continue
            if _is(node.func, name):
                return True
            handed = [*node.args, *(k.value for k in node.keywords)]
            if isinstance(statement, ast.Expr) and any(_is(a, name) for a in handed):
                return True
    return False


def attributes_set(tree: ast.Module) -> set[str]:
    """Return ``name.attribute`` for every attribute of a plain name that is assigned at once."""
    return {
        f"{node.value.id}.{node.attr}"
        for statement in tree.body
        for node in _at_once(statement)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
    }


def own_attributes(tree: ast.Module) -> set[str]:
    """Return attributes that top-level functions read of themselves, and neither set nor ask about.

    A decorator may have set any of them, so a decorated function has none.
    """
    functions = (s for s in tree.body if isinstance(s, Function) and not s.decorator_list)
    return {f"{f.name}.{attribute}" for f in functions for attribute in _own(f)}


def _own(function: Function) -> set[str]:
    loaded: set[str] = set()
    excused: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and _is(node.value, function.name):
            (loaded if isinstance(node.ctx, ast.Load) else excused).add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            excused.add(node.value)  # hasattr(f, "cache")
    return {a for a in loaded - excused if not (a.startswith("__") and a.endswith("__"))}


def quoted_classes(tree: ast.Module) -> set[str]:
    """Return the names in quoted hints that look like classes (``x: "Node"``)."""
    found: set[str] = set()
    for node in ast.walk(tree):
        hints = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for text in (t for h in hints if isinstance(h, ast.expr) for t in _strings(h)):
            try:
                hint = ast.parse(text, mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            found |= {n.id for n in ast.walk(hint) if isinstance(n, ast.Name)}
    return {name for name in found - _TYPING if name[:1].isupper()}


def _strings(hint: ast.expr) -> Iterator[str]:
    if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
        yield hint.value
    elif not (isinstance(hint, ast.Subscript) and _last_name(hint.value) in _VERBATIM):
        for child in ast.iter_child_nodes(hint):
            if isinstance(child, ast.expr):
                yield from _strings(child)


def _last_name(node: ast.expr) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _at_once(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield what runs when a statement does: bodies of functions do not."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = node.args
            defaults = [*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)]
            todo += [*node.decorator_list, *defaults]
        elif not isinstance(node, ast.Lambda):
            todo += list(ast.iter_child_nodes(node))
