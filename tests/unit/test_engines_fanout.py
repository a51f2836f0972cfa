"""The fan-out that adapters share, and the scripted engine that needs none."""

from __future__ import annotations

import threading

import pytest

from lichen.core.errors import EngineError
from lichen.core.generation import Capability, Completion, Delta, Finish, Request, Timings
from lichen.core.measurement import Usage
from lichen.engines.fanout import Fanout, Job
from lichen.testing.engine import Line, ScriptedEngine, words


def requests(n: int) -> list[Request]:
    """Some requests, numbered."""
    return [Request(id=str(i), prompt="p") for i in range(n)]


def done(job: Job) -> Completion:
    """An empty completion."""
    return Completion(
        id=job.request.id, text="", usage=Usage(), finish=Finish.STOP, timings=Timings(total_s=0.0)
    )


@pytest.fixture
def fanout():
    """A pool of two slots, closed at the end."""
    pool = Fanout(2, "test", lambda: 0.0)
    yield pool
    pool.close()


def test_an_exception_in_the_work_ends_the_call(fanout) -> None:
    """A broken engine is raised to the caller, and what else runs is cancelled."""
    started, cancelled = threading.Event(), threading.Event()

    def work(job: Job) -> Completion:
        if job.request.id == "0":
            started.wait(5)
            raise EngineError("broken")
        started.set()
        job.sleep(60)
        cancelled.set()
        return done(job)

    with pytest.raises(EngineError, match="broken"):
        list(fanout.run(requests(3), work))
    assert cancelled.is_set()


def test_a_blocked_job_is_interrupted(fanout) -> None:
    """The hook that a job leaves is called when nobody waits any more, once it is closed."""
    blocked, freed = threading.Event(), threading.Event()

    def work(job: Job) -> Completion:
        if job.request.id == "0":
            job.emit(Delta(id="0", text="x"))
        job.interrupt_with(freed.set)
        blocked.set()
        freed.wait(60)
        return done(job)

    items = fanout.run(requests(1), work)
    next(items)
    assert blocked.wait(5)
    items.close()
    assert freed.is_set()


def test_a_hook_left_too_late_is_called_at_once() -> None:
    """A cancelled job does not begin to wait."""
    job = Job(requests(1)[0], 0.0, lambda _: None)
    job.cancel()
    called = threading.Event()
    job.interrupt_with(called.set)
    assert called.is_set()


def test_closing_frees_a_caller_that_waits_for_a_queued_job(fanout) -> None:
    """A call whose requests never started ends with an error instead of waiting for ever."""
    release = threading.Event()
    started = threading.Semaphore(0)

    def work(job: Job) -> Completion:
        started.release()
        job.interrupt_with(release.set)
        release.wait(60)
        return done(job)

    errors: list[str] = []

    def call() -> None:
        try:
            list(fanout.run(requests(2), work))
        except EngineError as exc:
            errors.append(str(exc))

    threads = [threading.Thread(target=call) for _ in range(2)]  # four jobs on two slots
    for t in threads:
        t.start()
    for _ in range(2):
        assert started.acquire(timeout=5)
    fanout.close()
    for t in threads:
        t.join(10)
    assert len(errors) == 2
    assert all("has been closed" in e for e in errors)


def test_words_join_to_the_text() -> None:
    """Splitting loses nothing."""
    for text in ("", "a", " a  b\n\n c \n", "\n"):
        assert "".join(words(text)) == text


def test_scripts_by_id_and_by_question() -> None:
    """A mapping answers by request id first, then by what is asked; what it lacks is an error."""
    engine = ScriptedEngine({"1": "by id", "why?": "by question"})
    asked = [
        Request(id="1", prompt="why?"),
        Request(id="2", prompt="why?"),
        Request(id="3", prompt="how?"),
    ]
    texts = {i.id: i for i in engine.generate(asked) if isinstance(i, Completion)}
    assert (texts["1"].text, texts["2"].text) == ("by id", "by question")
    assert "no answer for request '3'" in texts["3"].error
    assert engine.requests == asked


def test_scripted_errors_come_after_the_text() -> None:
    """A request can fail in mid-answer."""
    engine = ScriptedEngine(lambda _: Line(text="half an", error="out of memory"))
    (item,) = engine.generate(requests(1))
    assert isinstance(item, Completion)
    assert (item.text, item.finish, item.error) == ("half an", Finish.ERROR, "out of memory")


def test_scripted_requests_take_turns() -> None:
    """Two slots say one piece each, in turn, every time the same."""
    engine = ScriptedEngine(lambda r: f"{r.id}1 {r.id}2", slots=2)
    asked = [Request(id=i, prompt="p", stream=True) for i in "ab"]
    pieces = [i.text.strip() for i in engine.generate(asked) if isinstance(i, Delta)]
    assert pieces == ["a1", "b1", "a2", "b2"]


def test_scripted_time_is_the_given_clocks() -> None:
    """Delays are asked of the given sleep, and timings come from the given clock."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    engine = ScriptedEngine(lambda _: "a b c", token_s=0.5, clock=lambda: now[0], sleep=sleep)
    (item,) = engine.generate(requests(1))
    assert isinstance(item, Completion)
    assert (item.timings.ttft_s, item.timings.total_s) == (0.5, 1.5)


def test_scripted_capabilities_are_enforced() -> None:
    """A request that needs what the fake is not said to have fails, as with a real engine."""
    engine = ScriptedEngine(lambda _: "x", capabilities=frozenset({Capability.CHAT}))
    (item,) = engine.generate(requests(1))
    assert isinstance(item, Completion)
    assert "raw" in item.error


def test_scripted_cancellations_are_recorded() -> None:
    """What a closed iterator leaves behind is listed."""
    engine = ScriptedEngine(lambda _: "a b c", slots=2)
    items = engine.generate(Request(id=i, prompt="p", stream=True) for i in "ab")
    next(items)
    items.close()
    assert engine.cancelled == ["a", "b"]
