"""What holds of stop rules and examples for any text at all."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.acceleration.completeness import CompleteCode, Wanted
from lichen.acceleration.completeness.rule import LANGUAGES
from lichen.acceleration.examples import check_source, examples_of
from lichen.acceleration.stop_rules import replay

PIECES = (
    "def f(x):\n", "def g(y):\n", "    return x\n", "    return g(x)\n", "    if x:\n", "\n", "\r\n",
    "        return 1\n", "    y = '''", "'''\n", '"""', '    """Doc.\n', "# note\n", "```python\n",
    "```\n", "```", "~~~\n", "import math\n", "from math import *\n", "print(f(1))\n", "@dec\n", "x",
    "class f:\n", "    def f(self): pass\n", "else:\n", "e", "try:\n", "    pass\n", "except E:\n", "(",
    ")", "[", "]\n", "\\\n", "\t", " ", "f = lambda x: x\n", "if __name__ == '__main__':\n", "'", '"',
    "async def f(x):\n", "Here is prose.\n", "function f(a) {\n", "  return g(a);\n", "}\n", "{", "}",
    ";\n", "const f = (a) => a\n", "`", "/", "/* ", "*/", "// c\n", "int f(int a);\n", "\N{GREEK SMALL LETTER PI}",
    "f'{x[\"a\"]}'", "0, " * 40, "same line\n", "same line\n" * 9,
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
ANYTHING = st.one_of(TEXTS, st.text(max_size=200))
WANTED = st.builds(
    Wanted,
    language=st.sampled_from(["", "none", *sorted(LANGUAGES)]),
    entry_point=st.sampled_from(["f", "f", "g", "", "A.f"]),
    given=st.sampled_from(["", "import math\ndef g(): pass\ndef f(x):\n"]),
    prefix=st.sampled_from(["", "```python\ndef f(x):\n", "def f(x):\n    '''"]),
    in_code=st.booleans(),
)


@settings(max_examples=300)
@given(wanted=WANTED, text=ANYTHING, data=st.data())
def test_the_cut_does_not_depend_on_how_the_text_arrives(
    wanted: Wanted, text: str, data: st.DataObject
) -> None:
    """At once, character by character, or in any pieces: the same cut, within the text."""
    once = CompleteCode(wanted).cut(text)
    assert once is None or 0 <= once <= len(text)
    slowly = replay(CompleteCode(wanted), text)
    assert (slowly.keep if slowly else None) == once
    marks = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)) | {len(text)})
    rule = CompleteCode(wanted)
    cuts = [rule.cut(text[:m]) for m in marks]
    assert cuts[-1] == once


@settings(max_examples=100)
@given(wanted=WANTED, text=TEXTS, more=ANYTHING)
def test_a_cut_stays_where_it_is(wanted: Wanted, text: str, more: str) -> None:
    """Once decided, a longer text is cut at the same place."""
    rule = CompleteCode(wanted)
    cut = rule.cut(text)
    if cut is not None:
        assert rule.cut(text + more) == cut
        assert CompleteCode(wanted).cut(text + more) == cut


SOLUTIONS = {
    "python": (
        "def f(x):\n    return x",
        "import re\n\n\n@cached\ndef f(x):\n    '''Doc.\n\n```\n>>> f(1)\n```\n'''\n    def g(y):\n        return y\n# aside\n    return g(x)",
        "def f(x):\n    for i in x:\n        if i:\n            return i\n    else:\n        return None",
        "def f(x):\n    try:\n        y = [\n1,\n]\n    except ValueError:\n        y = None\n    finally:\n        x.close()",
        "class f:\n    a = 1\n\n    def g(self):\n        return 1\n\n    def h(self):\n        return 2",
        "def g(x):\n    return x + '\\\n'\n\n\ndef f(x): return g(x)",
    ),
    "javascript": (
        "function f(a) {\n  const s = `}${a}`;\n  return s.replace(/}/g, '{');\n}",
        "const g = (x) => x;\nconst f = (a) => {\n  return g(a);\n};",
    ),
    "java": ("class S {\n  char c = '{';\n  int f(int a) {\n    return a; // }\n  }\n}",),
    "go": ("package main\n\nfunc f(a int) int {\n\ts := `}`\n\treturn len(s)\n}",),
    "rust": ("fn f<'a>(x: &'a str) -> char {\n    let c = '}';\n    c\n}",),
}
REFERENCES = [(language, code) for language, some in SOLUTIONS.items() for code in some]
JUNK = st.one_of(TEXTS, st.text(max_size=120)).map(lambda text: "\n" + text)


@settings(max_examples=300)
@given(
    reference=st.sampled_from(REFERENCES),
    junk=JUNK,
    opening=st.sampled_from(["```{}\n", "Sure!\n\n```{}\n", "1. So:\n```\n"]),
)
def test_a_solution_is_never_cut_short(reference: tuple[str, str], junk: str, opening: str) -> None:
    """Whatever follows a solution, what is kept holds all of it."""
    language, code = reference
    answer = opening.format(language) + code
    for entry in ("f", ""):
        cut = CompleteCode(Wanted(language=language, entry_point=entry)).cut(answer + junk)
        assert cut is None or cut >= len(answer)


@settings(max_examples=200)
@given(text=ANYTHING)
def test_a_raw_continuation_is_never_cut_inside_its_first_statement(text: str) -> None:
    """A body that goes on after the given code is kept up to the end of its statement."""
    given_code = 'def f(x):\n    """Doc."""\n'
    body = "    total = sum(\n[x,\n1])\n    return total"
    wanted = Wanted(language="python", entry_point="f", prefix=given_code, in_code=True)
    assert CompleteCode(wanted).cut(f"{body}\n{text}") == len(body)


CALLS = st.sampled_from([
    "f(1)", "f([1, 2], 'a')", "f(x=1)", "f(-1.5)", "f(f(1))", "sorted(f([3]))", "f()", "f((1,))",
    "f(__import__('os'))", "f(x)", "f.__class__", "open('f')", "f(1).g", "[f(i) for i in y]", "f",
])  # fmt: skip
VALUES = st.sampled_from(
    [
        "1",
        "[1, 2]",
        "'a'",
        "True",
        "None",
        "(1, 2)",
        "YES",
        "{'a': 1}",
        "x.y",
        "1.5.",
        "('a')",
        "[...",
    ]
)
LINES = st.builds(
    lambda head, call, way, value, tail: f"{head}{call}{way}{value}{tail}\n",
    st.sampled_from(["", "    ", ">>> ", "    >>> ", "assert ", "# ", "* ", "If ", "not "]),
    CALLS,
    st.sampled_from([" == ", " => ", " -> ", " = ", "\n    ", " returns ", " ", "\n"]),
    VALUES,
    st.sampled_from(["", ".", "  # remark", ", 'message'", " (because)", '"""']),
)


@settings(max_examples=300)
@given(text=st.lists(st.one_of(LINES, st.text(max_size=30)), max_size=8).map("".join))
def test_examples_are_safe_to_run_whatever_the_question_says(text: str) -> None:
    """Reading never fails; calls hold no attribute and no foreign name; the check compiles."""
    examples = examples_of(text, "f")
    for example in examples:
        for node in ast.walk(ast.parse(example.call, mode="eval")):
            assert not isinstance(node, (ast.Attribute, ast.Lambda, ast.Await, ast.NamedExpr))
            if isinstance(node, ast.Name):
                assert node.id == "f" or node.id in {"sorted", "set", "list", "len"}
        if example.kind == "value":
            ast.literal_eval(example.expected)
    compile(check_source(examples, "f"), "check", "exec")


@pytest.mark.parametrize("depth", [10, 1000, 100_000])
def test_nesting_made_to_exhaust_a_parser_is_only_text(depth: int) -> None:
    """Very deep brackets, operators and strings neither fail nor stop anything."""
    for filling in ("(" * depth, "-" * depth + "1", "[" * depth + "]" * depth, '"""' * depth):
        for language in ("python", "javascript"):
            text = f"```{language}\ndef f(x):\n    return {filling}\n\nx = 1\n"
            CompleteCode(Wanted(language=language, entry_point="f")).cut(text)
            examples_of(f">>> f({filling})\n1\n", "f")
