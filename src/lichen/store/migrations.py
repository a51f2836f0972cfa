"""Schema evolution: an ordered list of functions, each applied once, in one transaction.

To change the schema, append a function; never edit one that was released. The names already
applied are kept in ``lichen_migrations``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

from lichen.core.errors import StoreError
from lichen.store import tables

_LOCK_KEY: Final = 0x6C696368  # "lich": PostgreSQL advisory lock that serialises migrating


def m001_first_tables(connection: sa.Connection) -> None:
    """Create the tables of record version 1.

    It creates what ``tables`` holds today; the migration that first changes a table must freeze
    today's definition here.
    """
    first = [
        tables.environments,
        tables.runs,
        tables.run_events,
        tables.blocks,
        tables.samples,
        tables.readings,
        tables.factors,
    ]
    tables.metadata.create_all(connection, tables=first, checkfirst=False)


MIGRATIONS: Final[tuple[Callable[[sa.Connection], None], ...]] = (m001_first_tables,)


def migrate(engine: sa.Engine) -> tuple[str, ...]:
    """Bring the schema up to date and return the names applied now.

    Safe with several processes at once: they queue on a lock. Raises StoreError when the database
    has migrations that this lichen does not know.
    """
    applied_now = []
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
        tables.migrations.create(connection, checkfirst=True)
        applied = set(connection.scalars(sa.select(tables.migrations.c.name)))
        known = {m.__name__ for m in MIGRATIONS}
        if applied - known:
            raise StoreError(
                f"the store has schema changes unknown to this lichen ({min(applied - known)}): "
                "upgrade lichen"
            )
        for migration in MIGRATIONS:
            if migration.__name__ in applied:
                continue
            migration(connection)
            connection.execute(
                tables.migrations.insert().values(
                    name=migration.__name__, applied_at=datetime.now(UTC).isoformat()
                )
            )
            applied_now.append(migration.__name__)
    return tuple(applied_now)
