"""Every promise of strategies and their engines, one by one and in company."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lichen.acceleration import STRATEGIES
from lichen.acceleration.strategy import (
    Layer,
    Strategy,
    StrategyContext,
    configured,
    wrapped,
)
from lichen.core.errors import CapabilityError, ConfigError
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
from lichen.core.ports import Engine
from lichen.testing.engine import Line, Script, ScriptedEngine
from lichen.testing.in_process_sandbox import InProcessSandbox

NAMES = [
    name
    for name in STRATEGIES
    if importlib.util.find_spec(f"lichen.acceleration.strategies.{name}") is not None
]
GIVEN = 'def double(x):\n    """Return twice x.\n\n    >>> double(2)\n    4\n    """\n'
HINTS = Hints(language="python", entry_point="double", given=GIVEN)
ANSWER = f"```python\n{GIVEN}    return 2 * x\n\n\nprint(double(1))\n```\nThis function doubles."
OPTIONS: dict[str, dict[str, object]] = {
    "answer_cache": {"model": "m"},
    "cascade": {"levels": [{"model": "larger"}]},
}
"""What a strategy cannot do without; most can do without anything."""


def context(folder: Path) -> StrategyContext:
    """A world in which every strategy finds what it needs."""
    return StrategyContext(
        sandbox=InProcessSandbox(),
        open_engine=lambda _: ScriptedEngine(lambda _: ANSWER),
        data_dir=folder,
    )


def made(name: str, folder: Path) -> Strategy:
    """A strategy with its defaults."""
    return STRATEGIES.get(name)(OPTIONS.get(name, {}), context(folder))


@pytest.fixture(params=NAMES)
def strategy(request: pytest.FixtureRequest, tmp_path: Path) -> Strategy:
    """Each strategy in turn."""
    return made(request.param, tmp_path)


def ask(name: str = "a", **kwargs: object) -> Request:
    """A chat question, each id another one, with what is known of its answer."""
    if not {"prompt", "prefix", "messages"} & set(kwargs):
        question = f"Please complete number {name}:\n\n```python\n{GIVEN}```"
        kwargs = {"messages": (Message(role=Role.USER, content=question),), **kwargs}
    return Request(id=name, **{"hints": HINTS, **kwargs})  # type: ignore[arg-type]


KINDS = {
    "chat": ask(),
    "chat without hints": ask(hints=None),
    "chat in another language": ask(hints=Hints(language="cobol", entry_point="double")),
    "begun chat": ask(answer_prefix="```python\n"),
    "raw": ask(prompt=GIVEN),
    "raw without hints": ask(prompt="Once upon a time", hints=None),
    "infill": ask(prefix=GIVEN, suffix="\n"),
    "sampled": ask(temperature=0.8, seed=3),
    "with a rule": ask(stop_strings=("never",)),
}


def done(items: Iterable[Delta | Completion]) -> list[Completion]:
    """The completions among what an engine says."""
    return [i for i in items if isinstance(i, Completion)]


class Fake(ScriptedEngine):
    """A scripted engine that can be opened a second time; both remember in one place."""

    def __init__(self, script: Script, slots: int = 1) -> None:
        super().__init__(script, slots=slots)
        self.finished: list[str] = []
        self._again = lambda: type(self)(script, slots)

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        for item in super().generate(requests):
            if isinstance(item, Completion):
                self.finished.append(item.id)
            yield item

    def reopened(self, changes: Mapping[str, object]) -> Engine:
        twin = self._again()
        twin.requests, twin.cancelled = self.requests, self.cancelled
        twin.finished = self.finished
        return twin


class Remembering(Fake):
    """An engine whose completions come with a ledger."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        for item in super().generate(requests):
            step = Step(actor="inner", action="was here")
            yield replace(item, ledger=(step,)) if isinstance(item, Completion) else item


def together(strategies: list[Strategy], inner: Engine) -> tuple[str, Engine | None]:
    """An engine inside all strategies, or the sentence that refuses them."""
    try:
        configured(strategies, {})
        return "", wrapped(strategies, inner)
    except (ConfigError, CapabilityError) as exc:
        return str(exc), None


def test_every_strategy_is_here() -> None:
    """The suite runs over something."""
    assert {"answer_prefix", "stop_when_complete", "stop_when_passing"} <= set(NAMES)


def test_it_is_a_strategy(strategy: Strategy) -> None:
    """It has the port's parts, the name of its registry entry, and states what it needs."""
    assert isinstance(strategy, Strategy)
    assert strategy.name in NAMES
    assert isinstance(strategy.layer, Layer)
    assert all(isinstance(c, Capability) for c in strategy.needs)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(name: str, tmp_path: Path) -> None:
    """A misspelt option is one sentence that names it, never ignored."""
    options = {**OPTIONS.get(name, {}), "no_such_option": 1}
    with pytest.raises(ConfigError, match=r"^[^\n]*no_such_option[^\n]*$"):
        STRATEGIES.get(name)(options, context(tmp_path))


def test_configure_changes_a_copy(strategy: Strategy) -> None:
    """The engine's options that come in are left as they were; others are kept."""
    options: dict[str, object] = {"context": 2048}
    changed = strategy.configure(options)
    assert options == {"context": 2048}
    assert changed is not options
    assert changed["context"] == 2048


@pytest.mark.parametrize("asked", KINDS.values(), ids=KINDS.keys())
def test_one_completion_per_request_of_any_kind(strategy: Strategy, asked: Request) -> None:
    """Every kind of request comes back once, under its id, with what the model said."""
    engine = strategy.wrap(Fake(lambda _: ANSWER))
    items = list(engine.generate([asked]))
    assert [i.id for i in items] == [asked.id]
    assert isinstance(items[0], Completion)
    assert items[0].finish in (Finish.STOP, Finish.RULE)
    assert "return 2 * x" in items[0].text


def test_many_requests_come_back_each_once(strategy: Strategy) -> None:
    """Several requests in flight at a time keep their ids apart."""
    engine = strategy.wrap(Fake(lambda _: ANSWER, slots=3))
    ids = [f"r{i}" for i in range(7)]
    items = list(engine.generate(ask(i, stream=i in ("r1", "r4")) for i in ids))
    assert sorted(c.id for c in done(items)) == ids
    assert {i.id for i in items if isinstance(i, Delta)} <= {"r1", "r4"}


def test_no_requests_no_items(strategy: Strategy) -> None:
    """Nothing asked, nothing said."""
    assert list(strategy.wrap(Fake(lambda _: ANSWER)).generate([])) == []


@pytest.mark.parametrize("asked", KINDS.values(), ids=KINDS.keys())
def test_deltas_join_to_the_text(strategy: Strategy, asked: Request) -> None:
    """What is streamed is what the completion holds, in order and before it."""
    engine = strategy.wrap(Fake(lambda _: ANSWER))
    items = list(engine.generate([replace(asked, stream=True)]))
    assert [isinstance(i, Completion) for i in items] == [False] * (len(items) - 1) + [True]
    assert "".join(i.text for i in items[:-1]) == items[-1].text


def test_the_whole_answer_holds_the_function(strategy: Strategy) -> None:
    """Whatever a strategy cuts or begins, the caller's text defines what was asked for."""
    body = "    return 2 * x\n\n\nprint(double(1))\n```\nThis function doubles."

    def say(request: Request) -> str:
        return body if request.answer_prefix or request.prompt is not None else ANSWER

    (completion,) = done(strategy.wrap(Fake(say)).generate([ask()]))
    code = completion.text.partition("```python\n")[2].partition("\n```")[0]
    space: dict[str, object] = {}
    exec(code, space)  # noqa: S102 (written above)
    assert space["double"](21) == 42  # type: ignore[operator]


def test_requests_are_taken_as_slots_become_free(strategy: Strategy) -> None:
    """An endless supply of requests is drawn from a few at a time."""
    taken: list[str] = []

    def endless() -> Iterator[Request]:
        while True:
            taken.append(f"r{len(taken)}")
            yield ask(taken[-1])

    answers = strategy.wrap(Fake(lambda _: ANSWER)).generate(endless())
    assert isinstance(next(answers), Completion)
    assert len(taken) <= 4
    answers.close()  # type: ignore[attr-defined]


def test_two_requests_of_one_id_are_a_mistake(strategy: Strategy) -> None:
    """Answers could not be told apart, so the second request of an id is refused."""
    engine = strategy.wrap(Fake(lambda _: ANSWER, slots=2))
    with pytest.raises(ValueError, match="the id 'a'"):
        list(engine.generate([ask("a"), ask("a")]))


def test_closing_early_cancels_what_runs(strategy: Strategy) -> None:
    """A caller that leaves after the first piece leaves nothing running inside."""
    inner = Fake(lambda _: "prose " * 500)
    answers = strategy.wrap(inner).generate([ask(stream=True)])
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert {*inner.cancelled, *inner.finished} == {r.id for r in inner.requests}
    # The engine can be used again.
    assert len(done(strategy.wrap(inner).generate([ask("b")]))) == 1


def test_close_closes_the_engine_inside_and_may_be_repeated(strategy: Strategy) -> None:
    """Closing twice is as good as once, and the model is freed."""
    inner = Fake(lambda _: ANSWER)
    engine = strategy.wrap(inner)
    engine.close()
    engine.close()
    assert inner.closed


@pytest.mark.parametrize("said", ["", "half an ans"], ids=["before a word", "in the middle"])
def test_a_failed_request_is_passed_on(strategy: Strategy, said: str) -> None:
    """An ERROR completion keeps its sentence, and the others are answered."""

    def say(request: Request) -> Line:
        if request.id == "bad":
            return Line(text=said, error="the model tripped over a wire")
        return Line(text=ANSWER)

    engine = strategy.wrap(Fake(say))
    asked = [ask("bad", stream=True), ask("good", stream=True)]
    items = list(engine.generate(asked))
    by_id = {c.id: c for c in done(items)}
    assert by_id["bad"].finish is Finish.ERROR
    assert "tripped over a wire" in by_id["bad"].error
    assert by_id["good"].finish is not Finish.ERROR
    streamed = "".join(i.text for i in items if isinstance(i, Delta) and i.id == "bad")
    assert streamed == by_id["bad"].text


def test_the_ledger_says_what_was_done_and_keeps_what_was_there(strategy: Strategy) -> None:
    """Each strategy that wraps writes a step in its name after the steps of what is inside."""
    inner = Remembering(lambda _: ANSWER)
    engine = strategy.wrap(inner)
    for asked in KINDS.values():
        (completion,) = done(engine.generate([replace(asked, id=asked.kind)]))
        actors = [s.actor for s in completion.ledger]
        cached = strategy.layer is Layer.CACHE and "inner" not in actors
        assert cached or actors[0] == "inner"
        assert engine is inner or strategy.name in actors
        assert all(s.action for s in completion.ledger)


def test_the_engines_own_promises_show_through(strategy: Strategy) -> None:
    """The wrapped engine is an engine, with a name and no capability that is not there."""
    inner = Fake(lambda _: ANSWER)
    engine = strategy.wrap(inner)
    assert isinstance(engine, Engine)
    assert inner.name in engine.name
    assert engine.capabilities <= inner.capabilities


OTHER_OPTIONS: dict[str, list[dict[str, object]]] = {
    "answer_cache": [{"semantic": True}, {"typed": 0, "keep_cut": True}],
    "answer_prefix": [{"style": "fence"}, {"style": "raw"}, {"style": "shown"}],
    "backtrack": [{"tries": 1}],
    "cascade": [
        {"signal": "confidence", "threshold": 0.9},
        {"signal": "examples_or_confidence", "self_tests": 2},
    ],
    "concurrency": [{"slots": 8, "threads": 1}],
    "early_exit": [{"threshold": 2.0}],
    "kv_cache_type": [{"values": "f16"}],
    "speculation": [{"switch": "on"}, {"block": 1, "min_pairs": 2, "max_pairs": 2}],
    "stop_when_passing": [{"max_runs": 1}, {"min_examples": 2}],
}
"""Settings that take other paths through a strategy, to be tried in company."""


def refused_in_a_sentence(refusal: str) -> bool:
    """Whether a refusal is one line that names a strategy and says something of it."""
    return len(refusal) > 20 and "\n" not in refusal and any(n in refusal for n in NAMES)


def say_or_fail(request: Request) -> Line:
    """Go on from the given code where the answer is begun; fail where the id says so."""
    if request.id.startswith("bad"):
        return Line(text="half an ans", error="the model tripped over a wire")
    begun = request.answer_prefix or f"```python\n{request.prompt}" * (request.prompt is not None)
    return Line(text=ANSWER.removeprefix(begun))


def holds_the_contract(strategies: list[Strategy], *, slots: int) -> None:
    """Check the promises of an engine inside several strategies, or that they are refused."""
    inner = Fake(say_or_fail, slots=slots)
    refusal, engine = together(strategies, inner)
    if engine is None:
        assert refused_in_a_sentence(refusal)
        assert inner.closed or not inner.requests
        return
    assert engine.capabilities <= inner.capabilities
    asked = [
        ask("a", stream=True),
        ask("bad", stream=True),
        ask("c", hints=None),
        ask("d", prompt=GIVEN, stream=True),
        ask("e", stop_strings=("never",), user="somebody"),
        ask("f", prefix=GIVEN, suffix="\n"),
    ]
    items = list(engine.generate(iter(asked)))
    by_id = {c.id: c for c in done(items)}
    assert sorted(by_id) == [r.id for r in asked] == sorted(c.id for c in done(items))
    for request in asked:
        heard = "".join(i.text for i in items if isinstance(i, Delta) and i.id == request.id)
        assert heard == (by_id[request.id].text if request.stream else "")
    assert by_id["bad"].finish is Finish.ERROR
    assert "tripped over a wire" in by_id["bad"].error
    for id_ in "acdef":
        assert by_id[id_].finish is not Finish.ERROR
    space: dict[str, object] = {}
    exec(by_id["a"].text.partition("```python\n")[2].partition("\n```")[0], space)  # noqa: S102 (written above)
    assert space["double"](21) == 42  # type: ignore[operator]
    actors = [s.actor for s in by_id["a"].ledger]
    assert {s.name for s in strategies} <= set(actors)
    _leaves_nothing_behind(engine, inner)


def _leaves_nothing_behind(engine: Engine, inner: Fake) -> None:
    """Closing a stream early cancels what ran inside; closing twice closes the model."""
    answers = engine.generate([ask("g", stream=True, hints=None), ask("h", hints=None)])
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert {*inner.cancelled, *inner.finished} == {r.id for r in inner.requests}
    assert [c.id for c in done(engine.generate([ask("i")]))] == ["i"]
    engine.close()
    engine.close()
    assert inner.closed


@pytest.mark.parametrize("names", [n for k in (2, 3) for n in combinations(NAMES, k)], ids="+".join)
def test_two_or_three_in_any_order_work_or_are_refused(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    """Up to three strategies, in every order, keep all promises together or say why not."""
    for number, order in enumerate(permutations(names)):
        holds_the_contract([made(n, tmp_path / f"{number}{n}") for n in order], slots=2)


@st.composite
def companies(draw: st.DrawFn) -> list[tuple[str, dict[str, object]]]:
    """Any subset of the strategies with settings, in any order or in one that layers allow."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    chosen = [(n, draw(st.sampled_from([{}, *OTHER_OPTIONS.get(n, [])]))) for n in names]
    if draw(st.booleans()):
        chosen.sort(key=lambda c: made(c[0], Path()).layer)
    return chosen


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(company=companies(), slots=st.integers(min_value=1, max_value=4))
def test_any_subset_in_any_order_works_or_is_refused(
    company: list[tuple[str, dict[str, object]]],
    slots: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Up to all strategies, with any settings, keep all promises together or say why not."""
    folder = tmp_path_factory.mktemp("company")
    strategies = [
        STRATEGIES.get(name)({**OPTIONS.get(name, {}), **options}, context(folder / name))
        for name, options in company
    ]
    holds_the_contract(strategies, slots=slots)


def test_all_strategies_together_work(tmp_path: Path) -> None:
    """In the order of their layers every registered strategy runs beside all others."""
    strategies = sorted((made(n, tmp_path / n) for n in NAMES), key=lambda s: s.layer)
    _, engine = together(strategies, Fake(say_or_fail))
    assert engine is not None
    engine.close()
    holds_the_contract(strategies, slots=2)
