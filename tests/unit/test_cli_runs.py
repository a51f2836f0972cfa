"""``lichen runs`` and the searches among them: one line each, opened and removed as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.cli import console, stored
from lichen.cli.runs import command
from lichen.core.errors import StoreError
from lichen.core.record import RunState
from lichen.store import Store, open_store
from lichen.testing.records import fake_run

LABEL = "search-12345678"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A run of its own, then three that are part of a search, one of them unfinished."""
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    monkeypatch.setenv("LICHEN_STORE", url)
    monkeypatch.setenv("COLUMNS", "140")
    made = open_store(url)
    for number in range(4):
        head = replace(fake_run(seed=number).run, created_at=f"2026-01-0{number + 1}T00:00:00Z")
        if number:
            problems = (f"HumanEval/{number}", "HumanEval/9")
            head = replace(head, spec=json.dumps({"part_of": LABEL}), problem_ids=problems)
        if number == 3:
            head = replace(head, state=RunState.RUNNING)
        made.add_run(head)
    yield made
    made.close()


def lichen_runs(*words: str) -> Result:
    """Run the command."""
    console.out.cache_clear()
    console.err.cache_clear()
    try:
        return CliRunner().invoke(command, words, catch_exceptions=False)
    finally:
        console.out.cache_clear()
        console.err.cache_clear()


@pytest.mark.usefixtures("store")
def test_a_search_is_one_line() -> None:
    """The list shows the search once, with its runs counted; --all shows each of them."""
    listed = json.loads(lichen_runs("list", "--json").stdout)
    assert [r["id"] for r in listed] == ["fake-0000", LABEL]
    assert (listed[1]["runs"], listed[1]["problems"], listed[1]["state"]) == (3, 4, "running")
    text = lichen_runs("list").stdout
    assert "a search: 3 runs" in text
    assert "fake-0001" not in text
    every = json.loads(lichen_runs("list", "--all", "--json").stdout)
    assert [r["id"] for r in every] == [f"fake-000{n}" for n in range(4)]


@pytest.mark.usefixtures("store")
def test_a_search_can_be_opened() -> None:
    """Its name lists its runs; an unknown one, and showing it as a run, says what to do."""
    listed = json.loads(lichen_runs("list", LABEL, "--json").stdout)
    assert [r["id"] for r in listed] == ["fake-0001", "fake-0002", "fake-0003"]
    with pytest.raises(StoreError, match="no search"):
        lichen_runs("list", "search-0")
    with pytest.raises(StoreError, match=f"lichen runs list {LABEL}"):
        lichen_runs("show", LABEL)


def test_a_search_is_removed_as_a_whole(store: Store) -> None:
    """Its name removes all its runs and nothing else, each once."""
    done = lichen_runs("rm", LABEL, "fake-0002", "--yes", "--json")
    assert sorted(json.loads(done.stdout)["removed"]) == ["fake-0001", "fake-0002", "fake-0003"]
    assert [r.id for r in store.runs()] == ["fake-0000"]


def test_the_latest_run_is_no_round_of_a_search(store: Store) -> None:
    """A report without a run's id takes the newest run that somebody asked for."""
    assert stored.chosen(store, None).id == "fake-0000"
    assert stored.chosen(store, "fake-0002").id == "fake-0002"
    store.remove("fake-0000")
    with pytest.raises(StoreError, match="no run is stored yet"):
        stored.chosen(store, None)
