"""Where statements begin and end in a source file: blocks of sibling statements, per language.

Python is parsed by ``ast``; JavaScript, TypeScript, Java, Go, Rust, C and C++ by tree-sitter and
the grammar's own wheel. A file that does not parse cleanly gives no blocks.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from lichen.benchmark.answers.syntax import first_line, is_docstring, parse
from lichen.core.errors import MissingDependencyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Sibling statements in order, as (start, end) byte offsets into the UTF-8 text.

    ``function`` tells that they are a whole function body (a docstring is left out).
    """

    statements: tuple[tuple[int, int], ...]
    function: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How to recognise and parse one language.

    ``grammar`` is the distribution of the tree-sitter grammar ("" for Python), ``entry`` the
    function in it; ``blocks`` are node types that hold statements and ``functions`` the node types
    whose ``body`` is a function's.
    """

    name: str
    endings: tuple[str, ...]
    grammar: str = ""
    entry: str = "language"
    blocks: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()


_JS_FUNCTIONS: Final = frozenset(
    {
        "function_declaration",
        "function_expression",
        "arrow_function",
        "method_definition",
        "generator_function",
        "generator_function_declaration",
    }
)
_C_FUNCTIONS: Final = frozenset({"function_definition"})

# Node types: node-types.json of each grammar at the versions named in the extra [tasks].
LANGUAGES: Final = {
    language.name: language
    for language in (
        Language(name="python", endings=(".py",)),
        Language(
            name="javascript",
            endings=(".js", ".mjs", ".cjs", ".jsx"),
            grammar="tree-sitter-javascript",
            blocks=frozenset({"statement_block"}),
            functions=_JS_FUNCTIONS,
        ),
        Language(
            name="typescript",
            endings=(".ts", ".mts", ".cts"),
            grammar="tree-sitter-typescript",
            entry="language_typescript",
            blocks=frozenset({"statement_block"}),
            functions=_JS_FUNCTIONS,
        ),
        Language(
            name="java",
            endings=(".java",),
            grammar="tree-sitter-java",
            blocks=frozenset({"block", "constructor_body"}),
            functions=frozenset({"method_declaration", "constructor_declaration"}),
        ),
        Language(
            name="go",
            endings=(".go",),
            grammar="tree-sitter-go",
            blocks=frozenset({"block"}),
            functions=frozenset({"function_declaration", "method_declaration", "func_literal"}),
        ),
        Language(
            name="rust",
            endings=(".rs",),
            grammar="tree-sitter-rust",
            blocks=frozenset({"block"}),
            functions=frozenset({"function_item"}),
        ),
        Language(
            name="c",
            endings=(".c", ".h"),
            grammar="tree-sitter-c",
            blocks=frozenset({"compound_statement"}),
            functions=_C_FUNCTIONS,
        ),
        Language(
            name="cpp",
            endings=(".cc", ".cpp", ".cxx", ".hpp", ".hh"),
            grammar="tree-sitter-cpp",
            blocks=frozenset({"compound_statement"}),
            functions=_C_FUNCTIONS,
        ),
    )
}
"""Language name -> how to read it."""


def language_of(path: str) -> Language | None:
    """Return the language that a file name's ending stands for."""
    return next((x for x in LANGUAGES.values() if path.endswith(x.endings)), None)


def blocks(text: str, language: Language) -> list[Block]:
    """Return the blocks of a file in source order, none if it does not parse.

    Raises:
        MissingDependencyError: the language's grammar is not installed.
    """
    found = _python_blocks(text) if language.name == "python" else _tree_blocks(text, language)
    return sorted(found, key=lambda b: (b.statements[0][0], -b.statements[-1][1]))


def _python_blocks(text: str) -> Iterator[Block]:
    tree = parse(text)
    if tree is None:
        return
    starts = [0]
    for line in text.encode().split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef)):
            continue  # their members are definitions, which the functions in them cover
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for name in ("body", "orelse", "finalbody"):
            inside = getattr(node, name, None)
            if not isinstance(inside, list) or not inside or not isinstance(inside[0], ast.stmt):
                continue
            if function and is_docstring(inside[0]):
                inside = inside[1:]
            spans = tuple(_python_span(s, starts) for s in inside)
            if spans:
                yield Block(statements=spans, function=function)


def _python_span(statement: ast.stmt, starts: list[int]) -> tuple[int, int]:
    line, column = first_line(statement), statement.col_offset
    end = starts[(statement.end_lineno or line) - 1] + (statement.end_col_offset or 0)
    return starts[line - 1] + column, end


def _tree_blocks(text: str, language: Language) -> Iterator[Block]:
    root = _parser(language).parse(text.encode()).root_node
    if root.has_error:
        return
    todo = [root]
    while todo:
        node = todo.pop()
        todo.extend(node.named_children)
        if node.type in language.blocks:
            children = node.named_children
            if len(children) == 1 and children[0].type == "statement_list":  # Go
                children = children[0].named_children
            spans = tuple(_tree_span(c) for c in children if "comment" not in c.type)
            if spans:
                parent = node.parent
                function = parent is not None and parent.type in language.functions
                yield Block(statements=spans, function=function)


def _tree_span(node: Any) -> tuple[int, int]:
    after = node.next_sibling
    if after is not None and after.type == ";":  # a grammar may keep the semicolon apart
        return node.start_byte, after.end_byte
    return node.start_byte, node.end_byte


@cache
def _parser(language: Language) -> Any:
    purpose = f"reading {language.name} source"
    try:
        tree_sitter = importlib.import_module("tree_sitter")
    except ImportError as exc:
        raise MissingDependencyError.for_extra("tree-sitter", "tasks", purpose) from exc
    try:
        grammar = importlib.import_module(language.grammar.replace("-", "_"))
    except ImportError as exc:
        raise MissingDependencyError.for_extra(language.grammar, "tasks", purpose) from exc
    return tree_sitter.Parser(tree_sitter.Language(getattr(grammar, language.entry)()))
