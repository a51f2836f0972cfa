"""Code that Python parses and cannot write down: a model that repeats itself writes such."""

from __future__ import annotations

import pytest

from lichen.acceleration.answer_code import python_answer, same_answer
from lichen.acceleration.indentation import in_spaces
from lichen.benchmark.answers.python_function import extract_function

DEEP = ["-" * n + "1" for n in (100, 990, 1500, 5000, 100_000)]
STUB = 'import math\nx = 2\n\n\ndef f(n):\n    """Twice n."""\n'


@pytest.mark.parametrize("deep", DEEP)
@pytest.mark.parametrize("body", ["return {}", "raise {}", 'x = {}\n    raise ValueError("no")'])
def test_answers_are_read(deep: str, body: str) -> None:
    """Whatever comes out of it: no exception reaches the run."""
    text = f"```python\ny = {deep}\n\n\ndef f(n):\n    {body.format(deep)}\n```"
    extract_function(text, entry_point="f", stub=STUB)
    extract_function(f"```python\n    {body.format(deep)}\n```", entry_point="f", stub=STUB)
    python_answer(text, entry_point="f", given=STUB)


@pytest.mark.parametrize("deep", DEEP)
def test_equality_is_not_claimed_of_what_cannot_be_compared(deep: str) -> None:
    """Deep code is equal where its text is, and otherwise only where both can be compared."""
    a, b = f"```python\nx = {deep}\n```", f"```python\nx = {deep}  # b\n```"
    assert same_answer(a, a)
    assert same_answer(a, b) is (len(deep) < 200)
    assert not same_answer(a, "```python\nx = 1\n```")


@pytest.mark.parametrize("deep", DEEP[1:])
def test_deep_code_keeps_its_tabs_or_its_meaning(deep: str) -> None:
    """Indentation changes only where it can be shown to change nothing else."""
    code = f"def f(n):\n\treturn {deep}\n"
    assert in_spaces(code) in {code, code.replace("\t", "    ")}
