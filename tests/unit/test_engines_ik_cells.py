"""The cache is used without gaps: a store that forgets what lies behind them, as the library does."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lichen.engines.ik_llama_cpp.cells import ALL, LEAST, Cells

SEQUENCES = 3


@dataclass
class Cell:
    """A token, where it stands, and whose it is."""

    token: int = 0
    position: int = -1
    owners: set[int] = field(default_factory=set)


class GapStore:
    """Cells as the library has them: what is new goes into the first gap that is wide enough."""

    def __init__(self, size: int) -> None:
        self.cells = [Cell() for _ in range(size)]
        self.packed = 0

    def compute(self, tokens: list[tuple[int, int, int]]) -> bool:
        """Put (sequence, position, token); tell whether all that is in use would be looked at."""
        start = self.first_gap(len(tokens))
        for cell, (sequence, position, token) in zip(self.cells[start:], tokens, strict=False):
            cell.token, cell.position, cell.owners = token, position, {sequence}
        return not any(c.owners for c in self.cells[start + len(tokens) :])

    def first_gap(self, width: int) -> int:
        for start in range(len(self.cells) - width + 1):
            if not any(c.owners for c in self.cells[start : start + width]):
                return start
        raise AssertionError("no room, though it was said that there is")

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        for cell in self.of(source):
            if cell.position >= start and (end == ALL or cell.position < end):
                cell.owners.add(target)

    def remove(self, sequence: int, start: int, end: int) -> None:
        assert end == ALL
        for cell in self.cells:
            if cell.position >= start:
                cell.owners -= cell.owners if sequence == ALL else {sequence}

    def pack(self) -> int:
        self.packed += 1
        used = [c for c in self.cells if c.owners]
        self.cells = [*used, *(Cell() for _ in range(len(self.cells) - len(used)))]
        return len(used)

    def of(self, sequence: int) -> list[Cell]:
        return [c for c in self.cells if sequence in c.owners]

    def text(self, sequence: int) -> list[int]:
        return [c.token for c in sorted(self.of(sequence), key=lambda c: c.position)]


class Book:
    """Cells over such a store, beside lists of what each sequence has to hold."""

    def __init__(self, size: int) -> None:
        self.store = GapStore(size)
        self.cells = Cells(self.store, sequences=SEQUENCES, size=size)
        self.texts: list[list[int]] = [[] for _ in range(SEQUENCES)]
        self.next = 0

    def add(self, counts: dict[int, int]) -> bool:
        """Add tokens to sequences in one step; whether there was room."""
        tokens = []
        for sequence, count in counts.items():
            for position in range(len(self.texts[sequence]), len(self.texts[sequence]) + count):
                self.next += 1
                tokens.append((sequence, position, self.next))
        if not self.cells.make_room(len(tokens)):
            return False
        assert self.store.compute(tokens), "something in use lies behind the new tokens"
        self.cells.put((s, p) for s, p, _ in tokens)
        for sequence, _, token in tokens:
            self.texts[sequence].append(token)
        self.check()
        return True

    def drop(self, sequence: int, start: int) -> None:
        self.cells.drop(sequence, start)
        del self.texts[sequence][start:]
        self.check()

    def share(self, source: int, target: int, end: int) -> None:
        self.drop(target, 0)
        self.cells.share(source, target, end)
        self.texts[target] = self.texts[source][:end]
        self.check()

    def check(self) -> None:
        assert [self.store.text(s) for s in range(SEQUENCES)] == self.texts


sequence = st.integers(0, SEQUENCES - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.dictionaries(sequence, st.integers(1, 90), min_size=1)),
        st.tuples(st.just("drop"), sequence, st.floats(0, 1)),
        st.tuples(st.just("share"), st.permutations(range(SEQUENCES)), st.floats(0, 1)),
    ),
    max_size=40,
)


@given(steps)
def test_whatever_comes_and_goes(todo: list[tuple]) -> None:  # type: ignore[type-arg]
    """New tokens always go behind all others, and every sequence keeps exactly its own."""
    size = SEQUENCES * 300
    book = Book(size)
    for name, what, *how in todo:
        if name == "add":
            fits = all(len(book.texts[s]) + n <= 300 for s, n in what.items())
            if fits:
                assert book.add(what), "each is below its share of the cache"
        elif name == "drop":
            book.drop(what, int(how[0] * len(book.texts[what])))
        else:
            source, target, _ = what
            book.share(source, target, int(how[0] * len(book.texts[source])))


def test_waste_is_kept_until_it_outgrows_what_is_used() -> None:
    """Few wasted cells are looked past; many are packed away."""
    book = Book(4 * LEAST)
    book.add({0: 10, 1: LEAST})
    book.drop(1, 0)
    book.add({0: 1})
    assert book.store.packed == 0
    book.add({1: 1})
    book.drop(1, 0)
    book.add({0: 1})
    assert book.store.packed == 1


def test_a_sequence_alone_wastes_nothing() -> None:
    """Its own end can be given up and used again, as one slot with kept prompts does."""
    book = Book(100)
    for _ in range(20):
        book.add({1: 80})
        book.drop(1, 15)
        book.add({1: 5})
        book.drop(1, 0)
    assert book.store.packed == 0


def test_no_room_is_said() -> None:
    """What is in use cannot be packed away."""
    book = Book(50)
    assert book.add({0: 20, 1: 20})
    assert not book.add({2: 11})
    book.drop(0, 0)
    assert book.add({2: 30})
