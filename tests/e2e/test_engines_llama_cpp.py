"""llama.cpp with the real smallest model: what only a real engine can show."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lichen.core.errors import EngineError
from lichen.core.generation import Completion, Delta, Finish, Message, Request, Role
from lichen.core.model import ModelArtifact
from lichen.engines.llama_cpp import LlamaCppEngine, open_engine

pytestmark = pytest.mark.model

ASK = (Message(role=Role.USER, content="Write a Python function add(a, b)."),)
SMALL = {"threads": 1, "context": 512}


def artifact(path: Path | str) -> ModelArtifact:
    """A model file, unverified."""
    return ModelArtifact(name="m", path=str(path), format="gguf", sha256="", size_bytes=0)


@pytest.fixture(scope="module")
def engine(model_135m: Path) -> Iterator[LlamaCppEngine]:
    """One slot that keeps prompts per user, and embeds."""
    loaded = open_engine(
        artifact(model_135m),
        {**SMALL, "prompt_cache": "user", "embedding": True, "batch": 64, "ubatch": 64},
    )
    yield loaded
    loaded.close()


def one(engine: LlamaCppEngine, **kwargs: object) -> Completion:
    """The completion of one request."""
    request = Request(id="r", **{"max_tokens": 8, **kwargs})  # type: ignore[arg-type]
    (done,) = [i for i in engine.generate([request]) if isinstance(i, Completion)]
    return done


def test_a_chat_is_what_llama_cpps_own_chat_is(engine: LlamaCppEngine) -> None:
    """Rendering the template first changes neither the prompt nor the answer."""
    theirs = engine._open_server().handle_chat_completions(
        {
            "messages": [{"role": "user", "content": ASK[0].content}],
            "max_tokens": 8,
            "temperature": 0,
            "cache_prompt": False,
        }
    )
    ours = one(engine, messages=ASK, user="chat")
    assert ours.text == theirs["choices"][0]["message"]["content"]
    assert ours.usage.prompt == theirs["usage"]["prompt_tokens"]
    assert ours.usage.completion == theirs["usage"]["completion_tokens"]


def test_an_answer_prefix_is_continued_in_the_same_turn(engine: LlamaCppEngine) -> None:
    """It costs exactly its own tokens, and the model goes on where it ends."""
    prefix = "```python\ndef add(a, b):\n    return a +"
    plain = one(engine, messages=ASK, user="prefix")
    done = one(engine, messages=ASK, answer_prefix=prefix, user="prefix")
    assert done.usage.prompt == plain.usage.prompt + len(engine.tokenize(prefix))
    assert done.text.lstrip().startswith("b")


def test_a_prompt_that_does_not_fit_is_an_error_completion(engine: LlamaCppEngine) -> None:
    """Neither cut nor raised: a sentence with both numbers."""
    for stream in (False, True):
        done = one(engine, prompt="word " * 600, stream=stream)
        assert done.finish is Finish.ERROR
        assert "but a slot holds 512" in done.error


def test_an_empty_prompt_is_an_error_completion(engine: LlamaCppEngine) -> None:
    """A model without a start token has nothing to go on from."""
    assert "no tokens" in one(engine, prompt="").error


def test_a_kept_prompt_serves_its_user_only(engine: LlamaCppEngine) -> None:
    """The second ask of a user is cached, the same ask of another is not, and the text is equal."""
    prompt = "def fibonacci(n):\n    " * 8
    first, again, other = (one(engine, prompt=prompt, user=u) for u in ("ann", "ann", "bob"))
    assert (first.usage.cached, other.usage.cached) == (0, 0)
    assert again.usage.cached > again.usage.prompt / 2
    assert first.text == again.text == other.text


def test_slots_copy_a_beginning_instead_of_reading_it(model_135m: Path) -> None:
    """Four slots read what four prompts share twice; each answer is what one slot says alone."""
    preamble = "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1)\n\n" * 8
    requests = [
        Request(id=name, prompt=f"{preamble}def {name}(", max_tokens=4, temperature=0.0)
        for name in ("square", "reverse", "is_prime", "count")
    ]
    alone = open_engine(artifact(model_135m), SMALL)
    whole = {c.id: c for c in alone.generate(requests) if isinstance(c, Completion)}
    alone.close()
    shared = open_engine(artifact(model_135m), {**SMALL, "slots": 4, "prompt_cache": "user"})
    folder = Path(shared._folder.name)
    assert folder.is_dir()
    done = {c.id: c for c in shared.generate(requests) if isinstance(c, Completion)}
    shared.close()
    size = whole["square"].usage.prompt
    assert {n: c.usage.prompt for n, c in done.items()} == {
        n: c.usage.prompt for n, c in whole.items()
    }
    assert sum(c.usage.cached > 0.8 * size for c in done.values()) == 2
    assert sum(c.usage.cached == 0 for c in done.values()) == 2
    assert [c.text for c in done.values()] == [whole[n].text for n in done]
    assert not folder.exists()


def test_half_a_character_is_held_back(engine: LlamaCppEngine) -> None:
    """Characters of several tokens come whole, streamed or not."""
    prompt = "Copy: \U0001f389 \U0001f984 \U0001f389 \U0001f984 \U0001f389\nCopy: \U0001f389 \U0001f984 \U0001f389"
    request = Request(id="r", prompt=prompt, max_tokens=8, stream=True, user="emoji")
    *deltas, done = list(engine.generate([request]))
    assert isinstance(done, Completion)
    assert any(ord(c) > 0xFFFF for c in done.text)
    assert "\N{REPLACEMENT CHARACTER}" not in done.text
    assert "".join(d.text for d in deltas if isinstance(d, Delta)) == done.text


def test_a_long_prompt_is_cancelled_in_the_middle(engine: LlamaCppEngine) -> None:
    """Closing the engine's iterator during prefill does not wait for the whole prompt."""
    seen: list[int] = []

    def source() -> Iterator[Request]:
        yield Request(id="short", prompt="a", max_tokens=1, user="x")
        yield Request(id="long", prompt="word " * 400, max_tokens=100, stream=True, user="y")

    items = engine.generate(source())
    seen.append(1 if isinstance(next(items), Completion) else 0)
    items.close()
    assert seen == [1]
    assert one(engine, prompt="a", max_tokens=1, user="z").error == ""


def test_embeddings_tell_texts_apart(engine: LlamaCppEngine) -> None:
    """Near texts are nearer than far ones, the order is kept, and lengths do not matter."""
    near_a, near_b, far = engine.embed(
        [
            "def add(a, b): return a + b",
            "def plus(x, y): return x + y",
            "It rained all day in Nuuk.",
        ]
    )

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(near_a, near_a) == pytest.approx(1.0, abs=1e-3)
    assert cosine(near_a, near_b) > cosine(near_a, far)


def test_a_text_too_long_to_embed_is_an_error(engine: LlamaCppEngine) -> None:
    """It is never cut silently."""
    with pytest.raises(EngineError, match="cannot embed"):
        engine.embed(["word " * 600])


def test_control_tokens_in_text_stay_text(engine: LlamaCppEngine) -> None:
    """Source code that contains a control token's spelling is not a control token."""
    ids = engine.tokenize("<|im_end|>")
    assert len(ids) > 1
    assert engine.detokenize(ids) == "<|im_end|>"


def test_token_ids_that_do_not_exist_are_an_error(engine: LlamaCppEngine) -> None:
    """A sentence instead of llama.cpp's range check."""
    with pytest.raises(EngineError, match="token ids"):
        engine.detokenize([10**7])


def test_the_port_wants_a_key(engine: LlamaCppEngine) -> None:
    """Nobody else on this machine can read prompts or use the model through the loopback port."""
    address = engine._open_server().listening_address
    assert address.startswith("http://127.0.0.1:")
    for path in ("/props", "/slots", "/v1/models", "/metrics"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(address + path, timeout=5)  # noqa: S310 (its own address)
        with caught.value:
            assert caught.value.code == 401


def test_closing_gives_the_memory_back(model_135m: Path) -> None:
    """Most of what loading took is free after close, even with an iterator left half-read."""
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    loaded = open_engine(artifact(model_135m), SMALL)
    items = loaded.generate(
        Request(id=str(i), messages=ASK, stream=True, max_tokens=50) for i in range(3)
    )
    next(items)
    used = process.memory_info().rss - before
    loaded.close()
    kept = process.memory_info().rss - before
    assert used > 50e6
    assert kept < used / 2


@pytest.mark.parametrize("content", [None, b"", b"hello", b"GGUF" + bytes(64)])
def test_a_file_that_is_no_model_is_an_engine_error(tmp_path: Path, content: bytes | None) -> None:
    """Absent, empty, something else, damaged: a sentence that names the file."""
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=r"m\.gguf"):
        open_engine(artifact(path), SMALL)


def test_a_truncated_model_is_an_engine_error(model_135m: Path, tmp_path: Path) -> None:
    """A download that was cut short does not crash the process."""
    path = tmp_path / "half.gguf"
    with model_135m.open("rb") as whole:
        path.write_bytes(whole.read(3_000_000))
    with pytest.raises(EngineError, match="cannot load"):
        open_engine(artifact(path), SMALL)


def test_an_adapter_that_is_none_is_named(model_135m: Path, tmp_path: Path) -> None:
    """The further files of the options are checked and named too."""
    path = tmp_path / "lora.gguf"
    path.write_bytes(b"no")
    with pytest.raises(EngineError, match=r"LoRA adapter .*lora\.gguf is not a GGUF file"):
        open_engine(artifact(model_135m), {**SMALL, "lora": [{"path": str(path)}]})


def test_drafting_counts_what_it_drafts(model_135m: Path) -> None:
    """With n-gram drafts, the counters say what was tried and what was kept."""
    loaded = open_engine(
        artifact(model_135m), {**SMALL, "ngram": "simple", "ngram_size": 3, "ngram_draft": 4}
    )
    try:
        prompt = "one two three four\n" * 12 + "one two"
        done = one(loaded, prompt=prompt, max_tokens=24)
        assert 0 < done.draft_accepted <= done.draft_tokens
        assert done.text.startswith(" three four")
    finally:
        loaded.close()
