r"""Move runs in and out of a store as JSON Lines, and samples in evalplus' shape.

A lichen export has one line per record: ``{"kind": "run" | "block" | "sample" | "factor", "record":
{...}}``, the run first. It is complete: importing it elsewhere gives an equal run. The evalplus
shape has ``{"task_id": ..., "solution": ...}`` per sample and carries no costs, so importing it is
scoring (``lichen tasks score``), not restoring a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from lichen.core.errors import StoreError
from lichen.core.footprint import Factor, FactorSet
from lichen.core.record import BlockRecord, RunRecord, SampleRecord
from lichen.store.codec import decode, encode
from lichen.store.sql import Store

MAX_LINE_BYTES = 64 << 20
"""A line longer than this is refused: no honest record is (an answer has a token limit)."""


def export_run(store: Store, run_id: str) -> Iterator[str]:
    """Yield the lines (without line ends) of a run's complete export."""
    run = store.run(run_id)
    yield _line("run", encode(run))
    for block in store.blocks(run_id):
        yield _line("block", encode(block))
    for sample in store.samples(run_id):
        yield _line("sample", encode(sample))
    factors = store.factors(run_id)
    if factors is not None:
        for factor in factors.factors:
            yield json.dumps(
                {"kind": "factor", "grid": factors.region, "record": json.loads(encode(factor))}
            )


def export_evalplus(
    store: Store, run_id: str, solution: str, *, shape: str = "evalplus"
) -> Iterator[str]:
    """Yield one line per sample of a solution in the shape of another scorer.

    ``evalplus`` has whole programs under ``solution``. ``human-eval`` has what follows the prompt
    under ``completion``: the prompt ends inside a function that has only a docstring, so the
    program follows it and redefines that function.
    """
    for sample in store.samples(run_id):
        if sample.solution != solution:
            continue
        if shape == "evalplus":
            row = {"task_id": sample.problem_id, "solution": sample.candidate}
        else:
            row = {"task_id": sample.problem_id, "completion": "\n\n" + sample.candidate}
        yield json.dumps(row, ensure_ascii=False)


def import_run(store: Store, lines: Iterable[str]) -> RunRecord:
    """Store the run that an export holds and return its head; all or nothing.

    Raises:
        StoreError: a line that cannot be read (named by number), a run that the store has, or
            samples that belong to no block.
    """
    run, blocks, samples, factors, grid = _read(lines)
    by_block: dict[int, list[SampleRecord]] = {}
    for sample in samples:
        by_block.setdefault(sample.block, []).append(sample)
    strays = set(by_block) - {b.index for b in blocks}
    if strays:
        raise StoreError(f"the export has samples of block {min(strays)} but not the block")
    if {b.run_id for b in blocks} | {s.run_id for s in samples} != {run.id} and blocks:
        raise StoreError(f"the export mixes records of other runs into {run.id}")
    priced = FactorSet(region=grid, factors=tuple(factors)) if factors else None
    store.restore(run, [(b, by_block.get(b.index, [])) for b in blocks], priced)
    return store.run(run.id)


def _read(
    lines: Iterable[str],
) -> tuple[RunRecord, list[BlockRecord], list[SampleRecord], list[Factor], str]:
    run: RunRecord | None = None
    blocks: list[BlockRecord] = []
    samples: list[SampleRecord] = []
    factors: list[Factor] = []
    grid = "WORLD"
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            kind, row = _parse(line)
            record = json.dumps(row.get("record"))
            if kind == "run" and run is None:
                run = decode(RunRecord, record)
            elif kind == "block":
                blocks.append(decode(BlockRecord, record))
            elif kind == "sample":
                samples.append(decode(SampleRecord, record))
            elif kind == "factor":
                factors.append(decode(Factor, record))
                grid = str(row.get("grid", grid))
            else:
                raise StoreError(f"unexpected record of kind {kind!r}")  # noqa: TRY301 (gets the line number below)
        except StoreError as error:
            raise StoreError(f"line {number} of the import: {error}") from error
    if run is None:
        raise StoreError("the import holds no run; is it an export of  lichen runs export?")
    return run, blocks, samples, factors, grid


def _parse(line: str) -> tuple[str, dict[str, Any]]:
    if len(line) > MAX_LINE_BYTES:
        raise StoreError(f"longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StoreError("not JSON") from error
    if not isinstance(row, dict):
        raise StoreError("not a JSON object")
    return str(row.get("kind", "")), row


def _line(kind: str, record: str) -> str:
    return f'{{"kind": "{kind}", "record": {record}}}'
