"""A probe that replays counter values, so that meters are tested without hardware."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lichen.core.interval import Interval
from lichen.core.measurement import Component, Method, Missing, Quantity, Reading
from lichen.core.ports import ProbeStatus


class ReplayProbe:
    """Replays a cumulative counter: each ``read`` gives the next value, the last one for ever.

    Args:
        values: counter values; None is a look at which the counter could not be read, an exception
            is raised.
        field: the ``Measurement`` field it feeds.
        component: whose counter it is.
        method: the rung it claims.
        name: the probe's name, also its readings' source.
    """

    def __init__(
        self,
        values: Iterable[float | Exception | None],
        *,
        field: str = "energy_j",
        component: Component = Component.CPU,
        method: Method = Method.COUNTER,
        name: str = "replay",
    ) -> None:
        self._values = list(values)
        self._field = field
        self._component = component
        self._method = method
        self._name = name
        self.samples = 0

    @property
    def name(self) -> str:
        """The name given."""
        return self._name

    def status(self) -> ProbeStatus:
        """Always available."""
        return ProbeStatus(
            name=self._name,
            quantity=f"{self._field}[{self._component}]",
            method=self._method,
            available=True,
            reason="replayed values",
        )

    def read(self) -> object:
        """Return the next value, or raise it if it is an exception."""
        value = self._values.pop(0) if len(self._values) > 1 else self._values[0]
        if isinstance(value, Exception):
            raise value
        return value

    def sample(self) -> None:
        """Count the call; replayed values do not need sampling."""
        self.samples += 1

    def between(self, start: object, end: object) -> Sequence[tuple[str, Quantity]]:
        """Return the difference, or Missing if either look failed."""
        quantity: Quantity
        if not isinstance(start, (int, float)) or not isinstance(end, (int, float)):
            quantity = Missing(
                reason="the replayed counter was not there", component=self._component
            )
        else:
            quantity = Reading(
                value=Interval.exact(float(end) - float(start)),
                method=self._method,
                component=self._component,
                source=self._name,
            )
        return ((self._field, quantity),)
