"""Which examples are read from a question, and what a check made of them accepts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lichen.acceleration.examples import (
    MAX_EXAMPLES,
    Example,
    check_source,
    examples_of,
    runnable,
)
from lichen.core.generation import Hints, Request
from lichen.core.task import Trial, Verdict
from lichen.testing.in_process_sandbox import InProcessSandbox

READ = {
    "a doctest": (">>> f(1)\n2\n", "f(1)", "2"),
    "a doctest without a blank": (">>>f(1)\n2\n", "f(1)", "2"),
    "a doctest on two lines": (">>> f([1,\n...    2])\n[\n 1, 2]\n", "f([1, 2])", "[1, 2]"),
    "a remark after it": (">>> f(1)  # why\n2\nBecause of this.\n", "f(1)", "2"),
    "a remark in the output": (">>> f('a')\n'b' (as above)\n", "f('a')", "'b'"),
    "the end of the docstring": ('>>> f(1)\n2"""\n', "f(1)", "2"),
    "a comparison in a doctest": (">>> f(1) == 2\nTrue\n", "f(1) == 2", "True"),
    "a comparison without output": (">>> f(1) == 2\n", "f(1)", "2"),
    "an assert": ("assert f(1) == 2", "f(1)", "2"),
    "an assert with a message": ("assert f(1) == [2], 'no'", "f(1)", "[2]"),
    "equal": ("f(1) == 2", "f(1)", "2"),
    "an arrow": ("For example, f(1, k='=>') => 2.", "f(1, k='=>')", "2."),
    "a sign": ("f([1]) \N{HEAVY ROUND-TIPPED RIGHTWARDS ARROW} True", "f([1])", "True"),
    "words": ("f(1) should return {'a': 1} because", "f(1)", "{'a': 1}"),
    "an equation": ("f(1) = 2", "f(1)", "2"),
    "javascript's true": ("f(1) -> true", "f(1)", "True"),
    "a call around it": (">>> round(f(1.234), 2)\n1.23\n", "round(f(1.234), 2)", "1.23"),
}


@pytest.mark.parametrize(("text", "call", "value"), READ.values(), ids=READ.keys())
def test_forms_that_are_read(text: str, call: str, value: str) -> None:
    """Each form gives the call and the value, whatever surrounds them."""
    for prompt in (
        text,
        f'def f(x):\n    """Do.\n\n    {text}\n    """\n',
        text.replace("\n", "\r\n"),
    ):
        first = examples_of(prompt, "f")[0]
        assert (first.call, first.kind) == (call, "value")
        assert eval(first.expected) == eval(value)  # noqa: S307 (written above)


@pytest.mark.parametrize(
    "text",
    [
        "f(x) == 2", "f(1) == g(2)", "g(1) == 2", "not f(1) == 2", "2 * f(1) == 2", "def f(1) -> 2",
        ">>> f(open('x'))\n1\n", ">>> f.__globals__\n{}\n", ">>> f(1)\n", ">>> x = f(1)\n>>> x\n1\n",
        ">>> f(a) => False", "f(1) is odd", "f(1) > 2", ">>> f(1) [2, 3]\n4\n", "f(1) -> ('Venus')",
        "f(1) = 3, and f(n) = f(n - 1)\nf(1) = 3\nf(2) = [1, 3]", "xf(1) == 2", "a.f(1) == 2",
        ">>> f(__import__('os').getpid())\n1\n", ">>> f(1 if (y := 2) else 3)\n1\n",
    ],
)  # fmt: skip
def test_what_cannot_be_read_safely_is_left_out(text: str) -> None:
    """Names that are not there, attributes, fragments of expressions, contradictory equations."""
    assert examples_of(text, "f") == ()


def test_examples_are_told_once_and_not_too_many() -> None:
    """Repeats count once, in order; very long lists are cut."""
    text = ">>> f(2)\n3\n>>> f(1)\n2\nand f(2) == 3\n"
    assert [e.call for e in examples_of(text, "f")] == ["f(2)", "f(1)"]
    many = "".join(f">>> f({i})\n{i}\n\n" for i in range(100))
    assert len(examples_of(many, "f")) == MAX_EXAMPLES
    assert examples_of(text, "f(") == ()


def judged(examples: tuple[Example, ...], body: str) -> Verdict:
    """Hold a function against examples."""
    trial = Trial(
        id="t",
        solution=f"def f(*a):\n    {body}\n",
        entry_point="f",
        check=check_source(examples, "f"),
    )
    ((_, verdict),) = InProcessSandbox().judge([trial])
    return verdict


@pytest.mark.parametrize(
    ("example", "right", "wrong"),
    [
        (Example(call="f()", expected="2"), ["2", "2.0"], ["3", "'2'", "None"]),
        (Example(call="f()", expected="2.5"), ["2.5", "2.5000001"], ["2.51", "'2.5'"]),
        (Example(call="f()", expected="True"), ["True", "1"], ["False", "'True'"]),
        (Example(call="f()", expected="[1.5, (2,)]"), ["[1.50000001, (2,)]"], ["[1.5, [2]]", "(1.5, (2,))"]),
        (Example(call="f()", expected="{'a': 0.1}"), ["{'a': 0.1 + 1e-9}"], ["{'a': 1}", "{}"]),
        (Example(call="f()", expected="YES", kind="text"), ["'YES'"], ["'NO'", "None"]),
        (Example(call="f()", expected="{1, 2}", kind="text"), ["{1, 2}"], ["{1}"]),
    ],
)  # fmt: skip
def test_a_check_accepts_what_the_example_says(
    example: Example, right: list[str], wrong: list[str]
) -> None:
    """Right values pass (floats nearly), wrong values and types fail with the example's words."""
    for value in right:
        assert judged((example,), f"return {value}").passed, value
    for value in wrong:
        verdict = judged((example,), f"return {value}")
        assert not verdict.passed, value
        assert verdict.message == f"f() is not {example.expected}"


def test_an_expected_exception_must_come() -> None:
    """A traceback in a doctest asks for that exception or one of its kinds."""
    examples = examples_of(
        ">>> f(1)\nTraceback (most recent call last):\n    ...\nLookupError: no\n", "f"
    )
    assert [(e.expected, e.kind) for e in examples] == [("LookupError", "raises")]
    assert judged(examples, "return {}[1]").passed
    assert not judged(examples, "return 1").passed
    assert not judged(examples, "return int('x')").passed


def test_one_wrong_example_is_enough() -> None:
    """All examples must hold."""
    both = (Example(call="f(1)", expected="1"), Example(call="f(2)", expected="3"))
    assert not judged(both, "return a[0]").passed


def test_humaneval_prompts_show_examples_that_the_references_pass(
    data_file: Callable[[str], Path],
) -> None:
    """139 of 164 prompts have examples that can be run; two of them (47, 116) state wrong values."""
    with gzip.open(data_file("humaneval"), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    shown, wrong = 0, []
    for row in rows:
        examples = examples_of(row["prompt"], row["entry_point"])
        if not examples:
            continue
        shown += 1
        trial = Trial(
            id="t",
            solution=row["prompt"] + row["canonical_solution"],
            entry_point=row["entry_point"],
            check=check_source(examples, row["entry_point"]),
        )
        ((_, verdict),) = InProcessSandbox().judge([trial])
        if not verdict.passed:
            wrong.append(row["task_id"])
    assert shown == 139
    assert wrong == ["HumanEval/47", "HumanEval/116"]


GIVEN = 'def f(a):\n    """>>> f(1)\n    2\n    """\n'


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"hints": None}, "not known"),
        ({"hints": Hints(language="python", given=GIVEN)}, "not known"),
        ({"hints": Hints(language="java", entry_point="f", given=GIVEN)}, "only Python"),
        ({"hints": Hints(language="python", entry_point="g", given=GIVEN)}, "no examples"),
    ],
)
def test_where_no_example_can_be_run_the_reason_is_told(
    changes: dict[str, Hints | None], why: str
) -> None:
    """Either examples or a reason, never both."""
    hints = changes.get("hints", Hints(language="Python", entry_point="f", given=GIVEN))
    examples, reason = runnable(Request(id="r", prompt="f(1) == 3", hints=hints))
    assert [e.call for e in examples] == ([] if why else ["f(1)"])
    assert reason == why if not why else why in reason
