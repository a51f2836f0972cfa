"""Notice a text that goes in circles: the same line, the same block, or a cycle within a line.

Greedy decoding of small models falls into loops that no stop token ends (Holtzman et al. 2020,
arXiv 1904.09751). Thresholds are far above what programs repeat on purpose, since a false stop
loses an answer while a loop that is noticed late loses some tokens.
"""

from __future__ import annotations

from typing import Final

MAX_PERIOD: Final = 24
"""Lines in the longest block that is looked for; a function or a test of usual size."""

LINE_COPIES: Final = 16
"""Copies of one line: a 9 x 9 grid of zeros, written row by row, has 9."""

BLOCK_COPIES: Final = 6
"""Copies of a block of two or more lines."""

TAIL_CHARS: Final = 768
"""A line whose last so many characters have a period of ``TAIL_PERIOD`` or less is a loop."""

TAIL_PERIOD: Final = 32
"""At least 24 copies within ``TAIL_CHARS``; a list of 250 literal zeros in one line is shorter."""

_EVERY: Final = 64
"""A long line is looked at whenever it has grown by this many characters."""


class Repetition:
    """Follows lines of a text. ``work`` counts comparisons: linear in the text."""

    __slots__ = ("_ends", "_lines", "_runs", "_seen", "work")

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._ends: list[int] = []
        self._runs = [0] * (MAX_PERIOD + 1)
        self._seen = 0
        self.work = 0

    def within(self, text: str, start: int, end: int) -> int | None:
        """Look at the unfinished line ``text[start:end]``; return how much to keep of ``text``.

        Looks only at fixed lengths of the line, so it does not matter how the text was cut up.
        """
        while True:
            length = max(self._seen + _EVERY, TAIL_CHARS)
            if start + length > end:
                return None
            self._seen = length
            tail = text[start + length - TAIL_CHARS : start + length]
            for period in range(1, TAIL_PERIOD + 1):
                self.work += 1
                if tail[period:] == tail[:-period]:
                    return start + length - TAIL_CHARS + period

    def line(self, line: str, end: int) -> int | None:
        """Take in a whole line that ends at offset ``end``; return how much to keep of the text.

        What is kept ends with the first copy of what repeats.
        """
        self._seen = 0
        self._lines.append(line.rstrip())
        self._ends.append(end)
        count = len(self._lines)
        for period in range(1, min(MAX_PERIOD, count - 1) + 1):
            self.work += 1
            same = self._lines[-1] == self._lines[-1 - period]
            self._runs[period] = self._runs[period] + 1 if same else 0
            uniform = period == 1 or self._runs[1] >= period - 1
            copies = LINE_COPIES if uniform else BLOCK_COPIES
            if self._runs[period] >= period * (copies - 1):
                return self._ends[count - 1 - self._runs[period]]
        return None
