"""``backtrack``: where a failed answer is left, what is asked then, and what all of it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lichen.acceleration import STRATEGIES
from lichen.acceleration.second_ways import ALTERNATIVES, turns_of
from lichen.acceleration.strategy import StrategyContext, wrapped
from lichen.core.errors import ConfigError
from lichen.core.generation import (
    Completion,
    Delta,
    Finish,
    Hints,
    Message,
    Request,
    Role,
    StopRule,
    Timings,
    TokenLogprob,
)
from lichen.core.measurement import Usage
from lichen.core.ports import Engine
from lichen.testing.engine import Line, ScriptedEngine, words
from lichen.testing.in_process_sandbox import InProcessSandbox

GIVEN = 'def double(x):\n    """Return twice x.\n\n    >>> double(3)\n    6\n    """\n'
HINTS = Hints(language="python", entry_point="double", given=GIVEN)
ASK = (Message(role=Role.USER, content="Complete it."),)
WRONG = f"```python\n{GIVEN}    return x ** 2\n```"
RIGHT = f"```python\n{GIVEN}    return x * 2\n```"


def number_of(token: str, text: str) -> int:
    """The place of a piece in the scripted engine's tokens."""
    return [w.strip() for w in words(text)].index(token)


POWER = number_of("**", WRONG)


def ask(name: str = "a", **kwargs: object) -> Request:
    """A question that shows an example."""
    if not {"prompt", "prefix"} & set(kwargs):
        kwargs = {"messages": ASK, **kwargs}
    return Request(id=name, **{"hints": HINTS, **kwargs})  # type: ignore[arg-type]


def around(
    script: Callable[[Request], str | Line], *, slots: int = 1, **options: object
) -> tuple[Engine, ScriptedEngine]:
    """The strategy around a scripted engine, and that engine."""
    inner = ScriptedEngine(script, slots=slots)
    context = StrategyContext(sandbox=InProcessSandbox(cpu_s=0.1))
    return STRATEGIES.get("backtrack")(options, context).wrap(inner), inner


def squares_first(request: Request) -> Line:
    """Answer wrongly; go on rightly from any other beginning that is given."""
    begun = request.answer_prefix or request.prompt or ""
    if request.answer_prefix and "*" in request.answer_prefix.rpartition("return")[2]:
        return Line(text=" 2\n```")
    return Line(
        text=WRONG.removeprefix(begun),
        others={POWER: ((" *", -0.6), ("  **", -0.55), (" +", -2.0)), 0: (("~~~", -4.0),)},
    )


def done(engine: Engine, *requests: Request) -> dict[str, Completion]:
    """Completions by id."""
    items = engine.generate(iter(requests))
    return {i.id: i for i in items if isinstance(i, Completion)}


def test_a_failed_answer_is_left_at_its_least_certain_token() -> None:
    """The runner-up is taken there, what came before is kept, and the whole answer comes back."""
    engine, inner = around(squares_first)
    answer = done(engine, ask())["a"]
    assert answer.text == RIGHT
    assert [r.answer_prefix for r in inner.requests] == ["", WRONG.partition(" **")[0] + " *"]
    assert all(r.logprobs == ALTERNATIVES for r in inner.requests)
    assert inner.requests[1].messages == ASK
    assert answer.finish is Finish.STOP


def test_the_ledger_charges_what_was_set_aside() -> None:
    """Usage is that of both ways; the first one's tokens and both checks are in the ledger."""
    engine, _ = around(squares_first)
    answer = done(engine, ask())["a"]
    first, second = answer.ledger
    assert (first.action, second.action) == ("first answer: set aside", "second way: given")
    assert first.usage.completion == len(words(WRONG))
    assert answer.usage.completion == len(words(WRONG)) + len(words(" 2\n```"))
    assert second.usage == Usage()
    assert (first.cpu_s, second.cpu_s) == (0.1, 0.1)
    assert "' *' instead of ' **', 0.10 behind; it passes 1 examples" in second.detail


def test_an_answer_that_passes_is_left_alone() -> None:
    """One request, and what the caller asked for: no log-probabilities unasked."""
    engine, inner = around(lambda _: RIGHT)
    answer = done(engine, ask())["a"]
    assert len(inner.requests) == 1
    assert (answer.text, answer.logprobs, answer.confidence) == (RIGHT, (), None)
    assert [s.action for s in answer.ledger] == ["first answer: given"]


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_tries_are_bounded_and_the_first_answer_stands_if_none_passes(tries: int) -> None:
    """Whatever is tried fails: the model's own first answer is given, with all that it took."""

    def hopeless(request: Request) -> Line:
        if request.answer_prefix:
            return Line(text=" 7\n```")
        return Line(text=WRONG, others={POWER: tuple((f" {c}", -1.0) for c in "+-/%")})

    engine, inner = around(hopeless, tries=tries)
    answer = done(engine, ask())["a"]
    assert answer.text == WRONG
    assert len(inner.requests) == 1 + tries
    assert [s.action for s in answer.ledger] == [
        "first answer: given",
        *["second way: set aside"] * tries,
    ]
    assert sum(s.usage.completion for s in answer.ledger) == 2 * tries


def test_a_second_way_that_fails_to_run_is_a_way_that_was_tried() -> None:
    """The engine's failure is in the ledger and the first answer is given."""

    def trips(request: Request) -> Line:
        return Line(error="out of memory") if request.answer_prefix else squares_first(request)

    engine, _ = around(trips, tries=1)
    answer = done(engine, ask())["a"]
    assert (answer.text, answer.finish) == (WRONG, Finish.STOP)
    assert answer.ledger[0].detail == "out of memory"


def test_second_ways_come_before_new_requests() -> None:
    """An engine that keeps prompts still holds the beginning then; the last ones get a call more."""
    engine, inner = around(squares_first)
    answers = done(engine, *(ask(f"q{i}") for i in range(3)))
    assert {a.text for a in answers.values()} == {RIGHT}
    order = [(r.id.partition("\x1f")[0], bool(r.answer_prefix)) for r in inner.requests]
    assert order == [(f"q{i}", second) for i in range(3) for second in (False, True)]


def test_several_slots_keep_requests_apart() -> None:
    """Ids of second ways do not meet; each caller's id comes back once."""
    engine, _ = around(squares_first, slots=4)
    answers = done(engine, *(ask(f"q{i}") for i in range(9)))
    assert sorted(answers) == [f"q{i}" for i in range(9)]
    assert {a.text for a in answers.values()} == {RIGHT}


def test_a_streaming_caller_hears_the_final_answer_once() -> None:
    """Nothing that may be taken back is said."""
    engine, _ = around(squares_first)
    items = list(engine.generate([ask(stream=True)]))
    assert [i.text for i in items if isinstance(i, Delta)] == [RIGHT]


def test_asked_log_probabilities_cover_the_whole_answer() -> None:
    """Kept tokens, the turn and the rest, with as many alternatives as were asked for."""
    engine, _ = around(squares_first)
    answer = done(engine, ask(logprobs=1))["a"]
    assert "".join(t.text for t in answer.logprobs) == RIGHT
    assert {len(t.top) for t in answer.logprobs} <= {0, 1}
    assert answer.confidence is not None
    assert answer.confidence.min_logprob == -0.6


def test_what_was_cut_at_the_limit_is_not_tried_again() -> None:
    """It would ramble once more, at the price of a whole answer."""
    engine, inner = around(squares_first)
    answer = done(engine, ask(max_tokens=5))["a"]
    assert answer.finish is Finish.LENGTH
    assert len(inner.requests) == 1


class Never:
    """A rule that lets everything run."""

    def cut(self, text: str) -> int | None:
        """Return None."""
        del text


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ask(hints=None), "what is wanted is not known"),
        (ask(prefix=GIVEN, suffix=""), "what is wanted is not known"),
        (ask(hints=replace(HINTS, language="go")), "only Python is run"),
        (ask(hints=replace(HINTS, given="def double(x):\n")), "no examples"),
        (ask(stop=Never()), "put this strategy outside"),
    ],
    ids=["no hints", "infill", "Go", "no examples", "stop rule"],
)
def test_what_cannot_be_checked_is_passed_on_as_it_is(request_: Request, reason: str) -> None:
    """Same request, same answer, and the reason in the ledger."""
    assert isinstance(Never(), StopRule)
    engine, inner = around(squares_first)
    answer = done(engine, request_)["a"]
    assert inner.requests == [request_]
    assert answer.ledger[-1].action == "passed on unchanged"
    assert reason in answer.ledger[-1].detail


@pytest.mark.parametrize("style", ["given", "shown", "raw", "fence"])
def test_it_works_around_begun_answers_and_stop_rules(style: str) -> None:
    """The prefix strategy keeps its prompt form where an answer is begun further than its own."""

    def model(request: Request) -> Line:
        begun = request.answer_prefix or f"```python\n{request.prompt}"
        if "*" in begun.rpartition("return")[2]:
            return Line(text=" 2\n\n\nprint(double(1))\n```")
        rest = WRONG.removeprefix(begun)
        return Line(text=rest, others={number_of("**", rest): ((" *", -0.6),)})

    inner = ScriptedEngine(model)
    context = StrategyContext(sandbox=InProcessSandbox())
    strategies = [
        STRATEGIES.get(name)(options, context)
        for name, options in (
            ("answer_prefix", {"style": style}),
            ("stop_when_complete", {}),
            ("backtrack", {}),
        )
    ]
    answer = done(wrapped(strategies, inner), ask())["a"]
    assert answer.text.removesuffix("\n```") == RIGHT.removesuffix("\n```")
    first, second = inner.requests
    assert (first.kind, second.kind) == (("raw",) * 2 if style == "raw" else ("chat",) * 2)
    assert first.messages == second.messages
    assert answer.finish is Finish.RULE


def completion(text: str, *tokens: TokenLogprob) -> Completion:
    """An answer with log-probabilities."""
    return Completion(
        id="a",
        text=text,
        usage=Usage(),
        finish=Finish.STOP,
        timings=Timings(total_s=0.0),
        logprobs=tokens,
    )


def token(text: str, logprob: float = -0.1, **others: float) -> TokenLogprob:
    """A token and what else was considered."""
    return TokenLogprob(text=text, logprob=logprob, top=((text, logprob), *others.items()))


def test_turns_are_ranked_by_how_close_the_other_token_was() -> None:
    """The given beginning is skipped, white space is no choice, and a cut end is not left."""
    answer = completion(
        "given: ab",
        token("a", -0.1, x=-3.0, y=-1.0),
        token("b", -0.7, z=-0.8, **{" b": -0.71, "\n": -0.72, "\ufffd": -0.73}),
        token("cut off", -0.1, w=-0.11),
    )
    found = [(t.place, t.tokens, t.taken, t.instead) for t in turns_of(answer)]
    assert found == [(8, 1, "b", "z"), (7, 0, "a", "y"), (7, 0, "a", "x")]


def test_tokens_that_cannot_be_placed_give_no_turns() -> None:
    """An engine whose tokens are not its text is believed about neither."""
    assert turns_of(completion("abc", token("q", x=-0.2))) == []
    assert turns_of(completion("", token("q", x=-0.2))) == []
    endless = "ab" * 40_000
    assert turns_of(completion(endless, token(endless, x=-0.2))) == []


def test_bad_options_are_refused() -> None:
    """One sentence each."""
    make = STRATEGIES.get("backtrack")
    context = StrategyContext(sandbox=InProcessSandbox())
    for options in ({"tries": 0}, {"cpu_s": 0.0}, {"trys": 1}):
        with pytest.raises(ConfigError):
            make(options, context)
    with pytest.raises(ConfigError, match="needs a sandbox"):
        make({}, StrategyContext())
