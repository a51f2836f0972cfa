"""What extraction promises about the shapes that models' answers take."""

from __future__ import annotations

import ast

import pytest

from lichen.benchmark.answers.fences import fenced_blocks
from lichen.benchmark.answers.python_function import extract_function, with_preamble

STUB = (
    "import math\nfrom typing import List\n\n\ndef half(x):\n    return x / 2\n\n\n"
    'def mean(xs: List[float]) -> float:\n    """Mean.\n    >>> mean([1])\n    1.0\n    """\n'
)
PLAIN = 'def mean(xs: List[float]) -> float:\n    """Mean."""\n    return math.fsum(xs) / len(xs)\n'


def value(text: str, stub: str = STUB) -> float:
    """Run what is extracted from trusted text and return its answer for [1, 3]."""
    namespace: dict[str, object] = {}
    exec(extract_function(text, entry_point="mean", stub=stub), namespace)  # noqa: S102 (own text)
    return namespace["mean"]([1.0, 3.0])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"```python\n{PLAIN}```", id="fenced"),
        pytest.param(f"```py\r\n{PLAIN}```\r\n".replace("\n", "\r\n"), id="crlf"),
        pytest.param(f"~~~python\n{PLAIN}~~~", id="tildes"),
        pytest.param(f"```\n{PLAIN}```", id="no tag"),
        pytest.param(f"Sure!\n\n```Python3\n{PLAIN}", id="unclosed"),
        pytest.param(f"```python\n{PLAIN}\nThis returns the mean.", id="unclosed with prose"),
        pytest.param(f"```bash\npip install numpy\n```\n```python\n{PLAIN}```", id="second block"),
        pytest.param(f"```python\n{STUB}```\nSo:\n```python\n{PLAIN}```", id="echoed stub first"),
        pytest.param(f"````markdown\n```python\n{PLAIN}```\n````", id="nested"),
        pytest.param(f"1. ```python\n{PLAIN}```", id="list item"),
        pytest.param(
            "   ```python\n" + "   " + PLAIN.replace("\n", "\n   ") + "```", id="indented"
        ),
        pytest.param(f"Here it is:\n{PLAIN}\nHope that helps", id="prose around, no fence"),
        pytest.param(PLAIN, id="bare"),
        pytest.param("```python\n    return math.fsum(xs) / len(xs)\n```", id="body in a fence"),
        pytest.param("    return math.fsum(xs) / len(xs)\n", id="bare body"),
        pytest.param("return math.fsum(xs) / len(xs)", id="body without indentation"),
        pytest.param(
            "total = sum(xs)\n    return total / len(xs)\n", id="body after its indentation"
        ),
        pytest.param("    return sum(xs) / len(xs)\n\nprint(mean([2]))", id="body and more"),
        pytest.param(
            f"```python\n{PLAIN}```\n```python\nassert mean([1]) == 2\n```", id="tests after"
        ),
        pytest.param("```python\nmean = lambda xs: sum(xs) / len(xs)\n```", id="lambda"),
        pytest.param(
            "```python\nfrom __future__ import annotations\n" + PLAIN + "```", id="future"
        ),
        pytest.param("\ufeff```python\n" + PLAIN + "```", id="byte order mark"),
    ],
)
def test_every_known_shape_gives_the_function(text: str) -> None:
    """An answer in any of the known shapes gives a program that works on its own."""
    assert value(text) == 2.0


def test_a_fence_inside_a_docstring_does_not_end_the_block() -> None:
    """A docstring that holds a fence is read past the inner fences."""
    code = 'def mean(xs):\n    """Mean.\n\n```\nmean([1])\n```\n"""\n    return sum(xs) / len(xs)\n'
    assert value(f"Here:\n```python\n{code}```\nDone.") == 2.0


def test_the_first_block_that_defines_the_function_wins() -> None:
    """Of two definitions the first counts: the second is often an untested alternative."""
    other = PLAIN.replace("len(xs)", "0")
    assert value(f"```python\n{PLAIN}```\nor\n```python\n{other}```") == 2.0


def test_what_the_model_defines_is_not_overridden() -> None:
    """A helper that the answer defines itself replaces the question's."""
    code = "def half(x):\n    return x\n\ndef mean(xs):\n    return half(4.0)\n"
    assert value(f"```python\n{code}```") == 4.0
    assert extract_function(code, entry_point="mean", stub=STUB).count("def half") == 1


def test_missing_imports_and_helpers_come_from_the_question() -> None:
    """Only what the answer does not bind is put in front of it."""
    code = with_preamble(
        "import math\n\ndef mean(xs):\n    return half(4)\n", entry_point="mean", stub=STUB
    )
    assert code.count("import math") == 1
    assert code.count("def half") == 1
    assert "from typing import List" in code


def test_future_imports_stay_first() -> None:
    """The question's imports follow the answer's ``from __future__`` import."""
    code = with_preamble(
        "from __future__ import annotations\ndef mean(xs):\n    return 1\n",
        entry_point="mean",
        stub=STUB,
    )
    assert code.startswith("from __future__")
    compile(code, "candidate", "exec")


def test_a_helper_after_the_function_is_kept() -> None:
    """Unfenced code goes on after the function until a line is prose."""
    code = "def mean(xs):\n    return later(xs)\n\ndef later(xs):\n    return sum(xs) / len(xs)\n"
    assert value(f"Here:\n{code}\nThe helper is simple") == 2.0


@pytest.mark.parametrize(
    "text", ["", "   \n", "I cannot help with that.", "ok", "```\n\n```", "..."]
)
def test_no_code_gives_nothing(text: str) -> None:
    """Text without code gives the empty candidate."""
    assert extract_function(text, entry_point="mean", stub=STUB) == ""


def test_a_truncated_function_stays_as_it_is() -> None:
    """A function that was cut off is not repaired into something that parses."""
    text = "```python\ndef mean(xs):\n    if xs:\n        return (sum(xs)"
    code = extract_function(text, entry_point="mean", stub=STUB)
    assert code == "def mean(xs):\n    if xs:\n        return (sum(xs)\n"
    with pytest.raises(SyntaxError):
        ast.parse(code)


def test_another_function_is_returned_unrenamed() -> None:
    """A function under a wrong name is judged as it is, not renamed."""
    code = extract_function(
        "```python\ndef average(xs):\n    return 2.0\n```", entry_point="mean", stub=""
    )
    assert "def average" in code
    assert "def mean" not in code


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("```python\ndef mean(xs):\n    return '\0'\n```", id="null byte"),
        pytest.param("def mean(xs): return " + "(" * 50_000, id="deep nesting"),
        pytest.param("def mean(xs): return " + "-" * 50_000 + "1", id="deep unary"),
        pytest.param("```\n" * 50_000, id="only fences"),
        pytest.param("def mean(\n" * 20_000, id="many heads"),
        pytest.param(
            "```python\ndef mean(xs):\n    return 1" + "0" * 90_000 + "\n```", id="long number"
        ),
        pytest.param("x" * 5_000_000, id="very long"),
        pytest.param("```python\ndef mean(xs):\n    return '\ud800'\n```", id="surrogate"),
    ],
)
def test_hostile_text_is_survived(text: str) -> None:
    """Text made to break parsers ends in some candidate that can be written to a file."""
    extract_function(text, entry_point="mean", stub=STUB).encode()


def test_blocks_come_in_strict_order_first() -> None:
    """Blocks as CommonMark reads them come before any other reading."""
    text = "```a\none\n```\ntext\n```\ntwo\n```"
    assert list(fenced_blocks(text))[:2] == ["one", "two"]
