"""What dropping layers costs: next-token agreement over the number of layers dropped.

Layers go in the order of measured influence. Every point is measured on a file that is written,
compared and removed; nothing is inferred from influence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lichen.compression.block_influence import least_influential
from lichen.compression.gate.ports import AgreementValue
from lichen.compression.method import MethodContext
from lichen.compression.methods import METHODS
from lichen.compression.model_file import open_model, write_model

Measure = Callable[[Path, Path], AgreementValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPoint:
    """One number of layers dropped: which, how large the file is, how well it agrees."""

    dropped: tuple[int, ...]
    file_bytes: int
    agreement: AgreementValue


def layer_curve(
    context: MethodContext,
    influence: Sequence[float],
    counts: Sequence[int],
    folder: Path,
    measure: Measure,
) -> Iterator[LayerPoint]:
    """Yield a point for each count, measured on a file in ``folder`` that is removed afterwards.

    Args:
        context: what methods may use; its ``source`` is the parent.
        influence: per layer, e.g. ``Importance.influence``.
        counts: how many layers to drop, each >= 1.
        folder: where there is room for a copy of the model.
        measure: agreement of (parent, child), e.g. ``measure_agreement`` with documents bound.

    Raises:
        ConfigError: more layers than can go, or the file cannot be written.
        EngineError: the engine cannot run a result.
    """
    parent = open_model(context.source)
    for count in counts:
        dropped = least_influential(influence, count)
        child = METHODS.get("drop_layers")({"layers": dropped}).apply(parent, context)
        path = folder / f"{context.source.stem}-without-{count}.gguf"
        try:
            write_model(child, path)
            yield LayerPoint(
                dropped=dropped,
                file_bytes=child.file_bytes,
                agreement=measure(context.source, path),
            )
        finally:
            path.unlink(missing_ok=True)
