"""The cache's file: bounded, private, shared, and never in the way."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lichen.acceleration.answer_store import FILE_NAME, AnswerStore, Kin, StoredAnswer
from lichen.core.generation import Finish
from lichen.core.measurement import Usage


def store(folder: Path, **bounds: int) -> AnswerStore:
    return AnswerStore(folder, **{"max_entries": 100, "max_bytes": 1 << 20, **bounds})


def answer(text: str = "hello") -> StoredAnswer:
    usage = Usage(prompt=3, completion=2)
    return StoredAnswer(text=text, finish=Finish.STOP, usage=usage, max_tokens=9, made_s=0.0)


def texts(kept: AnswerStore, *keys: bytes) -> list[str]:
    found = kept.get("p", keys)
    return [found[k].text for k in keys if k in found]


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    """All fields survive, text that UTF-8 cannot hold included; partitions stay apart."""
    kept = store(tmp_path)
    assert kept.put("p", b"k", answer("caf\u00e9 \ud800"))
    (found,) = kept.get("p", [b"k"]).values()
    assert (found.text, found.finish, found.max_tokens) == ("caf\u00e9 \ud800", Finish.STOP, 9)
    assert found.usage == Usage(prompt=3, completion=2)
    assert kept.get("q", [b"k"]) == {}


def test_the_least_used_go_first(tmp_path: Path) -> None:
    """Beyond ``max_entries`` the answer goes whose last use is longest ago."""
    kept = store(tmp_path, max_entries=3)
    for key in (b"a", b"b", b"c"):
        kept.put("p", key, answer(key.decode()))
    kept.touch(kept.get("p", [b"a"])[b"a"])
    kept.put("p", b"d", answer("d"))
    assert texts(kept, b"a", b"b", b"c", b"d") == ["a", "c", "d"]


def test_bytes_are_bounded(tmp_path: Path) -> None:
    """The sum of answers stays below ``max_bytes``; one that is larger alone is not kept."""
    kept = store(tmp_path, max_bytes=5000)
    for i in range(20):
        kept.put("p", bytes([i]), answer("x" * 800))
        assert kept.size()[1] <= 5000
    assert kept.size()[0] == 5
    assert not kept.put("p", b"big", answer("x" * 5000))
    assert kept.size()[0] == 5


def test_the_file_is_the_users_alone(tmp_path: Path) -> None:
    """Nobody else can read what was asked and answered."""
    kept = store(tmp_path / "new" / "folder")
    assert kept.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", [b"this is no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_moved_aside(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no database is kept for inspection, said, and a new one begun."""
    (tmp_path / FILE_NAME).write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        kept = store(tmp_path)
    assert kept.put("p", b"k", answer())
    assert texts(kept, b"k") == ["hello"]
    assert (tmp_path / f"{FILE_NAME}.damaged-1").read_bytes() == damage
    assert "moved" in caplog.text


def test_damage_while_running_is_survived(tmp_path: Path) -> None:
    """Pages that turn to garbage under an open cache cost the cache, not the caller."""
    kept = store(tmp_path)
    for i in range(50):
        kept.put("p", bytes([i]), answer("x" * 2000))
    kept._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
    with kept.path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(kept.path.stat().st_size - 100))
    kept._db.execute("PRAGMA cache_size = 0")  # type: ignore[union-attr]
    for i in range(50):
        kept.get("p", [bytes([i])])
    kept.put("p", b"k", answer())
    assert texts(kept, b"k") == ["hello"]


def test_rows_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    """An edited file gives misses, not exceptions."""
    kept = store(tmp_path)
    for key in (b"a", b"b", b"c"):
        kept.put("p", key, answer())
    with sqlite3.connect(kept.path) as db:
        db.execute("UPDATE answers SET finish = 'gone' WHERE key = ?", (b"a",))
        db.execute("UPDATE answers SET text = 'not bytes' WHERE key = ?", (b"b",))
        db.execute("UPDATE answers SET prompt = -1 WHERE key = ?", (b"c",))
    db.close()
    assert texts(kept, b"a", b"b", b"c") == []


def test_a_locked_file_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When another process holds the file, the answer is just not kept, and later ones are."""
    monkeypatch.setattr("lichen.acceleration.answer_store._BUSY_MS", 10)
    kept = store(tmp_path)
    other = sqlite3.connect(kept.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.WARNING):
        assert not kept.put("p", b"k", answer())
    assert "cannot be used just now" in caplog.text
    other.execute("ROLLBACK")
    other.close()
    assert kept.put("p", b"k", answer())


def test_kin_are_found_by_family(tmp_path: Path) -> None:
    """Near questions are looked for in their own family and partition, with their looks."""
    kept = store(tmp_path)
    kept.put("p", b"a", answer("one"), Kin(family=b"f", words=("x", "y"), vector=(0.5, 1.0)))
    kept.put("p", b"b", answer("two"), Kin(family=b"g", words=()))
    kept.put("q", b"c", answer("three"), Kin(family=b"f", words=("x",)))
    (kin,) = kept.near("p", b"f")
    assert kin.answer is not None
    assert (kin.words, kin.vector, kin.answer.text) == (("x", "y"), (0.5, 1.0), "one")
    kept.look(kin.answer, (0.9, True))
    kept.look(kin.answer, (0.7, False))
    assert kept.near("p", b"f")[0].looks == ((0.9, True), (0.7, False))
    assert kept.near("p", b"g")[0].words == ()


def test_threads_share_a_store(tmp_path: Path) -> None:
    """Many threads write and read without losing an answer."""
    kept = store(tmp_path, max_entries=1000)

    def work(n: int) -> None:
        for i in range(25):
            kept.put("p", f"{n}-{i}".encode(), answer(f"{n}-{i}"))
            assert texts(kept, f"{n}-{i}".encode()) == [f"{n}-{i}"]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.size()[0] == 100


_WRITER = """
import sys
from pathlib import Path
from lichen.acceleration.answer_store import AnswerStore, StoredAnswer
from lichen.core.generation import Finish
from lichen.core.measurement import Usage
kept = AnswerStore(Path(sys.argv[1]), max_entries=1000, max_bytes=1 << 20)
for i in range(40):
    key = f"{sys.argv[2]}-{i}".encode()
    answer = StoredAnswer(text="x", finish=Finish.STOP, usage=Usage(), max_tokens=1, made_s=0)
    assert kept.put("p", key, answer)
kept.close()
"""


def test_processes_share_a_file(tmp_path: Path) -> None:
    """Processes that begin the same file at once each keep all of their answers."""
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), str(n)]) for n in range(3)
    ]
    assert [w.wait(timeout=60) for w in writers] == [0, 0, 0]
    assert store(tmp_path).size()[0] == 120


def test_a_closed_store_keeps_nothing(tmp_path: Path) -> None:
    """After closing, reads are misses and writes do nothing."""
    kept = store(tmp_path)
    kept.close()
    kept.close()
    assert not kept.put("p", b"k", answer())
    assert kept.get("p", [b"k"]) == {}
    assert kept.near("p", b"f") == []
