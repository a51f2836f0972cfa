"""Peak resident memory of the process tree.

For this process alone the kernel's own high-water mark is exact: ``VmHWM``, set back at each look
through ``/proc/self/clear_refs`` (proc(5): write 5), so that every window, nested ones too, gets
its own peak. The mark is one per process, hence one ``OwnPeak`` per process however many meters.
Descendants are sampled; the reading then says SAMPLED and is a range. Where the mark cannot be set
back, a mark that did not rise in the window is only an upper bound.

Resident pages that several processes share (forked workers, mapped weights) count once for each.
"""

from __future__ import annotations

import functools
import os
import re
import resource
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Method, Quantity, Reading
from lichen.core.ports import ProbeStatus
from lichen.core.units import BYTES_PER_KIB
from lichen.meter.peaks import PeakHistory, Peaks, peak_since
from lichen.meter.setting import Setting

_HWM = re.compile(rb"^VmHWM:\s+(\d+) kB", re.MULTILINE)


class OwnPeak:
    """The high-water mark of this process, collected so that everyone may set it back.

    The two files stay open: opening them would be most of the cost of a look.
    """

    def __init__(self, proc: Path) -> None:
        self._lock = threading.Lock()
        self._history = PeakHistory()
        self._status = _opened(proc / "self" / "status", os.O_RDONLY)
        self._clear = _opened(proc / "self" / "clear_refs", os.O_WRONLY)
        self.resettable = self._status is not None and self._reset()

    def read(self) -> tuple[int, Peaks]:
        """Return (sequence number of this look, peaks so far) and begin a new interval."""
        with self._lock:
            mark = self._mark()
            if self.resettable:
                self._reset()
            sequence = self._history.push(mark)
            return sequence, self._history.view

    def _mark(self) -> float:
        """Return the mark in bytes: since the last reset, or of the process's whole life."""
        if self._status is not None:
            found = _HWM.search(os.pread(self._status, 4096, 0))
            if found:
                return int(found[1]) * float(BYTES_PER_KIB)
        peak = resource.getrusage(
            resource.RUSAGE_SELF
        ).ru_maxrss  # KiB, on macOS bytes: getrusage(2)
        return float(peak) * (1 if sys.platform == "darwin" else BYTES_PER_KIB)

    def _reset(self) -> bool:
        if self._clear is None:
            return False
        try:
            return os.pwrite(self._clear, b"5", 0) == 1
        except OSError:
            return False


@functools.cache
def own_peak(proc: Path, pid: int) -> OwnPeak:
    """Return the one collector of the process ``pid``, which is the caller's."""
    del pid  # part of the key only: a forked child has its own mark
    return OwnPeak(proc)


def _opened(path: Path, flags: int) -> int | None:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySnapshot:
    """Sequence numbers of this look, and the peaks up to it (bytes)."""

    own_sequence: int
    own: Peaks
    own_mark: float
    sequence: int
    trees: Peaks
    others: Peaks
    tree_bytes: float
    others_bytes: float


class MemoryProbe:
    """Feeds ``peak_memory_bytes``."""

    name = "memory"

    def __init__(self, setting: Setting) -> None:
        self._tree = setting.tree
        self._own = own_peak(setting.proc, os.getpid())
        self._lock = threading.Lock()
        self._trees = PeakHistory()
        self._others = PeakHistory()

    def status(self) -> ProbeStatus:
        """Say whether the own peak is exact."""
        if self._own.resettable:
            how = "VmHWM of this process, exact per window; child processes are sampled"
        else:
            how = "resident memory, sampled: the kernel's high-water mark cannot be set back here"
        return ProbeStatus(
            name=self.name,
            quantity="peak_memory_bytes",
            method=Method.COUNTER if self._own.resettable else Method.SAMPLED,
            available=True,
            reason=how,
        )

    def read(self) -> MemorySnapshot:
        """Look at the tree and at the own high-water mark."""
        tree = self._tree.read()
        own_sequence, own = self._own.read()
        others = float(tree.rss_bytes - tree.own_rss_bytes)
        with self._lock:
            sequence = self._trees.push(float(tree.rss_bytes))
            self._others.push(others)
            return MemorySnapshot(
                own_sequence=own_sequence,
                own=own,
                own_mark=dict(own)[own_sequence],
                sequence=sequence,
                trees=self._trees.view,
                others=self._others.view,
                tree_bytes=float(tree.rss_bytes),
                others_bytes=others,
            )

    def sample(self) -> None:
        """Take note of the tree's memory."""
        self.read()

    def between(self, start: object, end: object) -> Sequence[tuple[str, Quantity]]:
        """Return the peak between two looks."""
        a, b = cast("MemorySnapshot", start), cast("MemorySnapshot", end)
        mark = max(a.tree_bytes - a.others_bytes, peak_since(b.own, a.own_sequence) or 0.0)
        sampled = max(a.tree_bytes, peak_since(b.trees, a.sequence) or 0.0)
        others = max(a.others_bytes, peak_since(b.others, a.sequence) or 0.0)
        rose = b.own_mark > a.own_mark
        if others == 0 and (self._own.resettable or rose):
            exact = max(mark, sampled)
            return (
                ("peak_memory_bytes", _reading(Interval.exact(exact), Method.COUNTER, "VmHWM")),
            )
        if self._own.resettable or rose:
            low, high = max(sampled, mark), max(sampled, mark + others)
            value = Interval(low=low, value=high, high=high)
            source = "VmHWM of this process + sampled resident memory of its children"
        else:
            value = Interval(low=sampled, value=sampled, high=max(sampled, mark + others))
            source = "sampled resident memory of the process tree"
        return (("peak_memory_bytes", _reading(value, Method.SAMPLED, source)),)


def _reading(value: Interval, method: Method, source: str) -> Reading:
    return Reading(value=value, method=method, component=Component.PROCESS, source=source)
