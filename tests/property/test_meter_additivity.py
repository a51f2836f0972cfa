from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.core.measurement import Component, Method, Missing, Quantity, Reading
from lichen.meter.ladder import assemble, better
from lichen.meter.peaks import PeakHistory, peak_since
from lichen.meter.probes.rapl import RaplProbe
from lichen.meter.process_tree import ProcessTimes, ProcessTree
from lichen.meter.setting import Setting
from lichen.meter.windows import ProbeMeter
from lichen.testing.clock import FakeClock
from lichen.testing.powercap import FakePowercap
from lichen.testing.probe import ReplayProbe

steps = st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 10_000)), min_size=1, max_size=8)


def value(q: Quantity) -> float:
    assert isinstance(q, Reading), q
    return q.value.value


@given(steps)
def test_adjacent_windows_add_up_to_the_enclosing_one(pairs: list[tuple[int, int]]) -> None:
    """Cutting a window into pieces that share their edges changes neither time nor energy."""
    clock = FakeClock(0.0)
    total, values = 0, [0.0] * 3  # the meter's first look, ours, and the first window's
    for _, joules in pairs:
        total += joules
        values += [float(total)] * 2  # the look that ends a piece, and the one that begins the next
    meter = ProbeMeter([ReplayProbe([*values, float(total)])], clock=clock)
    whole_start = meter.snapshots()
    pieces = []
    for seconds, _ in pairs:
        window = meter.window()
        clock.advance(float(seconds))
        pieces.append(window.close())
    answers = meter.between(whole_start, meter.snapshots())
    summed = pieces[0]
    for piece in pieces[1:]:
        summed = summed + piece
    meter.close()
    assert value(summed.wall_s) == sum(s for s, _ in pairs)
    assert value(summed.energy_j[0]) == value(assemble(answers).energy_j[0]) == total


@settings(max_examples=60)
@given(st.lists(st.integers(1, 90_000_000), min_size=1, max_size=12), st.integers(0, 99_999_999))
def test_a_wrapping_counter_loses_and_doubles_nothing(turns: list[int], begin: int) -> None:
    """However often a counter wraps, windows over its looks add up to what was turned."""
    range_uj, clock = 99_999_999, FakeClock()
    with tempfile.TemporaryDirectory() as folder:
        powercap = FakePowercap(Path(folder))
        powercap.zone("intel-rapl:0", "package-0", begin, range_uj=range_uj)
        probe = RaplProbe(Setting(powercap=powercap.root, clock=clock))
        looks, at = [probe.read()], begin
        for turn in turns:
            at = (at + turn) % (range_uj + 1)
            powercap.turn("intel-rapl:0", at)
            clock.advance(1)
            looks.append(probe.read())
    joules = [q for a, b in itertools.pairwise(looks) for _, q in probe.between(a, b)]
    pieces = sum(value(q) for q in joules if q.component is Component.CPU)
    assert abs(pieces - sum(turns) / 1e6) < 1e-6
    whole = {q.component: q for _, q in probe.between(looks[0], looks[-1])}
    assert abs(value(whole[Component.CPU]) - pieces) < 1e-6


@settings(max_examples=60)
@given(st.lists(st.one_of(st.integers(0, 2**64), st.text(max_size=6)), max_size=10))
def test_no_counter_text_gives_negative_or_zero_energy(texts: list[int | str]) -> None:
    """Whatever a counter file holds, the answer is more than 0 J or a reason."""
    clock = FakeClock()
    with tempfile.TemporaryDirectory() as folder:
        powercap = FakePowercap(Path(folder))
        powercap.zone("intel-rapl:0", "package-0", 5)
        probe = RaplProbe(Setting(powercap=powercap.root, clock=clock))
        start = probe.read()
        for text in texts:
            (Path(folder) / "intel-rapl:0" / "energy_uj").write_text(str(text), errors="replace")
            clock.advance(0.5)
            for _, quantity in probe.between(start, probe.read()):
                assert isinstance(quantity, Missing) or quantity.value.low >= 0
                assert isinstance(quantity, Missing) or quantity.value.value > 0


@given(st.lists(st.floats(0, 1e12), min_size=2, max_size=60), st.data())
def test_peaks_are_the_largest_value_of_their_window(
    values: list[float], data: st.DataObject
) -> None:
    """The compact history answers like a search through all values."""
    history = PeakHistory()
    for v in values:
        history.push(v)
    start = data.draw(st.integers(0, len(values) - 1))
    assert peak_since(history.view, start) == max(values[start:])


@given(st.permutations(list(Method)))
def test_the_best_rung_wins_in_any_order(order: list[Method]) -> None:
    """The ladder does not depend on the order in which probes answer."""
    readings = [ReplayProbe([0.0], method=m).between(0.0, 1.0)[0][1] for m in order]
    best = readings[0]
    for reading in readings[1:]:
        best = better(best, reading)
    assert isinstance(best, Reading)
    assert best.method is Method.WALL_METER


class SimulatedProcesses:
    """A little operating system: processes burn, fork, end, and are waited for or not."""

    rounding_s = 1e-9

    def __init__(self, *, root_adopts: bool) -> None:
        self.root = os.getpid()
        self.adopter = self.root if root_adopts else 1
        self.own = {self.root: 0}
        self.reaped = {self.root: 0}
        self.parent = {self.root: 1}
        self.burnt = 0
        self._next = 1_000_000_000

    def pick(self, index: int) -> int:
        return sorted(self.own)[index % len(self.own)]

    def burn(self, index: int, amount: int) -> None:
        self.own[self.pick(index)] += amount
        self.burnt += amount

    def fork(self, index: int) -> None:
        self._next += 1
        self.parent[self._next] = self.pick(index)
        self.own[self._next] = self.reaped[self._next] = 0

    def end(self, index: int, *, waited: bool) -> None:
        pid = self.pick(index)
        if pid == self.root:
            return
        total = self.own.pop(pid) + self.reaped.pop(pid)
        parent = self.parent.pop(pid)
        if waited and parent in self.reaped:
            self.reaped[parent] += total
        for child, of in self.parent.items():
            if of == pid:
                self.parent[child] = self.adopter

    def read(self, known: object) -> dict[int, ProcessTimes]:
        return {
            p: ProcessTimes(p, 1.0, self.parent[p], 0, self.own[p], self.reaped[p], 0)
            for p in self.own
        }


actions = st.lists(
    st.tuples(
        st.sampled_from(["burn", "fork", "end", "end unwaited"]),
        st.integers(0, 20),
        st.integers(0, 50),
        st.booleans(),
    ),
    max_size=40,
)


def act(system: SimulatedProcesses, kind: str, index: int, amount: int) -> None:
    if kind == "burn":
        system.burn(index, amount)
    elif kind == "fork":
        system.fork(index)
    else:
        system.end(index, waited=kind == "end")


@given(actions, st.booleans())
def test_with_a_look_after_each_event_no_cpu_time_is_lost_or_doubled(
    events: list[tuple[str, int, int, bool]], root_adopts: bool
) -> None:
    """Whoever ends, waited for or not, in whatever order: the sum is what was burnt."""
    system = SimulatedProcesses(root_adopts=root_adopts)
    tree = ProcessTree(system, max_age_s=0)
    for kind, index, amount, _ in events:
        act(system, kind, index, amount)
        assert tree.read().cpu_s == system.burnt


@given(actions, st.booleans())
def test_with_rare_looks_cpu_time_never_falls_and_is_never_invented(
    events: list[tuple[str, int, int, bool]], root_adopts: bool
) -> None:
    """Between looks some of the unseen may be lost; nothing is counted twice or taken back."""
    system = SimulatedProcesses(root_adopts=root_adopts)
    tree = ProcessTree(system, max_age_s=0)
    before = tree.read().cpu_s
    for kind, index, amount, look in events:
        act(system, kind, index, amount)
        if look:
            now = tree.read().cpu_s
            assert before <= now <= system.burnt
            before = now
