"""Which imports code lacks, and that code which has what it needs is left alone."""

from __future__ import annotations

import importlib

import pytest

from lichen.acceleration.missing_imports import MODULES, NAMES, missing_imports


@pytest.mark.parametrize(
    ("code", "lacks"),
    [
        ("def f(x):\n    return math.ceil(x)\n", ("import math",)),
        ("def f(x: List[int]) -> Dict:\n    return ceil(x)\n",
         ("from math import ceil", "from typing import Dict, List")),
        ("import math\ndef f(x):\n    return math.ceil(x)\n", ()),
        ("def f(x):\n    import math\n    return math.ceil(x)\n", ()),
        ("from math import *\ndef f(x):\n    return ceil(x)\n", ()),
        ("def f(math):\n    return math.ceil\n", ()),
        ("def f(x):\n    string = x\n    return string.upper()\n", ()),
        ("def f(x):\n    for time in x:\n        print(time)\n", ()),
        ("def product(a):\n    return 1\ndef f(a):\n    return product(a)\n", ()),
        ("def f(x):\n    return numpy.array(x)\n", ()),
        ("def f(x):\n    return [math.ceil(y) for y in x]\n", ("import math",)),
        ("def f(:\n", ()),
        ("", ()),
    ],
)  # fmt: skip
def test_only_what_nothing_binds_is_lacking(code: str, lacks: tuple[str, ...]) -> None:
    """A name that the code binds anywhere it is read is the code's own."""
    assert missing_imports(code) == lacks


def test_every_line_that_may_be_added_works() -> None:
    """Modules exist and hold the names."""
    for module in MODULES:
        importlib.import_module(module)
    for name, module in NAMES.items():
        assert hasattr(importlib.import_module(module), name)
