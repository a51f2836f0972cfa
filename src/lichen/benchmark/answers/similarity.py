"""How close a text is to a reference: edit similarity ``1 - Lev(a, b) / max(|a|, |b|)``.

Lev is Levenshtein's distance (1966) in characters. Trailing white space does not count.
"""

from __future__ import annotations

from lichen.core.errors import MissingDependencyError


def without_trailing_space(text: str) -> str:
    """Return the text without white space at the ends of lines and without blank lines around."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def edit_similarity(a: str, b: str) -> float:
    """Return the edit similarity of two texts as they are, in [0, 1]; 1 only for equal ones.

    Raises:
        MissingDependencyError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as exc:
        raise MissingDependencyError.for_extra("rapidfuzz", "tasks", "edit similarity") from exc
    longest = max(len(a), len(b))
    return 1.0 - Levenshtein.distance(a, b) / longest if longest else 1.0
