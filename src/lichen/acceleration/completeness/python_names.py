"""What one top-level statement of Python binds, reads and defines. Nothing is compiled or run.

``ast`` says what is defined, ``symtable`` which names are looked up in the module (a reference from
inside a function, a comprehension or a class included). Names decide whether a finished function
still waits for a helper that comes after it.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import symtable
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from lichen.acceleration.completeness.python_uses import (
    attributes_set,
    own_attributes,
    quoted_classes,
    uses,
)

MAX_ITEM_CHARS: Final = 100_000
"""Longer items are not parsed: about 25,000 tokens, far above any single function's length."""

BUILTINS: Final = (frozenset(dir(builtins)) | {"__file__", "__path__"}) - {"globals"}
"""What needs no definition. Code that asks for ``globals()`` may need anything that follows."""

_STAR_MODULES: Final = frozenset({
    "bisect", "collections", "datetime", "decimal", "fractions", "functools", "heapq",
    "itertools", "math", "operator", "random", "re", "statistics", "string", "typing",
})  # fmt: skip
"""Modules of the standard library whose ``import *`` is resolved; importing them does nothing."""

_UNPARSABLE: Final = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
"""Null bytes, lone surrogates and nesting made to exhaust the parser are not syntax errors."""

_WARNINGS: Final = threading.Lock()
"""Rules run in engine threads, and the filter of warnings is the whole process's."""

_TAILS: Final = ("", "\n    pass\n", "\n        pass\n")
"""What may be missing at the end of given code: the body of a function or of a method."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFacts:
    """One top-level statement.

    Args:
        bound: module-level names that it binds, and attributes of such as ``name.attribute``.
        reads: names that it looks up in the module, at any depth; classes in quoted hints; and
            attributes that functions read of themselves and do not set.
        uses: whether it calls the wanted name at once, or hands it to a call.
        defines: whether it defines the wanted name for real (a stub does not).
        returns: whether the wanted function ends with ``return <value>``, so that nothing which
            follows in it could run.
        falls: whether the wanted function can end without a ``return`` or ``raise``.
        code: whether it states something (anything but a bare constant or name).
    """

    bound: frozenset[str]
    reads: frozenset[str]
    uses: bool
    defines: bool
    returns: bool
    falls: bool
    code: bool


def parse(source: str) -> ast.Module | None:
    """Return the syntax tree, None if ``source`` is not Python or too long."""
    if len(source) > MAX_ITEM_CHARS:
        return None
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in an answer is not our warning
            return ast.parse(source)
    except _UNPARSABLE:
        return None


def dumped(tree: ast.AST) -> str | None:
    """Return syntax as text, None where it is nested deeper than Python writes down."""
    try:
        return ast.dump(tree)
    except RecursionError:
        return None


def facts_of(source: str, entry_point: str, *, methods: bool = True) -> ItemFacts | None:
    """Return what ``source`` (one or more statements) says, None if it is not Python.

    Args:
        source: from the margin.
        entry_point: the wanted name; ``Class.method`` means a method, a bare name also the method
            of that name in a top-level class.
        methods: whether a bare name may be a method.
    """
    tree = parse(source)
    if tree is None:
        return None
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = symtable.symtable(source, "answer", "exec")
        return _facts(tree, table, entry_point, methods=methods)
    except _UNPARSABLE:
        return None


def _facts(
    tree: ast.Module, table: symtable.SymbolTable, entry_point: str, *, methods: bool
) -> ItemFacts:
    bound, reads = _names(table)
    found = definitions(tree, entry_point, methods=methods)
    last = found[-1] if found else None
    function = last if isinstance(last, Function) else None
    return ItemFacts(
        bound=frozenset(bound | _starred(tree) | attributes_set(tree)),
        reads=frozenset(reads | quoted_classes(tree) | own_attributes(tree)),
        uses=uses(tree, entry_point),
        defines=any(not does_nothing(d) for d in found),
        returns=function is not None and _gives(function.body[-1]),
        falls=function is None or _falls_through(function.body),
        code=any(not _says_nothing(s) for s in tree.body),
    )


def known_names(given: str) -> frozenset[str]:
    """Return the names that the question's code binds, a last stub without a body included."""
    found = (facts_of(given.rstrip() + tail, "") for tail in _TAILS)
    facts = next((f for f in found if f is not None), None)
    return facts.bound if facts is not None else frozenset()


def code_before(given: str, entry_point: str) -> str:
    """Return the question's imports, constants and helpers: what stands before the wanted name."""
    found = (parse(given.rstrip() + tail) for tail in _TAILS)
    tree = next((t for t in found if t is not None), None)
    if tree is None:
        return ""
    name = entry_point.partition(".")[0]
    lines, kept = given.split("\n"), []
    for statement in tree.body:
        if getattr(statement, "name", "") == name:
            break
        if not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            first = [d.lineno for d in getattr(statement, "decorator_list", [])]
            start = min([statement.lineno, *first])
            kept.append("\n".join(lines[start - 1 : statement.end_lineno]))
    return "".join(f"{part}\n" for part in kept)


def defines_function(given: str, entry_point: str) -> bool:
    """Whether the question's code has a function of that name outside of any class."""
    found = (parse(given.rstrip() + tail) for tail in _TAILS)
    tree = next((t for t in found if t is not None), None)
    return tree is not None and any(
        isinstance(s, Function) and s.name == entry_point for s in own_scope(tree.body)
    )


def definitions(tree: ast.Module, entry_point: str, *, methods: bool = True) -> list[ast.stmt]:
    """Return the statements that define ``entry_point``, in order; [] for an empty name.

    ``methods`` says whether a bare name may be the method of a top-level class.
    """
    owner, _, name = entry_point.rpartition(".")
    if not name:
        return []
    found: list[ast.stmt] = []
    for node in own_scope(tree.body):
        if isinstance(node, ast.ClassDef):
            if node.name == name and not owner:
                found.append(node)
            elif owner == node.name or (not owner and methods):
                found += [
                    s for s in own_scope(node.body) if isinstance(s, Function) and s.name == name
                ]
        elif (isinstance(node, Function) and node.name == name and not owner) or (
            isinstance(node, (ast.Assign, ast.AnnAssign)) and not owner and _assigns(node, name)
        ):
            found.append(node)
    return found


def does_nothing(definition: ast.stmt) -> bool:
    """Whether a definition is only a stub: no body yet, or a name for a constant."""
    if isinstance(definition, Function):
        return all(_is_empty(s) for s in definition.body)
    if isinstance(definition, ast.ClassDef):
        return all(_says_nothing(s) for s in definition.body)
    value = getattr(definition, "value", None)
    return value is None or isinstance(value, ast.Constant)


def own_scope(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements and those nested in them, but not what is in functions and classes."""
    todo = list(statements)[::-1]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, _SCOPES):
            inner = [c for c in _blocks(node) if isinstance(c, ast.stmt)]
            todo.extend(reversed(inner))


@dataclass(slots=True)
class Names:
    """Which names the wanted definition still waits for, as items come in.

    Every item is looked at once, and every name is followed once, so the work is linear.
    """

    known: frozenset[str] = frozenset()
    missing: set[str] = field(default_factory=set)
    _bound: dict[str, frozenset[str]] = field(default_factory=dict)
    _needed: set[str] = field(default_factory=set)

    def add(self, facts: ItemFacts) -> bool:
        """Take in an item; return whether something that was needed has come (again)."""
        for name in facts.bound:
            self._bound[name] = facts.reads
        hit = bool(facts.bound & self._needed)
        self.missing -= facts.bound
        if hit:
            self.need(facts.reads)
        return hit

    def need(self, names: Iterable[str]) -> None:
        """Follow names that are needed to what *they* need; unknown ones become missing."""
        todo = list(names)
        while todo:
            name = todo.pop()
            if name in self._needed:
                continue
            self._needed.add(name)
            if name in self._bound:
                todo.extend(self._bound[name])
            elif name not in BUILTINS and name not in self.known:
                self.missing.add(name)

    def would_miss(self, facts: ItemFacts) -> bool:
        """Whether names would still be missing if this item came and were needed."""
        trial = Names(known=self.known | facts.bound, _bound=self._bound)
        trial.need(facts.reads)
        return bool(trial.missing or self.missing - facts.bound)


def _names(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    bound, reads = set(), set()
    for symbol in table.get_symbols():
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            bound.add(symbol.get_name())
        if symbol.is_referenced():
            reads.add(symbol.get_name())
    todo = list(table.get_children())
    while todo:
        scope = todo.pop()
        todo.extend(scope.get_children())
        for symbol in scope.get_symbols():
            if symbol.is_global():
                if symbol.is_assigned():
                    bound.add(symbol.get_name())
                if symbol.is_referenced():
                    reads.add(symbol.get_name())
    return bound, reads


def _starred(tree: ast.Module) -> set[str]:
    """Return the names that ``from <well-known module> import *`` brings."""
    names: set[str] = set()
    for node in own_scope(tree.body):
        if not isinstance(node, ast.ImportFrom) or node.module not in _STAR_MODULES:
            continue
        if any(a.name == "*" for a in node.names):
            module = importlib.import_module(node.module)
            names.update(n for n in dir(module) if not n.startswith("_"))
    return names


def _blocks(node: ast.stmt) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ExceptHandler, ast.match_case)):
            yield from child.body
        else:
            yield child


def _assigns(node: ast.Assign | ast.AnnAssign, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(t, ast.Name) and t.id == name for t in targets)


def _is_empty(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
        names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
        return "NotImplementedError" in names
    return isinstance(statement, ast.Pass) or _says_nothing(statement)


def _says_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, (ast.Constant, ast.Name))


def _gives(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Return) and statement.value is not None


def _falls_through(body: list[ast.stmt]) -> bool:
    """Whether control can reach the end of a block (cautious: loops and matches may end)."""
    last = body[-1] if body else None
    if isinstance(last, (ast.Return, ast.Raise)):
        return False
    if isinstance(last, ast.If):
        return _falls_through(last.body) or _falls_through(last.orelse)
    if isinstance(last, (ast.With, ast.AsyncWith)):
        return _falls_through(last.body)
    if isinstance(last, ast.Try):
        if last.finalbody and not _falls_through(last.finalbody):
            return False
        ends = [last.orelse or last.body, *(h.body for h in last.handlers)]
        return any(_falls_through(e) for e in ends)
    return True
