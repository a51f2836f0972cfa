"""A worker: two cells, one for solutions and one for checks, and the job they are at.

The parent's side of the cells' control protocol. Knows nothing of scheduling or verdicts.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from typing import Any

from lichen.core.errors import SandboxError
from lichen.core.task import Limits
from lichen.sandbox.inside import wire
from lichen.sandbox.walls import Launch

_START_S = 30.0
_LEAVE_S = 1.0
_GRACE_S = 10.0
"""How long a cell may be late with a report beyond a trial's wall limit before it is replaced."""


class CellDied(Exception):  # noqa: N818 (an event, handled by the pool)
    """A cell ended or stopped answering; the job it was at must be run elsewhere."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cell says of one trial's process group.

    ``why`` is the limit that ended it, ``stopped``, or "" when it ended by itself with ``code``
    (negative: signal). ``output`` is what it wrote to its pipes.
    """

    code: int
    why: str
    cpu_s: float
    wall_s: float
    output: tuple[bytes, ...]


@dataclass(slots=True)
class Job:
    """One thing to run: a ticket per role, and the outcomes as they come in."""

    id: str
    tickets: dict[str, dict[str, Any]]
    limits: Limits
    key: tuple[object, ...]
    nonce: bytes = b""
    attempt: int = 1
    crashes: int = 0
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def limit(self, limits: Limits) -> None:
        """Set what the next attempt may use."""
        for ticket in self.tickets.values():
            ticket["limits"] = asdict(limits)

    @property
    def finished(self) -> bool:
        """Whether every role has reported."""
        return self.outcomes.keys() == self.tickets.keys()


class Cell:
    """A contained process that forks trials; ``launch`` says how to start it."""

    def __init__(self, launch: Callable[[int], Launch], limits: Limits, spawner: Executor) -> None:
        self.limits = limits
        self.control, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the cell)
        try:
            with theirs:
                start = launch(theirs.fileno())
                # The kernel ties a cell's life to the *thread* that started it; the spawner's
                # thread lives as long as the pool, the caller's may not.
                self._process = spawner.submit(
                    subprocess.Popen,
                    start.command,
                    env=start.environment,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._log,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                ).result()
        except BaseException:
            self.control.close()
            self._log.close()
            raise
        self._greet(start)

    def _greet(self, start: Launch) -> None:
        why = ""
        self.control.settimeout(_START_S)
        try:
            wire.send_control(self.control, dict(start.settings))
            message, _fds = wire.receive_control(self.control)
            if message["op"] != "ready":
                why = str(message["why"])
        except (OSError, wire.Closed) as exc:
            self._log.seek(0)
            log = self._log.read(4000).decode("utf-8", "replace").strip()
            why = log.splitlines()[-1] if log else f"no answer ({exc})"
        except BaseException:
            self.kill()
            raise
        if why:
            self.kill()
            raise SandboxError(f"a sandbox cell did not start: {why}")
        self.control.settimeout(_GRACE_S)

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send a message; a dead cell is CellDied."""
        try:
            wire.send_control(self.control, message, fds)
        except OSError as exc:
            raise CellDied(str(exc)) from exc

    def receive(self) -> dict[str, Any]:
        """Read a message that has begun to arrive."""
        try:
            return wire.receive_control(self.control)[0]
        except (OSError, EOFError, ValueError, TypeError, wire.Closed) as exc:
            raise CellDied(str(exc)) from exc  # gone, or what it sent is cut off

    def dismiss(self) -> None:
        """Let the cell end by itself: it does when its control socket closes."""
        self.control.close()

    def kill(self) -> None:
        """End the cell and all that it contains; idempotent.

        It gets a moment to end by itself, since the CPU-seconds of what is killed before it could
        be waited for are in no counter.
        """
        self.dismiss()
        try:
            self._process.wait(timeout=_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Worker:
    """Runs one job at a time. Cells start when a job first needs them."""

    def __init__(self, new_cell: Callable[[Limits], Cell]) -> None:
        self._new_cell = new_cell
        self._cells: dict[str, Cell] = {}
        self._seq = 0
        self._deadline = 0.0
        self.job: Job | None = None

    def start(self, job: Job) -> None:
        """Begin a job; CellDied if a cell is gone."""
        self.job = job
        self._seq += 1
        job.outcomes.clear()
        cells = {role: self._cell(_place(role), job.limits) for role in job.tickets}
        # After the cells, which may take a while to start under load.
        self._deadline = time.monotonic() + job.limits.wall_s + _GRACE_S
        ends = socket.socketpair() if len(cells) > 1 else ()
        try:
            for position, (role, ticket) in enumerate(job.tickets.items()):
                fds = (ends[position].fileno(),) if ends else ()
                cells[role].send({"op": "start", "seq": self._seq, **ticket}, fds)
        finally:
            for end in ends:
                end.close()

    def cells(self) -> list[Cell]:
        """Return the cells that have been started."""
        return list(self._cells.values())

    def handle(self, cell: Cell) -> None:
        """Take in a message of ``cell``; when the check has ended, the solution is ended too."""
        message = cell.receive()
        job = self.job
        if job is None or message.get("seq") != self._seq:
            raise CellDied("a message that belongs to no job")
        place = next(p for p, c in self._cells.items() if c is cell)
        role = next(r for r in job.tickets if _place(r) == place)
        job.outcomes[role] = Outcome(
            code=message["code"],
            why=message["why"],
            cpu_s=message["cpu_s"],
            wall_s=message["wall_s"],
            output=tuple(message["output"]),
        )
        if role == "judge" and "solution" not in job.outcomes:
            self._cells["solution"].send({"op": "stop", "seq": self._seq})

    def late_s(self) -> float:
        """Return the seconds until a silent cell must be taken for broken; <= 0: now."""
        return self._deadline - time.monotonic()

    def kill(self) -> None:
        """End both cells; the next job starts new ones."""
        self.dismiss()
        for cell in self._cells.values():
            cell.kill()
        self._cells.clear()

    def dismiss(self) -> None:
        """Give up the job and let the cells end."""
        self.job = None
        for cell in self._cells.values():
            cell.dismiss()

    def _cell(self, place: str, limits: Limits) -> Cell:
        """Return the cell of a place, another one where the limits it was built for differ."""
        cell = self._cells.get(place)
        if cell is not None and _built_for(cell.limits) != _built_for(limits):
            cell.kill()
            cell = None
        if cell is None:
            cell = self._cells[place] = self._new_cell(limits)
        return cell


def _built_for(limits: Limits) -> tuple[int, int, int]:
    return (limits.memory_bytes, limits.processes, limits.file_bytes)


def _place(role: str) -> str:
    """Return the cell a role runs in: untrusted programs share one, checks have their own."""
    return "judge" if role == "judge" else "solution"
