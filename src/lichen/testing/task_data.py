"""Tiny data files and git repositories that every task can be built from, for tests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

ADD_STUB: Final = (
    'def add(x: int, y: int):\n    """Add two numbers.\n    >>> add(2, 3)\n    5\n    """\n'
)
MEAN_STUB: Final = (
    "import math\n\n\ndef half(x):\n    return x / 2\n\n\n"
    'def mean(xs: list):\n    """Return the mean of two numbers.\n    """\n'
)

HUMANEVAL_ROWS: Final[tuple[dict[str, object], ...]] = (
    {
        "task_id": "HumanEval/0",
        "prompt": ADD_STUB,
        "entry_point": "add",
        "canonical_solution": "    return x + y\n",
        "test": "def check(candidate):\n    assert candidate(2, 3) == 5\n",
    },
    {
        "task_id": "HumanEval/1",
        "prompt": MEAN_STUB,
        "entry_point": "mean",
        "canonical_solution": "    return half(math.fsum(xs))\n",
        "test": "def check(candidate):\n    assert candidate([1, 3]) == half(4)\n",
    },
)

MBPP_STUB_ROWS: Final[tuple[dict[str, object], ...]] = (
    {
        "task_id": "MBPP/11",
        "language": "python",
        "prompt": '\n\ndef add(x, y):\n\t"""\n\tAdd two numbers.\n\t>>> add(2, 3)\n\t5\n\t"""\n',
        "entry_point": "add",
        "canonical_solution": "\treturn x + y",
        "test": "\n\ndef check(candidate):\n    assert candidate(2, 3) == 5\n",
        "description": "Add two numbers.",
    },
    {
        "task_id": "MBPP/601",
        "language": "python",
        "prompt": '\n\ndef one():\n\t"""\n\tReturn one.\n\t"""\n',
        "entry_point": "one",
        "canonical_solution": "\treturn 1",
        "test": "def check(candidate):\n    assert candidate() == 1\ncheck(one)\n",
        "description": "Return one.",
    },
)

MBPP_ORIGINAL_ROWS: Final[tuple[dict[str, object], ...]] = (
    {
        "task_id": 11,
        "text": "Write a function to add two numbers.",
        "code": "def helper(x):\r\n  return x\r\ndef add(x, y):\r\n  return helper(x) + y",
        "test_setup_code": "",
        "test_list": ["assert add(2, 3) == 5", "assert add(0, 1) == 1"],
        "challenge_test_list": [],
    },
    {
        "task_id": 12,
        "text": "Write a function to take the first of a pair.",
        "code": "class Pair:\n  def __init__(self, a, b):\n    self.a = a\n"
        "def first(p):\n  return p.a",
        "test_setup_code": "",
        "test_list": ["assert first(Pair(1, 2)) == 1"],
        "challenge_test_list": [],
    },
    {
        "task_id": 601,
        "text": "Write a function to return one.",
        "code": "def one():\n  return 1",
        "test_setup_code": "",
        "test_list": ["assert one() == 1"],
        "challenge_test_list": [],
    },
)

REPAIR_ROWS: Final[tuple[dict[str, object], ...]] = (
    {
        "task_id": "Python/0",
        "prompt": ADD_STUB,
        "declaration": "def add(x: int, y: int):\n",
        "entry_point": "add",
        "canonical_solution": "    return x + y\n",
        "buggy_solution": "    return x - y\n",
        "bug_type": "operator misuse",
        "test": "\n\ndef check(add):\n    assert add(2, 3) == 5\n\ncheck(add)",
    },
)

SHOP: Final = '''"""A shop."""

import json


def total_price(items, tax_rate):
    """Return the total price of all items with tax."""
    net = sum(item["price"] * item["count"] for item in items)
    tax = net * tax_rate
    return round(net + tax, 2)


class Basket:
    """What a customer takes."""

    def __init__(self, owner):
        self.owner = owner
        self.items = []

    def put(self, name, price, count=1):
        """Put an article into the basket."""
        if count < 1:
            raise ValueError("count must be positive")
        self.items.append({"name": name, "price": price, "count": count})
        return len(self.items)


def load_basket(path):
    """Read a basket from a JSON file on disk."""
    with open(path) as stream:
        values = json.load(stream)
    basket = Basket(values["owner"])
    basket.items = list(values["items"])
    return basket
'''


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write rows as JSON Lines and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_repository(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Make a git repository with one commit that holds ``files`` and return its path."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    git(root, "init", "-q")
    commit_all(root)
    return root


def commit_all(root: Path) -> None:
    """Commit everything in the work tree."""
    git(root, "add", "-A")
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    git(root, *who, "-c", "commit.gpgsign=false", "commit", "-q", "-m", "Add files")


def git(root: Path, *arguments: str) -> None:
    """Run git in a repository."""
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)
