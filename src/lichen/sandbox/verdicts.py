"""From what the cells report to a verdict: pure functions. A pass needs the parent's nonce."""

from __future__ import annotations

import hmac
import signal
from collections.abc import Mapping
from typing import Any

from lichen.core.task import Status, Verdict
from lichen.sandbox.inside import codec, plain
from lichen.sandbox.worker import Outcome

_EXCESS = {
    "cpu": (Status.TIMEOUT, "cpu", "used up its CPU-seconds"),
    "wall": (Status.TIMEOUT, "wall", "reached the wall-clock backstop"),
    "memory": (Status.ERROR, "memory", "exceeded its memory"),
    "processes": (Status.ERROR, "killed", "started too many processes"),
    "output": (Status.ERROR, "output", "printed more than permitted"),
}
_FAILURES = {"assertion": "assertion", "check": "exception"}
_ERRORS = frozenset({"syntax", "exception", "no-entry", "exit", "memory", "protocol"})


def judged(outcomes: Mapping[str, Outcome], nonce: bytes, attempts: int) -> Verdict:
    """Merge the outcomes of a check and a solution."""
    judge, solution = outcomes["judge"], outcomes["solution"]
    status, kind, message = _decide(judge, solution, nonce)
    return Verdict(
        status=status,
        kind=kind,
        message=message,
        cpu_s=judge.cpu_s + solution.cpu_s,
        wall_s=max(judge.wall_s, solution.wall_s),
        attempts=attempts,
    )


def _decide(judge: Outcome, solution: Outcome, nonce: bytes) -> tuple[Status, str, str]:
    if judge.why in _EXCESS:
        # A check that waits too long waits for its solution, which is what exceeded then.
        side = solution if solution.why in _EXCESS else judge
        return _excess(side, "the solution" if side is solution else "the check")
    kind, text, shown = _report(judge)
    if kind == "passed" and hmac.compare_digest(shown, nonce):
        return Status.PASSED, "", ""
    if kind in _FAILURES:
        return Status.FAILED, _FAILURES[kind], text
    if kind in _ERRORS:
        return Status.ERROR, kind, text
    return _ended(solution, "the solution") if kind == "gone" else _ended(judge, "the check")


def _report(judge: Outcome) -> tuple[str, str, bytes]:
    """Read the judge's report; anything malformed is none."""
    try:
        report: Any = codec.decode(judge.output[0])
        kind, text, nonce = report["kind"], report["text"], report["nonce"]
    except (plain.Malformed, KeyError, TypeError, IndexError):
        return "", "", b""
    if type(kind) is str and type(text) is str and type(nonce) is bytes:
        return kind, text, nonce
    return "", "", b""


def _excess(outcome: Outcome, who: str) -> tuple[Status, str, str]:
    status, kind, what = _EXCESS[outcome.why]
    return status, kind, f"{who} {what}"


def _ended(outcome: Outcome, who: str) -> tuple[Status, str, str]:
    """Say how a process ended that should not have."""
    if outcome.why in _EXCESS:
        return _excess(outcome, who)
    if outcome.why == "stopped":
        return Status.ERROR, "protocol", f"{who} closed its channel"
    if outcome.code < 0:
        return Status.ERROR, "killed", f"{who} was ended by {_signal(-outcome.code)}"
    return Status.ERROR, "exit", f"{who} exited with status {outcome.code}"


def executed(outcome: Outcome, attempts: int) -> Verdict:
    """Return a script's verdict: it passes when it ends by itself with status 0."""
    if outcome.why == "" and outcome.code == 0:
        status, kind, message = Status.PASSED, "", ""
    else:
        status, kind, message = _ended(outcome, "the program")
    return Verdict(
        status=status,
        kind=kind,
        message=message,
        cpu_s=outcome.cpu_s,
        wall_s=outcome.wall_s,
        attempts=attempts,
    )


def broken(attempts: int) -> Verdict:
    """Return the verdict of what twice took its cell down with it."""
    message = "the sandbox cell died twice while running this"
    return Verdict(status=Status.ERROR, kind="killed", message=message, attempts=attempts)


def unsendable(reason: str) -> Verdict:
    """Return the verdict of what could not be handed to a cell."""
    return Verdict(status=Status.ERROR, kind="protocol", message=reason)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
