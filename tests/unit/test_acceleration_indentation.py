"""Given code in spaces: nothing else of it may change."""

from __future__ import annotations

import pytest

from lichen.acceleration.answer_code import python_answer
from lichen.acceleration.indentation import in_spaces


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('def f(n):\n\t"""\n\tTwice n.\n\t\t>>> f(1)\n\t"""\n', None),
        ("def f(n):\n\t# twice n\n", None),
        ("class A:\n\tdef f(self):\n\t\t# twice\n", None),
        ("def f(n):\n\tif n:\n\t\treturn 1\n\treturn 0\n", None),
        ("def f():\n    def g():\n    \treturn 1\n", "def f():\n    def g():\n        return 1\n"),
        ('def f(n):\n\treturn "a\tb"  #\tc\n', 'def f(n):\n    return "a\tb"  #\tc\n'),
    ],
)
def test_tabs_that_indent_are_four_spaces(code: str, expected: str | None) -> None:
    """Functions, methods, comments and docstrings; tabs inside a line stay."""
    assert in_spaces(code) == (code.replace("\t", "    ") if expected is None else expected)


@pytest.mark.parametrize(
    "code",
    [
        "def f(n):\n    return n\n",
        'TABLE = """\n\ta\n"""\n\ndef f(n):\n\treturn TABLE\n',
        "def f(n):\n\treturn (\n",
        "\tnot python at all\n",
    ],
)
def test_what_is_not_only_indentation_stays(code: str) -> None:
    """Strings that hold data, and what cannot be read."""
    assert in_spaces(code) == code


@pytest.mark.parametrize("indent", ["\t", "    "])
def test_a_body_alone_fits_under_code_with_tabs(indent: str) -> None:
    """Whichever way the model indents, the self-check has a function to run."""
    given = 'def f(n):\n\t"""\n\tTwice n.\n\t"""\n'
    code, fault = python_answer(
        f"```python\n{indent}return 2 * n\n```", entry_point="f", given=given
    )
    assert fault == ""
    found: dict[str, object] = {}
    exec(code, found)  # noqa: S102 (the code of this test)
    assert callable(found["f"])
    assert found["f"](4) == 8
