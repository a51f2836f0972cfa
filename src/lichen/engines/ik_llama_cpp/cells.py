"""The cells of ik_llama.cpp's cache, used so that the library always looks at all of them.

The library puts tokens into the first gap that is wide enough, and then takes the cache to end with
them, or with the last block of 32 cells whose very last cell is taken. What lies behind is not
attended to: up to 31 of the newest tokens of any sequence, silently (ik-llama-cpp-python 0.1.5; the
texts that come of it begin to repeat themselves in the middle of a word). So nothing is put into
gaps here: cells that are given up go to a sequence that nobody reads, and once they are more than
those in use they are freed and the others moved together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

LEAST: Final = 256
"""Wasted cells below which packing is not worth it: looking past them costs less."""

ALL: Final = -1
"""As a sequence: every one; as an end: as far as there is something."""


class Store(Protocol):
    """What the library does with cells; see ``library.Loaded``."""

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Let ``target`` have cells of ``source`` too, positions ``start`` to before ``end``."""

    def remove(self, sequence: int, start: int, end: int) -> None:
        """Take those cells from a sequence; free what nobody has any more."""

    def pack(self) -> int:
        """Move all cells that are in use together, to the front; return how many they are."""


class Cells:
    """Where the next token goes, and what is wasted.

    Args:
        store: what holds the cells.
        sequences: how many there are; one more, ``sequences`` itself, holds what is given up.
        size: cells in all.
    """

    def __init__(self, store: Store, *, sequences: int, size: int) -> None:
        self._store = store
        self._held = [0] * sequences
        self._grave = sequences
        self._size = size
        self._end = 0  # from here on every cell is free; in front of it none is

    def make_room(self, count: int) -> bool:
        """Tell whether ``count`` tokens fit behind all others; pack first if that pays."""
        # Shared cells count for each that shares them, so that waste is rather underestimated.
        wasted = self._end - sum(self._held)
        if wasted > max(LEAST, sum(self._held)) or (wasted and self._end + count > self._size):
            self._store.remove(self._grave, 0, ALL)
            self._end = self._store.pack()
        return self._end + count <= self._size

    def put(self, tokens: Iterable[tuple[int, int]]) -> None:
        """Note tokens, as (sequence, position), that were just put behind all others."""
        for sequence, position in tokens:
            self._held[sequence] = position + 1
            self._end += 1

    def drop(self, sequence: int, start: int) -> None:
        """Give up a sequence's cells from position ``start`` on."""
        held = self._held[sequence]
        if held <= start:
            return
        if held == sum(self._held) == self._end:  # the cache is its own: no gap comes of it
            self._store.remove(self._grave, 0, ALL)
            self._store.remove(sequence, start, ALL)
            self._end = start
        else:
            self._store.copy(sequence, self._grave, start, ALL)
            self._store.remove(sequence, start, ALL)
        self._held[sequence] = start
        if not any(self._held):
            self._store.remove(ALL, 0, ALL)
            self._end = 0

    def share(self, source: int, target: int, end: int) -> None:
        """Let ``target``, which holds nothing, begin with ``end`` tokens of ``source``."""
        self._store.copy(source, target, 0, end)
        self._held[target] = end
