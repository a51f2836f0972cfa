"""Check: does the engine cut code into the same tokens as before, and back into the same bytes?

Every held-out text must survive encoding and decoding unchanged. Where the parent's tokens of a
passage were all kept, the child must give those very tokens; where some were dropped it may spell
them with others, and what that costs is the inflation: the child's tokens over the parent's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lichen.compression.gate.findings import Findings
from lichen.compression.gate.ports import Tokenises
from lichen.compression.gate.report import Check
from lichen.compression.gate.stored import TOKENS, texts
from lichen.compression.gate.subject import Subject, not_run
from lichen.core.measurement import Missing

NAME: Final = "tokenizer"

_MAX_CHARS: Final = 1_000_000
"""Text looked at in all: tens of seconds of an engine's tokenizer at most."""
_PASSAGE: Final = re.compile(r"(?:[^\n]*\n){1,12}|[^\n]+\Z")
"""A dozen lines: short enough that most passages lack none of their tokens."""
_ODD: Final = (
    "héllo wörld, Ünïcödé: ελληνικά, русский, 日本語, العربية\n",
    "emoji \N{GRINNING FACE}\N{ROCKET} and \N{ZERO WIDTH JOINER} joined\n",
    "\ttabs\tand    runs        of             spaces\n\n\n\n\nend \r\n",
    "<|not_a_token|> <s> </s> [INST] {{ braces }} \\x00 \\u1234\n",
)
"""Added to the corpus: what code seldom holds and must still survive."""


@dataclass(slots=True)
class _Count:
    passages: int = 0
    same: int = 0
    respelt: int = 0
    before: int = 0
    after: int = 0


def check(subject: Subject) -> Check:
    """Compare the two tokenizers on held-out code and on a few odd texts."""
    open_tokenizer, held_out = subject.ports.tokenizer, subject.ports.held_out
    if isinstance(open_tokenizer, Missing):
        return not_run(NAME, open_tokenizer.reason)
    if not held_out:
        return not_run(NAME, "there is no held-out code to cut into tokens")
    kept = {} if subject.is_folder else _kept_ids(subject)
    parent, child = open_tokenizer(subject.parent), open_tokenizer(subject.child)
    findings, count = Findings(), _Count()
    for passage in _ODD:
        _round_trip(child, passage, findings)
    for passage in _passages([d.text for d in held_out]):
        _round_trip(child, passage, findings)
        _same_tokens(parent, child, passage, kept, findings, count)
    inflation = count.after / count.before - 1 if count.before else 0.0
    if inflation > subject.thresholds.inflation:
        findings.add(
            "inflation",
            f"{inflation:.2%} more tokens, above {subject.thresholds.inflation:.1%}",
        )
    what = (
        f"{count.passages:,} passages, {count.same:,} with the very same tokens, "
        f"{count.respelt:,} respelt, {inflation:+.2%} tokens"
    )
    return Check(
        name=NAME,
        passed=not findings,
        what=f"{what}; {findings.text}" if findings else f"{what}, all survive decoding",
        numbers={
            "passages": count.passages,
            "same": count.same,
            "inflation": inflation,
            "faults": len(findings),
        },
    )


def _kept_ids(subject: Subject) -> dict[int, int]:
    """Return parent's id -> child's id of every token that was kept."""
    place = {t: i for i, t in enumerate(texts(subject.model(subject.child), TOKENS))}
    before = texts(subject.model(subject.parent), TOKENS)
    return {i: place[t] for i, t in enumerate(before) if t in place}


def _passages(documents: list[str]) -> Iterator[str]:
    left = _MAX_CHARS
    for text in documents:
        for match in _PASSAGE.finditer(text):
            if left <= 0:
                return
            left -= len(match[0])
            yield match[0]


def _round_trip(tokenizer: Tokenises, text: str, findings: Findings) -> None:
    if tokenizer.decode(tokenizer.encode(text)) != text.encode():
        findings.add("round trip", f"{text[:60]!r} comes back changed")


def _same_tokens(
    parent: Tokenises,
    child: Tokenises,
    passage: str,
    kept: dict[int, int],
    findings: Findings,
    count: _Count,
) -> None:
    was, now = parent.encode(passage), child.encode(passage)
    count.passages += 1
    count.before += len(was)
    count.after += len(now)
    expected = [kept.get(t, -1) for t in was] if kept else was
    if expected == now:
        count.same += 1
    elif -1 in expected:
        count.respelt += 1
    else:
        findings.add("other tokens", f"{passage[:60]!r} is cut into other tokens than before")
