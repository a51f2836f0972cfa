"""What one stretch of JavaScript, TypeScript, Java, Go, Rust, C or C++ defines and calls.

Parsed by tree-sitter's single-grammar packages (extra ``[tasks]``). Where a grammar is not
installed, braces alone decide: a block that names the wanted definition and has a body counts, and
helpers that come later are not waited for.
"""

from __future__ import annotations

import functools
import importlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_log = logging.getLogger(__name__)

GRAMMARS: Final = {
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "java": ("tree_sitter_java", "language"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
}
"""Language -> (package, function that returns the grammar)."""

_JAVASCRIPT: Final = frozenset({
    "Array", "ArrayBuffer", "BigInt", "Boolean", "Buffer", "Date", "Error", "Function",
    "Infinity", "Intl", "JSON", "Map", "Math", "NaN", "Number", "Object", "Promise", "Proxy",
    "RangeError", "Reflect", "RegExp", "Set", "String", "Symbol", "SyntaxError", "TypeError",
    "Uint8Array", "Int32Array", "Float64Array", "WeakMap", "WeakSet", "alert", "clearInterval",
    "clearTimeout", "console", "decodeURIComponent", "encodeURIComponent", "exports", "fetch",
    "globalThis", "isFinite", "isNaN", "module", "parseFloat", "parseInt", "process",
    "queueMicrotask", "require", "setInterval", "setTimeout", "structuredClone", "undefined",
    "document", "window", "URL", "arguments",
})  # fmt: skip
_GO: Final = frozenset({
    "any", "append", "bool", "byte", "cap", "clear", "close", "complex", "complex128",
    "complex64", "copy", "delete", "error", "false", "float32", "float64", "imag", "int", "int16",
    "int32", "int64", "int8", "iota", "len", "make", "max", "min", "new", "nil", "panic", "print",
    "println", "real", "recover", "rune", "string", "true", "uint", "uint16", "uint32", "uint64",
    "uint8", "uintptr",
})  # fmt: skip
_RUST: Final = frozenset({"Box", "Err", "None", "Ok", "Some", "String", "Vec", "drop"})
_BUILTINS: Final = {
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "go": _GO,
    "rust": _RUST,
}
"""What can be called without being defined (ECMAScript, the Go specification, Rust's prelude)."""

_KINDS: Final = ("body", "value", "prototype")

_OPAQUE: Final = frozenset({
    "function_declaration", "generator_function_declaration", "function_expression",
    "arrow_function", "method_definition", "method_declaration", "constructor_declaration",
    "function_item", "function_definition", "func_literal", "lambda_expression",
    "closure_expression",
})  # fmt: skip
"""Node types whose insides define nothing for the outside."""

_CLASSES: Final = frozenset({
    "class_declaration", "class", "interface_declaration", "enum_declaration",
    "record_declaration", "class_specifier", "struct_specifier", "struct_item", "enum_item",
    "trait_item", "impl_item",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StretchFacts:
    """What a stretch of code says.

    Args:
        defined: names defined with a body.
        declared: names of prototypes, for languages that need them.
        calls: plain names that are called or passed on, and occur nowhere else.
        by_value: names whose definition is an expression (``const f = ...``), which may go on
            after its closing brace.
    """

    defined: frozenset[str] = frozenset()
    declared: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    by_value: frozenset[str] = frozenset()

    def __or__(self, other: StretchFacts) -> StretchFacts:
        """Put two stretches together."""
        return StretchFacts(
            defined=self.defined | other.defined,
            declared=self.declared | other.declared,
            calls=self.calls | other.calls,
            by_value=self.by_value | other.by_value,
        )


class Grammar:
    """Reads stretches of one language; see the module."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._parser = _parser(language)

    def facts_of(self, source: str, entry_point: str) -> StretchFacts | None:
        """Return what ``source`` says, None if it is not (yet) correct code."""
        if self._parser is None:
            return _guess(source, entry_point)
        root = self._parser.parse(source.encode("utf-8", "replace")).root_node
        if root.has_error:
            return None
        found = list(_definitions(root))
        named = {k: frozenset(n for n, of in found if of == k) for k in _KINDS}
        return StretchFacts(
            defined=named["body"] | named["value"],
            declared=named["prototype"],
            calls=frozenset(_calls(root) - _BUILTINS.get(self.language, frozenset())),
            by_value=named["value"],
        )

    def missing(self, facts: StretchFacts) -> frozenset[str]:
        """Return what all the code so far calls and does not define, where that can be told."""
        calls = facts.calls - facts.defined
        if self.language in ("c", "cpp"):
            return calls & facts.declared  # what is not declared here comes from a header
        # Java's methods live in classes, and a class is complete at its brace.
        return frozenset() if self.language == "java" else calls


def _parser(language: str) -> Any:
    package, function = GRAMMARS[language]
    try:
        from tree_sitter import Parser

        return Parser(_grammar(package, function))
    except ImportError:
        _log.debug("the package %s is not installed: braces alone decide", package)
        return None


@functools.cache
def _grammar(package: str, function: str) -> Any:
    from tree_sitter import Language

    return Language(getattr(importlib.import_module(package), function)())


def _definitions(root: Any) -> Iterator[tuple[str, str]]:
    """Yield (name, "body", "value" or "prototype") of definitions outside function bodies."""
    todo = [root]
    while todo:
        node = todo.pop()
        found = _definition(node)
        if found is not None:
            yield found
        if node.type not in _OPAQUE:
            todo.extend(reversed(node.named_children))


def _definition(node: Any) -> tuple[str, str] | None:
    if node.type in ("variable_declarator", "const_item", "static_item"):
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        return (_text(name), "value") if name is not None and value is not None else None
    declarator = node.child_by_field_name("declarator")
    name = node.child_by_field_name("name") or _declared(declarator)
    if name is None or node.type in ("parameter_declaration", "init_declarator"):
        return None
    body = node.child_by_field_name("body")
    if body is None:
        prototype = node.type == "declaration" and _is_function(declarator)
        return (_text(name), "prototype") if prototype else None
    empty = not any("comment" not in c.type for c in body.named_children)
    if empty and node.type not in _CLASSES:
        return None  # a stub
    return _text(name), "body"


def _declared(declarator: Any) -> Any:
    """Return the name at the end of a C declarator (``*f(int)``, ``X::f()``), None if none."""
    node = declarator
    while node is not None and "identifier" not in node.type:
        node = node.child_by_field_name("declarator") or next(
            (c for c in node.named_children if "declarator" in c.type), None
        )
    while node is not None and node.type == "qualified_identifier":
        node = node.child_by_field_name("name")
    return node


def _is_function(declarator: Any) -> bool:
    node = declarator
    while node is not None:
        if node.type == "function_declarator":
            return True
        node = node.child_by_field_name("declarator")
    return False


def _calls(root: Any) -> set[str]:
    """Return plain names that are called or passed as arguments and occur nowhere else.

    A name that also occurs in another place (a parameter, a variable, an object) is a local.
    """
    wanted: set[str] = set()
    elsewhere: set[str] = set()
    todo = [(root, False)]
    while todo:
        node, referred = todo.pop()
        if node.type == "function_declarator":
            todo += [(c, False) for c in node.named_children if c.type != "identifier"]
            continue  # a prototype's own name is no use of it
        if node.type == "identifier":
            (wanted if referred else elsewhere).add(_text(node))
            continue
        function = node.child_by_field_name("function") or node.child_by_field_name("constructor")
        for child in node.named_children:
            passed = node.type in ("arguments", "argument_list")
            todo.append((child, passed or (function is not None and child == function)))
    return wanted - elsewhere


def _text(node: Any) -> str:
    return str(node.text.decode("utf-8", "replace"))


def _guess(source: str, entry_point: str) -> StretchFacts:
    """Read a stretch without a grammar: does it name the wanted definition before a body?"""
    name = re.escape(entry_point.rpartition(".")[2])
    by_value = re.search(rf"\b{name}\s*(?::[^=]+)?=[^=]", source)
    plain = re.search(rf"\b{name}\b[^;{{}}]*\{{\s*[^\s}}]", source)
    found = frozenset({entry_point.rpartition(".")[2]} if by_value or plain else ())
    return StretchFacts(defined=found, by_value=found if by_value else frozenset())
