"""Made-up programs, cut by the stop rule: what is kept computes what the whole program computes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.acceleration.completeness import CompleteCode, Wanted
from lichen.acceleration.stop_rules import replay

FORMS = {
    "function": "def {name}(x):\n{doc}    return {value}",
    "late return": "def {name}(x):\n{doc}    y = (\nx\n)\n# aside\n    if y is None:\n        return y\n    return {value}",
    "nested": "def {name}(x):\n{doc}    def inner(y):\n        return y\n    return inner({value})",
    "decorated": "@same\ndef {name}(x):\n{doc}    return {value}",
    "decorated over lines": "@same_as(\n1,\n)\ndef {name}(x):\n{doc}    return {value}",
    "falls through": "def {name}(x):\n{doc}    for y in [x]:\n        return {value}",
    "clauses": "def {name}(x):\n{doc}    try:\n        y = {value}\n    except KeyError:\n        y = None\n    else:\n        pass\n    finally:\n        x = 0\n    return y",
    "lambda": "{name} = lambda x: {value}",
    "one line": "def {name}(x: 'int' = 0) -> 'list[int]': return {value}",
    "class": "class {name}_class:\n    @staticmethod\n    def run(x):\n        return {value}\n\n    def f(self):\n        return None\n\n\ndef {name}(x):\n{doc}    return {name}_class.run(x)",
    "attribute": "def {name}(x):\n{doc}    return {name}.extra + {value}\n\n{name}.extra = 1",
    "branches": "if True:\n    def {name}(x):\n        return {value}\nelse:\n    {name} = None",
    "string": 'def {name}(x):\n{doc}    s = """\nreturn 1\ndef f(x): pass\n```\n"""\n    return {value} + len(s)',
}  # fmt: skip
DOCS = ("", "    # note\n", '    """Doc."""\n', "    '''Doc.\n\n```\n>>> f(1)\n```\nend'''\n")
DECORATORS = {
    "same": "def same(f):\n    return f",
    "same_as": "def same_as(n):\n    return lambda f: f",
}
BETWEEN = (
    "\n",
    "\n\n\n",
    "\n\n# A remark.\n",
    "\nUNUSED = 1\n",
    "\n\ndef unused(x):\n    return x\n\n",
)
AFTER = (
    "",
    "\n\nprint(f(1))\n",
    "\n```\nThat is it.\n",
    "\n\nif __name__ == '__main__':\n    f(1)\n",
    "\n\n# Tests\nassert f(1)\n",
)


@dataclass(frozen=True)
class Program:
    """An answer's code, and what follows it."""

    code: str
    after: str


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A function ``f`` that needs some of its helpers, all in any order that Python can run."""
    names = ["f", "a", "b", "c"][: draw(st.integers(1, 4))]
    items = dict(DECORATORS)
    for number, name in enumerate(names):
        needed = [n for n in names[number + 1 :] if draw(st.booleans())]
        value = " + ".join([f"{draw(st.integers(1, 9))} * x", *(f"{n}(x)" for n in needed)])
        form = draw(st.sampled_from(sorted(FORMS)))
        items[name] = FORMS[form].format(name=name, value=value, doc=draw(st.sampled_from(DOCS)))
    order = [*DECORATORS, *draw(st.permutations(names))]
    code = "".join(items[n] + draw(st.sampled_from(BETWEEN)) for n in order).rstrip()
    if draw(st.booleans()):
        code = code.replace("    ", "\t")
    return Program(code=code, after=draw(st.sampled_from(AFTER)))


def result_of(code: str) -> object:
    """What ``f(3)`` gives."""
    space: dict[str, object] = {"__name__": "program"}
    exec(code, space)  # noqa: S102 (made above)
    return space["f"](3)  # type: ignore[operator]


@settings(max_examples=300)
@given(program=programs(), crlf=st.booleans(), way=st.sampled_from(["chat", "raw", "begun"]))
def test_what_is_kept_computes_what_the_whole_computes(
    program: Program, crlf: bool, way: str
) -> None:
    """Helpers in any order, decorators, strings, classes, tabs, line ends: nothing needed is lost."""
    expected = result_of(program.code)
    text = program.code + program.after
    text = text.replace("\n", "\r\n") if crlf else text
    given_code = "def f(x):\n"
    if way == "raw":
        opening, wanted = (
            "",
            Wanted(language="python", entry_point="f", given=given_code, in_code=True),
        )
    elif way == "begun":
        opening = ""
        wanted = Wanted(language="python", entry_point="f", given=given_code, prefix="```python\n")
    else:
        opening = "Sure:\n\n```python\n"
        wanted = Wanted(language="python", entry_point="f", given=given_code)
    cut = replay(CompleteCode(wanted), opening + text)
    if cut is not None:
        kept = (opening + text)[len(opening) : cut.keep].replace("\r\n", "\n")
        assert result_of(kept) == expected
