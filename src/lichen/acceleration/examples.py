"""Examples in a question that can be run: doctests, asserts, ``f(1) == 2`` and ``f(1) => 2``.

``examples_of`` reads them, ``check_source`` turns them into a check for a ``Trial``. Only
what the question itself shows is used, never a hidden test. The text is untrusted: a call may hold
literals, operators and a few harmless built-ins, nothing else, and an expected value is a literal
or is compared as text. What cannot be read safely is left out.
"""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lichen.acceleration.completeness.python_names import parse
from lichen.core.generation import Hints, Request, Role

PYTHON: Final = frozenset({"python", "py", "python3"})
"""Names of the language whose examples are run, lower case."""

MAX_EXAMPLES: Final = 32
"""Examples used of one question; more cost time and tell little."""

TOLERANCE: Final = 1e-6
"""Relative and absolute, where a float is expected: documents round, programs do not."""

_CALLABLE: Final = frozenset({
    "abs", "all", "any", "bool", "bytes", "complex", "dict", "divmod", "enumerate", "float",
    "frozenset", "int", "isinstance", "len", "list", "max", "min", "range", "reversed", "round",
    "set", "sorted", "str", "sum", "tuple", "type", "zip",
})  # fmt: skip
"""Built-ins that may stand in an example; none reaches files, attributes or code."""

_SAFE: Final = (
    ast.Expression, ast.Call, ast.keyword, ast.Starred, ast.Name, ast.Load, ast.Constant, ast.List,
    ast.Tuple, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.Subscript,
    ast.Slice, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.IfExp,
)  # fmt: skip
"""Kinds of syntax that may stand in an example; no attributes, so no way to the interpreter."""

_ARROW: Final = re.compile(
    r"\s*(?:#\s*)?(?:==+>?|=+>|-+>|[\u2192\u21a6\u21d2\u2794-\u27be\u27f6\u27f9]"
    r"|(?:should\s+|must\s+|will\s+)?(?:returns?|equals?|be)\b:?)\s*"
)
"""What stands between a call and its value in prose; a lone ``=`` is read elsewhere."""

_EQUALS: Final = re.compile(r"\s*=\s*(?!=)")
_QUOTES: Final = re.compile(r"\"{3}|'{3}")
_PROMPT: Final = re.compile(r"^([ \t]*)>>>(?=\S)", re.MULTILINE)
_TAIL: Final = re.compile(r"\s+(?:#|\(|--|because\b|since\b|as\b|and\b|but\b|//)")
_ENDS: Final = ".,;:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One call with what the question says of it.

    Args:
        call: a Python expression that uses the wanted function.
        expected: source of the expected value, or text that ``repr`` or ``str`` must give.
        kind: ``value`` (a literal), ``text`` or ``raises`` (``expected`` names the exception).
    """

    call: str
    expected: str
    kind: str = "value"


def asked_in(request: Request) -> str:
    """Return the text of a question: the given code, else all that the user says."""
    if request.hints is not None and request.hints.given:
        return request.hints.given
    said = [m.content for m in request.messages or () if m.role is Role.USER]
    return "\n".join(said) or request.prompt or ""


def not_runnable(request: Request) -> str:
    """Return why an answer is no code that can be run by name, "" if it is."""
    hints = request.hints or Hints()
    if request.kind == "infill" or not hints.entry_point:
        return "what is wanted is not known"
    return "" if hints.language.lower() in PYTHON else "only Python is run"


def runnable(request: Request) -> tuple[tuple[Example, ...], str]:
    """Return the examples that a question shows and, where there are none, why."""
    hints, reason = request.hints or Hints(), not_runnable(request)
    if reason:
        return (), reason
    examples = examples_of(asked_in(request), hints.entry_point)
    return examples, "" if examples else "the question shows no examples that can be run"


def examples_of(prompt_code: str, entry_point: str) -> tuple[Example, ...]:
    """Return the examples of ``entry_point`` that ``prompt_code`` shows, in order, without repeats.

    Args:
        prompt_code: the question's code with its docstring, or any text.
        entry_point: name of the wanted function, a plain identifier.
    """
    if not entry_point.isidentifier():
        return ()
    text = _QUOTES.sub("\n", prompt_code.replace("\r\n", "\n").expandtabs(8))
    equated = list(_written(text, entry_point, _EQUALS))
    if len({type(ast.literal_eval(e.expected)) for e in equated}) > 1:
        equated = []  # equations of a definition, such as ``f(1) = 3`` for a function of lists
    found: dict[str, Example] = {}
    for example in (*_doctests(text, entry_point), *_written(text, entry_point, _ARROW), *equated):
        found.setdefault(example.call, example)
        if len(found) == MAX_EXAMPLES:
            break
    return tuple(found.values())


def check_source(examples: tuple[Example, ...], entry_point: str) -> str:
    """Return source of a check that raises unless all examples hold.

    It expects ``candidate`` (or the function's own name) to be callable, as in ``Trial.check``.
    """
    lines = [_HEAD, f"{entry_point} = candidate"]
    for e in examples:
        shown = repr(f"{e.call} is not {e.expected}")
        if e.kind == "raises":
            lines.append(f"_raises(lambda: {e.call}, {e.expected!r}, {shown})")
        elif e.kind == "text":
            lines.append(f"_says({e.call}, {e.expected!r}, {shown})")
        else:
            lines.append(f"_is({e.call}, {e.expected}, {shown})")
    return "\n".join(lines) + "\n"


_HEAD: Final = f"""\
def _same(a, b):
    if isinstance(a, bool) or isinstance(b, bool):
        return a == b
    if isinstance(b, (float, complex)) and isinstance(a, (int, float, complex)):
        return a == b or abs(a - b) <= {TOLERANCE!r} * max(1.0, abs(b))
    if isinstance(b, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b))
    if isinstance(b, dict) and isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in b)
    return a == b


def _is(value, expected, shown):
    assert _same(value, expected), shown


def _says(value, expected, shown):
    assert expected in (repr(value), str(value)), shown


def _raises(call, name, shown):
    try:
        call()
    except Exception as exc:
        if name in [kind.__name__ for kind in type(exc).__mro__]:
            return
    raise AssertionError(shown)
"""


def _doctests(text: str, entry_point: str) -> Iterator[Example]:
    text = "\n".join(line.lstrip() for line in _PROMPT.sub(r"\1>>> ", text).split("\n"))
    try:
        shown = doctest.DocTestParser().get_examples(text)
    except ValueError:
        return  # a line of dots without a space: no doctest
    for one in shown:  # ``>>> f(1) == 2`` without output is read as a written example
        call = _call(one.source, entry_point)
        if one.exc_msg is not None:
            name = one.exc_msg.partition(":")[0].strip().rpartition(".")[2]
            if call and name.isidentifier():
                yield Example(call=call, expected=name, kind="raises")
        elif call and one.want.strip():
            yield from _expecting(call, one.want)


def _expecting(call: str, want: str) -> Iterator[Example]:
    lines = [line.strip() for line in want.strip().split("\n")]
    for text in ("\n".join(lines), lines[0], *_shorter(lines[0])):
        value = _literal(text)
        if value:
            yield Example(call=call, expected=value)
            return
    if len(lines) == 1:
        yield Example(call=call, expected=lines[0], kind="text")


def _written(text: str, entry_point: str, gives: re.Pattern[str]) -> Iterator[Example]:
    """Read examples from lines that hold a call, what means "gives", and a literal."""
    for match in re.finditer(rf"(?<![\w.]){re.escape(entry_point)}\s*\(", text):
        head = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if re.search(r"\b(?:def|class|import)\s+$", head):
            continue
        end = _closing(text, match.end() - 1)
        line_end = text.find("\n", end)
        rest = text[end : line_end if line_end >= 0 else len(text)]
        call = _call(text[match.start() : end], entry_point)
        arrow = gives.match(rest)
        if end < 0 or not call or arrow is None:
            continue
        if re.search(r"[\w)\]]\s*[-+*/%<>=!]+\s*$|\bnot\s+$", head):
            continue  # only part of a longer expression
        said = rest[arrow.end() :].strip()
        if re.search(r"\bassert\s+$", head):
            said = _without_message(said)
        for candidate in (said, *_shorter(said)):
            value = _literal(candidate)
            if value:
                yield Example(call=call, expected=value)
                break


def _without_message(said: str) -> str:
    tree = parse(f"assert {said}")
    statement = tree.body[0] if tree is not None and tree.body else None
    return _one_line(statement.test) if isinstance(statement, ast.Assert) else said


def _shorter(said: str) -> Iterator[str]:
    """Yield ``said`` without what may follow a value: punctuation, a remark, a message."""
    yield said.rstrip(_ENDS)
    for match in _TAIL.finditer(said):
        yield said[: match.start()].rstrip(_ENDS)
    for mark in (",", "."):
        at = said.rfind(mark)
        while at > 0:
            yield said[:at]
            at = said.rfind(mark, 0, at)


def _closing(text: str, start: int) -> int:
    """Return the offset after the bracket that closes the one at ``start``, -1 if none does."""
    depth, quote, i = 0, "", start
    while i < len(text) and i - start < 2000:  # noqa: PLR2004 (no example's call is longer)
        char = text[i]
        if quote:
            i += char == "\\"
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                return i + 1
        elif char == "\n" and text[start:i].count("\n") > 5:  # noqa: PLR2004 (as above)
            return -1
        i += 1
    return -1


def _call(source: str, entry_point: str) -> str:
    """Return a harmless expression that calls the entry point as one line, "" for anything else."""
    source = source.strip().removesuffix(";")
    tree = parse(f"(\n{source}\n)")
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return ""
    expression = tree.body[0].value
    names = set()
    for node in ast.walk(expression):
        if not isinstance(node, _SAFE):
            return ""
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            return ""  # a call and the list it gives, without anything between them
        if isinstance(node, ast.Name):
            names.add(node.id)
    if entry_point not in names or names - _CALLABLE - {entry_point}:
        return ""
    return _one_line(expression)


def _literal(text: str) -> str:
    """Return the source of the literal that ``text`` is, "" if it is none."""
    text = text.strip()
    text = {"true": "True", "false": "False", "null": "None"}.get(text, text)
    if not text or len(text) > 10_000:  # noqa: PLR2004 (no example's value is longer)
        return ""
    tree = parse(f"(\n{text}\n)")
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return ""
    value = tree.body[0].value
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, MemoryError, RecursionError, SyntaxError):
        return ""
    if text[0] == "(" and not isinstance(value, (ast.Tuple, ast.UnaryOp, ast.BinOp)):
        return ""  # ``("Venus")``: the writer may have meant a tuple
    return _one_line(value)


def _one_line(node: ast.expr) -> str:
    try:
        return ast.unparse(node)
    except (RecursionError, ValueError):
        return ""  # nesting or a number that Python itself refuses to write down
