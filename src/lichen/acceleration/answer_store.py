"""Where cached answers are kept: one SQLite file, bounded, shared by processes, never trusted much.

A cache may always forget. So a locked or full disk is a miss, a damaged file is moved aside with a
warning and a new one begun, and a row that cannot be read is passed over. The least recently used
answers go first. WAL lets readers and a writer work at once; the file is the user's alone (0600).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from lichen.acceleration.error_bound import Look
from lichen.core.errors import StoreError
from lichen.core.generation import Finish
from lichen.core.measurement import Usage

_LOG: Final = logging.getLogger(__name__)
T = TypeVar("T")

FILE_NAME: Final = "answers-1.sqlite"
"""The number is the schema's; another schema is another file, which older programs leave alone."""

MAX_LOOKS: Final = 200
"""Looks kept per answer; the oldest go."""

_NEAR: Final = 64
"""Answers of one family that are compared, the most recently used first."""

_BUSY_MS: Final = 2000
_ROW_BYTES: Final = 200
"""Counted per answer for keys and indexes (estimated from the schema)."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, partition TEXT NOT NULL, key BLOB NOT NULL, family BLOB,
    words TEXT, vector BLOB, text BLOB NOT NULL, finish TEXT NOT NULL, prompt INTEGER NOT NULL,
    tokens INTEGER NOT NULL, max_tokens INTEGER NOT NULL, made REAL NOT NULL,
    used INTEGER NOT NULL, size INTEGER NOT NULL, UNIQUE (partition, key));
CREATE INDEX IF NOT EXISTS by_use ON answers (used, size);
CREATE INDEX IF NOT EXISTS by_family ON answers (partition, family) WHERE family IS NOT NULL;
CREATE TABLE IF NOT EXISTS looks (
    id INTEGER PRIMARY KEY, similarity REAL NOT NULL, correct INTEGER NOT NULL,
    answer INTEGER NOT NULL REFERENCES answers (id) ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS by_answer ON looks (answer);
"""
_COLUMNS: Final = "id, text, finish, prompt, tokens, max_tokens, made"
_LAST_USE: Final = "(SELECT COALESCE(MAX(used), 0) + 1 FROM answers)"

_INSERT: Final = f"""
INSERT INTO answers (partition, key, family, words, vector, text, finish, prompt, tokens,
                     max_tokens, made, used, size)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {_LAST_USE}, ?)
"""  # noqa: S608 (a constant is put in)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An answer as it was given.

    Args:
        id: row number, 0 before it is stored.
        usage: tokens that it took.
        max_tokens: the limit it was generated under.
        made_s: when, in seconds since 1970.
    """

    id: int = 0
    text: str
    finish: Finish
    usage: Usage
    max_tokens: int
    made_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kin:
    """How an answer can be found by a near question: its family, wording, and looks so far."""

    family: bytes
    words: tuple[str, ...]
    vector: tuple[float, ...] = ()
    answer: StoredAnswer | None = None
    looks: tuple[Look, ...] = ()


class AnswerStore:
    """See the module. Threads may share it.

    Args:
        folder: where the file is, made if need be.
        max_entries, max_bytes: bounds, >= 1.
        now: seconds since 1970.

    Raises:
        StoreError: no file can be kept there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_entries: int,
        max_bytes: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path: Final = folder / FILE_NAME
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._now = now
        self._lock = threading.Lock()
        self._closed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db: sqlite3.Connection | None = self._connect()
        except (OSError, sqlite3.OperationalError) as exc:
            raise StoreError(
                f"the answer cache cannot keep its file {self.path}: {exc}; "
                "choose another folder, or leave the cache out"
            ) from exc
        except sqlite3.DatabaseError as exc:
            self._db = self._anew(exc)

    def get(self, partition: str, keys: Sequence[bytes]) -> dict[bytes, StoredAnswer]:
        """Return what is stored under any of ``keys`` (up to a few hundred)."""

        def read(db: sqlite3.Connection) -> dict[bytes, StoredAnswer]:
            marks = ",".join("?" * len(keys))
            rows = db.execute(
                f"SELECT key, {_COLUMNS} FROM answers "  # noqa: S608 (marks are question marks)
                f"WHERE partition = ? AND key IN ({marks})",
                (partition, *keys),
            ).fetchall()
            found = {bytes(row[0]): _answer(row[1:]) for row in rows}
            return {key: answer for key, answer in found.items() if answer is not None}

        return self._do(read, {})

    def touch(self, answer: StoredAnswer) -> None:
        """Note that an answer was used just now."""
        self._do(
            lambda db: db.execute(
                f"UPDATE answers SET used = {_LAST_USE} WHERE id = ?",  # noqa: S608 (a constant)
                (answer.id,),
            ),
            None,
        )

    def put(self, partition: str, key: bytes, answer: StoredAnswer, kin: Kin | None = None) -> bool:
        """Keep an answer, replacing one under the same key; return whether it was kept."""
        text = answer.text.encode("utf-8", "surrogatepass")
        words = None if kin is None else "\n".join(kin.words)
        vector = None if kin is None or not kin.vector else array("f", kin.vector).tobytes()
        size = _ROW_BYTES + len(text) + len(words or "") + len(vector or b"")
        if size > self._max_bytes:
            return False

        def write(db: sqlite3.Connection) -> bool:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM answers WHERE partition = ? AND key = ?", (partition, key))
            db.execute(
                _INSERT,
                (
                    partition,
                    key,
                    None if kin is None else kin.family,
                    words,
                    vector,
                    text,
                    answer.finish.value,
                    answer.usage.prompt,
                    answer.usage.completion,
                    answer.max_tokens,
                    self._now(),
                    size,
                ),
            )
            self._evict(db)
            db.execute("COMMIT")
            return True

        return self._do(write, default=False)

    def near(self, partition: str, family: bytes) -> list[Kin]:
        """Return answers of one family with what is known of them, the latest used first."""

        def read(db: sqlite3.Connection) -> list[Kin]:
            rows = db.execute(
                f"SELECT words, vector, {_COLUMNS} FROM answers "  # noqa: S608 (a constant)
                "WHERE partition = ? AND family = ? ORDER BY used DESC LIMIT ?",
                (partition, family, _NEAR),
            ).fetchall()
            return [kin for row in rows if (kin := self._kin(db, family, row)) is not None]

        return self._do(read, [])

    def look(self, answer: StoredAnswer, look: Look) -> None:
        """Note whether an answer was right at a similarity."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "INSERT INTO looks (answer, similarity, correct) SELECT id, ?, ? FROM answers "
                "WHERE id = ?",
                (look[0], int(look[1]), answer.id),
            )
            db.execute(
                "DELETE FROM looks WHERE answer = ? AND id NOT IN "
                "(SELECT id FROM looks WHERE answer = ? ORDER BY id DESC LIMIT ?)",
                (answer.id, answer.id, MAX_LOOKS),
            )
            db.execute("COMMIT")

        self._do(write, None)

    def size(self) -> tuple[int, int]:
        """Return (answers, bytes) that are kept."""

        def read(db: sqlite3.Connection) -> tuple[int, int]:
            row = db.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM answers").fetchone()
            return int(row[0]), int(row[1])

        return self._do(read, (0, 0))

    def close(self) -> None:
        """Close the file (idempotent)."""
        with self._lock:
            self._closed = True
            if self._db is not None:
                self._db.close()
            self._db = None

    def _do(self, action: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Run a read or write; whatever the file does, the caller goes on with ``default``."""
        with self._lock:
            if self._db is None:
                return default
            try:
                return action(self._db)
            except sqlite3.OperationalError as exc:
                _LOG.warning("the answer cache %s cannot be used just now: %s", self.path, exc)
                self._roll_back()
            except (sqlite3.DatabaseError, TypeError, ValueError) as exc:
                # A damaged page may also show as a value of the wrong type.
                self._db.close()
                self._db = self._anew(exc)
            return default

    def _roll_back(self) -> None:
        if self._db is not None and self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(
            self.path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            for attempt in range(20):
                try:
                    db.execute("PRAGMA journal_mode = WAL")
                    break
                except sqlite3.OperationalError:
                    # Going over to WAL does not wait for another process that does the same.
                    if attempt == 19:  # noqa: PLR2004 (the last of the attempts)
                        raise
                    time.sleep(0.05)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            db.execute(f"SELECT {_COLUMNS}, family FROM answers LIMIT 1").fetchone()  # noqa: S608 (constants)
        except BaseException:
            db.close()
            raise
        return db

    def _anew(self, why: Exception) -> sqlite3.Connection | None:
        """Move a damaged file aside and begin a new one; None if even that fails."""
        try:
            aside = self._set_aside()
            _LOG.warning(
                "the answer cache %s is damaged (%s): it was moved to %s and begun anew",
                self.path,
                why,
                aside,
            )
            return self._connect()
        except (OSError, sqlite3.Error) as exc:
            _LOG.warning("the answer cache %s is given up: %s", self.path, exc)
            return None

    def _set_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{FILE_NAME}.damaged-{number}")).exists():
            number += 1
        with contextlib.suppress(FileNotFoundError):
            self.path.replace(aside)
        for tail in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(FILE_NAME + tail).replace(aside.with_name(aside.name + tail))
        return aside

    def _evict(self, db: sqlite3.Connection) -> None:
        count, size = db.execute("SELECT COUNT(*), SUM(size) FROM answers").fetchone()
        if count <= self._max_entries and size <= self._max_bytes:
            return
        for row_id, row_size in db.execute("SELECT id, size FROM answers ORDER BY used").fetchall():
            if count <= self._max_entries and size <= self._max_bytes:
                return
            db.execute("DELETE FROM answers WHERE id = ?", (row_id,))
            count, size = count - 1, size - row_size

    def _kin(self, db: sqlite3.Connection, family: bytes, row: tuple[object, ...]) -> Kin | None:
        words, vector, *rest = row
        answer = _answer(tuple(rest))
        if answer is None or not isinstance(words, str):
            return None
        looks = db.execute(
            "SELECT similarity, correct FROM looks WHERE answer = ? ORDER BY id", (answer.id,)
        ).fetchall()
        numbers = array("f")
        if isinstance(vector, bytes) and len(vector) % numbers.itemsize == 0:
            numbers.frombytes(vector)
        return Kin(
            family=family,
            words=tuple(words.split("\n")) if words else (),
            vector=tuple(numbers),
            answer=answer,
            looks=tuple((float(s), bool(c)) for s, c in looks),
        )


def _answer(row: tuple[object, ...]) -> StoredAnswer | None:
    """Read a row; None if it holds what no answer holds."""
    row_id, text, finish, prompt, tokens, max_tokens, made = row
    numbers = (row_id, prompt, tokens, max_tokens)
    if not isinstance(text, bytes) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        return None
    try:
        answer = StoredAnswer(
            text=text.decode("utf-8", "surrogatepass"),
            finish=Finish(str(finish)),
            usage=Usage(prompt=int(str(prompt)), completion=int(str(tokens))),
            max_tokens=int(str(max_tokens)),
            made_s=float(str(made)),
        )
    except ValueError:
        return None
    return replace(answer, id=int(str(row_id)))
