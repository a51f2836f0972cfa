"""The meter: windows over probes, and one sampler thread that they share.

A window is two looks at every probe. Windows may nest, overlap and be opened and closed by any
thread. While at least one is open, the sampler looks at the probes that need it (peaks, sampled
power, wrapping counters) once per interval; it never takes more than 1 % of a core, because it
waits at least a hundred times as long as its last look took.

A probe that fails never fails the work being measured: its quantities become ``Missing``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from lichen.core.errors import ConfigError, MeterError
from lichen.core.measurement import Measurement, Missing, exact
from lichen.core.ports import Probe, ProbeStatus
from lichen.meter.ladder import Answer, assemble, targets
from lichen.meter.setting import SampledProbe

MIN_INTERVAL_S: Final = 0.02
MAX_INTERVAL_S: Final = 60.0
"""RAPL's 32-bit counters wrap within minutes on large machines: Linux amd_energy documentation."""

MAX_SAMPLER_SHARE: Final = 0.01
"""Share of a core that the sampler may use: what the meter promises."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Failed:
    """A look that raised."""

    reason: str


class ProbeMeter:
    """Opens windows over probes; the ``Meter`` port.

    Args:
        probes: what to read; at equal rungs of the ladder the earlier one wins.
        interval_s: seconds between two looks of the sampler, 0.02 to 60.
        clock: monotonic seconds.

    Raises:
        ConfigError: the interval is out of range.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        *,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
            msg = (
                f"the sampling interval must be {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g} s, "
                f"got {interval_s:g}"
            )
            raise ConfigError(msg)
        self._probes = tuple(probes)
        self._clock = clock
        self._sampler = _Sampler(
            [p for p in self._probes if isinstance(p, SampledProbe)], interval_s
        )
        self._closed = False
        self.snapshots()  # the first look is slow (caches, imports): not in anyone's window

    @property
    def sampler_cpu_s(self) -> float:
        """CPU-seconds that sampling has used so far."""
        return self._sampler.cpu_s

    def status(self) -> tuple[ProbeStatus, ...]:
        """Say of every probe what it can measure here."""
        return tuple(p.status() for p in self._probes)

    def window(self, label: str = "") -> ProbeWindow:
        """Open a window now; raises MeterError on a closed meter. ``label`` is for log messages."""
        if self._closed:
            msg = f"cannot open the window {label!r}: this meter is closed"
            raise MeterError(msg)
        return ProbeWindow(self, self._sampler, label=label, clock=self._clock)

    def close(self) -> None:
        """Stop sampling; idempotent. Open windows can still be closed."""
        self._closed = True
        self._sampler.stop()

    def __enter__(self) -> Self:
        """Return the meter."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the meter."""
        self.close()

    def snapshots(self) -> tuple[object, ...]:
        """Look at every probe once, in order."""
        return tuple(_looked(p) for p in self._probes)

    def between(self, start: tuple[object, ...], end: tuple[object, ...]) -> list[Answer]:
        """Return every probe's answers for the time between two looks."""
        return [
            answer
            for probe, a, b in zip(self._probes, start, end, strict=True)
            for answer in _answers(probe, a, b)
        ]


class ProbeWindow:
    """An open window; closes itself as a context manager. ``close`` is idempotent."""

    def __init__(
        self, meter: ProbeMeter, sampler: _Sampler, *, label: str, clock: Callable[[], float]
    ) -> None:
        self.label = label
        self._meter = meter
        self._sampler = sampler
        self._clock = clock
        self._lock = threading.Lock()
        self._result: Measurement | None = None
        sampler.enter()
        # Looks are outside the two clock readings, so that wall_s is the work's alone.
        self._start = meter.snapshots()
        self._start_s = clock()

    def close(self) -> Measurement:
        """End the window and return what it saw."""
        end_s = self._clock()
        with self._lock:
            if self._result is None:
                end = self._meter.snapshots()
                self._sampler.leave()
                wall = exact(max(0.0, end_s - self._start_s), source="monotonic clock")
                self._result = assemble([("wall_s", wall), *self._meter.between(self._start, end)])
            return self._result

    def __enter__(self) -> Self:
        """Return the window itself; it is already open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the window."""
        self.close()


class _Sampler:
    """One daemon thread for all windows of a meter; started by the first window, idle without."""

    def __init__(self, probes: Sequence[SampledProbe], interval_s: float) -> None:
        self.cpu_s = 0.0
        self._probes = probes
        self._interval_s = interval_s
        self._wake = threading.Condition()
        self._open = 0
        self._stopped = False
        self._thread: threading.Thread | None = None

    def enter(self) -> None:
        with self._wake:
            self._open += 1
            if self._thread is None and self._probes and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="lichen-meter", daemon=True)
                self._thread.start()
            elif self._open == 1:
                self._wake.notify()

    def leave(self) -> None:
        with self._wake:
            self._open -= 1

    def stop(self) -> None:
        with self._wake:
            self._stopped = True
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        pause = self._interval_s
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopped, timeout=pause)
                self._wake.wait_for(lambda: self._stopped or self._open > 0)
                if self._stopped:
                    return
            began = time.thread_time()
            for probe in self._probes:
                _sample(probe)
            spent = time.thread_time() - began
            self.cpu_s += spent
            pause = min(max(self._interval_s, spent / MAX_SAMPLER_SHARE), MAX_INTERVAL_S)


def _looked(probe: Probe) -> object:
    try:
        return probe.read()
    except Exception as exc:  # noqa: BLE001 (a probe's failure is data: its quantities are Missing)
        _log.warning("the probe %s failed: %s", probe.name, exc)
        return _Failed(f"the probe {probe.name} failed: {exc}")


def _sample(probe: SampledProbe) -> None:
    try:
        probe.sample()
    except Exception as exc:  # noqa: BLE001 (as above; the look at the window's end will say so)
        _log.warning("sampling failed: %s", exc)


def _answers(probe: Probe, start: object, end: object) -> Sequence[Answer]:
    failed = next((s for s in (start, end) if isinstance(s, _Failed)), None)
    if failed is None:
        try:
            return probe.between(start, end)
        except Exception as exc:  # noqa: BLE001 (as above)
            failed = _Failed(f"the probe {probe.name} failed: {exc}")
    return [
        (t.field, Missing(reason=failed.reason, component=t.component))
        for t in targets(probe.status().quantity)
    ]
