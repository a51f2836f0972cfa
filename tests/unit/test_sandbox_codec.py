"""Single facts about values that are not plain, and about the cell's smaller parts."""

from __future__ import annotations

import os
import struct

import pytest

from lichen.core.task import Status
from lichen.sandbox import verdicts
from lichen.sandbox.inside import census, codec, judge, kernel, plain, wire
from lichen.sandbox.worker import Outcome

NONCE = b"n" * 16


def outcome(code: int = 0, why: str = "", report: object = None) -> Outcome:
    output = (b"",) if report is None else (codec.encode(report),)
    return Outcome(code=code, why=why, cpu_s=0.25, wall_s=0.5, output=output)


def report(kind: str, nonce: bytes = b"", text: str = "said") -> dict[str, object]:
    return {"kind": kind, "text": text, "nonce": nonce}


def decided(check: Outcome, solution: Outcome) -> tuple[Status, str]:
    verdict = verdicts.judged({"judge": check, "solution": solution}, NONCE, 1)
    return verdict.status, verdict.kind


def test_opaque_objects_equal_nothing_and_show_their_type():
    """Not even themselves; they can be hashed and printed."""
    value = codec.decode(codec.encode(object()))
    assert value != value  # noqa: PLR0124 (the point)
    assert value not in ([], None, 0)
    assert "object" in repr({value})


def test_overridden_methods_are_not_called_when_reading_a_subclass():
    """Reading uses the base class's methods, so a trap in the subclass is not sprung."""

    def trap(*_args: object) -> object:
        raise AssertionError("called")

    for base, content in ((list, [1]), (dict, {1: 2}), (str, "a"), (int, 7), (set, {1})):
        names = ("__iter__", "__len__", "__eq__", "__int__", "items", "__getitem__", "encode")
        hostile = type("Hostile", (base,), dict.fromkeys(names, trap) | {"__hash__": base.__hash__})
        decoded = codec.decode(codec.encode(hostile(content)))
        assert type(decoded) is base
        assert decoded == content


def test_arguments_without_plain_value_are_refused():
    """Towards a solution nothing becomes opaque silently."""
    with pytest.raises(plain.Unsendable, match="function"):
        codec.encode(lambda: 0, argument=True)


def test_values_beyond_the_bound_are_refused():
    """Text, bytes and sums of small parts are bounded alike."""
    for value in ("x" * 200, b"x" * 200, ["x" * 10] * 20, 1 << 2000):
        with pytest.raises(plain.Unsendable, match="larger"):
            codec.encode(value, bound=100)


def test_a_pass_needs_the_nonce():
    """Without the parent's nonce a report of success is worth nothing."""
    assert decided(outcome(report=report("passed", NONCE)), outcome()) == (Status.PASSED, "")
    for forged in (b"", b"n" * 15, b"m" * 16):
        status, _ = decided(outcome(report=report("passed", forged)), outcome())
        assert status is Status.ERROR


@pytest.mark.parametrize(
    "bad", [b"", b"x", codec.encode(None), codec.encode({"kind": "passed"}), codec.encode([1])]
)
def test_malformed_reports_are_errors(bad):
    """Anything but a complete report is none."""
    broken = Outcome(code=0, why="", cpu_s=0, wall_s=0, output=(bad,))
    assert decided(broken, outcome()) == (Status.ERROR, "exit")


@pytest.mark.parametrize(
    ("check", "solution", "status", "kind"),
    [
        (outcome(report=report("assertion")), outcome(), Status.FAILED, "assertion"),
        (outcome(report=report("check")), outcome(), Status.FAILED, "exception"),
        (outcome(report=report("syntax")), outcome(), Status.ERROR, "syntax"),
        (outcome(report=report("made-up")), outcome(), Status.ERROR, "exit"),
        (outcome(report=report("gone")), outcome(-9, "cpu"), Status.TIMEOUT, "cpu"),
        (outcome(report=report("gone")), outcome(-9, "memory"), Status.ERROR, "memory"),
        (outcome(report=report("gone")), outcome(-9, "processes"), Status.ERROR, "killed"),
        (outcome(report=report("gone")), outcome(-11), Status.ERROR, "killed"),
        (outcome(report=report("gone")), outcome(0), Status.ERROR, "exit"),
        (outcome(report=report("gone")), outcome(-9, "stopped"), Status.ERROR, "protocol"),
        (outcome(-9, "wall"), outcome(-9, "stopped"), Status.TIMEOUT, "wall"),
        (outcome(-9, "wall"), outcome(-9, "cpu"), Status.TIMEOUT, "cpu"),
        (outcome(-11), outcome(-9, "stopped"), Status.ERROR, "killed"),
    ],
)
def test_outcomes_become_verdicts(check, solution, status, kind):
    """The table from what two cells saw to status and kind."""
    assert decided(check, solution) == (status, kind)


def test_costs_of_both_sides_add_up():
    """CPU-seconds are the sum, wall seconds the longer of both."""
    verdict = verdicts.judged({"judge": outcome(), "solution": outcome()}, NONCE, 2)
    assert (verdict.cpu_s, verdict.wall_s, verdict.attempts) == (0.5, 0.5, 2)


def test_filter_knows_its_architecture_and_ends_with_allow():
    """Each rule is eight bytes, foreign calls are refused first, the last rule allows."""
    for machine in ("x86_64", "aarch64"):
        program = kernel.seccomp_filter(machine)
        rules = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
        assert len(program) % 8 == 0
        assert rules[0][3] == 4
        assert rules[-1] == (0x06, 0, 0, 0x7FFF0000)
        assert all(at + 1 + max(r[1], r[2]) < len(rules) for at, r in enumerate(rules[:-1]))
    assert kernel.seccomp_filter("riscv64") == b""


def test_census_keeps_the_seconds_of_processes_that_vanished(monkeypatch):
    """The group's CPU-seconds never fall, even when a process and its count are gone."""
    group = census.Census(1, -1, contained=True)
    limits = {"cpu_s": 100, "memory_bytes": 1 << 40, "processes": 10}

    def members(*seconds: int) -> list[tuple[int, list[str]]]:
        ticks = os.sysconf("SC_CLK_TCK")
        return [
            (pid, [*"0" * 11, str(s * ticks), *"0" * 10]) for pid, s in enumerate(seconds, start=2)
        ]

    for now, total in ((members(1, 5), 6), (members(2), 6), (members(3), 7)):
        monkeypatch.setattr(group, "_members", lambda now=now: now)
        assert group.excess(limits) == ""
        assert group.cpu_s == total


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"cpu_s": 1}, "cpu"),
        ({"memory_bytes": 1}, "memory"),
        ({"processes": 1}, "processes"),
    ],
)
def test_census_names_the_exceeded_limit(monkeypatch, limits, why):
    """CPU, memory and number are those of all processes together."""
    group = census.Census(1, -1, contained=True)
    fields = [*"0" * 11, "70", *"0" * 9, "1"]
    monkeypatch.setattr(group, "_members", lambda: [(2, fields), (3, fields)])
    roomy = {"cpu_s": 100, "memory_bytes": 1 << 40, "processes": 10}
    assert group.excess(roomy | limits) == why


def test_update_keeps_identity_and_ignores_other_types():
    """In-place changes reach nested containers; a change of type is no change in place."""
    inner = [1]
    outer = [inner, 2]
    judge._update(outer, [[1, 3], 4, 5])
    assert outer == [[1, 3], 4, 5]
    assert outer[0] is inner
    judge._update(outer, (1,))
    assert outer == [[1, 3], 4, 5]


def test_control_messages_carry_descriptors():
    """A message and its descriptor arrive together; a closed stream is Closed."""
    left, right = wire.pair()
    read_end, write_end = os.pipe()
    wire.send_control(left, {"op": "start", "text": "\ud800" * 1000}, (write_end,))
    os.close(write_end)
    message, fds = wire.receive_control(right)
    assert len(message["text"]) == 1000
    os.write(fds[0], b"x")
    assert os.read(read_end, 1) == b"x"
    for fd in (*fds, read_end):
        os.close(fd)
    left.close()
    with pytest.raises(wire.Closed):
        wire.receive_control(right)
    right.close()
