"""A list of what is wrong, short enough to read: kinds are counted, the first of each is shown."""

from __future__ import annotations

from typing import Final

_SHOWN: Final = 4
_LONGEST: Final = 160


class Findings:
    """Collects sentences; many of one kind become one sentence with a count."""

    def __init__(self) -> None:
        self._by_kind: dict[str, list[str]] = {}

    def add(self, kind: str, sentence: str) -> None:
        """Note a fault. ``sentence`` may quote the file: it is made printable and cut here."""
        shown = "".join(c if c.isprintable() else "?" for c in sentence[:_LONGEST])
        self._by_kind.setdefault(kind, []).append(shown)

    def __len__(self) -> int:
        """How many faults there are."""
        return sum(map(len, self._by_kind.values()))

    @property
    def text(self) -> str:
        """The first fault of each kind, the number of the others, and how many kinds are left."""
        parts = []
        for sentences in list(self._by_kind.values())[:_SHOWN]:
            more = f" (and {len(sentences) - 1} more like it)" if len(sentences) > 1 else ""
            parts.append(sentences[0] + more)
        left = len(self._by_kind) - _SHOWN
        return "; ".join(parts) + (f"; and {left} other kinds of fault" if left > 0 else "")
