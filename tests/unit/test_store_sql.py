"""What the store promises, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from lichen.core.errors import ConfigError, StoreError
from lichen.core.footprint import Factor, FactorSet
from lichen.core.interval import Interval
from lichen.core.record import RunState
from lichen.store import Store, open_store
from lichen.store.transfer import export_evalplus, export_run, import_run
from lichen.testing.records import FakeRun, fake_run


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/sub/folder/runs.sqlite"
        return
    server = request.getfixturevalue("postgres_url")
    name = f"t{uuid.uuid4().hex}"
    admin = sa.create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    with admin.connect() as c:
        c.execution_options(isolation_level="AUTOCOMMIT").execute(
            sa.text(f"CREATE DATABASE {name}")
        )
    admin.dispose()
    yield server.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An open store."""
    opened = open_store(url)
    yield opened
    opened.close()


def fill(store: Store, fake: FakeRun) -> None:
    store.add_run(fake.run)
    for block in fake.blocks:
        store.add_block(block, [s for s in fake.samples if s.block == block.index])


def factor_set() -> FactorSet:
    f = Factor(
        name="pue",
        value=Interval(low=1.0, value=1.2, high=float("inf")),
        unit="1",
        year=2024,
        source="a source",
        licence="CC0",
    )
    return FactorSet(region="DNK", factors=(f,))


def test_records_come_back_equal(store: Store) -> None:
    """A run, its blocks and samples read back equal to what was written."""
    fake = fake_run(problems=6, samples=2)
    fill(store, fake)
    assert store.run(fake.run.id) == fake.run
    assert tuple(store.blocks(fake.run.id)) == fake.blocks
    assert sorted(store.samples(fake.run.id), key=lambda s: s.key) == sorted(
        fake.samples, key=lambda s: s.key
    )


def test_samples_follow_the_runs_order(store: Store) -> None:
    """Samples are ordered by solution, then problem as the run lists it, then sample."""
    fake = fake_run(problems=12)
    fill(store, fake)
    ids = [s.problem_id for s in store.samples(fake.run.id) if s.solution == "green"]
    assert ids == list(fake.run.problem_ids)


def test_a_block_is_stored_whole_or_not_at_all(store: Store) -> None:
    """A block whose samples collide leaves nothing behind, not even the block."""
    fake = fake_run(problems=4)
    store.add_run(fake.run)
    mine = [s for s in fake.samples if s.block == fake.blocks[0].index]
    with pytest.raises(StoreError, match="stored already"):
        store.add_block(fake.blocks[0], [*mine, mine[0]])
    assert store.blocks(fake.run.id) == []
    assert store.samples(fake.run.id) == []


def test_nothing_is_stored_twice(store: Store) -> None:
    """A second run of one id and a second block of one index are refused."""
    fake = fake_run(problems=3)
    fill(store, fake)
    with pytest.raises(StoreError, match="already has a run"):
        store.add_run(fake.run)
    with pytest.raises(StoreError, match="stored already"):
        store.add_block(fake.blocks[0], [])


def test_a_block_needs_its_run(store: Store) -> None:
    """A block of an unknown run is refused."""
    with pytest.raises(StoreError, match="belongs to no run"):
        store.add_block(fake_run(problems=2).blocks[0], [])


def test_the_state_is_the_newest_event(store: Store) -> None:
    """Finishing appends events; state is the last, notes add up without doubles."""
    fake = fake_run(problems=2)
    store.add_run(replace(fake.run, state=RunState.RUNNING, notes=("one",)))
    store.finish_run(fake.run.id, RunState.FAILED, ["two", "one"])
    assert store.run(fake.run.id).state is RunState.FAILED
    assert store.unfinished(fake.run.spec_hash)[0].id == fake.run.id
    store.finish_run(fake.run.id, RunState.FINISHED)
    assert store.run(fake.run.id).notes == ("one", "two")
    assert store.unfinished(fake.run.spec_hash) == []


def test_unknown_ids_say_what_to_do(store: Store) -> None:
    """Reading, removing or finishing an unknown run names the command that lists runs."""
    for act in (store.run, store.remove, store.samples):
        with pytest.raises(StoreError, match="lichen runs list"):
            act("nope")


def test_a_run_is_found_by_prefix(store: Store) -> None:
    """A unique prefix finds a run, an ambiguous one is refused, wildcards are literal."""
    fake = fake_run(problems=2)
    for suffix in ("a", "b"):
        store.add_run(replace(fake.run, id=f"run-{suffix}"))
    assert store.find("run-a").id == "run-a"
    with pytest.raises(StoreError, match="several"):
        store.find("run-")
    with pytest.raises(StoreError, match="no run"):
        store.find("%")


def test_remove_takes_everything_of_a_run_and_nothing_else(store: Store) -> None:
    """Removing one run leaves the other whole, the shared environment included."""
    fake = fake_run(problems=3)
    fill(store, fake)
    other = replace(fake.run, id="other")
    store.add_run(other)
    store.remove(fake.run.id)
    assert [r.id for r in store.runs()] == ["other"]
    assert store.run("other").environment == other.environment


def test_missing_is_null_with_its_reason(store: Store, url: str) -> None:
    """In the readings table a missing quantity has NULL numbers and the reason, never 0."""
    fill(store, fake_run(problems=3))
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as c:
        rows = c.execute(sa.text("SELECT value, method, source FROM readings")).all()
    engine.dispose()
    missing = [r for r in rows if r.method == "missing"]
    assert missing
    assert all(r.value is None and r.source for r in missing)
    assert all(r.value is not None for r in rows if r.method != "missing")


def test_an_export_imports_as_an_equal_run(store: Store, tmp_path: Path) -> None:
    """Export then import into another store gives equal records and factors."""
    fake = fake_run(problems=5, samples=2)
    fill(store, fake)
    store.add_factors(fake.run.id, factor_set())
    lines = list(export_run(store, fake.run.id))
    other = open_store(f"sqlite:///{tmp_path}/other.sqlite")
    import_run(other, lines)
    assert list(export_run(other, fake.run.id)) == lines
    assert other.factors(fake.run.id) == factor_set()
    other.close()


@pytest.mark.parametrize("damage", ["not json", '{"kind": "nonsense", "record": {}}', "[1]"])
def test_a_damaged_import_names_the_line_and_stores_nothing(store: Store, damage: str) -> None:
    """A bad line is named by number, and the store stays as it was."""
    source = open_store("sqlite://")
    fake = fake_run(problems=3)
    fill(source, fake)
    lines = list(export_run(source, fake.run.id))
    lines.insert(4, damage)
    with pytest.raises(StoreError, match="line 5"):
        import_run(store, lines)
    assert store.runs() == []
    source.close()


def test_an_unknown_field_is_refused(store: Store) -> None:
    """A record with a field this lichen does not know is not read halfway."""
    source = open_store("sqlite://")
    fake = fake_run(problems=2)
    fill(source, fake)
    lines = list(export_run(source, fake.run.id))
    row = json.loads(lines[0])
    row["record"]["surprise"] = 1
    with pytest.raises(StoreError, match="surprise"):
        import_run(store, [json.dumps(row), *lines[1:]])
    source.close()


def test_evalplus_rows_hold_whole_programs(store: Store) -> None:
    """The evalplus export has task_id and solution, one line per sample of one solution."""
    fake = fake_run(problems=4, samples=2)
    fill(store, fake)
    rows = [json.loads(x) for x in export_evalplus(store, fake.run.id, "plain")]
    assert len(rows) == 8
    assert set(rows[0]) == {"task_id", "solution"}


_WRITER = """
import sys
from dataclasses import replace
from lichen.store import open_store
from lichen.testing.records import fake_run
url, name = sys.argv[1:]
fake = fake_run(problems=16, samples=2)
store = open_store(url)
store.add_run(replace(fake.run, id=name))
print("ready", flush=True)
for block in fake.blocks:
    mine = [replace(s, run_id=name) for s in fake.samples if s.block == block.index]
    store.add_block(replace(block, run_id=name), mine)
    print(block.index, flush=True)
store.close()
"""


def test_two_writers_at_once_lose_nothing(url: str) -> None:
    """Two processes that write at the same time, into a store neither found, both succeed."""
    command = [sys.executable, "-c", _WRITER, url]
    writers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in ("a", "b")
    ]
    for w in writers:
        _, errors = w.communicate(timeout=120)
        assert w.returncode == 0, errors.decode()
    store = open_store(url)
    expected = len(fake_run(problems=16, samples=2).samples)
    assert [len(store.samples(n)) for n in ("a", "b")] == [expected, expected]
    store.close()


def test_a_killed_writer_leaves_whole_blocks(url: str) -> None:
    """A writer killed in the middle leaves complete blocks only, and the store goes on working."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, url, "killed"], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for _ in range(3):
        writer.stdout.readline()
    writer.kill()
    writer.communicate()
    store = open_store(url)
    fake = fake_run(problems=16, samples=2)
    stored = store.blocks("killed")
    assert 2 <= len(stored) <= len(fake.blocks)
    for block in stored:
        expected = sum(s.block == block.index for s in fake.samples)
        assert sum(s.block == block.index for s in store.samples("killed")) == expected
    fill(store, fake)
    store.close()


def test_urls_that_cannot_work_are_one_sentence() -> None:
    """A URL that is none, or of another database, is a ConfigError."""
    with pytest.raises(ConfigError, match="sqlite:///FILE"):
        open_store("not a url")
    with pytest.raises(ConfigError, match="SQLite or PostgreSQL"):
        open_store("mysql://x/y")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A store migrated by a newer lichen is not touched."""
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    open_store(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as c:
        c.execute(sa.text("INSERT INTO lichen_migrations VALUES ('m999_future', 'now')"))
    engine.dispose()
    with pytest.raises(StoreError, match="upgrade lichen"):
        open_store(url)
