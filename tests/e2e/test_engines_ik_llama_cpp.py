"""ik_llama.cpp with the real smallest model: what only the library and a file can show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lichen.core.generation import Completion, Finish, Message, Request, Role
from lichen.core.model import ModelArtifact
from lichen.core.ports import Engine
from lichen.engines import ENGINES
from lichen.engines.ik_llama_cpp import IkLlamaCppEngine
from lichen.engines.ik_llama_cpp.library import Item, Loaded
from lichen.engines.ik_llama_cpp.options import IkLlamaCppOptions
from lichen.engines.ik_llama_cpp.speaking import log_probabilities
from lichen.engines.llama_cpp import LlamaCppEngine

pytestmark = pytest.mark.model

SYSTEM = "You are a careful programmer who explains nothing and never apologises. Answer in code."
ASK = (Message(role=Role.USER, content="Write a Python function add(a, b) with a docstring."),)
LONG = (
    Message(role=Role.SYSTEM, content=SYSTEM),
    Message(role=Role.USER, content="Write fib(n)."),
    Message(role=Role.ASSISTANT, content="def fib(n):\n    return n if n < 2 else fib(n - 1)\n"),
    Message(role=Role.USER, content="That is wrong. Na\u00efve, even \N{SNAKE}. Repair it."),
)
SMALL = {"threads": 1, "context": 512}


@pytest.fixture(scope="module")
def engines(model_135m: Path) -> Iterator[tuple[IkLlamaCppEngine, LlamaCppEngine]]:
    """Both engines with the same file, in one process."""
    pytest.importorskip("ik_llama_cpp", reason="needs the extra [ik]")
    model = artifact(model_135m)
    ours = ENGINES.get("ik_llama_cpp")(model, {**SMALL, "prompt_cache": "user", "slots": 2})
    theirs = ENGINES.get("llama_cpp")(model, SMALL)
    assert isinstance(ours, IkLlamaCppEngine)
    assert isinstance(theirs, LlamaCppEngine)
    yield ours, theirs
    ours.close()
    theirs.close()


def artifact(path: Path) -> ModelArtifact:
    return ModelArtifact(name="m", path=str(path), format="gguf", sha256="", size_bytes=0)


def one(engine: Engine, **kwargs: object) -> Completion:
    """The completion of one request."""
    request = Request(id="r", **{"max_tokens": 8, **kwargs})  # type: ignore[arg-type]
    (done,) = [i for i in engine.generate([request]) if isinstance(i, Completion)]
    return done


@pytest.mark.parametrize("messages", [ASK, LONG])
def test_conversations_are_written_as_llama_cpp_writes_them(
    engines: tuple[IkLlamaCppEngine, LlamaCppEngine], messages: tuple[Message, ...]
) -> None:
    """The same text from the same template, and as many tokens."""
    ours, theirs = engines
    assert ours.render(messages) == theirs.render(messages)
    a, b = (one(e, messages=messages, max_tokens=1, user="same") for e in engines)
    assert a.usage.prompt == b.usage.prompt


@pytest.mark.parametrize(
    "text",
    ["def f(x):\n    return x\n", "na\u00efve \N{SNAKE} \u4f60\u597d", "<|im_end|>", "\t\t x"],
)
def test_tokens_are_llama_cpps(engines: tuple[IkLlamaCppEngine, LlamaCppEngine], text: str) -> None:
    """The same ids, control tokens in a text stay text, and the way back is exact."""
    ours, theirs = engines
    assert ours.tokenize(text) == theirs.tokenize(text)
    assert ours.detokenize(ours.tokenize(text)) == text


def test_a_long_prompt_is_predicted_as_llama_cpp_predicts_it(
    engines: tuple[IkLlamaCppEngine, LlamaCppEngine],
) -> None:
    """Whatever the kernels for many tokens do on this processor: the answer's tokens are near.

    In ik-llama-cpp-python 0.1.5 those for Q4_1, in which this file is, are wrong with AVX2: they end
    this answer before its first word. The engine has to notice and do without them.
    """
    a, b = (one(e, messages=LONG, logprobs=1, user="predicted") for e in engines)
    assert a.usage.prompt > 64
    assert a.finish is Finish.LENGTH
    assert a.logprobs[0].text == b.logprobs[0].text
    assert a.logprobs[0].logprob == pytest.approx(b.logprobs[0].logprob, abs=0.3)


def test_kept_prompts_change_nothing_but_the_price(
    engines: tuple[IkLlamaCppEngine, LlamaCppEngine],
) -> None:
    """A conversation that goes on is read from where it stopped; the answer is the same."""
    ours, _ = engines
    fresh = one(ours, messages=LONG, user="kept")
    again = one(ours, messages=LONG, user="kept")
    other = one(ours, messages=LONG, user="somebody else")
    assert (fresh.usage.cached, other.usage.cached) == (0, 0)
    assert again.usage.cached == again.usage.prompt - 1
    assert fresh.text == again.text == other.text


def test_a_prompt_longer_than_a_slot(engines: tuple[IkLlamaCppEngine, LlamaCppEngine]) -> None:
    """It is refused in a sentence that names the option; the next request is served."""
    ours, _ = engines
    done = one(ours, prompt="word " * 600)
    assert done.finish is Finish.ERROR
    assert "'context'" in done.error
    assert one(ours, prompt="def f(").error == ""


def test_an_answer_ends_where_the_slot_does(
    engines: tuple[IkLlamaCppEngine, LlamaCppEngine],
) -> None:
    """Prompt and answer share the context; what does not fit is not written."""
    ours, _ = engines
    done = one(ours, prompt="1 " * 250, max_tokens=400)
    assert done.finish is Finish.LENGTH
    assert done.usage.prompt + done.usage.completion == SMALL["context"]


FEW = 24  # rows in a step: what this file's kernels compute rightly on every processor


def predicted(
    model: Loaded, sequence: int, tokens: Sequence[int], start: int = 0
) -> npt.NDArray[np.float64]:
    """Add tokens to a sequence; log-probabilities after each of them, (tokens, vocabulary)."""
    found = []
    for first in range(0, len(tokens), FEW):
        part = [
            Item(token=t, position=start + i, sequence=sequence, wanted=True)
            for i, t in enumerate(tokens[first : first + FEW], first)
        ]
        assert model.step(part) == 0
        found += [log_probabilities(model.logits(row)) for row in range(len(part))]
    return np.array(found)


def test_who_leaves_takes_nobodys_words_away(model_135m: Path) -> None:
    """What a sequence is told next does not depend on who came and went beside it.

    In ik-llama-cpp-python 0.1.5 tokens that are put into the gap of a sequence that left do not see
    the newest tokens behind it; see ``lichen.engines.ik_llama_cpp.cells``.
    """
    pytest.importorskip("ik_llama_cpp", reason="needs the extra [ik]")
    code = Path(__file__).read_text()
    model = Loaded(str(model_135m), IkLlamaCppOptions(slots=3, context=512, threads=1))
    try:
        tokens = model.tokenize(code, add_special=False, parse_special=False)
        stays, other = tokens[100:300], tokens[400:]
        alone = predicted(model, 0, stays)
        model.forget(0)
        predicted(model, 1, tokens[:33])
        found = [predicted(model, 0, stays[:50])]
        for at in range(50, 200, 10):
            predicted(model, 2, other[: 60 + at])
            found.append(predicted(model, 0, stays[at : at + 5], at))
            model.forget(2)
            found.append(predicted(model, 0, stays[at + 5 : at + 10], at + 5))
        kl = np.sum(np.exp(alone) * (alone - np.concatenate(found)), axis=-1)
    finally:
        model.close()
    assert kl.shape == (200,)
    assert kl.max() < 0.05
