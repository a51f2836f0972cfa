"""Every promise of the ``Engine`` port, over every adapter that can run here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lichen.core.errors import CapabilityError, EngineError, UnknownNameError
from lichen.core.generation import (
    Capability,
    Completion,
    Delta,
    Finish,
    Message,
    Request,
    Role,
)
from lichen.core.model import ModelArtifact
from lichen.core.ports import Embedder, Engine, Tokenizer
from lichen.engines import ENGINES
from lichen.testing.engine import ScriptedEngine
from lichen.testing.openai_server import Behaviour, FakeOpenAIServer

SAID = " ".join(f"word{i}" for i in range(40))
_SMALL: dict[str, object] = {
    "context": 256,
    "threads": 1,
}  # spinning threads crawl on a busy machine
ASK = "Write a Python function that adds two numbers, with a docstring."


@dataclass(kw_only=True)
class Subject:
    """An adapter under test: how to open one more of it, and one that is open."""

    open: Callable[..., Engine]
    options: Mapping[str, object] = field(default_factory=dict)
    factory: str = ""

    def __post_init__(self) -> None:
        self.engine = self.open()


@pytest.fixture(
    scope="module",
    params=[
        "scripted",
        "openai_http",
        pytest.param("llama_cpp", marks=pytest.mark.model),
        pytest.param("ik_llama_cpp", marks=pytest.mark.model),
        pytest.param("transformers", marks=[pytest.mark.model, pytest.mark.slow]),
    ],
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Each adapter in turn; the real model is loaded once."""
    with ExitStack() as stack:
        made = _subject(request, stack)
        stack.callback(made.engine.close)
        yield made


def _subject(request: pytest.FixtureRequest, stack: ExitStack) -> Subject:
    if request.param == "scripted":
        return Subject(open=lambda slots=1: ScriptedEngine(lambda _: SAID, slots=slots))
    if request.param == "openai_http":
        server = stack.enter_context(FakeOpenAIServer(Behaviour(text=SAID)))
        options = {
            "base_url": server.base_url,
            "model": "fake",
            "capabilities": ["chat", "raw", "logprobs", "embed"],
            "answer_prefix": "continue",
        }
        return _registered("openai_http", None, options, slots_option="concurrency")
    if request.param == "transformers":
        pytest.importorskip("torch", reason="needs the extra [torch]")
        pytest.importorskip("transformers", reason="needs the extra [torch]")
        pytest.importorskip("gguf", reason="needs the extra [torch]")
    if request.param == "ik_llama_cpp":
        pytest.importorskip("ik_llama_cpp", reason="needs the extra [ik]")
    path: Path = request.getfixturevalue("model_135m")
    artifact = ModelArtifact(
        name="smollm2-135m", path=str(path), format="gguf", sha256="", size_bytes=0
    )
    if request.param == "transformers":
        return _registered("transformers", artifact, {"dtype": "float32"}, slots_option="")
    return _registered(request.param, artifact, _SMALL, slots_option="slots")


def _registered(
    name: str, model: ModelArtifact | None, options: dict[str, object], *, slots_option: str
) -> Subject:
    def open_it(slots: int = 1) -> Engine:
        return ENGINES.get(name)(
            model, {**options, **({slots_option: slots} if slots_option else {})}
        )

    return Subject(open=open_it, options=options, factory=name)


def ask(name: str = "a", **kwargs: object) -> Request:
    """A chat request for at most 12 tokens unless said otherwise."""
    if not {"prompt", "prefix", "messages"} & set(kwargs):
        kwargs["messages"] = (Message(role=Role.USER, content=ASK),)
    return Request(id=name, **{"max_tokens": 12, **kwargs})  # type: ignore[arg-type]


def one(engine: Engine, **kwargs: object) -> Completion:
    """The completion of one request, its deltas dropped."""
    (done,) = [i for i in engine.generate([ask(**kwargs)]) if isinstance(i, Completion)]
    return done


@dataclass
class KeepFirst:
    """A stop rule that cuts after ``n`` characters."""

    n: int

    def cut(self, text: str) -> int | None:
        return self.n if len(text) >= self.n else None


class Broken:
    """A stop rule with a bug."""

    def cut(self, text: str) -> int | None:
        raise KeyError("bug")


def test_it_is_an_engine(subject: Subject) -> None:
    """An adapter has everything the port asks for, and a name."""
    assert isinstance(subject.engine, Engine)
    assert subject.engine.name


def test_one_completion_per_request(subject: Subject) -> None:
    """Every request gives exactly one completion, with its id, whatever the number of requests."""
    ids = [f"r{i}" for i in range(5)]
    items = list(subject.engine.generate(ask(i, max_tokens=3) for i in ids))
    assert sorted(i.id for i in items) == ids
    assert all(isinstance(i, Completion) for i in items)


def test_no_requests_no_items(subject: Subject) -> None:
    """Nothing asked, nothing said."""
    assert list(subject.engine.generate([])) == []


def test_two_requests_of_one_id_are_a_mistake(subject: Subject) -> None:
    """Answers could not be told apart, so the second request of an id is refused."""
    with pytest.raises(ValueError, match="the id 'a'"):
        list(subject.engine.generate([ask("a"), ask("a")]))


def test_deltas_only_when_asked_for(subject: Subject) -> None:
    """Deltas come for requests with stream=True, before their completion, and for no others."""
    items = list(subject.engine.generate([ask("quiet"), ask("loud", stream=True)]))
    assert {i.id for i in items if isinstance(i, Delta)} == {"loud"}
    loud = [i for i in items if i.id == "loud"]
    assert isinstance(loud[-1], Completion)
    assert not any(isinstance(i, Completion) for i in loud[:-1])


def test_deltas_join_to_the_text(subject: Subject) -> None:
    """Streaming says what the completion says, in more than one piece, and not otherwise than silence."""
    *deltas, done = list(subject.engine.generate([ask(stream=True)]))
    assert isinstance(done, Completion)
    assert "".join(d.text for d in deltas if isinstance(d, Delta)) == done.text
    assert len(deltas) > 1
    assert done.text == one(subject.engine).text


def test_max_tokens(subject: Subject) -> None:
    """No more than max_tokens are generated, and the completion says that this was why it ended."""
    done = one(subject.engine, max_tokens=5)
    assert done.finish is Finish.LENGTH
    assert done.usage.completion == 5
    assert done.text


def test_usage_counts_prompt_and_answer(subject: Subject) -> None:
    """Token counts are positive, and the same prompt has the same count."""
    a, b = one(subject.engine, max_tokens=4), one(subject.engine, max_tokens=8)
    assert a.usage.prompt == b.usage.prompt > 0
    assert 0 < a.usage.completion < b.usage.completion


def test_a_longer_prompt_counts_more_tokens(subject: Subject) -> None:
    """Prompt tokens follow the prompt, and nothing is cached by default."""
    long = (Message(role=Role.USER, content=ASK + " again" * 20),)
    a, b = one(subject.engine, max_tokens=2), one(subject.engine, max_tokens=2, messages=long)
    assert b.usage.prompt >= a.usage.prompt + 20
    assert a.usage.cached == b.usage.cached == 0


def test_greedy_is_deterministic(subject: Subject) -> None:
    """Temperature 0 at one slot gives the same text every time, whatever the seed."""
    texts = {one(subject.engine, seed=seed).text for seed in (0, 0, 7)}
    assert len(texts) == 1


def test_stop_rule_cuts_exactly(subject: Subject) -> None:
    """The rule's cut is what is kept; the finish says so, and fewer tokens were paid for."""
    whole = one(subject.engine)
    done = one(subject.engine, stop=KeepFirst(10))
    assert done.text == whole.text[:10]
    assert done.finish is Finish.RULE
    assert 0 < done.usage.completion < whole.usage.completion


def test_stop_rule_cuts_streams_too(subject: Subject) -> None:
    """A streamed request never shows text beyond the cut."""
    *deltas, done = list(subject.engine.generate([ask(stream=True, stop=KeepFirst(10))]))
    assert isinstance(done, Completion)
    assert done.finish is Finish.RULE
    assert "".join(d.text for d in deltas if isinstance(d, Delta)) == done.text
    assert len(done.text) == 10


def test_stop_rule_that_never_cuts(subject: Subject) -> None:
    """A rule that is asked and says nothing changes nothing."""
    done = one(subject.engine, stop=KeepFirst(10**6))
    assert done.text == one(subject.engine).text
    assert done.finish is not Finish.RULE


def test_a_broken_stop_rule_fails_its_request_only(subject: Subject) -> None:
    """An exception in a rule is that sample's error, in a sentence; others go on."""
    items = list(subject.engine.generate([ask("bad", stop=Broken()), ask("good")]))
    by_id = {i.id: i for i in items if isinstance(i, Completion)}
    assert by_id["bad"].finish is Finish.ERROR
    assert "Broken" in by_id["bad"].error
    assert by_id["good"].error == ""


def test_stop_strings(subject: Subject) -> None:
    """The text ends before the stop string, which is not part of it."""
    whole = one(subject.engine).text
    word = whole.split()[2]
    done = one(subject.engine, stop_strings=(word,))
    assert done.text == whole[: whole.index(word)]
    assert done.finish is Finish.STOP


def test_logprobs_and_confidence(subject: Subject) -> None:
    """Asked for, every token has a log-probability, and the summary is theirs."""
    done = one(subject.engine, logprobs=2, max_tokens=6)
    assert len(done.logprobs) == done.usage.completion
    assert "".join(t.text for t in done.logprobs) == done.text
    assert all(t.logprob <= 0 and len(t.top) <= 2 for t in done.logprobs)
    assert done.confidence is not None
    values = [t.logprob for t in done.logprobs]
    assert done.confidence.tokens == len(values)
    assert done.confidence.min_logprob == min(values)
    assert done.confidence.mean_logprob == pytest.approx(sum(values) / len(values))


def test_no_logprobs_unless_asked(subject: Subject) -> None:
    """Nobody pays for log-probabilities that nobody wants."""
    done = one(subject.engine)
    assert done.logprobs == ()
    assert done.confidence is None


def test_logprobs_end_where_a_rule_cuts(subject: Subject) -> None:
    """Confidence is about the text that is kept."""
    done = one(subject.engine, logprobs=1, stop=KeepFirst(10))
    texts = [t.text for t in done.logprobs]
    assert "".join(texts).startswith(done.text)
    assert len("".join(texts[:-1])) < len(done.text)


def test_answer_prefix_is_not_in_the_text(subject: Subject) -> None:
    """The answer goes on from the prefix and does not repeat it."""
    prefix = "```python\ndef add("
    done = one(subject.engine, answer_prefix=prefix)
    assert done.error == ""
    assert done.text
    assert not done.text.startswith("```")


def test_a_failed_request_is_a_completion(subject: Subject) -> None:
    """What cannot be sent (a lone surrogate) ends in a sentence, and the next request is served."""
    items = list(subject.engine.generate([ask("bad", prompt="\ud800"), ask("good")]))
    by_id = {i.id: i for i in items if isinstance(i, Completion)}
    if subject.engine.name != "scripted":  # which encodes nothing
        assert by_id["bad"].finish is Finish.ERROR
        assert "surrogate" in by_id["bad"].error
        assert by_id["bad"].usage.completion == 0
    assert by_id["good"].error == ""


def test_timings(subject: Subject) -> None:
    """Times are not negative, and parts do not exceed the whole."""
    t = one(subject.engine, stream=True).timings
    assert t.ttft_s is not None
    assert 0 <= t.ttft_s <= t.total_s


def test_requests_are_pulled_as_slots_become_free(subject: Subject) -> None:
    """With one slot, a request is taken only when the one before it is answered."""
    pulled: list[int] = []

    def source() -> Iterator[Request]:
        for i in range(4):
            pulled.append(i)
            yield ask(str(i), max_tokens=2)

    answered = 0
    for item in subject.engine.generate(source()):
        assert len(pulled) <= answered + 1
        answered += isinstance(item, Completion)
    assert answered == 4


def test_a_failing_source_ends_the_call(subject: Subject) -> None:
    """An exception in the iterable reaches the caller, and the engine stays usable."""

    def source() -> Iterator[Request]:
        yield ask("first", max_tokens=1)
        raise LookupError("no more data")

    with pytest.raises(LookupError, match="no more data"):
        list(subject.engine.generate(source()))
    assert one(subject.engine, max_tokens=1).error == ""


def test_closing_the_iterator_early(subject: Subject) -> None:
    """A closed iterator takes no more requests, and the engine serves the next call."""
    pulled: list[str] = []

    def source() -> Iterator[Request]:
        for i in range(100):
            pulled.append(str(i))
            yield ask(str(i), max_tokens=200, stream=True)

    items = subject.engine.generate(source())
    next(iter(items))
    items.close()  # type: ignore[attr-defined]  # generators have it
    assert len(pulled) == 1
    assert one(subject.engine, max_tokens=2).error == ""


def test_several_threads_share_an_engine(subject: Subject) -> None:
    """Calls from two threads do not mix their answers up."""
    if subject.engine.name == "scripted":
        pytest.skip("the scripted engine runs in one thread, by design")
    got: dict[str, list[str]] = {}

    def call(name: str) -> None:
        items = subject.engine.generate(ask(f"{name}{i}", max_tokens=2) for i in range(3))
        got[name] = [i.id for i in items]

    threads = [threading.Thread(target=call, args=(n,)) for n in "xy"]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert {k: sorted(v) for k, v in got.items()} == {
        n: [f"{n}{i}" for i in range(3)] for n in "xy"
    }


REQUESTS: dict[Capability, dict[str, object]] = {
    Capability.CHAT: {},
    Capability.RAW: {"prompt": "def add(a, b):"},
    Capability.INFILL: {"prefix": "def add(a, b):\n    return", "suffix": "\n"},
    Capability.ANSWER_PREFIX: {"answer_prefix": "def"},
    Capability.LOGPROBS: {"logprobs": 1},
    Capability.STREAM: {"stream": True},
    Capability.CANCEL: {"stop": KeepFirst(1)},
    Capability.SEED: {"temperature": 0.5, "seed": 3},
}


@pytest.mark.parametrize("capability", REQUESTS)
def test_a_capability_is_declared_if_and_only_if_it_works(
    subject: Subject, capability: Capability
) -> None:
    """What is declared succeeds; what is not declared is refused with a sentence (or harmless)."""
    done = one(subject.engine, max_tokens=3, **REQUESTS[capability])
    if capability in subject.engine.capabilities:
        assert done.error == ""
        assert done.text
    elif capability is not Capability.SEED:  # a seed that is not honoured is not an error
        assert done.finish is Finish.ERROR
        assert str(capability) in done.error


def test_seeds_make_sampling_repeatable(subject: Subject) -> None:
    """With the capability, one seed gives one text."""
    if Capability.SEED not in subject.engine.capabilities:
        pytest.skip("this server is not said to honour seeds")
    texts = {one(subject.engine, temperature=1.0, seed=11).text for _ in range(2)}
    assert len(texts) == 1


def test_embedding_as_declared(subject: Subject) -> None:
    """An engine that declares it returns one vector per text, in order; others refuse."""
    engine = subject.engine
    if not isinstance(engine, Embedder):
        assert Capability.EMBED not in engine.capabilities
        return
    if Capability.EMBED not in engine.capabilities:
        with pytest.raises(CapabilityError, match="embed"):
            engine.embed(["a"])
        return
    a, b, a_again = engine.embed(["one", "something longer", "one"])
    assert a == a_again != b
    assert len(a) == len(b) > 0
    assert engine.embed([]) == []


def test_tokens_as_declared(subject: Subject) -> None:
    """An engine that declares it round-trips text through token ids."""
    engine = subject.engine
    assert isinstance(engine, Tokenizer) == (Capability.TOKENIZE in engine.capabilities)
    if isinstance(engine, Tokenizer):
        text = "def f(x):\n    return x"
        ids = engine.tokenize(text)
        assert 0 < len(ids) <= len(text)
        assert engine.detokenize(ids) == text


def test_close_is_idempotent_and_final(subject: Subject) -> None:
    """Closing twice is fine; asking afterwards is an error in a sentence."""
    engine = subject.open()
    assert one(engine, max_tokens=1).error == ""
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        list(engine.generate([ask()]))


def test_close_does_not_wait_for_a_suspended_iterator(subject: Subject) -> None:
    """An iterator that nobody finishes does not keep the engine from closing."""
    engine = subject.open(slots=2)
    items = iter(engine.generate(ask(str(i), max_tokens=200, stream=True) for i in range(9)))
    next(items)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        list(items)


def test_slots_run_together(subject: Subject) -> None:
    """With two slots, two requests are under way before the first is answered."""
    engine = subject.open(slots=2)
    try:
        items = list(engine.generate(ask(i, stream=True, max_tokens=12) for i in "ab"))
        first_done = next(n for n, i in enumerate(items) if isinstance(i, Completion))
        assert len([i for i in items if isinstance(i, Completion)]) == 2
        if engine.name in ("scripted", "llama_cpp", "ik_llama_cpp"):
            # A fake server may answer one before it hears the other; transformers has one slot.
            assert {i.id for i in items[:first_done]} == {"a", "b"}
    finally:
        engine.close()


def test_an_unknown_option_is_refused_with_a_suggestion(subject: Subject) -> None:
    """A misspelt option never passes silently."""
    if not subject.factory:
        pytest.skip("made in Python, not from options")
    with pytest.raises(UnknownNameError, match="no option of engine"):
        ENGINES.get(subject.factory)(
            ModelArtifact(name="m", path="x", format="gguf", sha256="", size_bytes=0),
            {**subject.options, "slotss": 2},
        )
