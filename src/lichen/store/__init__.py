"""Keep runs, blocks, samples, readings, factors and environments in SQL.

SQLite by default, PostgreSQL by URL. Append-only: the state of a run is the newest of its events,
a block and its samples come in one transaction or not at all, and nothing is updated in place;
only ``remove`` deletes. ``open_store(url)`` is the door.
"""

from lichen.store.sql import Store, open_store

__all__ = ["Store", "open_store"]
