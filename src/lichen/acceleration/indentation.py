"""Code of the question that is indented with tabs, as models go on with it: in spaces.

A model that is handed a function begun with tabs often goes on with four spaces, as nearly all of
its training code does. Python refuses the mixture, so a begun answer is begun in spaces.
"""

from __future__ import annotations

import ast
import re
from typing import Final

from lichen.acceleration.completeness.python_names import dumped, parse

WIDTH: Final = 4

_INDENT: Final = re.compile(r"^[ ]*\t[ \t]*", re.MULTILINE)
_BODIES: Final = ("", "\n\tpass\n", "\n\t\tpass\n")
"""What may be missing at the end of given code: the body of a function or of a method."""

_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def in_spaces(code: str) -> str:
    """Return Python code with four spaces for each tab that indents a line.

    Code stays as it is where that would change anything but the indentation and the white space of
    docstrings (a string of several lines that holds data), or where it cannot be read.
    """
    if "\t" not in code:
        return code
    for body in _BODIES:
        whole = code.rstrip() + body if body else code
        before = parse(whole)
        if before is not None:
            after = parse(_expanded(whole))
            same = after is not None and _meaning(after) == _meaning(before) is not None
            return _expanded(code) if same else code
    return code


def _expanded(code: str) -> str:
    return _INDENT.sub(lambda found: found[0].expandtabs(WIDTH), code)


def _meaning(tree: ast.Module) -> str | None:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            said = node.body[0]
            if isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
                said.value.value = " ".join(str(said.value.value).split())
    return dumped(tree)
