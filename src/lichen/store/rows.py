"""Records as rows: the inserts of the store, each inside the caller's transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import exc

from lichen.core.errors import StoreError
from lichen.core.footprint import FactorSet
from lichen.core.measurement import Measurement, Missing, Quantity, Reading
from lichen.core.record import BlockRecord, RunRecord, RunState, SampleRecord
from lichen.store import tables as t
from lichen.store.codec import encode


def put_run(connection: sa.Connection, run: RunRecord) -> None:
    """Insert a run's head, its environment and its first event; a known id is a StoreError."""
    if connection.scalar(sa.select(t.runs.c.id).where(t.runs.c.id == run.id)):
        raise StoreError(f"the store already has a run {run.id}")
    environment = encode(run.environment)
    environment_id = hashlib.sha256(environment.encode()).hexdigest()
    _insert_missing(connection, environment_id, environment)
    connection.execute(
        t.runs.insert().values(
            id=run.id,
            created_at=run.created_at,
            task=run.task,
            spec_hash=run.spec_hash,
            environment=environment_id,
            record=encode(run),
        )
    )
    put_event(connection, run.id, run.state, run.notes)


def put_block(
    connection: sa.Connection, block: BlockRecord, samples: Sequence[SampleRecord]
) -> None:
    """Insert a block with its samples and readings."""
    connection.execute(
        t.blocks.insert().values(
            run_id=block.run_id, block=block.index, solution=block.solution, record=encode(block)
        )
    )
    if samples:
        connection.execute(t.samples.insert(), [_sample_row(s) for s in samples])
    rows = _reading_rows(block)
    if rows:
        connection.execute(t.readings.insert(), rows)


def put_factors(connection: sa.Connection, run_id: str, factors: FactorSet) -> None:
    """Insert the factors of a run, unless it has some."""
    known = sa.select(t.factors.c.name).where(t.factors.c.run_id == run_id).limit(1)
    if connection.scalar(known) or not factors.factors:
        return
    rows = [
        {"run_id": run_id, "name": f.name, "grid": factors.region, "record": encode(f)}
        for f in factors.factors
    ]
    connection.execute(t.factors.insert(), rows)


def _insert_missing(connection: sa.Connection, environment_id: str, record: str) -> None:
    known = sa.select(t.environments.c.id).where(t.environments.c.id == environment_id)
    if connection.scalar(known):
        return
    try:
        with connection.begin_nested():
            connection.execute(t.environments.insert().values(id=environment_id, record=record))
    except exc.IntegrityError:
        pass  # another writer stored the same content first; content-addressed rows are equal


def put_event(
    connection: sa.Connection, run_id: str, state: RunState, notes: Sequence[str]
) -> None:
    """Append an event to a run."""
    newest = connection.scalar(
        sa.select(sa.func.max(t.run_events.c.seq)).where(t.run_events.c.run_id == run_id)
    )
    connection.execute(
        t.run_events.insert().values(
            run_id=run_id,
            seq=0 if newest is None else newest + 1,
            at=datetime.now(UTC).isoformat(),
            state=state.value,
            notes=json.dumps(list(notes)),
        )
    )


def _sample_row(s: SampleRecord) -> dict[str, object]:
    verdict = s.score.verdict
    return {
        "run_id": s.run_id,
        "solution": s.solution,
        "problem_id": s.problem_id,
        "sample": s.sample,
        "block": s.block,
        "score": s.score.value,
        "solved": s.score.solved,
        "status": verdict.status.value if verdict else "scored",
        "kind": verdict.kind if verdict else "",
        "prompt_tokens": s.usage.prompt,
        "completion_tokens": s.usage.completion,
        "record": encode(s),
    }


def _reading_rows(block: BlockRecord) -> list[dict[str, object]]:
    rows = []
    for stage, window in (("generate", block.generation), ("judge", block.judging)):
        if window is None:
            continue
        for quantity, entry in _quantities(window):
            row: dict[str, object] = {
                "run_id": block.run_id,
                "block": block.index,
                "stage": stage,
                "quantity": quantity,
                "component": entry.component.value,
                "low": None,
                "value": None,
                "high": None,
            }
            if isinstance(entry, Reading):
                row |= {
                    "low": entry.value.low,
                    "value": entry.value.value,
                    "high": entry.value.high,
                    "method": entry.method.value,
                    "source": entry.source,
                }
            else:
                row |= {"method": "missing", "source": entry.reason}
            rows.append(row)
    return rows


def _quantities(window: Measurement) -> Iterator[tuple[str, Quantity]]:
    for f in fields(window):
        value = getattr(window, f.name)
        if isinstance(value, (Reading, Missing)):
            yield f.name, value
    for entry in window.energy_j:
        yield "energy_j", entry
