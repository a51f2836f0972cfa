"""Makes one recipe's file and measures it beside its parent: the workbench of ``recipes.py``.

All recipes of one model share what a ``Bench`` holds, so matrices that several of them store alike
are computed once. How much a recipe took over from others is counted, since its time says little
without it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from compression_rows import Row

from lichen.catalog.tensor_types import TensorType
from lichen.compose.compression_gate import base_of
from lichen.compose.compression_workshop import bill_of
from lichen.compose.cost_in_turns import cost_in_turns, open_file
from lichen.compose.making import Wanted, context_of, importance_from, methods_in
from lichen.compose.spec import load
from lichen.compression.agreement import Comparing, measure_agreement
from lichen.compression.applying import apply_recipe, compress_file
from lichen.compression.compensation import fits
from lichen.compression.corpus import Document, open_corpus
from lichen.compression.gate.ports import AgreementValue, CostValue
from lichen.compression.kept_blocks import KeptBlocks, KeptRows
from lichen.compression.kernel_cost import Workload
from lichen.compression.method import Compensates, Floats, MethodContext, Quantises, Raw
from lichen.compression.model_file import LazyTensor, open_model
from lichen.compression.types import type_named
from lichen.core.errors import ConfigError, LichenError
from lichen.core.interval import Interval
from lichen.core.model import ModelArtifact
from lichen.core.ports import Meter

_NOT_LOOKED_AT: Final = (1.0, 0.0)
"""Stands for the load of a model, which is not measured: equal, and no memory."""

Found = dict[str, Any]


@dataclass(slots=True)
class Tally:
    """Counts weights; the quantiser may be asked from several threads."""

    weights: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rows: Floats) -> None:
        """Count the weights of some rows."""
        with self._lock:
            self.weights += rows.size


@dataclass(frozen=True, slots=True)
class CountedQuantiser:
    """Counts what a quantiser is asked for."""

    inner: Quantises
    tally: Tally

    def quantise(self, rows: Floats, kind: TensorType, weights: Floats | None = None) -> Raw:
        """Return ``rows`` stored as ``kind``; see ``Quantises``."""
        self.tally.add(rows)
        return self.inner.quantise(rows, kind, weights)


@dataclass(frozen=True, slots=True)
class CountedCompensator:
    """Counts what a compensator is asked for."""

    inner: Compensates
    tally: Tally

    def quantise(
        self, tensor: LazyTensor, rows: Floats, kind: TensorType, weights: Floats | None
    ) -> Raw:
        """Return ``rows`` stored as ``kind``; see ``Compensates``."""
        self.tally.add(rows)
        return self.inner.quantise(tensor, rows, kind, weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all rows of one model share.

    Args:
        source: the parent.
        context: what methods may use; its quantiser and compensator compute nothing twice.
        held_out: code to compare on.
        folder: where files are made.
        meter: measures what making a file takes, and what running it does.
        tokens, rounds: how much is measured.
        notes: what methods said of the row at hand.
        asked, computed: weights that rows needed stored, and those that were not there yet.
    """

    source: ModelArtifact
    context: MethodContext
    held_out: Sequence[Document]
    folder: Path
    meter: Meter
    tokens: int
    rounds: int
    notes: list[str]
    asked: Tally
    computed: Tally

    def measured(self, row: Row) -> Found:
        """Make a row's file, measure it and delete it."""
        if row.skipped:
            return {"not_applicable": row.skipped}
        child = self.folder / "child.gguf"
        try:
            made = self._made(row, child)
            if same_weights(Path(self.source.path), child):
                why = "; ".join(made["notes"]) or "the recipe changes nothing here"
                return {"not_applicable": f"every weight stays as it is: {why}"}
            return made | self._compared(child)
        except LichenError as exc:
            # A recipe that fails on this model is a result; the other rows are still wanted.
            return self._why_not(row, exc)
        finally:
            child.unlink(missing_ok=True)

    def _made(self, row: Row, child: Path) -> Found:
        self.notes.clear()
        asked, computed = self.asked.weights, self.computed.weights
        with self.meter.window("make") as window:
            compress_file(self.source, row.recipe, child, self.context)
        bill = bill_of(window.close())
        asked, computed = self.asked.weights - asked, self.computed.weights - computed
        return {
            "bytes": child.stat().st_size,
            "parent_bytes": self.source.size_bytes,
            "made": {
                "wall_s": _short(bill.wall_s),
                "cpu_s": _short(bill.cpu_s),
                "taken_over": _short(1 - computed / asked) if asked else 0.0,
            },
            "notes": list(dict.fromkeys(self.notes)),
        }

    def _compared(self, child: Path) -> Found:
        parent = Path(self.source.path)
        how = Comparing(tokens=self.tokens)
        agreement = measure_agreement(parent, child, self.held_out, how)
        engine = base_of(load([], models=[self.source.name])).engine
        cost = cost_in_turns(
            parent,
            child,
            open_engine=lambda path: open_file(engine.name, engine.options, path),
            meter=self.meter,
            load=lambda _path: _NOT_LOOKED_AT,
            rounds=self.rounds,
        )
        return {"agreement": _agreement(agreement), "cost": _cost(cost)}

    def _why_not(self, row: Row, exc: LichenError) -> Found:
        """Tell a recipe that the model does not allow from one that should have worked."""
        if isinstance(exc, ConfigError):
            try:
                apply_recipe(open_model(Path(self.source.path)), row.recipe, self.context)
            except ConfigError as reason:
                return {"not_applicable": str(reason)}
        return {"failed": str(exc)}


def _agreement(found: AgreementValue) -> Found:
    return {
        "positions": found.tokens,
        "kl_nats": _three(found.kl_nats),
        "flips": _three(found.flips),
        "parent_perplexity": _short(found.parent_perplexity),
        "child_perplexity": _short(found.child_perplexity),
        "note": found.note,
    }


def _cost(found: CostValue) -> Found:
    names = ("parent_prefill_s", "child_prefill_s", "parent_decode_s", "child_decode_s")
    return {
        "prefill": _three(found.prefill),
        "decode": _three(found.decode),
        "request": _three(request_ratio(found)),
        **{name: _short(getattr(found, name)) for name in names},
    }


def same_weights(parent: Path, child: Path) -> bool:
    """Whether two files hold the same tensors, byte for byte, in the same order."""
    ours, theirs = open_model(parent).tensors, open_model(child).tensors
    if [(t.name, t.shape, t.type) for t in ours] != [(t.name, t.shape, t.type) for t in theirs]:
        return False
    return all(
        np.array_equal(a.read(0, a.rows), b.read(0, b.rows))
        for a, b in zip(ours, theirs, strict=True)
    )


def request_ratio(cost: CostValue, typical: Workload | None = None) -> Interval:
    """Return what a typical request takes, child over parent; both phases at their bounds."""
    typical = typical or Workload()
    prefill = typical.prompt * cost.parent_prefill_s
    decode = typical.completion * cost.parent_decode_s

    def both(of: str) -> float:
        child = prefill * getattr(cost.prefill, of) + decode * getattr(cost.decode, of)
        return float(child / (prefill + decode))

    return Interval(low=both("low"), value=both("value"), high=both("high"))


def _three(value: Interval) -> dict[str, float]:
    return {k: _short(getattr(value, k)) for k in ("low", "value", "high")}


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def prepare(context: MethodContext, source: ModelArtifact, meter: Meter) -> Found:
    """Let the model read what compensation needs; return what that took."""
    kind = type_named("Q4_0")
    tensors = open_model(Path(source.path)).tensors
    first = next((t for t in tensors if t.name.startswith("blk.") and fits(t, kind)), None)
    with meter.window("moments") as window:
        if context.compensator is not None and first is not None:
            # Where it fails, the rows that need it say so.
            with suppress(LichenError):
                context.compensator.quantise(first, first.floats(0, 1), kind, None)
    bill = bill_of(window.close())
    return {"wall_s": _short(bill.wall_s), "cpu_s": _short(bill.cpu_s)}


def open_bench(
    source: ModelArtifact,
    rows: Sequence[Row],
    folder: Path,
    meter: Meter,
    *,
    tokens: int,
    rounds: int,
) -> Bench:
    """Open what some rows need; importance is measured here if one of them uses it.

    Raises:
        ConfigError: no texts can be read.
        EngineError: importance cannot be measured.
    """
    notes: list[str] = []
    asked, computed = Tally(), Tally()
    methods = [name for row in rows for name in methods_in(row.recipe)]
    importance = importance_from("measure", lambda _done, _all: None)
    context = context_of(source, methods, Wanted(importance=importance, note=notes.append))
    blocks = folder / "blocks"
    kept = KeptBlocks(CountedQuantiser(context.quantiser, computed), blocks)
    compensator = None
    if context.compensator is not None:
        kept_rows = KeptRows(CountedCompensator(context.compensator, computed), blocks)
        compensator = CountedCompensator(kept_rows, asked)
    return Bench(
        source=source,
        context=replace(context, quantiser=CountedQuantiser(kept, asked), compensator=compensator),
        held_out=(context.corpus or open_corpus()).held_out,
        folder=folder,
        meter=meter,
        tokens=tokens,
        rounds=rounds,
        notes=notes,
        asked=asked,
        computed=computed,
    )
