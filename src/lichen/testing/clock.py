"""A clock that moves when it is told to."""

from __future__ import annotations


class FakeClock:
    """Monotonic seconds under the test's control; call it to read it, ``sleep`` to move it."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now_s = start_s

    def __call__(self) -> float:
        """Return the present time in s."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds`` >= 0."""
        if seconds < 0:
            msg = f"a monotonic clock does not go back by {seconds} s"
            raise ValueError(msg)
        self._now_s += seconds

    sleep = advance
