"""Imports that Python code needs and lacks, where one line of the standard library mends it.

An answer that is begun with a function's signature has no place left for imports, and models that
would have written some call ``math.ceil`` without. Only names that nothing in the code binds are
looked at, so what is added can change no code that would have run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from lichen.acceleration.completeness.python_names import facts_of

MODULES: Final = frozenset({
    "bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "hashlib",
    "heapq", "itertools", "json", "math", "operator", "random", "re", "statistics", "string",
    "sys", "textwrap", "time", "typing", "unicodedata",
})  # fmt: skip
"""Modules that are used under their own names."""

NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("Counter", "OrderedDict", "defaultdict", "deque"), "collections"),
    **dict.fromkeys(("cmp_to_key", "lru_cache", "reduce"), "functools"),
    **dict.fromkeys(("accumulate", "combinations", "permutations", "product"), "itertools"),
    **dict.fromkeys(("ceil", "floor", "gcd", "sqrt"), "math"),
    **dict.fromkeys(
        ("Any", "Callable", "Dict", "Iterable", "List", "Optional", "Set", "Tuple", "Union"),
        "typing",
    ),
}
"""Names that are used alone -> the module that everybody means."""


_ADDED: Final = re.compile(r"\A([^\n]*\n)(?:(?:import \w+|from \w+ import [\w, ]+)\n)+\n")
"""The first line of an answer and what ``with_imports`` puts below it."""


def with_imports(answer: str, imports: Sequence[str]) -> str:
    """Return an answer that begins with a fence, with imports at the top of its block."""
    fence, _, rest = answer.partition("\n")
    return "\n".join((fence, *imports, "", rest))


def without_imports(answer: str) -> str:
    """Return an answer as it was before ``with_imports``."""
    return _ADDED.sub(r"\1", answer)


def missing_imports(code: str) -> tuple[str, ...]:
    """Return the import statements that ``code`` lacks, in order; none if it is not Python."""
    facts = facts_of(code, "")
    if facts is None:
        return ()
    free = facts.reads - facts.bound
    wanted: dict[str, list[str]] = {}
    for name in sorted(free & NAMES.keys()):
        wanted.setdefault(NAMES[name], []).append(name)
    return (
        *(f"import {name}" for name in sorted(free & MODULES)),
        *(f"from {module} import {', '.join(wanted[module])}" for module in sorted(wanted)),
    )
