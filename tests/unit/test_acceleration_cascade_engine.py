"""The cascade over scripted engines: who is asked, what is given, what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from lichen.acceleration import STRATEGIES
from lichen.acceleration.cascading import CascadeEngine
from lichen.acceleration.per_request import Follower, following
from lichen.acceleration.strategies.cascade import make
from lichen.acceleration.strategy import EngineAround, StrategyContext, wrapped
from lichen.core.errors import ConfigError, EngineError
from lichen.core.generation import Completion, Delta, Finish, Hints, Message, Request, Role
from lichen.core.measurement import Usage
from lichen.testing.engine import Line, ScriptedEngine
from lichen.testing.in_process_sandbox import InProcessSandbox

GIVEN = 'def inc(n):\n    """Add one.\n    >>> inc(1)\n    2\n    """\n'
RIGHT = "```python\ndef inc(n):\n    return n + 1\n```"
WRONG = "```python\ndef inc(n):\n    return n + 2\n```"
ALSO_RIGHT = "```python\ndef inc(n):\n    return 1 + n\n```"


def ask(name: str = "1", **changes: object) -> Request:
    hints = Hints(language="python", entry_point="inc", given=GIVEN)
    fields: dict[str, object] = {
        "id": name,
        "messages": (Message(role=Role.USER, content=f"Complete: {GIVEN}"),),
        "hints": hints,
        **changes,
    }
    return Request(**fields)  # type: ignore[arg-type]


@dataclass
class Costs:
    """CPU-seconds that move when an engine says a token."""

    cpu_s: float = 0.0
    running: set[str] = field(default_factory=set)

    def __call__(self) -> float:
        return self.cpu_s

    def engine(self, script, per_token: float = 1.0, **options: object) -> ScriptedEngine:
        def spend(seconds: float) -> None:
            self.cpu_s += seconds

        return ScriptedEngine(script, token_s=per_token, sleep=spend, **options)  # type: ignore[arg-type]


def cascade(
    *engines: ScriptedEngine | Exception, cpu: Costs | None = None, **options: object
) -> CascadeEngine:
    """Wrap the first engine; the others open as its levels."""
    above = {f"L{i}": e for i, e in enumerate(engines) if i}

    def open_engine(description):
        engine = above[description["name"]]
        if isinstance(engine, Exception):
            raise engine
        return engine

    context = StrategyContext(
        sandbox=InProcessSandbox(),
        open_engine=open_engine,
        cpu_s=cpu or (lambda: 0.0),
        clock=lambda: 0.0,
    )
    options.setdefault("levels", [{"name": name} for name in above])
    engine = wrapped([make(options, context)], engines[0])  # type: ignore[arg-type]
    assert isinstance(engine, CascadeEngine)
    return engine


def completions(engine: CascadeEngine, *requests: Request) -> dict[str, Completion]:
    return {c.id: c for c in engine.generate(requests) if isinstance(c, Completion)}


def said(text: str) -> Callable[[Request], str]:
    return lambda _: text


def test_a_right_small_answer_is_given_at_once() -> None:
    """When the examples pass, nothing above is opened or asked."""
    large = ScriptedEngine(said(RIGHT))
    engine = cascade(ScriptedEngine(said(RIGHT)), large)
    answer = completions(engine, ask())["1"]
    assert answer.text == RIGHT
    assert large.requests == []
    (step,) = [s for s in answer.ledger if s.actor == "cascade"]
    assert step.action == "asked level 0: gave"
    assert "passes 1 examples" in step.detail
    assert step.usage == Usage()


@pytest.mark.parametrize(
    ("small", "why"),
    [
        (WRONG, "fails 1 examples"),
        ("def inc(n:\n", "syntax"),
        ("```python\ndef dec(n):\n    return n\n```", "no inc"),
        ("```python\ndef inc(n):\n    ...\n```", "stub"),
        ("I cannot do that.", "broken"),
        ("x = 1\n" * 40, "circles"),
    ],
)
def test_a_bad_small_answer_is_replaced_and_charged(small: str, why: str) -> None:
    """Wrong and broken answers go up; the wasted tokens are in usage and ledger."""
    engine = cascade(ScriptedEngine(said(small)), ScriptedEngine(said(RIGHT)))
    answer = completions(engine, ask())["1"]
    assert answer.text == RIGHT
    first, second = [s for s in answer.ledger if s.actor == "cascade"]
    assert why in first.detail
    assert first.action == "asked level 0: set aside"
    assert first.cpu_s is not None
    assert first.usage.completion == len(ScriptedEngine(said(small))._split(small))
    assert second.usage == Usage()
    large = completions(cascade(ScriptedEngine(said(RIGHT)), ScriptedEngine({})), ask())["1"]
    assert answer.usage == first.usage + large.usage


def test_an_answer_cut_at_the_limit_goes_up() -> None:
    """A chat answer that hit the token limit is broken."""
    small = ScriptedEngine(said(RIGHT + " and more words"))
    engine = cascade(small, ScriptedEngine(said(RIGHT)))
    answer = completions(engine, ask(max_tokens=8))["1"]
    assert "token limit" in answer.ledger[0].detail


def test_an_infill_cut_at_the_limit_stays() -> None:
    """A completion in an editor is cut as a rule; that is no reason to go up."""
    large = ScriptedEngine(said("x"))
    engine = cascade(ScriptedEngine(said("a b c d e")), large)
    request = Request(id="1", prefix="def f(", suffix=")", max_tokens=2)
    assert completions(engine, request)["1"].finish is Finish.LENGTH
    assert large.requests == []


def test_three_levels_are_climbed_in_order() -> None:
    """Each level is asked only when the one below failed its check."""
    engines = [ScriptedEngine(said(t)) for t in (WRONG, "def inc(n:", RIGHT)]
    answer = completions(cascade(*engines), ask())["1"]
    assert answer.text == RIGHT
    actions = [s.action for s in answer.ledger]
    assert actions == [
        "asked level 0: set aside", "asked L1: set aside", "asked L2: gave",
    ]  # fmt: skip


def test_the_last_level_speaks_when_all_fail() -> None:
    """Of answers that all fail, the dearest model's is given."""
    last = WRONG.replace("2", "3")
    engine = cascade(ScriptedEngine(said(WRONG)), ScriptedEngine(said(last)))
    assert completions(engine, ask())["1"].text == last


def test_a_doubtful_answer_beats_a_broken_one() -> None:
    """When the dearest level's answer is broken, the better lower one is given."""
    bare = GIVEN.replace(">>> inc(1)\n    2\n", "")
    hints = Hints(language="python", entry_point="inc", given=bare)
    request = ask(hints=hints, messages=(Message(role=Role.USER, content="Complete."),))
    engine = cascade(
        ScriptedEngine(lambda _: Line(text=RIGHT, logprob=-2.0)),
        ScriptedEngine(said("def inc(n:")),
        signal="examples_or_confidence",
        threshold=0.9,
    )
    answer = completions(engine, request)["1"]
    assert answer.text == RIGHT
    assert answer.ledger[0].action == "asked level 0: gave"
    assert answer.ledger[1].usage.completion > 0


def test_confidence_decides_by_its_calibration() -> None:
    """The threshold is held against the calibrated probability, not the raw score."""
    for points, escalates in (([[-3.0, 0.1], [-1.0, 0.3]], True), ([[-3.0, 0.8]], False)):
        large = ScriptedEngine(said(ALSO_RIGHT))
        engine = cascade(
            ScriptedEngine(lambda _: Line(text=RIGHT, logprob=-1.0)),
            large,
            signal="confidence",
            calibration=points,
        )
        answer = completions(engine, ask())["1"]
        assert bool(large.requests) is escalates
        assert answer.logprobs == ()  # nobody asked for them
        assert answer.confidence is not None


def test_self_written_tests_are_charged() -> None:
    """Where a question has no examples, the model may write tests; their tokens are counted."""
    bare = GIVEN.replace(">>> inc(1)\n    2\n", "")
    hints = Hints(language="python", entry_point="inc", given=bare)

    def small(request: Request) -> str:
        return (
            "assert inc(1) == 2\nassert inc(5) == 6" if "assert" in str(request.messages) else WRONG
        )

    engine = cascade(ScriptedEngine(small), ScriptedEngine(said(RIGHT)), self_tests=2)
    answer = completions(
        engine, ask(hints=hints, messages=(Message(role=Role.USER, content="?"),))
    )["1"]
    assert answer.text == RIGHT
    assert "fails 2 self-written tests" in answer.ledger[0].detail
    assert "8 for tests" in answer.ledger[0].detail


def test_hostile_self_written_tests_never_reach_the_check() -> None:
    """Only calls of the wanted function and literals get to where trusted code runs."""
    bare = GIVEN.replace(">>> inc(1)\n    2\n", "")
    hints = Hints(language="python", entry_point="inc", given=bare)
    attack = (
        "assert inc(__import__('os').getpid()) == 1\nassert [1 for _ in ().__class__] == inc(1)"
    )
    sandbox = InProcessSandbox()
    context = StrategyContext(sandbox=sandbox, open_engine=lambda _: ScriptedEngine(said(RIGHT)))
    small = ScriptedEngine(lambda r: attack if "assert" in str(r.messages) else WRONG)
    engine = wrapped([make({"levels": [{"name": "x"}], "self_tests": 4}, context)], small)
    list(engine.generate([ask(hints=hints, messages=(Message(role=Role.USER, content="?"),))]))
    assert sandbox.trials == []


def test_a_pair_that_never_helps_switches_itself_off() -> None:
    """A small model that is never right is skipped, and ledger and report say why."""
    cost = Costs()
    small, large = cost.engine(said(WRONG), 0.5), cost.engine(said(RIGHT), 1.0)
    engine = cascade(small, large, cpu=cost, batch=1)
    answers = completions(engine, *(ask(str(i)) for i in range(60)))
    assert all(a.text == RIGHT for a in answers.values())
    assert len(small.requests) < 30
    report = engine.report()
    assert report.state == "off"
    assert "pays only below" in report.levels[0].note
    last = answers["58"].ledger
    assert last[0].action == "switched off"
    assert "level 0" in last[0].detail
    assert answers["58"].usage == answers["57"].usage


def test_an_off_switch_looks_again() -> None:
    """One in ``recheck_every`` requests tries the small model, and good news bring it back."""
    cost = Costs()
    good: list[bool] = []
    small = cost.engine(lambda _: RIGHT if good else WRONG, 0.2)
    engine = cascade(small, cost.engine(said(RIGHT)), cpu=cost, batch=1, minimum=5, recheck_every=2)
    completions(engine, *(ask(str(i)) for i in range(30)))
    assert engine.report().state == "off"
    good.append(True)
    completions(engine, *(ask(str(i)) for i in range(60)))
    assert engine.report().state == "on"
    before = len(small.requests)
    completions(engine, *(ask(str(i)) for i in range(5)))
    assert len(small.requests) == before + 5


def test_the_switch_can_be_forbidden() -> None:
    """With ``switch = false`` the cascade goes on even where it does not pay."""
    cost = Costs()
    small = cost.engine(said(WRONG))
    engine = cascade(small, cost.engine(said(RIGHT)), cpu=cost, switch=False, minimum=5)
    completions(engine, *(ask(str(i)) for i in range(40)))
    assert len(small.requests) == 40


def test_a_good_pair_saves() -> None:
    """A small model that is mostly right costs less than the large one alone."""
    cost = Costs()
    texts = {str(i): WRONG if i % 10 == 0 else RIGHT for i in range(50)}
    engine = cascade(cost.engine(texts, 0.1), cost.engine(said(RIGHT), 1.0), cpu=cost)
    answers = completions(engine, *(ask(str(i)) for i in range(50)))
    assert all(a.text == RIGHT for a in answers.values())
    alone = Costs()
    list(alone.engine(said(RIGHT), 1.0).generate([ask(str(i)) for i in range(50)]))
    assert cost.cpu_s < 0.25 * alone.cpu_s
    report = engine.report()
    assert report.state == "on"
    assert (report.levels[0].attempts, report.levels[0].escalated) == (50, 5)


def test_wasted_cpu_is_said() -> None:
    """An answer set aside carries the engine's CPU-seconds that it took."""
    cost = Costs()
    engine = cascade(cost.engine(said(WRONG), 0.5), cost.engine(said(RIGHT)), cpu=cost)
    answer = completions(engine, ask())["1"]
    tokens = answer.ledger[0].usage.completion
    assert f"{tokens * 0.5:.3g} CPU-s in the engine" in answer.ledger[0].detail


@pytest.mark.parametrize("overlap", [False, True])
def test_levels_take_turns_unless_told_otherwise(overlap: bool) -> None:
    """By default no two levels have sequences in flight at the same time."""
    busy: dict[str, int] = {}
    together: list[bool] = []

    class Watched(EngineAround):
        def generate(self, requests):
            for item in self.inner.generate(requests):
                busy[self.title] = busy.get(self.title, 0) + 1
                others = [k for k, v in busy.items() if v and k != self.title]
                together.append(bool(others))
                yield item
            busy[self.title] = 0

    small = Watched(ScriptedEngine(said(WRONG)), "small")
    large = Watched(ScriptedEngine(said(RIGHT)), "large")
    options = {"overlap": True, "cost": "time"} if overlap else {}
    engine = cascade(small, large, **options)  # type: ignore[arg-type]
    answers = completions(engine, *(ask(str(i)) for i in range(8)))
    assert len(answers) == 8
    assert any(together) is overlap


def test_waiting_answers_are_bounded() -> None:
    """The first level is drained when ``batch`` answers wait, so no request waits for all."""
    pulled: list[int] = []

    def source() -> Iterator[Request]:
        for i in range(100):
            pulled.append(i)
            yield ask(str(i))

    engine = cascade(ScriptedEngine(said(WRONG)), ScriptedEngine(said(RIGHT)), batch=4)
    items = engine.generate(source())
    next(items)
    assert len(pulled) <= 5
    items.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("when", ["opening", "running", "answering"])
def test_a_failing_upper_level_gives_the_lower_answer(when: str) -> None:
    """However the dearer model fails, the caller gets what there is, and a step that says so."""

    class Broken(ScriptedEngine):
        def generate(self, requests):
            raise EngineError("the second model is broken")
            yield

    upper: ScriptedEngine | Exception = {
        "opening": EngineError("no room for the second model"),
        "running": Broken({}),
        "answering": ScriptedEngine(lambda _: Line(error="second: context too small")),
    }[when]
    engine = cascade(ScriptedEngine(said(WRONG)), upper)
    answers = completions(engine, *(ask(str(i)) for i in range(3)))
    assert len(answers) == 3
    for answer in answers.values():
        assert answer.text == WRONG
        assert answer.finish is Finish.STOP
        assert answer.ledger[-1].action == "asked L1: it failed"
        assert "second" in answer.ledger[-1].detail
    assert engine.report().levels[1].failed == 3


def test_a_failing_middle_level_is_passed_over() -> None:
    """If level 1 cannot be opened, level 2 is asked."""
    engine = cascade(ScriptedEngine(said(WRONG)), EngineError("gone"), ScriptedEngine(said(RIGHT)))
    answer = completions(engine, ask())["1"]
    assert answer.text == RIGHT
    assert "gone" in engine.report().levels[1].note


def test_errors_of_the_first_level_pass_through() -> None:
    """A request that fails stays failed; errors are not hidden by a dearer model."""
    large = ScriptedEngine(said(RIGHT))
    answer = completions(cascade(ScriptedEngine(lambda _: Line(error="no")), large), ask())["1"]
    assert answer.finish is Finish.ERROR
    assert answer.error == "no"
    assert large.requests == []


def test_a_broken_first_level_raises() -> None:
    """An engine that fails as a whole is an error, not an answer."""
    small = ScriptedEngine(said(RIGHT))
    engine = cascade(small, ScriptedEngine(said(RIGHT)))
    small.close()
    with pytest.raises(EngineError, match="closed"):
        list(engine.generate([ask()]))


def test_streams_hold_back_what_is_not_accepted() -> None:
    """The deltas of an escalated request spell the answer that is given, and nothing else."""
    engine = cascade(ScriptedEngine(said(WRONG)), ScriptedEngine(said(RIGHT)))
    items = list(engine.generate([ask(stream=True)]))
    assert "".join(i.text for i in items if isinstance(i, Delta)) == RIGHT
    assert isinstance(items[-1], Completion)


def test_streams_flow_when_the_last_level_is_the_first() -> None:
    """A switched-off cascade streams the large model's words as they come."""
    cost = Costs()
    engine = cascade(
        cost.engine(said(WRONG)), cost.engine(said(RIGHT)), cpu=cost, minimum=5, batch=1
    )
    completions(engine, *(ask(str(i)) for i in range(20)))
    deltas = [i for i in engine.generate([ask(stream=True)]) if isinstance(i, Delta)]
    assert len(deltas) > 1
    assert "".join(d.text for d in deltas) == RIGHT


def test_another_prompt_form_comes_before_another_model() -> None:
    """A level may be level 0 without a text strategy around it: no second model is loaded."""
    base = ScriptedEngine(lambda r: WRONG if r.temperature == 0.5 else RIGHT)

    class Warm(EngineAround):
        def generate(self, requests):
            return self.inner.generate(replace(r, temperature=0.5) for r in requests)

    formed = following(Warm(base, "warm"), "outer", Follower)
    context = StrategyContext(sandbox=InProcessSandbox())
    options = {"levels": [{"name": "plain", "without": ["warm"]}]}
    engine = wrapped([make(options, context)], formed)
    (answer,) = [i for i in engine.generate([ask()]) if isinstance(i, Completion)]
    assert answer.text == RIGHT
    assert [r.temperature for r in base.requests] == [0.5, 0.0]
    engine.close()
    assert base.closed


def test_another_prompt_form_may_have_strategies_of_its_own() -> None:
    """What a level leaves out may be replaced: the same strategy with other options, say."""
    begun = STRATEGIES.get("answer_prefix")({}, StrategyContext())
    base = ScriptedEngine(said("    return n + 2\n```"))
    own = {"name": "answer_prefix", "style": "fence"}
    level = {"name": "fence", "without": ["answer_prefix"], "strategies": [own]}
    cascading = make({"levels": [level]}, StrategyContext(sandbox=InProcessSandbox()))
    engine = wrapped([begun, cascading], base)
    list(engine.generate([ask()]))
    begun_with = [r.answer_prefix for r in base.requests]
    assert begun_with == [f"```python\n{GIVEN.strip()}\n", "```python\n"]


@pytest.mark.parametrize(
    ("level", "why"),
    [
        ({"without": ["nothing_such"]}, "does not use it"),
        ({"without": [], "strategies": "raw"}, "list of tables"),
        ({"without": [], "strategies": [{"name": "moon"}]}, "moon"),
        ({"without": [], "strategies": [{"name": "prefix_cache"}]}, "is none"),
        ({"without": ["a"], "model": "m"}, "cannot have 'model'"),
        ({"without": "a"}, "list of strategy names"),
        ({"name": "level 0"}, "two levels"),
        ({"model": "m"}, "nothing here opens engines"),
    ],
)
def test_levels_that_say_nothing_usable_are_refused(level: dict[str, object], why: str) -> None:
    """A level's description is checked before anything runs, and the engine is closed."""
    base = ScriptedEngine({})
    with pytest.raises(ConfigError, match=why):
        wrapped([make({"levels": [level]}, StrategyContext(sandbox=InProcessSandbox()))], base)
    assert base.closed


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"levels": []},
        {"levels": [{"model": "m"}], "signal": "moon"},
        {"levels": [{"model": "m"}], "threshold": 1.5},
        {"levels": [{"model": "m"}], "overlap": True},
        {"levels": [{"model": "m"}], "batch": 0},
        {"levels": [{"model": "m"}], "calibration": [[1.0]]},
        {"levels": [{"model": "m"}], "calibration": [[1.0, 0.5], [0.0, 0.6]]},
        {"levels": ["m"]},
        {"levels": [{"model": "m"}], "unchecked": "never"},
        {"levels": [{"model": "m"}], "most_tokens": -1},
        {"levels": [{"model": "m"}], "unchecked": "last", "signal": "confidence"},
    ],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    """Every mistake in the options is one ConfigError."""
    with pytest.raises(ConfigError):
        make(options, StrategyContext(sandbox=InProcessSandbox()))


def test_examples_need_a_sandbox() -> None:
    """Without a sandbox only confidence can decide, and the message says so."""
    with pytest.raises(ConfigError, match="sandbox"):
        make({"levels": [{"model": "m"}]}, StrategyContext())
    assert make({"levels": [{"model": "m"}], "signal": "confidence"}, StrategyContext()).needs


PLAIN = Hints(language="python", entry_point="inc", given="def inc(n):\n    # Add one.\n")


def test_what_cannot_be_checked_may_go_to_the_last_level() -> None:
    """Questions without examples skip the levels whose answers nobody could check; others do not."""
    small = ScriptedEngine(said(RIGHT), slots=4)
    middle, large = ScriptedEngine(said(WRONG)), ScriptedEngine(said(ALSO_RIGHT))
    engine = cascade(small, middle, large, unchecked="last", batch=3)
    asked = [ask(str(i), **({"hints": PLAIN} if i % 2 else {})) for i in range(9)]
    answers = completions(engine, *asked)
    assert [answers[str(i)].text for i in range(9)] == [
        ALSO_RIGHT if i % 2 else RIGHT for i in range(9)
    ]
    # One phase of the first level takes all that belong to it, so that its slots stay full.
    assert [r.id for r in small.requests] == ["0", "2", "4", "6", "8"]
    assert [r.id for r in large.requests] == ["1", "3", "5", "7"]
    assert not middle.requests
    steps = [s for s in answers["1"].ledger if s.actor == "cascade"]
    assert [s.action for s in steps] == ["went to the last level at once", "asked L2: gave"]
    assert steps[0].detail == "the question shows no examples that can be run"


def test_the_ledger_says_why_a_question_cannot_be_checked() -> None:
    """Examples in another language are not "no examples": nothing here runs them."""
    small, large = ScriptedEngine(said(WRONG)), ScriptedEngine(said(RIGHT))
    engine = cascade(small, large, unchecked="last")
    hints = replace(PLAIN, language="rust", given=GIVEN)
    answer = completions(engine, ask("a", hints=hints))["a"]
    assert not small.requests
    first = next(s for s in answer.ledger if s.actor == "cascade")
    assert first.detail == "only Python is run"


def test_only_unchecked_questions_still_come_to_an_end() -> None:
    """With nothing for the first level to do, the last one answers in batches."""
    small, large = ScriptedEngine(said(RIGHT)), ScriptedEngine(said(ALSO_RIGHT))
    engine = cascade(small, large, unchecked="last", batch=2)
    answers = completions(engine, *(ask(str(i), hints=PLAIN) for i in range(5)))
    assert {a.text for a in answers.values()} == {ALSO_RIGHT}
    assert small.requests == []


@pytest.mark.parametrize("kind", ["messages", "prompt"])
def test_what_grows_too_long_below_is_handed_on(kind: str) -> None:
    """The limit holds below the last level, for chats and for raw prompts; a smaller one stays."""
    small, large = ScriptedEngine(said(RIGHT)), ScriptedEngine(said(ALSO_RIGHT))
    engine = cascade(small, large, most_tokens=6)
    own = {} if kind == "messages" else {"messages": None, "prompt": "def inc(n):"}
    answers = completions(engine, ask("a", **own), ask("b", max_tokens=4, **own))
    assert [r.max_tokens for r in small.requests] == [6, 4]
    assert [r.max_tokens for r in large.requests] == [ask("a", **own).max_tokens, 4]
    assert answers["a"].text == ALSO_RIGHT
    steps = {n: [s for s in a.ledger if s.actor == "cascade"] for n, a in answers.items()}
    assert steps["a"][0].usage.completion == 6
    assert "more than 6 new tokens" in steps["a"][0].detail
    assert "more than" not in steps["b"][0].detail


class Breaks(ScriptedEngine):
    """An engine that raises when it is asked."""

    def generate(self, requests):
        raise EngineError("the graphics card is gone")


@pytest.mark.parametrize(
    ("large", "text"),
    [(EngineError("no memory"), RIGHT), (Breaks(said("")), "")],
    ids=["opening", "asking"],
)
def test_unchecked_questions_and_a_last_level_that_breaks(
    large: ScriptedEngine | Exception, text: str
) -> None:
    """A level that does not open leaves them to the one below; one that breaks says so."""
    engine = cascade(ScriptedEngine(said(RIGHT)), large, unchecked="last")
    answers = completions(engine, ask("1", hints=PLAIN), ask("2"))
    assert answers["1"].text == text
    assert (answers["1"].finish is Finish.ERROR) is not bool(text)
    assert text or "graphics card" in answers["1"].error
    assert answers["2"].text == RIGHT


def test_early_close_cancels_and_closes_nothing_twice() -> None:
    """Closing the iterator cancels what runs; closing the engine closes every open level."""
    small, large = ScriptedEngine(said(WRONG), slots=2), ScriptedEngine(said(RIGHT))
    engine = cascade(small, large, batch=1)
    items = engine.generate(ask(str(i), stream=True) for i in range(50))
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert len(small.requests) < 10
    assert completions(engine, ask("again"))["again"].text == RIGHT
    engine.close()
    engine.close()
    assert small.closed
    assert large.closed
    with pytest.raises(EngineError):
        list(engine.generate([ask()]))


def test_two_requests_of_one_id_are_refused() -> None:
    """Ids are checked across phases too."""
    engine = cascade(ScriptedEngine(said(WRONG)), ScriptedEngine(said(RIGHT)), batch=1)
    with pytest.raises(ValueError, match="two requests"):
        list(engine.generate([ask("a"), ask("b"), ask("a")]))


def test_whose_request_it_is_stays_untouched() -> None:
    """User, seed and limits reach every level as they were given."""
    engines = [ScriptedEngine(said(WRONG)), ScriptedEngine(said(RIGHT))]
    completions(cascade(*engines), ask(user="ada", seed=7, max_tokens=99))
    for engine in engines:
        (request,) = engine.requests
        assert (request.user, request.seed, request.max_tokens) == ("ada", 7, 99)
