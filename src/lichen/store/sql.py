"""The store over SQLAlchemy: SQLite (WAL) or PostgreSQL, several writers at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import make_url

from lichen.core.errors import ConfigError, MissingDependencyError, StoreError
from lichen.core.footprint import Factor, FactorSet
from lichen.core.record import BlockRecord, RunRecord, RunState, SampleRecord
from lichen.store import tables as t
from lichen.store.codec import decode
from lichen.store.migrations import migrate
from lichen.store.rows import put_block, put_event, put_factors, put_run

_BUSY_S = 60.0
"""How long a SQLite writer waits for another one's transaction."""


def open_store(url: str) -> Store:
    """Open (creating and migrating as needed) the store at a SQLAlchemy URL.

    Raises:
        ConfigError: not a URL, or neither SQLite nor PostgreSQL.
        MissingDependencyError: PostgreSQL without its driver.
        StoreError: the database cannot be opened or migrated.
    """
    return Store(url)


class Store:
    """Implements ``core.ports.Sink`` and reads what it wrote."""

    def __init__(self, url: str) -> None:
        self._engine = _connect(url)
        with _translated("open the store"):
            migrate(self._engine)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # -- writing -------------------------------------------------------------------------------

    def add_run(self, run: RunRecord) -> None:
        """Store the head of a new run and its first event."""
        with _translated(f"add run {run.id}"), self._engine.begin() as c:
            put_run(c, run)

    def add_block(self, block: BlockRecord, samples: Sequence[SampleRecord]) -> None:
        """Store a block with its samples and readings, all or nothing."""
        with _translated(f"add block {block.index} of {block.run_id}"), self._engine.begin() as c:
            put_block(c, block, samples)

    def finish_run(self, run_id: str, state: RunState, notes: Sequence[str] = ()) -> None:
        """Append an event to a run."""
        self._head(run_id)
        with _translated(f"finish run {run_id}"), self._engine.begin() as c:
            put_event(c, run_id, state, notes)

    def add_factors(self, run_id: str, factors: FactorSet) -> None:
        """Record the factors a run was priced with, once; later calls change nothing."""
        with _translated(f"add factors of {run_id}"), self._engine.begin() as c:
            put_factors(c, run_id, factors)

    def restore(
        self,
        run: RunRecord,
        blocks: Sequence[tuple[BlockRecord, Sequence[SampleRecord]]],
        factors: FactorSet | None,
    ) -> None:
        """Store a whole run in one transaction (an import), all or nothing."""
        with _translated(f"restore run {run.id}"), self._engine.begin() as c:
            put_run(c, run)
            for block, samples in blocks:
                put_block(c, block, samples)
            if factors is not None:
                put_factors(c, run.id, factors)

    def remove(self, run_id: str) -> None:
        """Delete a run and everything of it; an unknown id is a StoreError."""
        self._head(run_id)
        with _translated(f"remove run {run_id}"), self._engine.begin() as c:
            for table in (t.factors, t.readings, t.samples, t.blocks, t.run_events):
                c.execute(table.delete().where(table.c.run_id == run_id))
            c.execute(t.runs.delete().where(t.runs.c.id == run_id))
            used = sa.select(t.runs.c.environment)
            c.execute(t.environments.delete().where(t.environments.c.id.not_in(used)))

    # -- reading -------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunRecord:
        """Return a run's head in its present state, all notes included."""
        record = self._head(run_id)
        with _translated(f"read run {run_id}"), self._engine.connect() as c:
            events = c.execute(
                sa.select(t.run_events.c.state, t.run_events.c.notes)
                .where(t.run_events.c.run_id == run_id)
                .order_by(t.run_events.c.seq)
            ).all()
        notes = tuple(dict.fromkeys(n for e in events for n in json.loads(e.notes)))
        return replace(record, state=RunState(events[-1].state), notes=notes)

    def find(self, prefix: str) -> RunRecord:
        """Return the one run whose id starts with ``prefix``; StoreError if none or several."""
        query = sa.select(t.runs.c.id).where(t.runs.c.id.startswith(prefix, autoescape=True))
        with _translated("find a run"), self._engine.connect() as c:
            ids = list(c.scalars(query.limit(3)))
        if not ids:
            raise StoreError(f"no run's id starts with {prefix!r}; see  lichen runs list")
        if len(ids) > 1 and prefix not in ids:
            raise StoreError(f"several runs start with {prefix!r}: give more of the id")
        return self.run(prefix if prefix in ids else ids[0])

    def runs(self) -> list[RunRecord]:
        """Return all heads, oldest first."""
        with _translated("list runs"), self._engine.connect() as c:
            ids = list(c.scalars(sa.select(t.runs.c.id).order_by(t.runs.c.created_at, t.runs.c.id)))
        return [self.run(i) for i in ids]

    def latest(self) -> RunRecord | None:
        """Return the newest run, None in an empty store."""
        query = sa.select(t.runs.c.id).order_by(t.runs.c.created_at.desc(), t.runs.c.id.desc())
        with _translated("find the latest run"), self._engine.connect() as c:
            newest = c.scalar(query.limit(1))
        return self.run(newest) if newest else None

    def of_spec(self, spec_hash: str) -> list[RunRecord]:
        """Return the runs of that spec, newest first."""
        query = sa.select(t.runs.c.id).where(t.runs.c.spec_hash == spec_hash)
        with _translated("find runs of a spec"), self._engine.connect() as c:
            ids = list(c.scalars(query.order_by(t.runs.c.created_at.desc())))
        return [self.run(i) for i in ids]

    def unfinished(self, spec_hash: str) -> list[RunRecord]:
        """Return runs of that spec that have not finished, newest first."""
        return [r for r in self.of_spec(spec_hash) if r.state is not RunState.FINISHED]

    def blocks(self, run_id: str) -> list[BlockRecord]:
        """Return the blocks of a run by index."""
        query = sa.select(t.blocks.c.record).where(t.blocks.c.run_id == run_id)
        with _translated(f"read blocks of {run_id}"), self._engine.connect() as c:
            return [decode(BlockRecord, r) for r in c.scalars(query.order_by(t.blocks.c.block))]

    def samples(self, run_id: str) -> list[SampleRecord]:
        """Return the samples of a run, by solution, problem (the run's order) and sample."""
        head = self._head(run_id)
        place = {p: i for i, p in enumerate(head.problem_ids)}
        solutions = {s.name: i for i, s in enumerate(head.solutions)}
        query = sa.select(t.samples.c.record).where(t.samples.c.run_id == run_id)
        with _translated(f"read samples of {run_id}"), self._engine.connect() as c:
            found = [decode(SampleRecord, r) for r in c.scalars(query)]
        found.sort(
            key=lambda s: (
                solutions.get(s.solution, len(solutions)),
                place.get(s.problem_id, len(place)),
                s.sample,
            )
        )
        return found

    def factors(self, run_id: str) -> FactorSet | None:
        """Return the factors a run was first priced with, None if it never was."""
        query = sa.select(t.factors.c.grid, t.factors.c.record).where(t.factors.c.run_id == run_id)
        with _translated(f"read factors of {run_id}"), self._engine.connect() as c:
            rows = c.execute(query.order_by(t.factors.c.name)).all()
        if not rows:
            return None
        return FactorSet(region=rows[0].grid, factors=tuple(decode(Factor, r.record) for r in rows))

    def _head(self, run_id: str) -> RunRecord:
        with _translated(f"read run {run_id}"), self._engine.connect() as c:
            text = c.scalar(sa.select(t.runs.c.record).where(t.runs.c.id == run_id))
        if text is None:
            raise StoreError(f"the store has no run {run_id!r}; see  lichen runs list")
        return decode(RunRecord, text)


def _connect(url: str) -> sa.Engine:
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise ConfigError(
            "the store's URL cannot be read; write sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _sqlite(parsed)
    if backend == "postgresql":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        try:
            return sa.create_engine(parsed, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise MissingDependencyError.for_extra(
                "psycopg", "postgres", "a PostgreSQL store"
            ) from error
    raise ConfigError(f"a store is SQLite or PostgreSQL, not {backend!r}")


def _sqlite(url: sa.URL) -> sa.Engine:
    if url.database and url.database != ":memory:":
        try:
            Path(url.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot create the store's folder: {error}") from error
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        # The driver's own transaction handling begins too late for DDL; lichen begins explicitly.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # IMMEDIATE takes the write lock now, so that two writers queue instead of deadlocking.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError as error:
        raise StoreError(f"cannot {doing}: it is stored already or belongs to no run") from error
    except exc.SQLAlchemyError as error:
        first = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise StoreError(f"cannot {doing}: {first}") from error
