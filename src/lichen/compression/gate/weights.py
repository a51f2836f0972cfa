"""Check: is every tensor of the child still the parent's tensor of that name?

Rows of weights are compared by their cosine: ``a.b / (|a| |b|)``. Rounding to fewer bits turns a
row a little (4 bits: 0.99 and more; 2 bits: about 0.9); another row altogether points anywhere
(about 0). So this catches tensors in the wrong place, and rows that belong to another token, which
no header shows and which agreement on a text that lacks the token would miss. It does not judge how
much a rounding hurts: ``agreement`` does.

Embedding and output are compared row by row, each with the parent's row for the same token text,
and a row that turned much more than the others belongs elsewhere. Of matrices a sample of rows is
compared. Layers are paired with the parent's layers they resemble most, which
must be in order, so that a layer stored twice is seen. Tensors whose shape was changed on purpose
are counted and left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from lichen.compression.gate.findings import Findings
from lichen.compression.gate.report import Check
from lichen.compression.gate.stored import (
    EMBEDDING,
    OUTPUT,
    TOKEN_TYPES,
    TOKENS,
    by_layer,
    numbers,
    texts,
)
from lichen.compression.gate.subject import Subject, not_run
from lichen.compression.model_file import LazyTensor, ModelFile
from lichen.core.errors import ConfigError

NAME: Final = "weights"

_SAMPLED_ROWS: Final = 32
_AT_ONCE: Final = 1 << 20
"""Weights held at a time per side: 4 MiB as float32."""
_UNUSED: Final = 5
"""LLAMA_TOKEN_TYPE_UNUSED in llama.h: padding rows, which nothing reads."""
_FAINT: Final = 0.05
"""Rows shorter than this share of the mean length were hardly trained; rounding turns them."""

Floats = npt.NDArray[np.float32]
Cosines = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Seen:
    findings: Findings = field(default_factory=Findings)
    compared: int = 0
    reshaped: int = 0
    unreadable: int = 0
    worst_row: float = 1.0
    worst_tensor: float = 1.0


def check(subject: Subject) -> Check:
    """Compare the child's weights with the parent's; seconds, and a few MiB at a time."""
    if subject.is_folder:
        return not_run(NAME, "the folder's tensors are stored in another layout")
    parent, child = subject.model(subject.parent), subject.model(subject.child)
    seen = _Seen()
    with np.errstate(all="ignore"):  # weights that are no numbers are reported, not warned about
        for tensor, origins, rows in _pairs(parent, child, seen.findings):
            _compare(subject, seen, tensor, origins, rows)
    what = (
        f"{seen.compared:,} tensors compared, least mean cosine {seen.worst_tensor:.3f}, "
        f"least cosine of a token's row {seen.worst_row:.3f}"
    )
    if seen.reshaped or seen.unreadable:
        left_out = seen.reshaped + seen.unreadable
        what += f"; {left_out:,} of another shape or an unreadable type not compared"
    if seen.findings:
        what += f"; {seen.findings.text}"
    return Check(
        name=NAME,
        passed=not seen.findings,
        what=what,
        numbers={
            "compared": seen.compared,
            "reshaped": seen.reshaped,
            "least_tensor_cosine": seen.worst_tensor,
            "least_row_cosine": seen.worst_row,
            "faults": len(seen.findings),
        },
    )


Rows = list[tuple[int, int]]
"""(row of the child, row of the parent)."""


def _pairs(
    parent: ModelFile, child: ModelFile, findings: Findings
) -> Iterator[tuple[LazyTensor, list[LazyTensor], Rows]]:
    """Yield each tensor with the parent's tensors it may come from and the rows to compare."""
    token_rows = _token_rows(parent, child)
    layers, before = by_layer(child), by_layer(parent)
    for name in (EMBEDDING, OUTPUT):
        if child.has(name):
            origins = [parent.tensor(n) for n in (name, EMBEDDING, OUTPUT) if parent.has(n)]
            tensor = child.tensor(name)
            rows = token_rows or [(i, i) for i in range(tensor.rows)]
            yield tensor, list(dict.fromkeys(origins)), rows
    for tensor in child.tensors:
        token_wise = tensor.name in {EMBEDDING, OUTPUT}
        if parent.has(tensor.name) and not token_wise and not tensor.name.startswith("blk."):
            yield tensor, [parent.tensor(tensor.name)], _sample(tensor)
    place = _layer_places(parent, child, findings)
    for number, names in layers.items():
        for inner, name in names.items():
            origin = before.get(place.get(number, -1), {}).get(inner)
            if origin is not None:
                tensor = child.tensor(name)
                yield tensor, [parent.tensor(origin)], _sample(tensor)


def _sample(tensor: LazyTensor) -> Rows:
    """Return rows spread evenly, the first and the last among them."""
    count = min(tensor.rows, _SAMPLED_ROWS)
    rows = np.unique(np.linspace(0, tensor.rows - 1, count).round().astype(int))
    return [(r, r) for r in rows.tolist()]


def _token_rows(parent: ModelFile, child: ModelFile) -> Rows:
    """Pair rows by token text. Without lists of tokens there is nothing to pair by."""
    place: dict[str, int] = {}
    for index, token in enumerate(texts(parent, TOKENS)):
        place.setdefault(token, index)
    types = numbers(parent, TOKEN_TYPES)
    rows = []
    for index, token in enumerate(texts(child, TOKENS)):
        at = place.get(token)
        if at is not None and not (at < len(types) and types[at] == _UNUSED):
            rows.append((index, at))
    return rows


def _layer_places(parent: ModelFile, child: ModelFile, findings: Findings) -> dict[int, int]:
    """Return which of the parent's layers each of the child's comes from."""
    before, after = by_layer(parent), by_layer(child)
    if len(after) >= len(before):
        return {n: n for n in after}
    marks = {n: _mark(parent, names) for n, names in before.items()}
    found: dict[int, int] = {}
    last = -1
    for number in sorted(after):
        mine = _mark(child, after[number])
        likeness = {n: _likeness(mine, mark) for n, mark in marks.items()}
        best = max(likeness.values(), default=0.0)
        alike = [n for n, value in likeness.items() if value >= best - 1e-9]
        found[number] = next((n for n in sorted(alike) if n > last), min(alike, default=-1))
        if found[number] <= last:
            findings.add(
                "layer order",
                f"layer {number} is the parent's layer {found[number]} again or out of order",
            )
        last = max(last, found[number])
    return found


def _mark(model: ModelFile, names: dict[str, str]) -> dict[str, Floats]:
    """Return what a layer is recognised by: the first row of everything in its attention."""
    marks = {}
    for inner, name in names.items():
        tensor = model.tensor(name)
        if "attn" in inner and tensor.rows:
            try:
                marks[inner] = tensor.floats(0, 1)[0]
            except ConfigError:
                continue  # a type without numbers: the others tell the layer
    return marks


def _likeness(a: dict[str, Floats], b: dict[str, Floats]) -> float:
    shared = [k for k in a if k in b and a[k].shape == b[k].shape]
    if not shared:
        return 0.0
    return float(np.mean([_cosines(a[k][None], b[k][None])[0] for k in shared]))


def _compare(
    subject: Subject, seen: _Seen, tensor: LazyTensor, origins: list[LazyTensor], rows: Rows
) -> None:
    limits, token_wise = subject.thresholds, tensor.name in {EMBEDDING, OUTPUT}
    fitting = [
        o for o in origins if o.width == tensor.width and (token_wise or o.shape == tensor.shape)
    ]
    usable = [(c, p) for c, p in rows if c < tensor.rows and all(p < o.rows for o in fitting)]
    if not fitting or not usable:
        seen.reshaped += 1
        return
    try:
        cosines = _best_cosines(tensor, fitting, usable)
    except ConfigError:
        seen.unreadable += 1
        return
    seen.compared += 1
    if not np.isfinite(cosines).all():
        seen.findings.add("not finite", f"{tensor.name!r} holds weights that are no numbers")
        return
    mean = float(cosines.mean())
    seen.worst_tensor = min(seen.worst_tensor, mean)
    if mean < (limits.vector_cosine if tensor.rows == 1 else limits.tensor_cosine):
        seen.findings.add(
            "another tensor", f"{tensor.name!r} is not the parent's: mean cosine {mean:.4f}"
        )
        return
    if not token_wise:
        return
    seen.worst_row = min(seen.worst_row, float(cosines.min()))
    most = max(limits.row_distance, limits.row_factor * float(np.median(1.0 - cosines)))
    for at in np.flatnonzero(1.0 - cosines > most).tolist():
        row, _ = usable[at]
        seen.findings.add(
            "another row",
            f"row {row:,} of {tensor.name!r} is not the parent's: cosine {cosines[at]:.3f}",
        )


def _best_cosines(tensor: LazyTensor, origins: list[LazyTensor], rows: Rows) -> Cosines:
    """Return, per row, the cosine with the origin that the whole tensor resembles most.

    An embedding that took over the output matrix's rows is as much the parent's as one that kept
    its own; rows are not chosen one by one, since two mixed matrices would be neither.
    """
    results = [_row_cosines(tensor, origin, rows) for origin in origins]
    return max(results, key=lambda c: -math.inf if not c.size else float(np.mean(c)))


def _row_cosines(tensor: LazyTensor, origin: LazyTensor, rows: Rows) -> Cosines:
    mine = np.array([c for c, _ in rows], dtype=np.intp)
    theirs = np.array([p for _, p in rows], dtype=np.intp)
    step = max(1, _AT_ONCE // tensor.width)
    parts, lengths = [], []
    for start in range(0, len(rows), step):
        a = _rows(tensor, mine[start : start + step])
        b = _rows(origin, theirs[start : start + step])
        parts.append(_cosines(a, b))
        lengths.append(np.linalg.norm(b, axis=1))
    cosines, norms = np.concatenate(parts), np.concatenate(lengths)
    faint = norms < _FAINT * norms.mean()
    # Faint rows say nothing about identity, unless they stopped being numbers.
    return np.where(faint & np.isfinite(cosines), 1.0, cosines)


def _rows(tensor: LazyTensor, rows: npt.NDArray[np.intp]) -> Floats:
    if len(tensor.shape) == 2:  # noqa: PLR2004 (a matrix)
        return tensor.selected(rows).floats(0, len(rows))
    return np.concatenate([tensor.floats(r, r + 1) for r in rows.tolist()])


def _cosines(a: Floats, b: Floats) -> Cosines:
    """Return the cosine of each pair of rows; 1 where both are zero, 0 where one is."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    dot, norms = (x * y).sum(1), np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosines = np.divide(dot, norms, out=np.zeros_like(dot), where=norms != 0)
    both_zero = ~x.any(1) & ~y.any(1)
    return np.where(both_zero, 1.0, cosines)
