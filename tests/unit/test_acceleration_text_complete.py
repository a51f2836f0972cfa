"""When is the wanted code complete? Each case marks the cut with a caret; no caret, no stop."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lichen.acceleration.completeness import CompleteCode, Wanted, brace_grammar
from lichen.acceleration.stop_rules import AfterPrefix, Cut, FirstOf, replay

FENCE = "```"

PYTHON = {
    "return ends the function at once": "def f(x):\n    y = x\n    return y^\n    # dead\n",
    "a branch does not end it": "def f(x):\n    if x:\n        return 1\n    return 2^\n",
    "the next item ends it": "def f(x):\n    for i in x:\n        return i^\n\nprint(f(1))\n",
    "comment at the margin inside": "def f(x):\n    y = 1\n# still f\n    return y^\nz\n",
    "comments after it are not kept": "def f(x):\n    x.y()^\n# Tests\n# more\nassert f\n",
    "blank lines inside": "def f(x):\n\n\n    y = 1\n\n\n    return y^\n\n",
    "decorator before": "import functools\n@functools.cache\ndef f(x):\n    return x^\n",
    "decorator after": "def f(x):\n    x.y()^\n\n@dec\ndef g(): pass\n",
    "decorators of several lines": "@dec(\n1,\n)\n@two\ndef f(x):\n    return x\ndef dec(n): return n\ndef two(n): return n^\n",
    "strings that hold code": 'def f(x):\n    s = """\ndef g():\n    return 1\nprint(1)\n"""\n    return s^\n',
    "a docstring that holds a fence": f'def f(x):\n    """Doc.\n\n{FENCE}\nf(1)\n{FENCE}\n    """\n    return x^\n',
    "single quotes in three": "def f(x):\n    '''it's\nreturn\n'''\n    return x^\n",
    "an escaped quote": 'def f(x):\n    """a \\""" b\nc = 1\n"""\n    return x^\n',
    "a raw string's backslash": "def f(x):\n    a = r'\\d'\n    b = '\\\\'\n    return a + '\\''^\nz\n",
    "a string over a line end": "def f(x):\n    a = 'b\\\nc = d'\n    return a^\n",
    "a hash in a string": "def f(x):\n    a = '#'; b = (1,\n2)\n    return a^\n",
    "nested functions": "def f(x):\n    def g(y):\n        return y\n    return g(x)^\n",
    "a nested function of its name": "def f(x):\n    def f(y):\n        return y\n    return f^\n",
    "a class inside": "def f(x):\n    class A:\n        def f(self):\n            return 1\n    return A^\n",
    "brackets at the margin": "def f(x):\n    y = [\n1,\n2,\n]\n    return y^\n",
    "a call at the margin": "def f(\nx,\n):\n    return (\nx\n)^\n",
    "a backslash at the line's end": "def f(x):\n    y = x + \\\n1\n    return y^\n",
    "tabs": "def f(x):\n\tif x:\n\t\treturn 1\n\treturn 2^\n",
    "tabs and blanks mixed by depth": "def f(x):\n    if x:\n    \treturn 1\n    return 2^\n",
    "one line": "def f(x): return x^\n",
    "one line with a block after": "def f(x): return x^\nif f(1):\n    pass\n",
    "async": "async def f(x):\n    async for y in x:\n        await y\n    return 1^\n",
    "a generator": "def f(x):\n    yield x^\ndef g(): pass\n",
    "f-strings with quotes": "def f(x):\n    y = f'{x[\"a\"]}' f\"{x['b']:>{10}}\" f'''{x}\n'''\n    return y^\n",
    "a lambda": "g = 1\nf = lambda x: x + g^\nprint(1)\n",
    "an assigned function": "def g(x):\n    return x\nf = g^\n",
    "a constant of its name is no answer": "f = None\ndef f(x):\n    return 1^\n",
    "a helper after it": "def f(x):\n    return g(x)\n\ndef g(x):\n    return x^\n\nprint(f(1))\n",
    "helpers of helpers": "def f(x):\n    return g(x)\ndef g(x):\n    return h(x)\ndef k(): pass\ndef h(x):\n    return x^\nz\n",
    "a helper that came before and needs one": "def g(x):\n    return h(x)\ndef f(x):\n    return g(x)\ndef h(x):\n    return x^\n",
    "mutual recursion": "def f(x):\n    return x and g(x - 1)\ndef g(x):\n    return x and f(x - 1)^\n",
    "a constant after it": "def f(x):\n    return x % MOD\n\nMOD = 7^\n",
    "an import after it": "def f(x):\n    return math.pi\n\nimport math^\nprint(1)\n",
    "an import inside": "def f(x):\n    import math\n    return math.pi^\n",
    "an import between": "def g(): pass\nfrom os import path as p\ndef f(x):\n    return p^\n",
    "a star import": "from math import *\ndef f(x):\n    return sqrt(pi)^\n",
    "a star import of who knows what": "from stuff import *\ndef f(x):\n    return sqrt(x)\n",
    "a name only in an inner scope": "def f(x):\n    def g():\n        return h()\n    return g\ndef h(): return 1^\n",
    "a name in a default": "def f(x=d):\n    return x\nd = 1^\n",
    "a name in a comprehension": "def f(x):\n    return [g(i) for i in x]\ndef g(i): return i^\n",
    "builtins and locals": "def f(x):\n    try:\n        a = len(x)\n    except ValueError as e:\n        a = e\n    with x as w:\n        b = w\n    return [a, b, *(q for q in x)]^\n",
    "a global": "def f(x):\n    global count\n    count = 1\n    return count^\n",
    "a use ends the waiting": "def f(x):\n    return g(x)^\n\nprint(f(1))\ndef g(x): return 1\n",
    "a guard does not": "def f(x):\n    return g(x)\nif __name__ == '__main__':\n    f(1)\ndef g(x): return 1^\n",
    "prose ends the waiting": "def f(x):\n    return g(x)^\n\nThis function calls g.\nMore prose here.\n",
    "being named is no use": "def f(x):\n    return g(x)\n\nTABLE = {'f': f}\n\ndef g(x):\n    return x^\n\nf(1)\n",
    "being described is no use": "def f(x):\n    return g(x)\nassert f.__doc__ is None\nprint(f.__name__)\ndef g(x): return x^\n",
    "a call in an assignment is": "def f(x):\n    return g(x)^\n\ny = f(1)\ndef g(x): return 1\n",
    "being handed to a test is": "def f(x):\n    return g(x)^\n\ncheck(f)\ndef g(x): return 1\n",
    "a call inside a later function is none": "def f(x):\n    return g(x)\n\ndef test(y=1):\n    f(1)\ndef g(x): return 1^\n",
    "an attribute of its own after it": "def f(x):\n    return f.seen.get(x)\n\nf.seen = {}^\n\nprint(f(1))\n",
    "an attribute that it sets": "def f(x):\n    if not hasattr(f, 'n'):\n        f.n = 0\n    f.n += 1\n    return f.n, f.__name__^\nz\n",
    "an attribute that a decorator sets": "import functools\n@functools.cache\ndef f(x):\n    return f.cache_info()^\nz\n",
    "a class in a quoted hint": "def f(x: 'list[Node]') -> \"Node | None\":\n    return x\n\nclass Node:\n    pass^\n\nprint(1)\n",
    "quoted hints that need nothing": "def f(x: 'List[int]', y: 'a number', z: 'str', w: 'f(') -> 'Optional[int]':\n    return x^\nz\n",
    "a literal is no hint": "from typing import Literal\ndef f(x: Literal['Node', 'A b']) -> int:\n    return x^\nz\n",
    "a hint in quotes inside": "def f(x):\n    y: 'Later' = x\n    return y\nclass Later: pass^\nz\n",
    "whatever globals() may need": "def f(x):\n    return globals()['g'](x)\n\ndef g(x):\n    return x\n\nz = 1\n",
    "a return in a nested async function": "async def f(x):\n    async def g():\n        return 1\n    return await g()^\nz\n",
    "a class with decorators and quoted hints": "import dataclasses\n@dataclasses.dataclass\nclass f:\n    a: 'f' = None\n\n    @property\n    def b(self):\n        return g(self)\n\ndef g(x):\n    return x^\nprint(1)\n",
    "a helper with a decorator after": "def f(x):\n    return g(x)\n\n@once\ndef g(x):\n    return x\n\ndef once(h):\n    return h^\nprint(1)\n",
    "the guard ends it": "def f(x):\n    x.y()^\n\n\nif __name__ == '__main__':\n    f(1)\n",
    "a stub first": "def f(x):\n    '''Doc.'''\n\ndef f(x):\n    return 1^\n",
    "a stub that passes": "def f(x):\n    pass\n\ndef f(x):\n    return 1^\n",
    "a stub that raises": "def f(x):\n    raise NotImplementedError\n\ndef f(x):\n    return 1^\n",
    "overloads": "from typing import overload\n@overload\ndef f(x: int) -> int: ...\n@overload\ndef f(x: str) -> str: ...\ndef f(x):\n    return x^\n",
    "defined twice: the first is an answer": "def f(x):\n    return 1^\n\ndef f(x):\n    return 2\n",
    "a conditional definition": "try:\n    import a\nexcept ImportError:\n    def f(x):\n        return 1\nelse:\n    def f(x):\n        return 2^\nfoo\n",
    "if and else": "if 1:\n    def f(x):\n        return 1\nelif 2:\n    pass\nelse:\n    def f(x):\n        return 2\nelsewhere = 1\n".replace("2\nelse", "2^\nelse"),
    "a class": "class f:\n    def a(self):\n        return 1\n\n    def b(self):\n        return 2^\n\nx = f()\n",
    "a method": "class Solution:\n    def f(self, x):\n        return x\n    def g(self): ...^\nSolution()\n",
    "another function does not end it": "def g(x):\n    return 1\n\nprint(g(1))\n",
    "broken code never": "def f(x):\n    return )\n\nprint(1)\n",
    "an unclosed bracket never": "def f(x):\n    y = (1\n    return y\n\nprint(1)\n",
    "an unclosed string never": 'def f(x):\n    y = """\n    return y\n\nprint(1)\n',
    "a match statement": "def f(x):\n    match x:\n        case 1:\n            return 1\n        case _:\n            return 2^\nmatch = 1\n",
    "semicolons": "def f(x):\n    y = 1; return y^\nz\n",
    "a return in brackets": "def f(x):\n    return {\n'a': 1,\n}^\nz\n",
    "a bare return goes on": "def f(x):\n    x()\n    return\n    yield^\nz\n",
    "text before": "Sure! I import this from the docs:\n\ndef f(x):\n    return 1^\n",
    "unicode": "def f(é):\n    ñ = 'ü'\n    return ñ^\n",
    "null bytes never": "def f(x):\n    y = '\0'\n    return y\nz\n",
}  # fmt: skip


def marked(case: str) -> tuple[str, int | None]:
    """The text of a case and where its caret stood (the last ``^``)."""
    at = case.rfind("^")
    return (case, None) if at < 0 else (case[:at] + case[at + 1 :], at)


def kept(cut: Cut | None) -> int | None:
    """How much a replay keeps."""
    return cut.keep if cut else None


@pytest.mark.parametrize("case", PYTHON.values(), ids=PYTHON.keys())
def test_python_stops_where_the_code_is_complete(case: str) -> None:
    """In a fenced block the cut falls exactly where the case says, or never."""
    text, at = marked(f"Here:\n\n{FENCE}python\n" + case)
    cut = replay(CompleteCode(Wanted(language="python", entry_point="f")), text)
    assert kept(cut) == at


@pytest.mark.parametrize("case", PYTHON.values(), ids=PYTHON.keys())
def test_windows_line_ends_change_nothing(case: str) -> None:
    """The same cases with CRLF cut at the same place of the code."""
    text, at = marked(f"{FENCE}python\n" + case)
    crlf = text.replace("\n", "\r\n")
    cut = replay(CompleteCode(Wanted(language="python", entry_point="f")), crlf)
    assert kept(cut) == (None if at is None else at + text[:at].count("\n"))


@pytest.mark.parametrize("case", PYTHON.values(), ids=PYTHON.keys())
def test_indented_blocks_are_read_from_their_fence(case: str) -> None:
    """Code in a fence of a list item, indented as the item is, stops on the same line."""
    body, at = marked(case)
    text = f"1. First:\n\n   {FENCE}python\n" + "".join(
        "   " + line for line in body.splitlines(keepends=True)
    )
    cut = replay(CompleteCode(Wanted(language="python", entry_point="f")), text)
    if at is None:
        assert cut is None
    else:
        assert cut is not None
        assert text[: cut.keep].count("\n") == body[:at].count("\n") + 3


@pytest.mark.parametrize("case", PYTHON.values(), ids=PYTHON.keys())
def test_a_continuation_is_read_with_its_prefix(case: str) -> None:
    """A rule that knows the prefix cuts the continuation where it would cut the whole."""
    text, at = marked(f"{FENCE}python\n" + case)
    split = text.find("\n", text.find("def f(")) + 1
    if at is None or split > at or "def f(" not in text:
        split = 0
    rule = CompleteCode(Wanted(language="python", entry_point="f", prefix=text[:split]))
    assert kept(replay(rule, text[split:])) == (None if at is None else at - split)


FENCED = {
    "the fence closes after the definition": "```python\ndef f(x):\n    if x:\n        return 1^\n```\nThis",
    "an earlier block does not stop": "```python\nf(1)\n```\nand\n```python\ndef f(x):\n    return 1^\n```\n",
    "a block of another language": "```bash\ndef f(x): return 1\n```\n```py\ndef f(x): return 1^\n```\n",
    "a block without a language": "```\ndef f(x):\n    return 1^\n```\n",
    "tildes": "~~~python\ndef f(x):\n    x.y()^\n~~~\n",
    "a missing helper is not waited for": "```python\ndef f(x):\n    return helper(x)^\n```\nIt needs:\n",
    "a stub in the first block": "```python\ndef f(x):\n    ...\n```\n\n```python\ndef f(x):\n    return 2^\n```",
    "a broken first block": "```python\ndef f(x:\n    return\n```\n\n```python\ndef f(x):\n    return 2^\n```",
    "a longer fence": "````python\ndef f(x):\n    x = '''\n```\n'''\n    return x^\n````\n",
    "a fence opened in a block": "```python\ndef g(x):\n    return 1\n```python\ndef f(x):\n    return 2^\n```",
    "no block at all": "def f(x):\n    return g(x)\n\ndef g(x):\n    return 1^\n\nThis is it.\n",
}  # fmt: skip


@pytest.mark.parametrize("case", FENCED.values(), ids=FENCED.keys())
def test_fences_are_read_as_models_write_them(case: str) -> None:
    """A closed block stops only after the wanted definition, and the cut is before the fence."""
    text, at = marked(case)
    cut = replay(CompleteCode(Wanted(language="python", entry_point="f")), text)
    assert kept(cut) == at


BRACES = {
    "javascript": {
        "a function": "function f(a) {\n  if (a) {\n    return 1;\n  }\n  return 2;\n}^\n\nconsole.log(f(1));\n",
        "an arrow": "const f = (a) => {\n  return a;\n};^\nf(1);\n",
        "an arrow without a semicolon": "const f = (a) => {\n  return a\n}^\n\nconsole.log(f(1))\n",
        "braces in strings": "function f(a) {\n  const s = '}' + \"}\" + `}\n}`;\n  return s; // }\n  /* }\n} */\n}^\nx\n",
        "braces in a regular expression": "function f(a) {\n  return a.replace(/[{}'\"]/g, '');\n}^\nx\n",
        "a helper after": "function f(a) {\n  return g(a.map(h));\n}\nfunction h(x) {\n  return x;\n}\nfunction g(x) {\n  return x;\n}^\nf(1)\n",
        "a helper before": "const g = (x) => x;\nfunction f(a) {\n  return g(a);\n}^\n",
        "a class with the method": "class S {\n  f(a) {\n    return a;\n  }\n  g() { return 1; }\n}^\nnew S();\n",
        "an empty function": "function f(a) {\n  // your code here\n}\nfunction f(a) {\n  return 1;\n}^\n",
        "exported": "export default function f(a) {\n  return a;\n}^\nfoo();\n",
        "locals that are called": "function f(a, cb) {\n  const k = (x) => x;\n  return cb(k(a), Math.max(1, parseInt(a)));\n}^\n",
    },
    "typescript": {
        "types": "function f<T extends {a: number}>(x: T): {b: number} {\n  return {b: x.a};\n}^\nf({a: 1});\n",
        "overloads": "function f(x: string): string;\nfunction f(x: number): number;\nfunction f(x: any): any {\n  return x;\n}^\n",
    },
    "java": {
        "a class": "import java.util.*;\n\nclass S {\n    public static int f(int a) {\n        char c = '}';\n        return a;\n    }\n\n    int g() {\n        return 1;\n    }\n}^\n\nclass T {}\n",
        "a method alone": "public static int f(int a) {\n    return a;\n}^\n",
    },
    "go": {
        "a function": 'package main\n\nimport "fmt"\n\nfunc f(a int) int {\n\tfor i := range a {\n\t\tfmt.Println(i, `}`)\n\t}\n\treturn a\n}^\n\nfunc main() {\n}\n',
        "a helper after": "package main\n\nfunc f(a int) int {\n\treturn g(a) + int(a)\n}\n\nfunc g(a int) int {\n\treturn a\n}^\n\nfunc main() {}\n",
    },
    "rust": {
        "lifetimes and characters": "fn f<'a>(x: &'a str) -> char {\n    let c = '{';\n    let r = r#\"}\"}\"#;\n    match x { _ => c }\n}^\n\nfn main() {}\n",
        "a helper after": "fn f(x: i32) -> Option<i32> {\n    Some(g(x))\n}\n\nfn g(x: i32) -> i32 {\n    x\n}^\n\n#[test]\nfn t() {}\n",
    },
    "c": {
        "a function": '#include <stdio.h>\n\nint f(int a)\n{\n    printf("}");\n    return a;\n}^\n\nint main() { return 0; }\n',
        "a prototype": "int g(int);\n\nint *f(int a) {\n    return g(a);\n}\n\nint g(int a) {\n    return a;\n}^\nint main() {}\n",
    },
    "cpp": {
        "a template": '#include <vector>\n\ntemplate <class T>\nstd::vector<T> f(T a) {\n    auto s = R"x(}})x";\n    return {a};\n}^\n\nint main() {}\n',
        "a struct": "struct S {\n    int f(int a) {\n        return a;\n    }\n};^\n\nint main() {}\n",
    },
}  # fmt: skip
BRACE_CASES = [(lang, name, text) for lang, some in BRACES.items() for name, text in some.items()]


@pytest.mark.parametrize(
    ("language", "name", "case"), BRACE_CASES, ids=[f"{c[0]}: {c[1]}" for c in BRACE_CASES]
)
def test_languages_with_braces_stop_where_the_code_is_complete(
    language: str, name: str, case: str
) -> None:
    """In a fenced block and without one, the cut falls exactly where the case says."""
    pytest.importorskip(brace_grammar.GRAMMARS[language][0], reason="needs the extra [tasks]")
    for fence in (f"{FENCE}{language}\n", ""):
        text, at = marked(fence + case)
        rule = CompleteCode(Wanted(language=language, entry_point="f"))
        assert kept(replay(rule, text)) == at


WAITS = {
    "a helper after",
    "a prototype",
    "a class",
    "a method alone",
    "overloads",
    "an empty function",
}


@pytest.mark.parametrize(
    ("language", "name", "case"),
    [c for c in BRACE_CASES if c[1] not in WAITS],
    ids=[f"{c[0]}: {c[1]}" for c in BRACE_CASES if c[1] not in WAITS],
)
def test_braces_alone_decide_without_a_grammar(
    language: str, name: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no grammar is installed, the end of the definition is still found."""
    monkeypatch.setattr(brace_grammar, "_parser", lambda _: None)
    text, at = marked(f"{FENCE}{language}\n" + case)
    rule = CompleteCode(Wanted(language=language, entry_point="f"))
    assert kept(replay(rule, text)) == at


def test_a_missing_grammar_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that cannot be imported gives no parser instead of a failure."""
    monkeypatch.setitem(brace_grammar.GRAMMARS, "go", ("tree_sitter_not_there", "language"))
    assert brace_grammar.Grammar("go").facts_of("func f() { x }", "f") is not None


LOOPS = {
    "a line": ("I am sorry.\n" * 40, 11),
    "a block": ("a = 1\nb = 2\nc = 3\n" * 20, 17),
    "a beginning and a line": ("x\n" + "print(1)\n" * 40, 10),
    "within a line": ("0, " * 2000, 3),
    "one character": ("a" * 5000, 1),
    "blank lines": ("x\n" + "\n" * 60, 2),
}


@pytest.mark.parametrize(("text", "keep"), LOOPS.values(), ids=LOOPS.keys())
def test_a_text_that_goes_in_circles_is_stopped(text: str, keep: int) -> None:
    """A loop is cut after its first copy, though nothing is known of the wanted code."""
    rule = CompleteCode(Wanted())
    assert kept(replay(rule, text)) == keep
    assert rule.reason == "repetition"


@pytest.mark.parametrize(
    "text",
    [
        "grid = [\n" + "    [0, 0, 0, 0, 0, 0, 0, 0, 0],\n" * 9 + "]\n",
        "x = [" + "0, " * 200 + "0]\n",
        "}\n" * 8,
        "\n".join(f"assert f({i}) == {i}" for i in range(100)),
        "a\n\n" * 4,
        "-" * 200 + "\n" + "=" * 200,
    ],
    ids=["grid", "zeros", "braces", "asserts", "paragraphs", "rules"],
)
def test_what_programs_repeat_on_purpose_is_no_loop(text: str) -> None:
    """Tables, closing braces and rows of tests go on."""
    assert replay(CompleteCode(Wanted()), text) is None


def test_any_code_will_do_without_a_name() -> None:
    """Where no definition is asked for by name, the first block of the language is the answer."""
    wanted = Wanted(language="python")
    text = "```text\nhello\n```\n```python\nx = 1\n```\nThat\n"
    assert kept(replay(CompleteCode(wanted), text)) == text.index("x = 1") + 5
    assert replay(CompleteCode(wanted), "x = 1\ny = 2\nz = 3\n") is None


def test_the_language_of_a_fence_decides_where_none_is_known() -> None:
    """Without a language the first fence that names one says how to read its code."""
    for tag, code in (("py", "def f():\n    return 1"), ("js", "function f() {\n  return 1;\n}")):
        text = f"```{tag}\n{code}\n\nmore()\n"
        cut = replay(CompleteCode(Wanted(entry_point="f")), text)
        assert kept(cut) == text.index(code) + len(code)


def test_names_of_the_question_count_as_there() -> None:
    """Imports and helpers that the question gives are not waited for, whatever its stub is like."""
    for stub in ("def f(x):\n", 'def f(x):\n    """Doc."""\n', "class A:\n    def f(self):\n"):
        given = "from typing import List\nimport math\ndef g(): return 1\n" + stub
        rule = CompleteCode(Wanted(language="python", entry_point="f", given=given))
        text = "```python\ndef f(x: List):\n    return math.pi + g()\n"
        assert kept(replay(rule, text)) == len(text) - 1


def test_a_method_is_not_the_function_that_the_question_begins() -> None:
    """A helper class with a method of that name does not end an answer that needs a function."""
    solution = (
        "class Tree:\n    def f(self, x):\n        return x\n\ndef f(x):\n    return Tree().f(x)"
    )
    text = f"```python\n{solution}\n\nprint(f(1))\n"
    for given in ("def f(x):\n", 'import math\n\ndef f(x):\n    """Doc."""\n'):
        rule = CompleteCode(Wanted(language="python", entry_point="f", given=given))
        assert kept(replay(rule, text)) == text.index(solution) + len(solution)
    method = CompleteCode(Wanted(language="python", entry_point="f"))
    assert kept(replay(method, text)) == text.index("return x") + len("return x")


def test_what_was_given_is_not_the_answer() -> None:
    """A complete definition inside the prefix does not stop the continuation at once."""
    prefix = "```python\ndef f(x):\n    return 1\n\n"
    rule = CompleteCode(Wanted(language="python", entry_point="f", prefix=prefix))
    text = "def f(x):\n    return 2\n"
    assert kept(replay(rule, text)) == len(text) - 1


def test_another_text_starts_the_rule_afresh() -> None:
    """A text that does not continue the last one is judged by itself."""
    rule = CompleteCode(Wanted(language="python", entry_point="f"))
    assert rule.cut("```python\ndef f():\n    return 1\n") is not None
    assert rule.cut("```python\ndef g():\n    return 1\n") is None
    assert rule.cut("```python\ndef f():\n    return 12\n") == 32


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_work_is_linear_in_the_text(language: str) -> None:
    """Twice the text is at most about twice the steps, fed character by character."""
    unit = {
        "python": "def g{i}(x):\n    y = [x, '{i}', (1)]\n    return y\n\n",
        "javascript": "function g{i}(x) {{\n  const y = [x, 'f', (1)];\n  return y; // f\n}}\n\n",
    }[language]

    def work(n: int) -> int:
        rule = CompleteCode(Wanted(language=language, entry_point="f"))
        text = f"```{language}\n" + "".join(unit.format(i=i) for i in range(n))
        assert replay(rule, text) is None
        return rule.work

    assert work(80) <= 2.2 * work(40)


def test_one_long_function_is_not_parsed_again_and_again() -> None:
    """A function with very many returns costs a few steps per line."""
    body = "".join(f"    if x == {i}:\n        return {i}\n" for i in range(400))
    rule = CompleteCode(Wanted(language="python", entry_point="f"))
    text = "```python\ndef f(x):\n" + body + "    return 0\n"
    assert kept(replay(rule, text, split=lambda t: t.splitlines(keepends=True))) == len(text) - 1
    assert rule.work < 60 * text.count("\n")


def test_the_earliest_of_several_rules_wins() -> None:
    """Composed rules cut at the smallest length, and say which of them it was."""

    class At:
        def __init__(self, n: int) -> None:
            self.n = n

        def cut(self, text: str) -> int | None:
            return self.n if len(text) >= self.n else None

    late, early = At(9), At(4)
    both = FirstOf(late, None, early)
    assert both.cut("abc") is None
    assert both.cut("abcdefghij") == 4
    assert both.winner is early
    assert AfterPrefix(At(5), "abc").cut("d") is None
    assert AfterPrefix(At(5), "abc").cut("defg") == 2
    assert AfterPrefix(At(2), "abc").cut("d") == 0


BABBLE = (
    "\n\n# Test cases\nprint(solve(1))\n",
    "\n```\nThis function works as follows.\n",
    "\n\ndef main():\n    pass\n",
    "\n\nif __name__ == '__main__':\n    main()\n",
    "\n\nassert True\nassert False\n",
)


@pytest.mark.slow
def test_humaneval_solutions_are_kept_whole_and_babble_is_not(
    data_file: Callable[[str], Path],
) -> None:
    """Canonical solutions, restated or continued, are never cut short; what follows them is."""
    with gzip.open(data_file("humaneval"), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for number, row in enumerate(rows):
        given, entry = row["prompt"].lstrip("\n"), row["entry_point"]
        body, junk = row["canonical_solution"].rstrip(), BABBLE[number % len(BABBLE)]
        wanted = {"language": "python", "entry_point": entry, "given": row["prompt"]}
        ways = (
            (Wanted(**wanted), f"Sure:\n\n```python\n{given}{body}"),
            (Wanted(**wanted, prefix=f"```python\n{given}"), body),
            (Wanted(**wanted, prefix=given, in_code=True), body),
        )
        for want, answer in ways:
            cut = replay(CompleteCode(want), answer + junk)
            assert cut is not None, row["task_id"]
            assert cut.keep == len(answer), row["task_id"]
            beyond = (answer + junk)[len(answer) : cut.read].strip("\n")
            assert beyond.count("\n") <= 1, row["task_id"]
