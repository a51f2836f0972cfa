"""Rewrite: call the function and its parameters something else, everywhere.

The function's name changes its style (``has_close_elements`` becomes ``hasCloseElements``, as in
ReCode) or gains a verb; each parameter gains a word, so that prose which mentions it still reads
well. New names occur nowhere in the problem before. Signature and docstring are edited in place;
reference, helpers and tests, which no model sees, are changed in their syntax trees.
"""

from __future__ import annotations

import ast
import builtins
import io
import keyword
import random
import re
import tokenize
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from lichen.benchmark.answers.syntax import Function, function_named, parse
from lichen.benchmark.rewriting.stub import Stub, offset, read_stub
from lichen.core.task import Problem

Names = Mapping[str, str]

_VERBS: Final = ("do", "run", "compute", "make")
_AFFIXES: Final = ("given_{}", "{}_value", "the_{}", "{}_arg")
_HIDDEN: Final = ("setup", "check", "test")
"""Fields with programs that the question does not show."""
_SHORT: Final = 2
_ENGLISH: Final = frozenset(
    {"a", "i", "an", "as", "at", "be", "by", "do", "go", "he", "if", "in", "is", "it", "me"}
    | {"my", "no", "of", "on", "or", "so", "to", "up", "us", "we"}
)
"""Short words that are as likely prose as a parameter's name."""
_WORD: Final = re.compile(r"\w+")
_EXAMPLE: Final = re.compile(r">>>|\.\.\.|==|=>|->|➞|→")


def rewrite(problem: Problem, rng: random.Random) -> Problem | None:
    """Return the problem with other names, None if it cannot be renamed safely."""
    entry = problem.entry_point
    taken = _taken(problem)
    names = {entry: _fresh(_other_style(entry, rng), taken)}
    source = problem.fields.get("stub", "")
    stub = read_stub(source, entry) if source else None
    if source and (stub is None or problem.prompt != source):
        return None
    parameters: dict[str, str] = {}
    if stub is not None and _renameable(problem.reference, stub.function):
        affix = rng.choice(_AFFIXES)
        for name in _parameters(stub.function):
            parameters[name] = _fresh(affix.format(name), taken)
    fields = dict(problem.fields)
    for key in _HIDDEN:
        if key in fields:
            fields[key] = _renamed(fields[key], names, parameters, entry)
    if "tests" in fields:
        fields["tests"] = _tokens_renamed(fields["tests"], names)
    prompt = _tokens_renamed_in_prose(problem.prompt, entry, names[entry])
    if stub is not None:
        prompt = fields["stub"] = _stub_renamed(stub, names, parameters)
    return replace(
        problem,
        prompt=prompt,
        entry_point=names[entry],
        reference=_renamed(problem.reference, names, parameters, entry),
        fields=fields,
    )


def _taken(problem: Problem) -> set[str]:
    texts = (problem.prompt, problem.reference, *problem.fields.values())
    found = {word for text in texts for word in _WORD.findall(text)}
    return found | set(keyword.kwlist) | set(keyword.softkwlist) | set(dir(builtins))


def _fresh(name: str, taken: set[str]) -> str:
    """Return the name, numbered if it is taken, and take it."""
    choice, n = name, 2
    while choice in taken:
        choice, n = f"{name}_{n}", n + 1
    taken.add(choice)
    return choice


def _other_style(name: str, rng: random.Random) -> str:
    words = [w for w in name.split("_") if w]
    if len(words) > 1:
        return words[0] + "".join(w[0].upper() + w[1:] for w in words[1:])
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return snake if snake != name else f"{rng.choice(_VERBS)}_{name}"


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _renameable(reference: str, shown: Function) -> bool:
    """Whether renaming every name of the reference's function is a plain substitution.

    It is not where a parameter's name is bound by something other than a plain name, or where an
    inner function could be called with it as a keyword.
    """
    tree = parse(reference)
    function = function_named(tree, shown.name) if tree is not None else None
    if function is None or _parameters(function) != _parameters(shown):
        return False
    names = set(_parameters(function))
    for node in ast.walk(function):
        inner = isinstance(node, (Function, ast.Lambda)) and node is not function
        if inner and names & {a.arg for a in ast.walk(node) if isinstance(a, ast.arg)}:
            return False
        bound = getattr(node, "name", None) if node is not function else None
        listed = node.names if isinstance(node, ast.Global | ast.Nonlocal) else []
        aliases = (
            [a.asname or a.name for a in node.names]
            if isinstance(node, ast.Import | ast.ImportFrom)
            else []
        )
        if names & {bound, *listed, *aliases}:
            return False
    return True


class _Renamer(ast.NodeTransformer):
    """Renames the entry point everywhere, parameters inside it and in calls to it."""

    def __init__(self, names: Names, parameters: Names, entry: str) -> None:
        self._names = names
        self._parameters = parameters
        self._called = {entry, "candidate"}
        self._entry = entry
        self._inside = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Enter the entry point, rename it, and leave it again."""
        outside = self._inside
        self._inside = outside or node.name == self._entry
        node.name = self._names.get(node.name, node.name)
        self.generic_visit(node)
        self._inside = outside
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Rename a parameter."""
        self.generic_visit(node)
        if self._inside:
            node.arg = self._parameters.get(node.arg, node.arg)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Rename a name."""
        if self._inside and node.id in self._parameters:
            node.id = self._parameters[node.id]
        else:
            node.id = self._names.get(node.id, node.id)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Rename the keywords of a call to the entry point."""
        if isinstance(node.func, ast.Name) and node.func.id in self._called:
            for word in node.keywords:
                word.arg = self._parameters.get(word.arg or "", word.arg or "") or None
        self.generic_visit(node)
        return node


def _renamed(source: str, names: Names, parameters: Names, entry: str) -> str:
    """Return a program with the names changed; layout and comments are not kept."""
    tree = parse(source)
    if tree is None or not source.strip():
        return source
    changed = _Renamer(names, parameters, entry).visit(tree)
    return ast.unparse(changed) + "\n"


def _stub_renamed(stub: Stub, names: Names, parameters: Names) -> str:
    """Edit the signature by positions and the docstring by words; the layout stays."""
    source, function = stub.source, stub.function
    arguments = function.args
    edits = [
        (offset(source, a.lineno, a.col_offset), a.arg, parameters[a.arg])
        for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        if a.arg in parameters
    ]
    if stub.docstring:
        fresh = _docstring_renamed(stub.docstring, function.name, names, parameters)
        edits.append((stub.start, stub.docstring, fresh))
    for at, old, new in sorted(edits, reverse=True):
        source = source[:at] + new + source[at + len(old) :]
    return _tokens_renamed(source, names)


def _docstring_renamed(text: str, entry: str, names: Names, parameters: Names) -> str:
    lines = []
    for line in text.split("\n"):
        fresh = _tokens_renamed_in_prose(line, entry, names[entry])
        example = bool(_EXAMPLE.search(line)) or f"{entry}(" in line
        for old, new in parameters.items():
            if example:
                fresh = re.sub(rf"(?<=[(,\s]){re.escape(old)}(?=\s*=[^=])", new, fresh)
            else:
                fresh = _mentioned(fresh, old, new)
        lines.append(fresh)
    return "\n".join(lines)


def _mentioned(line: str, old: str, new: str) -> str:
    """Rename a parameter in prose: in backticks, or where the word can be nothing else."""
    line = line.replace(f"`{old}`", f"`{new}`")
    code_like = "_" in old or any(c.isdigit() for c in old) or old != old.lower()
    if code_like or (len(old) <= _SHORT and old not in _ENGLISH):
        # Not in quotes: 'n' may be the letter.
        line = re.sub(rf"(?<![\w'\"`.\\]){re.escape(old)}(?![\w'\"`(]|-)", new, line)
    return line


def _tokens_renamed_in_prose(text: str, entry: str, new: str) -> str:
    """Rename the function where it is called, in backticks, or unmistakably a name."""
    code_like = "_" in entry or any(c.isdigit() for c in entry) or entry != entry.lower()
    after = r"(?!\w)" if code_like else r"(?=\s*\(|`)"
    return re.sub(rf"(?<![\w.]){re.escape(entry)}{after}", new, text)


def _tokens_renamed(source: str, names: Names) -> str:
    """Rename plain names in source text, keeping its layout; text in strings stays."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return source
    lines = source.splitlines(keepends=True)
    previous = ""
    edits = []
    for token in tokens:
        if token.type == tokenize.NAME and token.string in names and previous != ".":
            edits.append(token)
        previous = token.string
    for token in reversed(edits):
        row, column = token.start
        line = lines[row - 1]
        end = column + len(token.string)
        lines[row - 1] = line[:column] + names[token.string] + line[end:]
    return "".join(lines)
