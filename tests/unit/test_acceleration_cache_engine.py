"""The answer cache over a scripted engine: what is a hit, what it says, and what it must not be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lichen.acceleration.answering import AnswerCacheEngine
from lichen.acceleration.strategies.answer_cache import make
from lichen.acceleration.strategy import EngineAround, StrategyContext, wrapped
from lichen.core.errors import ConfigError, EngineError, StoreError
from lichen.core.generation import (
    Capability,
    Completion,
    Delta,
    Finish,
    Hints,
    Message,
    Request,
    Role,
)
from lichen.core.measurement import Usage
from lichen.core.ports import Engine
from lichen.testing.clock import FakeClock
from lichen.testing.engine import ALL, Line, ScriptedEngine


def chat(text: str, name: str = "1", **changes: object) -> Request:
    messages = changes.pop("messages", (Message(role=Role.USER, content=text),))
    return Request(id=name, messages=messages, **changes)  # type: ignore[arg-type]


def told(request: Request) -> str:
    """An answer that differs whenever anything that may change an answer does."""
    said = [m.content for m in request.messages or ()]
    parts = [*said, request.prompt, request.prefix, request.suffix, request.answer_prefix]
    parts += [
        request.hints,
        request.temperature and (request.seed, request.top_p, request.temperature),
    ]
    return (
        "re: " + " ".join(repr(p).replace(" ", "_") for p in parts if p) + " and so on to the end"
    )


def cached(
    folder: Path, inner: Engine, now: FakeClock | None = None, **options: object
) -> AnswerCacheEngine:
    options.setdefault("model", "m")
    strategy = make(options, StrategyContext(data_dir=folder, cpu_s=lambda: 0.0, clock=lambda: 0.0))
    engine = wrapped([replace(strategy, now=now or FakeClock())], inner)
    assert isinstance(engine, AnswerCacheEngine)
    return engine


def one(engine: Engine, request: Request) -> Completion:
    (found,) = [i for i in engine.generate([request]) if isinstance(i, Completion)]
    return found


def kind(answer: Completion) -> str:
    return answer.ledger[-1].action


def test_the_same_request_is_answered_once(tmp_path: Path) -> None:
    """A repeat gives the same text and finish, costs no token, and says what it saved."""
    now, inner = FakeClock(), ScriptedEngine(told)
    engine = cached(tmp_path, inner, now)
    first = one(engine, chat("hello there"))
    now.advance(7)
    again = one(engine, chat("hello there", "2"))
    assert (kind(first), kind(again)) == ("miss", "exact")
    assert (again.id, again.text, again.finish) == ("2", first.text, first.finish)
    assert again.usage == Usage()
    assert again.ledger[-1].detail == "7 s old; saved 2 prompt and 8 new tokens"
    assert len(inner.requests) == 1
    report = engine.report()
    assert (report.exact, report.miss, report.saved) == (1, 1, first.usage)


def test_answers_outlive_the_process(tmp_path: Path) -> None:
    """A cache that is opened again knows what was answered before."""
    first = cached(tmp_path, ScriptedEngine(told))
    text = one(first, chat("hello")).text
    first.close()
    assert one(cached(tmp_path, ScriptedEngine({})), chat("hello")).text == text


BASE = chat("In src/app.py, add 3 to `total` and don't print 'a  b'.", hints=Hints(entry_point="f"))


def said(text: str) -> Request:
    return replace(BASE, messages=(Message(role=Role.USER, content=text),))


WORDS = BASE.messages[0].content if BASE.messages else ""
NEAR: dict[str, Request] = {
    "changed number": said(WORDS.replace("3", "4")),
    "renamed identifier": said(WORDS.replace("total", "totals")),
    "negation dropped": said(WORDS.replace("don't", "do")),
    "other path": said(WORDS.replace("src/", "lib/")),
    "confusable letter": said(WORDS.replace("app", "\u0430pp")),
    "composed otherwise": said(WORDS + "\u00e9"),
    "decomposed": said(WORDS + "e\u0301"),
    "full-width": said(WORDS.replace("3", "\uff13")),
    "zero-width": said(WORDS.replace("total", "to\u200btal")),
    "space in a literal": said(WORDS.replace("a  b", "a b")),
    "space outside a literal": said(WORDS.replace("add 3", "add  3")),
    "indentation": said(WORDS.replace("add", "\n  add")),
    "case": said(WORDS.replace("total", "Total")),
    "leading space": said(" " + WORDS),
    "other user": replace(BASE, user="eve"),
    "other answer prefix": replace(BASE, answer_prefix="```python\n"),
    "other hints": replace(BASE, hints=Hints(entry_point="g")),
    "no hints": replace(BASE, hints=None),
    "other given code": replace(BASE, hints=Hints(entry_point="f", given="x = 1")),
    "other stop string": replace(BASE, stop_strings=("zzz",)),
    "fewer tokens": replace(BASE, max_tokens=3),
    "sampled": replace(BASE, temperature=0.7),
    "as a system message": replace(
        BASE,
        messages=(Message(role=Role.SYSTEM, content=WORDS), Message(role=Role.USER, content="")),
    ),
    "with a system message": replace(
        BASE, messages=(Message(role=Role.SYSTEM, content="Be brief."), *(BASE.messages or ()))
    ),
    "in two messages": replace(
        BASE,
        messages=tuple(Message(role=Role.USER, content=t) for t in (WORDS[:10], WORDS[10:])),
    ),
    "raw": replace(BASE, messages=None, prompt=WORDS),
    "infill": replace(BASE, messages=None, prefix=WORDS, suffix=""),
}


@pytest.mark.parametrize("near", NEAR.values(), ids=NEAR.keys())
def test_what_only_looks_alike_is_no_hit(tmp_path: Path, near: Request) -> None:
    """No near-duplicate gets the other's answer, in either order, at default settings."""
    for first, second in ((BASE, near), (near, BASE)):
        folder = tmp_path / first.id / str(first is BASE)
        engine = cached(folder, ScriptedEngine(told))
        one(engine, first)
        answer = one(engine, second)
        assert kind(answer) in ("miss", "passed on unchanged")
        assert answer.text == one(ScriptedEngine(told), second).text


def test_near_duplicates_all_at_once(tmp_path: Path) -> None:
    """With all near-duplicates cached, each still gets its own answer: zero wrong ones."""
    for semantic in (False, True):
        engine = cached(tmp_path / str(semantic), ScriptedEngine(told), semantic=semantic)
        requests = [BASE, *NEAR.values()]
        for _ in range(3):
            for request in requests:
                assert one(engine, request).text == one(ScriptedEngine(told), request).text


@pytest.mark.parametrize("option", ["model", "adapter"])
def test_other_models_answer_for_themselves(tmp_path: Path, option: str) -> None:
    """One file, two models: neither gets the other's answers."""
    first = cached(tmp_path, ScriptedEngine(lambda _: "from the first"))
    one(first, chat("hello"))
    second = cached(tmp_path, ScriptedEngine(lambda _: "from the second"), **{option: "other"})
    assert one(second, chat("hello")).text == "from the second"
    assert one(first, chat("hello")).text == "from the first"


def test_other_strategies_inside_answer_for_themselves(tmp_path: Path) -> None:
    """What stands between cache and model changes answers, so it is part of the identity."""
    one(cached(tmp_path, ScriptedEngine(lambda _: "plain")), chat("hello"))
    inside = EngineAround(ScriptedEngine(lambda _: "wrapped"), "some_strategy")
    assert one(cached(tmp_path, inside), chat("hello")).text == "wrapped"


SAME = {
    "another id": replace(BASE, id="other"),
    "streamed": replace(BASE, stream=True),
    "another seed, greedy": replace(BASE, seed=9),
    "another top_p, greedy": replace(BASE, top_p=0.3),
    "more tokens": replace(BASE, max_tokens=4000),
    "Windows line ends": said(WORDS.replace("\n", "\r\n")),
    "space at the end": said(WORDS + " \n"),
}


@pytest.mark.parametrize("same", SAME.values(), ids=SAME.keys())
def test_what_cannot_change_the_answer_is_a_hit(tmp_path: Path, same: Request) -> None:
    """Differences that no answer depends on do not cost one."""
    engine = cached(tmp_path, ScriptedEngine(told))
    one(engine, BASE)
    assert kind(one(engine, same)) == "exact"


def test_the_order_of_stop_strings_does_not_matter(tmp_path: Path) -> None:
    """Stop strings are a set."""
    engine = cached(tmp_path, ScriptedEngine(told))
    one(engine, chat("hello", stop_strings=("y", "z")))
    assert kind(one(engine, chat("hello", stop_strings=("z", "y", "z")))) == "exact"


class _Rule:
    def __init__(self, identity: str | None = None) -> None:
        if identity is not None:
            self.identity = identity

    def cut(self, text: str) -> int | None:
        return 5 if len(text) >= 5 else None


def test_rules_that_do_not_say_which_they_are_pass(tmp_path: Path) -> None:
    """A stop rule changes the answer: unnamed ones bypass, named ones are part of the key."""
    engine = cached(tmp_path, ScriptedEngine(told))
    for _ in range(2):
        answer = one(engine, chat("hello", stop=_Rule()))
        assert kind(answer) == "passed on unchanged"
        assert "stop rule" in answer.ledger[-1].detail
    assert kind(one(engine, chat("hello", stop=_Rule("five")))) == "miss"
    assert kind(one(engine, chat("hello", stop=_Rule("five")))) == "exact"
    assert kind(one(engine, chat("hello", stop=_Rule("six")))) == "miss"
    assert kind(one(engine, chat("hello"))) == "miss"


def test_logprobs_pass(tmp_path: Path) -> None:
    """A request for log-probabilities goes to the engine, since they are not kept."""
    engine = cached(tmp_path, ScriptedEngine(told))
    for _ in range(2):
        assert one(engine, chat("hello", logprobs=1)).logprobs


def test_sampled_requests_are_cached_by_seed_if_asked(tmp_path: Path) -> None:
    """With ``sampled = true`` the same seed is the same answer, another seed is not."""
    engine = cached(tmp_path, ScriptedEngine(told), sampled=True)
    one(engine, chat("hello", temperature=0.8, seed=1))
    assert kind(one(engine, chat("hello", temperature=0.8, seed=1))) == "exact"
    assert kind(one(engine, chat("hello", temperature=0.8, seed=2))) == "miss"
    assert kind(one(engine, chat("hello", temperature=0.7, seed=1))) == "miss"
    assert kind(one(engine, chat("hello", temperature=0.8, seed=1, top_p=0.5))) == "miss"


def test_failures_and_cuts_are_not_kept(tmp_path: Path) -> None:
    """What failed, was cut at the limit, or is empty is asked again."""
    for script, limit in ((lambda _: Line(error="no"), 9), (told, 2), (lambda _: "", 9)):
        engine = cached(tmp_path / str(limit) / script.__name__, ScriptedEngine(script))
        for _ in range(2):
            answer = one(engine, chat("hello", max_tokens=limit))
            assert kind(answer) == "miss"
            assert "not kept" in answer.ledger[-1].detail
        engine.close()


def test_cuts_are_kept_if_asked_for_the_same_limit_only(tmp_path: Path) -> None:
    """``keep_cut`` gives a cut answer to requests that would be cut at the same place."""
    engine = cached(tmp_path, ScriptedEngine(told), keep_cut=True)
    assert one(engine, chat("hello", max_tokens=2)).finish is Finish.LENGTH
    again = one(engine, chat("hello", max_tokens=2))
    assert (kind(again), again.finish) == ("exact", Finish.LENGTH)
    assert kind(one(engine, chat("hello", max_tokens=3))) == "miss"
    off = cached(tmp_path, ScriptedEngine(told))
    assert kind(one(off, chat("hello", max_tokens=3))) == "miss"


def infill(prefix: str, suffix: str = "\n", **changes: object) -> Request:
    return Request(id="1", prefix=prefix, suffix=suffix, **changes)  # type: ignore[arg-type]


def test_typing_a_completion_gives_its_rest(tmp_path: Path) -> None:
    """While the user types what was proposed, the rest of it is the answer, without a token."""
    inner = ScriptedEngine(lambda _: "return a + b")
    engine = cached(tmp_path, inner)
    one(engine, infill("def add(a, b):\n    "))
    for typed in ("r", "re", "return a"):
        answer = one(engine, infill("def add(a, b):\n    " + typed))
        assert kind(answer) == "prefix"
        assert typed + answer.text == "return a + b"
        assert f"{len(typed)} characters were typed" in answer.ledger[-1].detail
        assert answer.usage == Usage()
    assert len(inner.requests) == 1


@pytest.mark.parametrize(
    "changed",
    [
        infill("def add(a, b):\n    x"),
        infill("def add(a, b):\n    return a + b"),
        infill("def add(a, b):\n    return a + b\n"),
        infill("def add(a, b):\n    r", "\n\n"),
        infill("def adD(a, b):\n    r"),
        infill("def add(a, b):\n    r", user="eve"),
        infill("def add(a, b):\n    r", temperature=0.5),
        infill("def add(a, b):\n    r", max_tokens=2),
        infill("def add(a, b):\n    r", stop_strings=("q",)),
        infill("def add(a, b):\n    r", stop=_Rule("five")),
        infill("def add(a, b):\n   "),
    ],
)
def test_typing_something_else_is_no_hit(tmp_path: Path, changed: Request) -> None:
    """Another character, another suffix, user, limit or rule: the model is asked."""
    inner = ScriptedEngine(lambda _: "return a + b")
    engine = cached(tmp_path, inner)
    one(engine, infill("def add(a, b):\n    "))
    one(engine, changed)
    assert len(inner.requests) == 2


def test_raw_prompts_can_be_typed_ahead_too_chats_cannot(tmp_path: Path) -> None:
    """A continuation is of a text; a chat message that grows is another question."""
    engine = cached(tmp_path, ScriptedEngine(lambda _: "return 1"))
    one(engine, Request(id="1", prompt="def f():\n    "))
    assert kind(one(engine, Request(id="1", prompt="def f():\n    ret"))) == "prefix"
    one(engine, chat("def f():\n    "))
    assert kind(one(engine, chat("def f():\n    ret"))) == "miss"


def test_typing_ahead_can_be_limited_and_turned_off(tmp_path: Path) -> None:
    """``typed`` is the most characters that are looked back."""
    for typed, expected in ((3, "prefix"), (2, "miss"), (0, "miss")):
        engine = cached(tmp_path / str(typed), ScriptedEngine(lambda _: "return 1"), typed=typed)
        one(engine, infill("x "))
        assert kind(one(engine, infill("x ret"))) == expected


def test_hits_stream_and_keep_the_promises(tmp_path: Path) -> None:
    """A streamed hit has its text in deltas; hits and misses mix in one call; ids stay unique."""
    engine = cached(tmp_path, ScriptedEngine(told, slots=2))
    one(engine, chat("a"))
    asked = [chat(t, str(i), stream=True) for i, t in enumerate("abacada")]
    items = list(engine.generate(asked))
    done = {i.id: i for i in items if isinstance(i, Completion)}
    assert sorted(done) == [r.id for r in asked]
    for request in asked:
        heard = "".join(i.text for i in items if isinstance(i, Delta) and i.id == request.id)
        assert heard == done[request.id].text
        assert heard == one(ScriptedEngine(told), request).text
    assert [kind(done[str(i)]) for i in (0, 2, 4, 6)] == ["exact"] * 4
    with pytest.raises(ValueError, match="two requests"):
        list(engine.generate([chat("a"), chat("a")]))


def test_requests_are_taken_lazily_hits_included(tmp_path: Path) -> None:
    """With one slot, a request is taken only when the one before it is answered."""
    engine = cached(tmp_path, ScriptedEngine(told))
    for text in "ac":
        one(engine, chat(text))
    pulled: list[str] = []

    def source() -> Iterator[Request]:
        for i, text in enumerate("aabbccdd"):
            pulled.append(text)
            yield chat(text, str(i))

    for answered, _ in enumerate(engine.generate(source())):
        assert len(pulled) <= answered + 1


def test_closing_early_asks_no_more(tmp_path: Path) -> None:
    """A closed iterator takes no more requests, stores nothing of what was cut off."""
    inner = ScriptedEngine(told)
    engine = cached(tmp_path, inner)
    items = engine.generate(chat(str(i), str(i), stream=True) for i in range(50))
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert inner.cancelled == ["0"]
    assert kind(one(engine, chat("0"))) == "miss"
    engine.close()
    engine.close()
    assert inner.closed
    with pytest.raises(EngineError):
        one(engine, chat("new"))


def phrased(text: str) -> Request:
    return chat(text)


FETCH = "Please write a small helper that walks over `rows` and collects the names into `out`."
FETCH_NEAR = "Kindly write a small helper that walks over `rows` and collects the names into `out`."


def test_near_questions_are_learned_before_they_are_answered(tmp_path: Path) -> None:
    """Reuse begins only after enough looks at that answer were right, and then costs nothing."""
    inner = ScriptedEngine(lambda _: "```python\nout = [r.name for r in rows]\n```")
    engine = cached(tmp_path, inner, semantic=True, error_bound=0.1)
    one(engine, phrased(FETCH))
    kinds = []
    openings = [
        f"{a} {b} write" for a in ("Now", "Kindly", "Hello", "Okay", "So", "Well")
        for b in ("please", "do", "simply", "quickly", "again", "just", "rather", "kindly")
    ]  # fmt: skip
    for opening in openings:
        answer = one(engine, phrased(FETCH.replace("Please write", opening)))
        kinds.append(kind(answer))
    assert kinds[0] == "miss"
    assert kinds[-1] == "semantic"
    assert kinds.index("semantic") >= 4
    assert "similarity" in answer.ledger[-1].detail


def test_near_questions_with_other_answers_are_never_reused(tmp_path: Path) -> None:
    """Where looks show that the wording mattered, the model goes on being asked."""
    count = iter(range(1000))
    engine = cached(
        tmp_path, ScriptedEngine(lambda _: f"answer {next(count)}"), semantic=True, error_bound=0.3
    )
    for i in range(30):
        opening = ("please ", "kindly ", "simply ")[i % 3] * (1 + i // 3)
        answer = one(engine, phrased(f"{opening}{FETCH.lower()}"))
        assert kind(answer) == "miss"


def test_semantic_is_single_turn(tmp_path: Path) -> None:
    """A conversation depends on its turns: near questions in it are never compared."""
    inner = ScriptedEngine(lambda _: "x = 1")
    engine = cached(tmp_path, inner, semantic=True, error_bound=0.9)
    turns = [
        (Message(role=Role.USER, content="hi"), Message(role=Role.ASSISTANT, content="yes"),
         Message(role=Role.USER, content=f"{word} tell me more about this thing here"))
        for word in ("please", "kindly", "simply", "gently", "quickly", "politely", "nicely")
    ]  # fmt: skip
    for messages in turns:
        one(engine, chat("", messages=messages))
    assert len(inner.requests) == len(turns)


def test_embeddings_compare_if_the_engine_has_them(tmp_path: Path) -> None:
    """The wrapped engine's own vectors may stand for the wording; without them words do."""
    for capabilities in (ALL, ALL - {Capability.EMBED}):
        inner = EngineAround(ScriptedEngine(lambda _: "x = 1", capabilities=capabilities), "t")
        folder = tmp_path / str(len(capabilities))
        engine = cached(folder, inner, semantic=True, similarity="embedding", error_bound=0.5)
        for word in ("please", "kindly", "simply", "gently", "quickly", "politely", "nicely"):
            answer = one(engine, chat(f"{word} tell me more about this thing here"))
        assert kind(answer) == "semantic"


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""},
        {"model": "m", "error_bound": 0.0},
        {"model": "m", "similarity": "moon"},
        {"model": "m", "typed": -1},
        {"model": "m", "max_entries": 0},
        {"model": 3},
        {},
    ],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    """Every mistake in the options is one ConfigError; a model must always be named."""
    with pytest.raises(ConfigError):
        make(options, StrategyContext())


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """Where no file can be kept, the error says so and the engine is closed."""
    (tmp_path / "file").write_text("")
    inner = ScriptedEngine({})
    with pytest.raises(StoreError, match="cannot keep"):
        cached(tmp_path / "file", inner)
    assert inner.closed
