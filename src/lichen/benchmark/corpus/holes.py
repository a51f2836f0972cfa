"""Choose what to mask in a repository: reproducible, spread over files, without copies.

The order is a hash of seed, path and position, so that the choice depends on neither Python's
random generator nor the order of the files, and adding a file moves few others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from lichen.benchmark.answers.similarity import without_trailing_space
from lichen.benchmark.answers.stop_rules import BlockStop, LineStop
from lichen.benchmark.corpus.blocks import Language, blocks
from lichen.benchmark.corpus.repository import SourceFile
from lichen.benchmark.corpus.spans import Span, SpanKind, spans
from lichen.core.generation import StopRule

PREFIX_CHARS: Final = 3_000
SUFFIX_CHARS: Final = 1_500
"""What is shown around a hole: together about 1,500 tokens, which fits small contexts."""

MAX_PER_FILE: Final = 3
_MIN_NEXT_LINE: Final = 8
"""A shorter following line (``}``, ``else:``) may well occur inside the hole, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A masked piece: ``prefix + middle + suffix`` is a part of the file at ``path``."""

    path: str
    language: str
    kind: SpanKind
    line: int
    start: int
    indent: int
    prefix: str
    middle: str
    suffix: str


def stop_rule(kind: SpanKind, *, indent: int, suffix: str) -> StopRule:
    """Return the rule that ends an answer for a hole of this kind."""
    if kind is SpanKind.LINE:
        return LineStop()
    following = next((x.strip() for x in suffix.split("\n") if x.strip()), "")
    usable = following if len(following) >= _MIN_NEXT_LINE else ""
    return BlockStop(indent=indent, next_line=usable)


def choose_holes(
    files: Iterable[tuple[SourceFile, Language]],
    *,
    kinds: tuple[SpanKind, ...],
    count: int,
    seed: int,
) -> list[Hole]:
    """Return up to ``count`` holes, as evenly over ``kinds`` as there are, ordered by position."""
    pools: dict[SpanKind, list[tuple[str, Hole]]] = {kind: [] for kind in kinds}
    seen_files: set[bytes] = set()
    seen_middles: set[bytes] = set()
    for file, language in files:
        digest = _digest(file.text)
        if digest in seen_files:
            continue
        seen_files.add(digest)
        for order, hole in _of_file(file, language, kinds, seed):
            middle = _digest("\n".join(x.strip() for x in hole.middle.split("\n")))
            if middle not in seen_middles:
                seen_middles.add(middle)
                pools[hole.kind].append((order, hole))
        for pool in pools.values():
            if len(pool) > 4 * count:  # what ranks lower can no longer be chosen
                pool.sort(key=lambda entry: entry[0])
                del pool[count:]
    return sorted(_evenly(pools, count), key=lambda h: (h.path, h.start, h.kind))


def _of_file(
    file: SourceFile, language: Language, kinds: tuple[SpanKind, ...], seed: int
) -> list[tuple[str, Hole]]:
    source = file.text.encode()
    ranked = sorted(
        (
            hashlib.sha256(f"{seed}|{file.path}|{s.kind}|{s.start}|{s.end}".encode()).hexdigest(),
            s,
        )
        for s in spans(source, blocks(file.text, language))
        if s.kind in kinds
    )
    found: list[tuple[str, Hole]] = []
    for order, span in ranked:
        hole = _hole(file, language, source, span)
        if hole is not None and all(_disjoint(hole, other) for _, other in found):
            found.append((order, hole))
            if len(found) == MAX_PER_FILE:
                break
    return found


def _disjoint(a: Hole, b: Hole) -> bool:
    """Whether two holes of a file do not overlap."""
    return (
        a.start + len(a.middle.encode()) <= b.start or b.start + len(b.middle.encode()) <= a.start
    )


def _hole(file: SourceFile, language: Language, source: bytes, span: Span) -> Hole | None:
    before, middle, after = (
        part.decode()
        for part in (source[: span.start], source[span.start : span.end], source[span.end :])
    )
    prefix = before[-PREFIX_CHARS:]
    if len(before) > PREFIX_CHARS:
        prefix = prefix[prefix.find("\n") + 1 :]
    suffix = after[:SUFFIX_CHARS]
    if len(after) > SUFFIX_CHARS:
        suffix = suffix[: suffix.rfind("\n") + 1]
    if middle in prefix or middle in suffix:
        return None  # the answer can be copied from the question
    rule = stop_rule(span.kind, indent=span.indent, suffix=suffix)
    if rule.cut(middle) is not None or without_trailing_space(middle) != middle:
        return None
    return Hole(
        path=file.path,
        language=language.name,
        kind=span.kind,
        line=before.count("\n") + 1,
        start=span.start,
        indent=span.indent,
        prefix=prefix,
        middle=middle,
        suffix=suffix,
    )


def _evenly(pools: dict[SpanKind, list[tuple[str, Hole]]], count: int) -> Iterator[Hole]:
    """Take from each kind in turn, best rank first, until there are ``count``."""
    queues = [iter(sorted(pool, key=lambda entry: entry[0])) for pool in pools.values()]
    taken = 0
    while queues and taken < count:
        for queue in list(queues):
            entry = next(queue, None)
            if entry is None:
                queues.remove(queue)
            elif taken < count:
                taken += 1
                yield entry[1]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
