"""Hold a made file against its parent: the gate with all that it needs of the world.

Making it is in ``making``, the search in ``compression_search``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lichen.catalog import Catalog
from lichen.compose.compression_gate import GateRuns, gate_ports
from lichen.compose.spec import RunSpec
from lichen.compression.corpus import Document
from lichen.compression.gate import Gate, GatePorts, GateReport, Level
from lichen.compression.gate.ports import CostValue
from lichen.core.measurement import Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate said, and what its cost check measured (Missing where it was not reached)."""

    report: GateReport
    cost: CostValue | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Holds files against their parents.

    Args:
        catalog: where the task's data comes from.
        store_url: where the task's runs go.
    """

    catalog: Catalog
    store_url: str

    def verdict(
        self, spec: RunSpec, level: Level, child: Path, held_out: Sequence[Document], *, task: bool
    ) -> Verdict:
        """Run the gate.

        Args:
            spec: with the parent as its one solution.
            level: how strict.
            child: the made file.
            held_out: code that the compression has not seen.
            task: whether the spec's task is part of it.
        """
        parent = Path(self.catalog.model(str(spec.solutions[0].model)).path)
        ports = self.ports(spec, held_out, task=task)
        seen: list[CostValue] = []
        if not isinstance(ports.cost, Missing):
            measure = ports.cost

            def remembered(a: Path, b: Path) -> CostValue:
                seen.append(measure(a, b))
                return seen[-1]

            ports = replace(ports, cost=remembered)
        report = Gate(level).run(parent, child, ports)
        cost = seen[-1] if seen else Missing(reason="the gate did not come to measuring cost")
        return Verdict(report=report, cost=cost)

    def ports(self, spec: RunSpec, held_out: Sequence[Document], *, task: bool) -> GatePorts:
        """Return what the gate's checks may use."""
        runs: GateRuns | Missing = Missing(reason="no --task was given")
        if task:
            runs = self._runs(spec)
        return gate_ports(spec, held_out=held_out, runs=runs)

    def answers(self, spec: RunSpec, *, task: bool) -> int:
        """Return how many answers the gate has each model give, at most."""
        return self._runs(spec).answers() if task else 0

    def _runs(self, spec: RunSpec) -> GateRuns:
        return GateRuns(spec=spec, catalog=self.catalog, store_url=self.store_url)
