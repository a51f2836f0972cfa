"""How near are two questions about code? Only in their wording; never in what they name.

``split`` parts a text into *fixed* pieces, which must be equal in number, order and spelling
(code, identifiers, numbers, negations and their like, quoted text, paths, single letters, anything
that is not a plain lower-case English word), and *wording*, which may be near. Code is what stands
in blocks and, where it is pasted without one, everything from the first line that looks like code
to the last. Similarity is the Dice coefficient of words and neighbouring word pairs, or a cosine of
vectors from an embedder.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_FIXED: Final = frozenset({
    # negations and exceptions
    "no", "not", "never", "none", "neither", "nor", "without", "except", "exclude", "excludes",
    "excluding", "excluded", "unless", "cannot", "avoid", "instead", "only", "deny", "disable",
    # logic and quantity
    "all", "any", "every", "each", "some", "both", "either", "and", "or", "if", "else", "more",
    "less", "most", "least", "fewer", "same", "different", "equal", "true", "false", "null",
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "once",
    "twice", "half", "double", "even", "odd", "positive", "negative", "empty",
    # order and direction
    "before", "after", "until", "first", "last", "min", "max", "minimum", "maximum", "greater",
    "smaller", "larger", "lower", "higher", "ascending", "descending", "increasing", "decreasing",
    "inclusive", "exclusive", "reverse", "reversed", "forward", "backward", "left", "right", "up",
    "down", "top", "bottom", "start", "begin", "end", "from", "to", "into", "over", "under",
    # opposite acts
    "add", "remove", "insert", "delete", "keep", "drop", "open", "close", "read", "write", "encode",
    "decode", "encrypt", "decrypt", "push", "pop", "get", "set", "enable", "allow", "include",
    "increment", "decrement", "encoding", "decoding", "sum", "product", "multiply", "divide",
    # kinds
    "sync", "async", "public", "private", "local", "global", "signed", "unsigned", "upper",
    "lowercase", "uppercase", "strict", "static", "dynamic", "mutable", "immutable",
})  # fmt: skip
"""Words that turn a request's meaning; a text may not be near another in them."""

_NAMING: Final = frozenset({
    "def", "class", "function", "method", "variable", "module", "named", "called", "call", "name",
    "file", "folder", "directory", "branch", "package", "import", "field", "column", "table", "key",
    "type", "attribute", "argument", "parameter", "constant", "library",
})  # fmt: skip
"""The words next to these may be names, however plain they look."""

_BLOCK: Final = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)

_CODE_LINE: Final = re.compile(
    r"[ \t]+\S.*"  # indented
    r"|(?:@\w|#|//|/\*|--|>>>|\.\.\. ).*"
    r"|.*(?:=|->).*|.*[{}();\[\]\\]"
    r"|(?:async|case|class|def|elif|else|except|finally|for|fn|func|if|match|try|while|with)\b.*:"
    r"|(?:assert|await|break|continue|del|global|import|nonlocal|pass|print|raise|return|yield)\b"
    r"(?:\s+\S+){0,2}"
    r"|(?:from|import)\s+\S+(?:\s+(?:as|import)\b.*)?"
)
"""A line that code may hold. Prose that is taken for code only has to be equal, too."""

_PIECES: Final = re.compile(
    r"(?P<quoted>`[^`]*`|\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w))"
    r"|(?P<word>[^\s,;!?]+)"
    r"|(?P<mark>[,;!?]+)",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"[a-z]{2,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A text in two parts: pieces that must be equal, and words that may be near."""

    fixed: tuple[str, ...]
    words: tuple[str, ...]


def split(text: str) -> Wording:
    """Part a text; see the module. A capital at the start of a sentence is not a name."""
    fixed: list[str] = []
    words: list[str] = []
    for place, (part, is_code) in enumerate(_parts(text)):
        if is_code:
            fixed.append(part)
        else:
            _read_prose(part, fixed, words, starts=place == 0)
    return Wording(fixed=tuple(fixed), words=tuple(words))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the text in order as prose (False) and code (True); what is yielded is all of it."""
    end = 0
    for block in _BLOCK.finditer(text):
        yield from _pasted(text[end : block.start()])
        yield block[0], True
        end = block.end()
    yield from _pasted(text[end:])


def _pasted(text: str) -> Iterator[tuple[str, bool]]:
    """Yield prose, the code that is pasted in it from its first line to its last, and prose."""
    lines = text.splitlines(keepends=True)
    like = [i for i, line in enumerate(lines) if _CODE_LINE.fullmatch(line.rstrip())]
    first, last = (like[0], like[-1] + 1) if like else (len(lines), len(lines))
    for part, is_code in (
        ("".join(lines[:first]), False),
        ("".join(lines[first:last]), True),
        ("".join(lines[last:]), False),
    ):
        if part:
            yield part, is_code


def _read_prose(text: str, fixed: list[str], words: list[str], *, starts: bool) -> None:
    after_name = False
    for match in _PIECES.finditer(text):
        piece = match[0]
        if match.lastgroup == "mark":
            continue
        if match.lastgroup != "word":
            fixed.append(piece)
            starts = after_name = False
            continue
        ends = piece.endswith((".", ":"))
        bare = piece.rstrip(".:")
        lower = bare[:1].lower() + bare[1:] if starts else bare
        if not bare:
            fixed.append(piece)
        elif after_name or not _PLAIN.fullmatch(lower) or lower in _FIXED:
            fixed.append(bare)
            if words and lower not in _FIXED and lower != "a":
                # What stands before a name tells what it is a name of.
                fixed.append(words[-1])
        else:
            words.append(lower)
        after_name = lower in _NAMING
        if after_name:
            fixed.append(lower)
            if len(words) > 1:
                fixed.append(words[-2])  # "the parse function": names stand before, too
        starts = ends


def lexical(a: Sequence[str], b: Sequence[str]) -> float:
    """Return the Dice coefficient of words and neighbouring pairs, in [0, 1]; 1 if both empty."""
    x, y = _grams(a), _grams(b)
    both = x.total() + y.total()
    return 1.0 if not both else 2 * (x & y).total() / both


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the cosine of two vectors, cut to [0, 1]; 0 for vectors that have none."""
    if len(a) != len(b):
        return 0.0
    norm = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    if not norm or not math.isfinite(norm):
        return 0.0
    return min(max(math.fsum(x * y for x, y in zip(a, b, strict=True)) / norm, 0.0), 1.0)


def _grams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    if not words:
        return Counter()
    grams: list[tuple[str, ...]] = [(w,) for w in words]
    grams += zip(("", *words), (*words, ""), strict=True)
    return Counter(grams)
