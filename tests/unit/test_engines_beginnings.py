"""Beginnings of prompts are read once per user, copied into slots, and nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lichen.core.generation import Request
from lichen.engines.fanout import Job
from lichen.engines.llama_cpp.beginnings import MOST, WORTH_COPYING, Beginnings, Prepared
from lichen.engines.llama_cpp.slots import SlotTable

PREAMBLE = "the same words at the beginning of every prompt; " * (WORTH_COPYING // 40)


class Server:
    """Stands in for llama.cpp: a token per character, slots that remember, files that exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.slots: dict[int, str] = {}
        self.broken: frozenset[str] = frozenset()
        self.read = threading.Event()
        self.read.set()

    def post(self, path: str, body: Mapping[str, Any], job: Job | None = None) -> Any:
        """Answer as llama.cpp does."""
        place, _, action = path.partition("?action=")
        self.asked.append(action or "read")
        if (action or "read") in self.broken:
            return {"error": {"code": 400, "message": "no"}}
        if not action:
            self.read.wait(5)
            if job is not None and job.cancelled:
                return {}
            self.slots[body["id_slot"]] = body["prompt"]
            return {"timings": {"prompt_n": len(body["prompt"]), "prompt_ms": 2000.0}}
        slot, file = int(place.rpartition("/")[2]), self.folder / body["filename"]
        if action == "save":
            file.write_text(self.slots[slot])
            return {"n_saved": 1}
        if not file.is_file():
            return {"error": {"code": 400, "message": "no such file"}}
        self.slots[slot] = file.read_text()
        return {"n_restored": 1}


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A server whose files go to a folder of the test."""
    return Server(tmp_path)


def job(user: str = "") -> Job:
    """A running request."""
    return Job(Request(id="r", prompt="p", user=user), 0.0, lambda _: None)


def ask(beginnings: Beginnings, table: SlotTable, prompt: str, user: str = "") -> Prepared:
    """Seat a request and prepare its slot; the slot stays taken."""
    return beginnings.prepare(table.take(user, prompt), user, prompt, job(user))


def test_the_second_request_reads_it_and_later_ones_get_it(server: Server) -> None:
    """One request alone knows of nothing to share; what was read ahead is told to the second."""
    table, beginnings = SlotTable(4), Beginnings(server, server.folder)
    first, second, third, fourth = (ask(beginnings, table, PREAMBLE + str(i)) for i in range(4))
    assert first == Prepared(reuse=False)
    assert second == Prepared(reuse=True, tokens=len(PREAMBLE), seconds=2.0)
    assert third == fourth == Prepared(reuse=True)
    assert server.asked == ["read", "save", "restore", "restore"]
    assert [server.slots[i] for i in (1, 2, 3)] == [PREAMBLE] * 3


def test_a_slot_that_has_the_beginning_is_left_alone(server: Server) -> None:
    """Nothing is copied for a few characters, or over what the slot holds anyway."""
    table, beginnings = SlotTable(3), Beginnings(server, server.folder)
    assert ask(beginnings, table, "short and alike 1") == Prepared(reuse=False)
    assert ask(beginnings, table, "short and alike 2") == Prepared(reuse=False)
    table = SlotTable(1)
    for number in range(3):
        seat = table.take("", PREAMBLE + str(number))
        beginnings.prepare(seat, "", PREAMBLE + str(number), job())
        table.give_back(seat)
    assert server.asked == []


def test_users_do_not_share(server: Server) -> None:
    """Equal prompts of two users are read by each, and a file of one is not loaded for the other."""
    table, beginnings = SlotTable(5), Beginnings(server, server.folder)
    for number in range(3):
        ask(beginnings, table, PREAMBLE + str(number), "ann")
    server.asked.clear()
    assert ask(beginnings, table, PREAMBLE + "x", "bob") == Prepared(reuse=False)
    assert server.asked == []
    assert ask(beginnings, table, PREAMBLE + "y", "bob").tokens == len(PREAMBLE)
    assert server.asked == ["read", "save"]


def test_a_beginning_is_waited_for_while_it_is_read(server: Server) -> None:
    """Requests that come together read it once."""
    table, beginnings = SlotTable(4), Beginnings(server, server.folder)
    ask(beginnings, table, PREAMBLE + "0")
    server.read.clear()
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(ask, beginnings, table, PREAMBLE + str(i)) for i in (1, 2, 3)]
        server.read.set()
        prepared = [r.result() for r in running]
    assert sorted(server.asked) == ["read", "restore", "restore", "save"]
    assert sorted(p.tokens for p in prepared) == [0, 0, len(PREAMBLE)]


def test_a_cancelled_request_does_not_wait(server: Server) -> None:
    """Whoever reads may take long; one that nobody waits for any more goes away at once."""
    table, beginnings = SlotTable(3), Beginnings(server, server.folder)
    ask(beginnings, table, PREAMBLE + "0")
    server.read.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(ask, beginnings, table, PREAMBLE + "1")
        while "read" not in server.asked:
            pass
        gone = job()
        gone.cancel()
        prompt = PREAMBLE + "2"
        assert beginnings.prepare(table.take("", prompt), "", prompt, gone) == Prepared(reuse=False)
        server.read.set()
        assert reading.result().reuse


@pytest.mark.parametrize("broken", ["read", "save"])
def test_what_cannot_be_kept_is_read_whole(server: Server, broken: str) -> None:
    """A full disk or a refused request costs the saving, not the answer; nothing is left behind."""
    table, beginnings = SlotTable(3), Beginnings(server, server.folder)
    server.broken = frozenset({broken})
    prepared = [ask(beginnings, table, PREAMBLE + str(i)) for i in range(3)]
    # What the slot has read it may reuse, saved or not.
    assert [p.reuse for p in prepared] == [False, *[broken == "save"] * 2]
    assert "restore" not in server.asked
    assert list(server.folder.iterdir()) == []


def test_a_file_that_is_gone_is_read_whole(server: Server) -> None:
    """The slot does not claim what it could not load."""
    table, beginnings = SlotTable(3), Beginnings(server, server.folder)
    ask(beginnings, table, PREAMBLE + "0")
    ask(beginnings, table, PREAMBLE + "1")
    for file in server.folder.iterdir():
        file.unlink()
    assert ask(beginnings, table, PREAMBLE + "2") == Prepared(reuse=False)


def test_the_ones_unused_for_longest_give_way(server: Server) -> None:
    """Files are few; one that was used again outlives one that was not."""
    table, beginnings = SlotTable(4 * MOST), Beginnings(server, server.folder)
    for number in range(MOST):
        for end in "ab":
            ask(beginnings, table, f"{number} {PREAMBLE}{end}")
    ask(beginnings, table, f"0 {PREAMBLE}c")
    for end in "ab":
        ask(beginnings, table, f"{MOST} {PREAMBLE}{end}")
    held = sorted(file.read_text()[0] for file in server.folder.iterdir())
    assert held == ["0", *(str(i) for i in range(2, MOST + 1))]
