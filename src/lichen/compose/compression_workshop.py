"""Make and measure a search's candidates with the engine, the gate's ports and the meter.

Files lie in a folder beside the output while they are in the race; quantised blocks are kept there
too, so that none is computed twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lichen.compression.applying import compress_file
from lichen.compression.candidates import CompressionCandidate, compensated
from lichen.compression.gate import Gate, GatePorts
from lichen.compression.gate.ports import CostValue, MeasureAgreement, MeasureCost
from lichen.compression.kept_blocks import KeptBlocks, KeptRows
from lichen.compression.kernel_cost import Workload
from lichen.compression.method import MethodContext
from lichen.compression.recipe import Recipe
from lichen.compression.searched import QUICK, Bill, Foreseen, Gated, Look
from lichen.core.errors import ConfigError, LichenError
from lichen.core.measurement import Measurement, Missing
from lichen.core.model import ModelArtifact
from lichen.core.ports import Meter

_GATE_LOOKS = 5.5
"""Quick looks that the gate's own measurements take, on more tokens and in more turns: 9 minutes
where a look took 101 s (docs/lab-notes.md, 2026-11-23)."""

_LONGER_LOOKS = 3.0
"""Quick looks that a longer one takes without making the file: 5 minutes there."""

_COMPENSATING_LOOKS = 6.0
"""Quick looks that making a finalist with compensation takes: 10 minutes there."""

_IN_BATCHES = 0.8
"""Cost of answers that are given several at a time, over that of one at a time, which looks measure
(benchmarks/results/strategies.json: 0.78 and 0.80 for the 0.5B)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """The cheap measurements of one level: divergence on held-out code, cost in turns."""

    agreement: MeasureAgreement
    cost: MeasureCost


@dataclass(slots=True, kw_only=True)
class EngineWorkshop:
    """Makes and measures candidates with the engine and the meter.

    Args:
        source: the parent.
        context: what methods may use.
        folder: where candidates are kept while they are in the race.
        measures: by level of look.
        judge: the gate.
        ports: what the gate's checks may use.
        meter: measures what each step cost.
        compensate: whether finalists make up for rounding errors. That takes minutes for each, so
            quick looks go without; it changes neither size nor speed.
        load: tokens of a typical request.
        answers: of each model at the gate, at most.
    """

    source: ModelArtifact
    context: MethodContext
    folder: Path
    measures: Sequence[Measures]
    judge: Gate
    ports: GatePorts
    meter: Meter
    compensate: bool = False
    load: Workload = field(default_factory=Workload)
    answers: int = 0

    def look(self, candidate: CompressionCandidate, level: int) -> Look:
        """Make the candidate if need be and measure it beside the parent."""
        window = self.meter.window(f"look {level}")
        try:
            with window:
                made = self._measured(candidate, level)
        except LichenError as exc:
            # A candidate that cannot be made or run is a finding of the search, not its end.
            made = Look(error=str(exc))
        return replace(made, bill=bill_of(window.close()))

    def gate(self, candidate: CompressionCandidate) -> Gated:
        """Hold it against the parent."""
        window = self.meter.window("gate")
        with window:
            child = self.made(candidate, final=True)
            report = self.judge.run(Path(self.source.path), child, self.ports)
        return Gated(
            passed=report.passed,
            sentence=report.sentence,
            rows=report.rows(),
            bill=bill_of(window.close()),
        )

    def foresee(self, look: Look) -> Foreseen:
        """Say what longer looks and the gate take: some quick looks, and answers of both models.

        The look's own time and energy per CPU-second are taken for the answers too.
        """
        asked_s = _IN_BATCHES * self.answers * (look.parent_request_s + look.child_request_s)
        looked = look.bill.cpu_s
        answering = look.bill.scaled(asked_s / looked) if looked > 0 else Bill(wall_s=asked_s)
        return Foreseen(
            making=look.bill.scaled(_COMPENSATING_LOOKS * self.compensate),
            longer=look.bill.scaled(_LONGER_LOOKS),
            gate=look.bill.scaled(_GATE_LOOKS) + answering,
            answers=self.answers,
        )

    def discard(self, candidate: CompressionCandidate) -> None:
        """Delete its files, if there are any."""
        for final in (False, True):
            self.path(candidate, final=final).unlink(missing_ok=True)

    def recipe(self, candidate: CompressionCandidate, *, final: bool) -> Recipe:
        """Return what its file is made by: as predicted, or as a finalist."""
        return compensated(candidate.recipe) if final and self.compensate else candidate.recipe

    def path(self, candidate: CompressionCandidate, *, final: bool = False) -> Path:
        """Return where its file is."""
        mark = "-final" if self.recipe(candidate, final=final) != candidate.recipe else ""
        return self.folder / f"{candidate.key}{mark}.gguf"

    def close(self) -> None:
        """Delete the folder and everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def made(self, candidate: CompressionCandidate, *, final: bool = False) -> Path:
        """Return its file, made if it is not there."""
        path = self.path(candidate, final=final)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            blocks = self.folder / "blocks"
            kept = KeptBlocks(self.context.quantiser, blocks)
            quiet = replace(self.context, quantiser=kept, note=lambda _text: None)
            if self.context.compensator is not None:
                quiet = replace(quiet, compensator=KeptRows(self.context.compensator, blocks))
            compress_file(self.source, self.recipe(candidate, final=final), path, quiet)
        return path

    def _measured(self, candidate: CompressionCandidate, level: int) -> Look:
        measures = self.measures[min(level, len(self.measures) - 1)]
        parent, child = Path(self.source.path), self.made(candidate, final=level > QUICK)
        agreement = measures.agreement(parent, child)
        cost = measures.cost(parent, child)
        return Look(
            kl_nats=agreement.kl_nats,
            flips=agreement.flips,
            prefill=cost.prefill,
            decode=cost.decode,
            parent_request_s=self._request(cost.parent_prefill_s, cost.parent_decode_s),
            child_request_s=self._child_request(cost),
            file_bytes=child.stat().st_size,
        )

    def _request(self, prefill_s: float, decode_s: float) -> float:
        return self.load.prompt * prefill_s + self.load.completion * decode_s

    def _child_request(self, cost: CostValue) -> float:
        # By the ratios, which were measured in turns: drift of the machine cancels in them.
        return self._request(
            cost.parent_prefill_s * cost.prefill.value, cost.parent_decode_s * cost.decode.value
        )


def bill_of(measurement: Measurement) -> Bill:
    """Return what a window cost.

    Raises:
        ConfigError: CPU or wall time cannot be measured here, so no search can be held to a budget.
    """
    wall_s, cpu_s, energy = measurement.wall_s, measurement.cpu_s, measurement.it_energy_j
    for quantity in (wall_s, cpu_s):
        if isinstance(quantity, Missing):
            raise ConfigError(f"time cannot be measured here: {quantity.reason}")
    assert not isinstance(wall_s, Missing)  # noqa: S101 (narrows for mypy; checked above)
    assert not isinstance(cpu_s, Missing)  # noqa: S101 (the same)
    return Bill(
        wall_s=wall_s.value.value,
        cpu_s=cpu_s.value.value,
        energy_j=energy if isinstance(energy, Missing) else energy.value.value,
    )
