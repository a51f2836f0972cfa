"""The three text strategies: what is asked, what comes back, what the ledger says."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest

from lichen.acceleration import STRATEGIES
from lichen.acceleration.strategies.answer_prefix import beginning
from lichen.acceleration.strategy import StrategyContext, wrapped
from lichen.acceleration.worked_examples import shown
from lichen.core.errors import CapabilityError, ConfigError, SandboxError
from lichen.core.generation import (
    Capability,
    Completion,
    Delta,
    Finish,
    Hints,
    Message,
    Request,
    Role,
    Step,
)
from lichen.core.ports import Engine, Execution, Program, Sandbox
from lichen.core.task import Status, Trial, Verdict
from lichen.testing.engine import Line, Script, ScriptedEngine
from lichen.testing.in_process_sandbox import InProcessSandbox

GIVEN = (
    "\n\nimport math\n\n\ndef area(r):\n"
    '    """Area of a circle.\n\n    >>> round(area(1), 2)\n    3.14\n    >>> area(0)\n    0\n    """\n'
)
HINTS = Hints(language="python", entry_point="area", given=GIVEN)
FENCED = "```python\n"
HEAD = FENCED + GIVEN.strip("\n") + "\n"
BODY = "    return math.pi * r * r\n"
BABBLE = "\n\nprint(area(1))\n```\nThis function computes the area."
ASK = Message(role=Role.USER, content="Write this function:\n\n" + GIVEN)


def ask(**kwargs: object) -> Request:
    """A chat question with hints."""
    if not {"prompt", "prefix"} & set(kwargs):
        kwargs = {"messages": (ASK,), **kwargs}
    return Request(id="a", **{"hints": HINTS, **kwargs})  # type: ignore[arg-type]


def around(
    name: str,
    script: Script,
    sandbox: Sandbox | None = None,
    **options: object,
) -> tuple[Engine, ScriptedEngine]:
    """A strategy around a scripted engine, and that engine."""
    inner = ScriptedEngine(script)
    strategy = STRATEGIES.get(name)(options, StrategyContext(sandbox=sandbox))
    return strategy.wrap(inner), inner


def one(engine: Engine, request: Request) -> Completion:
    """The completion of one request."""
    (done,) = [i for i in engine.generate([request]) if isinstance(i, Completion)]
    return done


def step(completion: Completion) -> Step:
    """The last entry of the ledger."""
    return completion.ledger[-1]


class TestAnswerPrefix:
    """``answer_prefix``."""

    def test_the_given_code_is_prefilled_and_comes_back(self) -> None:
        """The engine is asked to go on after fence and given code; the caller gets the whole."""
        engine, inner = around("answer_prefix", lambda _: BODY + "```\n")
        done = one(engine, ask())
        assert inner.requests[0].answer_prefix == HEAD
        assert inner.requests[0].messages == (ASK,)
        assert done.text == HEAD + BODY + "```\n"
        assert step(done).action == "began the answer: given"

    @pytest.mark.parametrize(
        ("code", "begins"),
        [
            ("def f():\n    '''Doc.'''\n    ", "```python\ndef f():\n    '''Doc.'''\n"),
            ("\n\ndef f():", "```python\ndef f():\n"),
            ("def f():\r\n\t'''D.'''\r\n", "```python\ndef f():\n\t'''D.'''\n"),
            ("    def f(self):\n", "```python\n    def f(self):\n"),
            ("def f():\n    '''\n```\n'''\n", "````python\ndef f():\n    '''\n```\n'''\n"),
        ],
        ids=["trailing blanks", "leading lines", "crlf", "indented", "a fence inside"],
    )
    def test_white_space_is_exact(self, code: str, begins: str) -> None:
        """The prefix ends with one newline and no indentation, so that the model indents."""
        hints = Hints(language="Python", entry_point="f", given=code)
        assert beginning(hints, style="given") == begins

    @pytest.mark.parametrize("style", ["given", "shown", "raw"])
    def test_tabs_are_begun_as_spaces(self, style: str) -> None:
        """Models go on in spaces, and Python refuses the mixture."""
        tabs = GIVEN.replace("    ", "\t")
        engine, inner = around("answer_prefix", lambda _: BODY + "```\n", style=style)
        done = one(engine, ask(hints=replace(HINTS, given=tabs)))
        assert done.text.startswith((HEAD + BODY).rstrip())
        asked = inner.requests[0]
        assert HEAD.removeprefix(FENCED) in (asked.prompt or asked.answer_prefix)
        assert asked.hints is not None
        assert "\t" not in asked.hints.given

    def test_only_the_fence(self) -> None:
        """Style ``fence`` begins the block and leaves the code to the model."""
        engine, inner = around("answer_prefix", lambda _: HEAD[10:] + BODY, style="fence")
        assert one(engine, ask()).text.startswith(FENCED)
        assert inner.requests[0].answer_prefix == FENCED

    @pytest.mark.parametrize("order", [1, -1], ids=["rule outside", "rule inside"])
    @pytest.mark.parametrize("style", ["given", "raw", "shown"])
    def test_rules_see_the_whole_answer(self, style: str, order: int) -> None:
        """A rule of a strategy on either side reads prefix and continuation as one text."""
        names = ["answer_prefix", "stop_when_complete"][::order]
        options: Mapping[str, Mapping[str, object]] = {"answer_prefix": {"style": style}}
        made = [STRATEGIES.get(n)(options.get(n, {}), StrategyContext()) for n in names]
        done = one(wrapped(made, ScriptedEngine(lambda _: BODY + BABBLE)), ask())
        assert done.text == (HEAD + BODY).rstrip("\n")
        assert done.finish is Finish.RULE

    def test_a_rule_of_the_caller_counts_the_whole_answer(self) -> None:
        """A cut is asked about, and counted in, the text that the caller gets."""

        class Keep:
            def cut(self, text: str) -> int | None:
                assert text.startswith(HEAD)
                return len(HEAD) + 4 if len(text) > len(HEAD) + 10 else None

        engine, _ = around("answer_prefix", lambda _: BODY)
        assert one(engine, ask(stop=Keep())).text == HEAD + "    "

    @pytest.mark.parametrize("style", ["given", "raw", "shown"])
    def test_imports_that_had_no_place_are_added(self, style: str) -> None:
        """They stand at the top of the block, the ledger says so, and the rest is as it was."""
        code = "    return math.pi * reduce(mul, [r, r])\n"
        given = replace(HINTS, given='def area(r):\n    """The area."""\n')
        engine, _ = around("answer_prefix", lambda _: code + "```\n", style=style)
        done = one(engine, ask(hints=given))
        assert done.text.startswith(
            "```python\nimport math\nfrom functools import reduce\n\ndef area"
        )
        assert code.rstrip() in done.text
        assert "added: import math; from functools import reduce" in step(done).detail

    def test_streamed_answers_stay_as_they_were_heard(self) -> None:
        """What the caller heard first cannot be changed any more."""
        given = replace(HINTS, given='def area(r):\n    """The area."""\n')
        engine, _ = around("answer_prefix", lambda _: "    return math.pi * r * r\n```\n")
        items = list(engine.generate([ask(stream=True, hints=given)]))
        heard = "".join(i.text for i in items if isinstance(i, Delta))
        assert items[-1].text == heard
        assert "import math" not in heard

    def test_an_answer_with_added_imports_can_be_gone_on_from(self) -> None:
        """Who asks for the rest of such an answer gets the rest, in the same form."""
        given = replace(HINTS, given='def area(r):\n    """The area."""\n')
        begun = beginning(given, style="shown").replace("\n", "\nimport math\n\n", 1)
        engine, inner = around("answer_prefix", lambda _: "pi * r * r\n```\n", style="shown")
        done = one(engine, ask(hints=given, answer_prefix=begun + "    return math."))
        assert done.text == "pi * r * r\n```\n"
        assert inner.requests[0].messages != (ASK,)
        assert step(done).action == "began the answer: shown"

    def test_shown_replaces_the_question_by_a_worked_example(self) -> None:
        """Style ``shown`` sends the code once; the turns before it are the same for everyone."""
        engine, inner = around("answer_prefix", lambda _: BODY + "```\n", style="shown")
        other = replace(HINTS, given=GIVEN.replace("area", "size"), entry_point="size")
        assert one(engine, ask()).text == HEAD + BODY + "```\n"
        one(engine, ask(hints=other))
        first, second = inner.requests
        assert first.answer_prefix == HEAD
        assert first.messages == second.messages == shown("python")
        assert "area" not in "".join(m.content for m in first.messages or ())

    def test_the_worked_example_is_right(self) -> None:
        """It is a whole function that gives what its own docstring promises."""
        (answer,) = [m.content for m in shown("Python") if m.role is Role.ASSISTANT]
        space: dict[str, object] = {}
        exec(answer.removeprefix("```python\n").removesuffix("```"), space)  # noqa: S102 (ours)
        largest = space["second_largest"]
        assert callable(largest)
        assert [largest([3, 1, 3, 2]), largest([1, 1])] == [2, None]

    def test_raw_asks_for_a_continuation_alone(self) -> None:
        """Style ``raw`` sends the given code without a chat, and stops where it is complete."""
        engine, inner = around("answer_prefix", lambda _: BODY + BABBLE, style="raw")
        done = one(engine, ask())
        asked = inner.requests[0]
        assert asked.messages is None
        assert asked.prompt == GIVEN.strip("\n") + "\n"
        assert done.text == (HEAD + BODY).rstrip("\n")

    @pytest.mark.parametrize(
        ("request_", "style", "why"),
        [
            (ask(hints=None), "given", "nothing is known"),
            (ask(hints=replace(HINTS, given=" \n")), "given", "gives no code"),
            (ask(hints=Hints(entry_point="f")), "fence", "language"),
            (ask(answer_prefix="Sure: "), "given", "begun already"),
            (ask(prompt=GIVEN), "given", "no chat"),
            (ask(prefix="a", suffix="b"), "raw", "no chat"),
            (ask(hints=replace(HINTS, given="def area(r):\n")), "raw", "does not say"),
            (ask(hints=replace(HINTS, language="cobol")), "shown", "no worked example"),
            (ask(messages=(ASK, replace(ASK, role=Role.ASSISTANT), ASK)), "raw", "says more"),
        ],
        ids=[
            "no hints",
            "no code",
            "no language",
            "begun",
            "raw",
            "infill",
            "no docstring",
            "cobol",
            "talk",
        ],
    )
    def test_what_cannot_be_begun_is_passed_on(
        self, request_: Request, style: str, why: str
    ) -> None:
        """Such requests reach the engine as they are, and the ledger says why."""
        engine, inner = around("answer_prefix", lambda _: "hello", style=style)
        done = one(engine, request_)
        assert inner.requests == [request_]
        assert done.text == "hello"
        assert why in step(done).detail

    @pytest.mark.parametrize(
        ("body", "stub"),
        [
            ("    # Your code here\n```", True),
            ("    pass\n", True),
            ("    # Your code here\n    pass\n", True),
            ("    raise NotImplementedError()\n", True),
            ("", True),
            ("    return 1\n", False),
            ("    )\n", False),
        ],
    )
    def test_stubs_are_recorded(self, body: str, stub: bool) -> None:
        """A model that leaves the body to the reader is found out in the ledger."""
        engine, _ = around("answer_prefix", lambda _: body)
        assert ("stub" in step(one(engine, ask())).detail) is stub

    def test_stubs_of_other_languages_are_recorded(self) -> None:
        """A remark in the place of a body is a stub in languages with braces too."""
        hints = Hints(language="javascript", entry_point="f", given="// Adds.\nfunction f(a) {\n")
        for body, stub in (("  // Your code here\n}", True), ("  return a;\n}", False)):
            engine, _ = around("answer_prefix", lambda _, b=body: b)
            assert ("stub" in step(one(engine, ask(hints=hints))).detail) is stub

    def test_a_stream_begins_with_the_prefix(self) -> None:
        """The first delta is the prefix, even if the model says nothing."""
        for body in (BODY, ""):
            engine, _ = around("answer_prefix", lambda _, b=body: b)
            items = list(engine.generate([ask(stream=True)]))
            assert items[0] == Delta(id="a", text=HEAD)
            assert "".join(i.text for i in items[:-1]) == items[-1].text

    def test_needs_follow_the_style(self) -> None:
        """An engine that cannot begin answers is refused; raw needs raw prompts instead."""
        for style, lacking in (("given", Capability.ANSWER_PREFIX), ("raw", Capability.RAW)):
            strategy = STRATEGIES.get("answer_prefix")({"style": style}, StrategyContext())
            weak = ScriptedEngine({}, capabilities=frozenset(Capability) - {lacking})
            with pytest.raises(CapabilityError, match=str(lacking)):
                wrapped([strategy], weak)

    def test_an_unknown_style_is_refused(self) -> None:
        """The sentence lists the styles."""
        with pytest.raises(ConfigError, match="given, fence, raw, shown"):
            around("answer_prefix", {}, style="given code")


class TestStopWhenComplete:
    """``stop_when_complete``."""

    def test_it_stops_and_says_so(self) -> None:
        """The answer is cut after the function, the model is cancelled, the ledger has the reason."""
        engine, inner = around("stop_when_complete", lambda _: HEAD + BODY + BABBLE)
        done = one(engine, ask())
        assert done.text == (HEAD + BODY).rstrip("\n")
        assert inner.cancelled == ["a"]
        assert step(done).action == "stopped: complete"

    def test_it_lets_an_answer_run_that_ends_by_itself(self) -> None:
        """Nothing is cut where nothing is complete, and missing names are named."""
        engine, _ = around(
            "stop_when_complete", lambda _: "```python\ndef area(r):\n    return g(r)\n\nx = 1\n"
        )
        done = one(engine, ask())
        assert done.finish is Finish.STOP
        assert step(done).action == "let it run"
        assert step(done).detail == "waited for g"

    def test_the_rule_of_the_caller_stays(self) -> None:
        """An earlier cut of the request's own rule wins, and is not claimed."""

        class Keep:
            def cut(self, text: str) -> int | None:
                return 3 if len(text) > 3 else None

        engine, _ = around("stop_when_complete", lambda _: HEAD + BODY)
        done = one(engine, ask(stop=Keep()))
        assert done.text == "```"
        assert step(done).action == "let it run"

    def test_raw_continuations_are_known_by_their_prompt(self) -> None:
        """A prompt that ends with the given code is read as the beginning of the program."""
        engine, _ = around("stop_when_complete", lambda _: BODY + BABBLE)
        assert one(engine, ask(prompt="# file\n" + GIVEN)).text == BODY.rstrip("\n")

    @pytest.mark.parametrize(
        "request_",
        [ask(hints=None), ask(prefix="def f():\n", suffix="")],
        ids=["no hints", "infill"],
    )
    def test_loops_are_stopped_whatever_is_asked(self, request_: Request) -> None:
        """Where nothing is known of the answer, only endless repetition stops."""
        engine, _ = around("stop_when_complete", lambda _: HEAD + BODY + "again\n" * 100)
        done = one(engine, request_)
        assert done.text == HEAD + BODY + "again"
        assert step(done).action == "stopped: repetition"


class Broken:
    """A sandbox that cannot contain anything."""

    def judge(self, trials: Iterable[Trial]) -> Iterator[tuple[str, Verdict]]:
        raise SandboxError("no walls here")
        yield  # pragma: no cover

    def run(self, programs: Iterable[Program]) -> Iterator[Execution]:
        raise NotImplementedError

    def close(self) -> None:
        pass


class TestStopWhenPassing:
    """``stop_when_passing``."""

    def test_it_stops_when_the_examples_pass(self) -> None:
        """The answer ends with the line at which all pass; the sandbox's cost is charged."""
        engine, inner = around(
            "stop_when_passing", lambda _: HEAD + BODY + BABBLE, InProcessSandbox(cpu_s=0.1)
        )
        done = one(engine, ask())
        assert done.text == (HEAD + BODY).rstrip("\n")
        assert inner.cancelled == ["a"]
        assert step(done).action == "stopped: examples pass"
        assert step(done).cpu_s == pytest.approx(0.1)
        assert step(done).detail == "2 examples, run 1 times"

    def test_a_wrong_answer_goes_on_and_may_correct_itself(self) -> None:
        """Code that fails is not stopped; a second version that passes is."""
        wrong = "    return 3 * r * r\n\n\n"
        again = "def area(r):\n    pi = 3.14159265\n    return pi * r * r\n"
        engine, _ = around(
            "stop_when_passing",
            lambda _: HEAD + wrong + again + BABBLE,
            InProcessSandbox(cpu_s=0.1),
        )
        done = one(engine, ask())
        assert done.text == (HEAD + wrong + again).rstrip("\n")
        assert step(done).cpu_s == pytest.approx(0.2)

    def test_a_wrong_answer_costs_a_few_runs_at_most(self) -> None:
        """Attempts are bounded and further and further apart, however long the babble."""
        box = InProcessSandbox(cpu_s=0.1)
        text = (
            HEAD + "    return 1\n" + "".join(f"def g{i}(x):\n    return x\n\n" for i in range(60))
        )
        engine, _ = around("stop_when_passing", lambda _: text, box, max_runs=4)
        done = one(engine, ask())
        assert done.text == text
        assert len(box.trials) == 4
        lines = [t.solution.count("\n") for t in box.trials]
        gaps = [b - a for a, b in pairwise(lines)]
        assert all(b >= a for a, b in pairwise(gaps))
        assert step(done).action == "let it run"
        assert step(done).detail.endswith("last: assertion")

    def test_half_a_function_is_not_tried(self) -> None:
        """A function that could still end without an answer is no candidate, even if it passes."""
        box = InProcessSandbox(cpu_s=0.1)
        early = "    if r == 0:\n        return 0\n    if r == 1:\n        return 3.14\n"
        engine, _ = around("stop_when_passing", lambda _: HEAD + early + BODY + BABBLE, box)
        assert one(engine, ask()).text == (HEAD + early + BODY).rstrip("\n")
        assert len(box.trials) == 1

    def test_branches_that_all_return_are_tried(self) -> None:
        """A function closed by if and else needs no further line."""
        closed = "    if r:\n        return math.pi * r * r\n    else:\n        return 0\n"
        engine, _ = around(
            "stop_when_passing", lambda _: HEAD + closed + BABBLE, InProcessSandbox(cpu_s=0.1)
        )
        assert one(engine, ask()).text == (HEAD + closed).rstrip("\n")

    def test_imports_of_the_question_are_there(self) -> None:
        """An answer that leaves out what the question imports is run with it."""
        text = FENCED + "def area(r):\n" + BODY + BABBLE
        engine, _ = around("stop_when_passing", lambda _: text, InProcessSandbox(cpu_s=0.1))
        assert one(engine, ask()).text == (FENCED + "def area(r):\n" + BODY).rstrip("\n")

    def test_helpers_that_come_later_are_waited_for(self) -> None:
        """A run that fails for want of a helper is repeated when something has been added."""
        text = FENCED + "def area(r):\n    return p() * r * r\n\ndef q():\n    return 1\n\n"
        text += "def p():\n    return 3.14159\n"
        engine, _ = around(
            "stop_when_passing", lambda _: text + BABBLE, InProcessSandbox(cpu_s=0.1)
        )
        assert one(engine, ask()).text == text.rstrip("\n")

    @pytest.mark.parametrize(
        ("request_", "why"),
        [
            (ask(hints=None), "not known"),
            (ask(hints=replace(HINTS, language="java")), "only Python"),
            (ask(hints=replace(HINTS, given="def area(r):\n    '''Area.'''\n")), "no examples"),
            (ask(prefix="a", suffix="b"), "not known"),
        ],
        ids=["no hints", "java", "no examples", "infill"],
    )
    def test_what_cannot_be_tried_is_passed_on(self, request_: Request, why: str) -> None:
        """Such requests reach the engine as they are, and the ledger says why."""
        engine, inner = around(
            "stop_when_passing", lambda _: HEAD + BODY, InProcessSandbox(cpu_s=0.1)
        )
        done = one(engine, request_)
        assert inner.requests == [request_]
        assert why in step(done).detail

    def test_examples_may_stand_in_the_message(self) -> None:
        """Without given code the user's words are searched for examples."""
        said = Message(role=Role.USER, content="Write area. For example area(0) == 0.")
        engine, _ = around(
            "stop_when_passing",
            lambda _: "def area(r):\n    return 0\nx",
            InProcessSandbox(cpu_s=0.1),
        )
        done = one(engine, ask(messages=(said,), hints=replace(HINTS, given="")))
        assert done.text == "def area(r):\n    return 0"

    def test_a_sandbox_that_fails_stops_nothing(self) -> None:
        """The answer is the model's own then, and the ledger says what happened."""
        engine, _ = around("stop_when_passing", lambda _: HEAD + BODY + BABBLE, Broken())
        done = one(engine, ask())
        assert done.finish is Finish.STOP
        assert done.text == HEAD + BODY + BABBLE
        assert "no walls here" in step(done).detail

    def test_cpu_time_is_read_where_the_verdict_has_none(self) -> None:
        """A sandbox that does not say what a trial cost is charged by the process's clock."""
        ticks = iter(range(100))
        context = StrategyContext(sandbox=InProcessSandbox(), cpu_s=lambda: float(next(ticks)))
        strategy = STRATEGIES.get("stop_when_passing")({}, context)
        done = one(strategy.wrap(ScriptedEngine(lambda _: HEAD + BODY)), ask())
        assert step(done).cpu_s == pytest.approx(1.0)

    def test_it_needs_a_sandbox(self) -> None:
        """Without one the strategy is refused in a sentence."""
        with pytest.raises(ConfigError, match="needs a sandbox"):
            around("stop_when_passing", {})

    @pytest.mark.parametrize("options", [{"max_runs": 0}, {"cpu_s": 0.0}, {"min_examples": 0}])
    def test_ranges_are_checked(self, options: dict[str, object]) -> None:
        """Values that make no sense are refused."""
        with pytest.raises(ConfigError, match="at least 1"):
            around("stop_when_passing", {}, InProcessSandbox(cpu_s=0.1), **options)

    def test_attempts_of_many_threads_are_kept_apart(self) -> None:
        """Rules run in engine threads; the sandbox is asked by one of them at a time."""
        inside = threading.Lock()

        class Alone(InProcessSandbox):
            def judge(self, trials: Iterable[Trial]) -> Iterator[tuple[str, Verdict]]:
                assert inside.acquire(blocking=False)
                try:
                    for trial in trials:
                        yield trial.id, Verdict(status=Status.PASSED)
                finally:
                    inside.release()

        strategy = STRATEGIES.get("stop_when_passing")({}, StrategyContext(sandbox=Alone()))
        engines = [strategy.wrap(ScriptedEngine(lambda _: HEAD + BODY + BABBLE)) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda e: one(e, ask()), engines))
        assert {d.text for d in done} == {(HEAD + BODY).rstrip("\n")}


def test_a_failed_engine_says_so_through_all_three() -> None:
    """An error after half an answer comes out with the text so far."""
    for name in ("answer_prefix", "stop_when_complete", "stop_when_passing"):
        engine, _ = around(
            name, lambda _: Line(text="    half", error="tripped"), InProcessSandbox(cpu_s=0.1)
        )
        done = one(engine, ask())
        assert done.finish is Finish.ERROR
        assert done.error == "tripped"
        assert done.text.endswith("    half")
