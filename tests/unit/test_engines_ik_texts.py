"""What the engine ik_llama_cpp says and how it writes conversations, without its library."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from lichen.core.errors import ConfigError, EngineError, UnknownNameError
from lichen.core.generation import Delta, Finish, Message, Request, Role
from lichen.core.measurement import Usage
from lichen.core.model import ModelArtifact
from lichen.engines.ik_llama_cpp import open_engine
from lichen.engines.ik_llama_cpp.batching import Logits
from lichen.engines.ik_llama_cpp.speaking import Speaking
from lichen.engines.ik_llama_cpp.template import ChatTemplate, TemplateError
from lichen.engines.transcript import Transcript

PIECES = [b"", b"def", b" f", b"\xc3", b"\xa9", b"END", b" x", b"E", b"N"]
END = 0


class Vocabulary:
    """Nine tokens; the first one ends an answer, and two are halves of one character."""

    def piece(self, token: int) -> bytes:
        return PIECES[token]

    def ends(self, token: int) -> bool:
        return token == END


def speaking(**kwargs: object) -> tuple[Speaking, Transcript, list[Delta]]:
    deltas: list[Delta] = []
    request = Request(id="r", prompt="p", stream=True, **kwargs)  # type: ignore[arg-type]
    transcript = Transcript(request, 0.0, lambda: 1.0, deltas.append)
    return Speaking(request, transcript, Vocabulary()), transcript, deltas


def sure(token: int) -> Logits:
    """Logits that leave no doubt."""
    found = np.zeros(len(PIECES), dtype=np.float32)
    found[token] = 50.0
    return found


def say(made: Speaking, tokens: list[int]) -> list[bool]:
    return [made.choose(sure(t))[1] for t in tokens]


def test_text_is_said_as_it_comes() -> None:
    """Every token's text is a delta, and the end of the answer is no text."""
    made, transcript, deltas = speaking()
    assert say(made, [1, 2, END]) == [False, False, True]
    assert [d.text for d in deltas] == ["def", " f"]
    assert transcript.text == "def f"
    assert made.finish is Finish.STOP


def test_half_a_character_waits_for_the_other_half() -> None:
    """Nobody is shown half a character."""
    made, transcript, deltas = speaking()
    say(made, [1, 3, 4, 2])
    assert transcript.text == "def\u00e9 f"
    assert [d.text for d in deltas] == ["def", "\u00e9", " f"]


def test_half_a_character_at_the_end_is_replaced() -> None:
    """An answer that ends within a character shows U+FFFD for it."""
    made, transcript, _ = speaking()
    say(made, [1, 3])
    made.flush()
    assert transcript.text == "def\N{REPLACEMENT CHARACTER}"


def test_a_stop_string_over_tokens() -> None:
    """What may become a stop string is held back; what becomes one is never said."""
    made, transcript, deltas = speaking(stop_strings=("EN f",))
    assert say(made, [1, 7, 8]) == [False, False, False]
    assert [d.text for d in deltas] == ["def"]
    assert say(made, [2]) == [True]
    made.flush()
    assert transcript.text == "def"
    assert made.finish is Finish.STOP


def test_what_was_held_back_is_said_in_the_end() -> None:
    """The beginning of a stop string that never came belongs to the answer."""
    made, transcript, _ = speaking(stop_strings=("EN f",))
    say(made, [1, 7, 8])
    made.flush()
    assert transcript.text == "defEN"
    assert made.finish is Finish.LENGTH


def test_logprobs_are_the_models() -> None:
    """Natural logs of the softmax, the most likely first, whatever the temperature."""
    made, transcript, _ = speaking(logprobs=2)
    logits = np.array([-9, 2, 1, -9, -9, -9, 0, -9, -9], dtype=np.float32)
    made.choose(logits)
    (found,) = transcript.completion(Usage(), Finish.STOP).logprobs
    total = math.log(sum(math.exp(float(x)) for x in logits))
    assert found.text == "def"
    assert found.logprob == pytest.approx(2 - total)
    assert [t for t, _ in found.top] == ["def", " f"]
    assert [v for _, v in found.top] == pytest.approx([2 - total, 1 - total])


def test_more_alternatives_than_tokens() -> None:
    """A small vocabulary has no more alternatives than tokens."""
    made, transcript, _ = speaking(logprobs=99)
    made.choose(sure(1))
    (found,) = transcript.completion(Usage(), Finish.STOP).logprobs
    assert len(found.top) == len(PIECES)


def drawn(logits: Logits, **kwargs: object) -> Counter[int]:
    made, _, _ = speaking(**kwargs)
    return Counter(made.choose(logits)[0] for _ in range(400))


def test_sampling_follows_the_probabilities() -> None:
    """Twice as likely is drawn about twice as often; a seed repeats itself."""
    logits = np.full(len(PIECES), -50.0, dtype=np.float32)
    logits[1], logits[2] = math.log(2), 0.0
    found = drawn(logits, temperature=1.0, seed=3)
    assert set(found) == {1, 2}
    assert 220 < found[1] < 310
    assert found == drawn(logits, temperature=1.0, seed=3)
    assert found != drawn(logits, temperature=1.0, seed=4)


def test_temperature_and_top_p() -> None:
    """A low temperature and a small top_p both leave the best only; a high one levels."""
    logits = np.zeros(len(PIECES), dtype=np.float32)
    logits[6] = 1.0
    assert set(drawn(logits, temperature=0.01)) == {6}
    assert set(drawn(logits, temperature=1.0, top_p=0.2)) == {6}
    assert set(drawn(logits, temperature=1.0, top_p=0.0)) == {6}
    assert len(drawn(logits, temperature=50.0)) == len(PIECES)


TURNS = (
    Message(role=Role.SYSTEM, content="Be terse."),
    Message(role=Role.USER, content="Hi {{ 7 * 7 }}"),
)
CHATML = (
    "{% for m in messages %}{{ bos_token }}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_a_conversation_is_written_by_the_template() -> None:
    """Messages are data: what looks like a template in them stays text."""
    made = ChatTemplate(CHATML, bos="<s>", eos="</s>").render(TURNS)
    assert made == "<s>[system]Be terse.</s>\n<s>[user]Hi {{ 7 * 7 }}</s>\n[assistant]"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no system message') }}",
        "{{ messages[0]['content'].nothing.at.all }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_that_fails_or_reaches_out(source: str) -> None:
    """A file's template can refuse and can be hostile; either way a sentence comes back."""
    with pytest.raises(TemplateError, match="template"):
        ChatTemplate(source, bos="", eos="").render(TURNS)


def test_a_template_that_is_none() -> None:
    """Broken syntax is found when the model is loaded."""
    with pytest.raises(TemplateError, match="not valid"):
        ChatTemplate("{% for %}", bos="", eos="")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slots": 0}, "slots must be at least 1"),
        ({"prompt_cache": "all"}, "prompt_cache must be one of"),
        ({"mmap": "maybe"}, "mmap must be one of"),
        ({"ubatch": 1024}, "cannot exceed batch"),
        ({"batch": 4, "ubatch": 4, "slots": 8}, "must hold a token"),
    ],
)
def test_options_out_of_range(options: dict[str, object], words: str) -> None:
    """A mistake is a sentence, before anything is loaded."""
    with pytest.raises(ConfigError, match=words):
        open_engine(artifact("x"), options)


def test_an_option_of_the_other_engine() -> None:
    """Flash attention is not to be had here."""
    with pytest.raises(UnknownNameError, match="flash_attention"):
        open_engine(artifact("x"), {"flash_attention": "on"})


def test_no_model() -> None:
    """It needs a file."""
    with pytest.raises(ConfigError, match="needs a model"):
        open_engine(None, {})


def artifact(path: str) -> ModelArtifact:
    return ModelArtifact(name="m", path=path, format="gguf", sha256="", size_bytes=0)


def test_files_that_are_no_models(tmp_path: pytest.TempPathFactory) -> None:
    """An absent file and one of another kind are refused before the library sees them."""
    with pytest.raises(EngineError, match="cannot be read"):
        open_engine(artifact(f"{tmp_path}/absent.gguf"), {})
    other = f"{tmp_path}/other.gguf"
    with open(other, "wb") as f:  # noqa: PTH123
        f.write(b"PK\x03\x04")
    with pytest.raises(EngineError, match="not a GGUF file"):
        open_engine(artifact(other), {})
