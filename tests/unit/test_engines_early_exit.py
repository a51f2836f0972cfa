"""Leaving layers out: what is kept, who decides, and that never leaving changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lichen.core.errors import ConfigError, EngineError
from lichen.core.generation import Completion, Finish, Request
from lichen.core.model import ModelArtifact
from lichen.engines import early_exit
from lichen.engines.early_exit import Action, EarlyExitOptions, Exits, Linear, kept
from lichen.engines.exit_fitting import EXIT, GO_ON, STOP, classes, fit, solved
from lichen.engines.options import read_options
from lichen.engines.transformers import open_engine

torch: Any = pytest.importorskip("torch", reason="needs the extra [torch]")
transformers: Any = pytest.importorskip("transformers", reason="needs the extra [torch]")

LAYERS = 6
FAMILIES = ("Llama", "Qwen2", "Qwen3", "Mistral")


def tiny(family: str = "Qwen2") -> Any:
    """A model of six small layers with random weights, the same each time."""
    torch.manual_seed(7)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def continued(model: Any, exits: Exits | None, tokens: int = 5) -> tuple[list[int], Any]:
    """Continue a prompt greedily; returns the new tokens and the cache."""
    if exits is not None:
        exits.begin()
    inputs, cache, said = torch.tensor([[3, 1, 4, 1, 5]]), None, []
    with torch.inference_mode():
        for i in range(tokens):
            if exits is not None and i:
                exits.arm()
            out = model(input_ids=inputs, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            said.append(int(out.logits[0, -1].argmax()))
            inputs = torch.tensor([[said[-1]]])
    return said, cache


@pytest.mark.parametrize("family", FAMILIES)
def test_a_controller_that_never_exits_changes_nothing(family: str) -> None:
    """The row that shows what testing costs gives the very same answer."""
    plain, _ = continued(tiny(family), None)
    model = tiny(family)
    exits = Exits(torch, model, EarlyExitOptions(threshold=2.0, first=0.0))
    assert continued(model, exits)[0] == plain
    assert (exits.tally.tokens, exits.tally.exits, exits.tally.left_out) == (4, 0, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exit_takes_the_prediction_of_its_layer(family: str) -> None:
    """Left after layer 3 of 6: the token is the one that a model of three layers would say."""
    model = tiny(family)
    exits = Exits(torch, model, EarlyExitOptions(threshold=1e-9, first=0.5))
    said, cache = continued(model, exits)
    assert (exits.tally.exits, exits.tally.left_out) == (4, 4 * 3)
    assert str(exits.tally) == "4 of 4 decoded tokens, 50.0% of the layers"
    for i in range(LAYERS):
        assert kept(cache, i)[0].shape[2] == 5 + 4, "every layer keeps every position"

    # A prompt runs whole, so the first token is the whole model's; the second one is not.
    whole = tiny(family)
    first, cache = continued(whole, None, tokens=1)
    assert said[0] == first[0]
    whole.model.layers = whole.model.layers[:3]
    whole.config.num_hidden_layers = whole.model.config.num_hidden_layers = 3
    with torch.inference_mode():
        out = whole(input_ids=torch.tensor([first]), past_key_values=cache, use_cache=True)
    assert said[1] == int(out.logits[0, -1].argmax())


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_for_a_layer_left_out_is_its_own_projection(family: str) -> None:
    """Later tokens attend to the state at which the model was left, in every later layer."""
    model = tiny(family)
    states: list[Any] = []
    model.model.layers[2].register_forward_hook(lambda _m, _a, out: states.append(out))
    exits = Exits(torch, model, EarlyExitOptions(threshold=1e-9, first=0.5))
    _, cache = continued(model, exits, tokens=2)
    left = states[-1][0] if isinstance(states[-1], tuple) else states[-1]
    last = model.model.layers[LAYERS - 1]
    with torch.inference_mode():
        values = last.self_attn.v_proj(last.input_layernorm(left)).view(1, 1, 2, 8).transpose(1, 2)
    assert torch.allclose(kept(cache, LAYERS - 1)[1][:, :, -1:], values, atol=1e-5)


def test_the_answer_goes_on_where_it_is_unsure() -> None:
    """A threshold between the probabilities of two tokens leaves one of them early."""
    model = tiny()
    exits = Exits(torch, model, EarlyExitOptions(threshold=1.0, first=0.5))
    continued(model, exits)
    assert exits.tally.exits == 0, "a random model is never certain"


def test_a_linear_controller_can_stop_exit_and_go_on() -> None:
    """The largest of three probabilities decides, if it reaches its threshold."""
    hidden = torch.ones(1, 1, 4)
    rows = torch.eye(3, 4) * 8

    def decided(weights: Any, **thresholds: float) -> Action:
        given = {"threshold": 0.9, "stop_threshold": 0.9, **thresholds}
        action, logits = Linear(torch=torch, weights=weights, **given).decide(hidden, None)  # type: ignore[arg-type]
        assert logits is None
        return action

    assert decided(rows * torch.tensor([[1.0], [0], [0]])) is Action.STOP
    assert decided(rows * torch.tensor([[1.0], [0], [0]]), stop_threshold=2.0) is Action.GO_ON
    assert decided(rows * torch.tensor([[0.0], [1], [0]])) is Action.EXIT
    assert decided(rows * torch.tensor([[0.0], [1], [0]]), threshold=1.0) is Action.GO_ON
    assert decided(rows * torch.tensor([[0.0], [0], [1]])) is Action.GO_ON


class Always:
    """A controller that has made up its mind."""

    def __init__(self, action: Action) -> None:
        self.action = action

    def decide(self, hidden: Any, head: Any) -> tuple[Action, Any]:
        """Say it."""
        del hidden, head
        return self.action, None


def test_a_stop_is_in_the_tally() -> None:
    """Whoever runs the model ends the answer then; going on leaves no trace."""
    model = tiny()
    exits = Exits(torch, model, EarlyExitOptions(first=0.5))
    exits._controller = Always(Action.STOP)
    continued(model, exits, tokens=2)
    assert exits.tally.stopped
    assert exits.tally.exits == 0
    assert str(exits.tally).endswith("; ended the answer")
    exits._controller = Always(Action.GO_ON)
    continued(model, exits)
    assert not exits.tally.stopped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a tokenizer of characters, in hub layout."""
    tokenizers = pytest.importorskip("tokenizers", reason="comes with transformers")
    path = tmp_path_factory.mktemp("tiny")
    tiny().save_pretrained(path)
    letters = {chr(32 + i): i for i in range(96)} | {"<unk>": 96}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(letters, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    words.decoder = tokenizers.decoders.Fuse()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(path)
    return path


def answered(folder: Path, tmp_path: Path, **exits: object) -> Completion:
    """Ask the engine for 12 tokens, left early as ``exits`` say; {} runs every layer."""
    artifact = ModelArtifact(
        name="tiny", path=str(folder), format="hub", sha256="0" * 64, size_bytes=1
    )
    options: dict[str, object] = {"dtype": "float32"} | ({"early_exit": exits} if exits else {})
    engine = open_engine(artifact, options)
    try:
        request = Request(id="a", prompt="x = 1", max_tokens=12, temperature=0.0, seed=1)
        (done,) = (c for c in engine.generate([request]) if isinstance(c, Completion))
    finally:
        engine.close()
    return done


def test_the_engine_says_what_was_left_out(folder: Path, tmp_path: Path) -> None:
    """Never leaving gives the plain answer; leaving and stopping are in the ledger."""
    plain = answered(folder, tmp_path)
    never = answered(folder, tmp_path, threshold=2.0, first=0.0)
    assert (never.text, never.usage) == (plain.text, plain.usage)
    assert plain.ledger == ()
    assert never.ledger[0].action == "left layers out: confidence"
    assert never.ledger[0].detail == "0 of 11 decoded tokens, 0.0% of the layers"

    early = answered(folder, tmp_path, threshold=1e-9, first=0.5)
    assert early.ledger[0].detail == "11 of 11 decoded tokens, 50.0% of the layers"

    weights = tmp_path / "w.npy"
    texts = tmp_path / "code.py"
    texts.write_text("x = 1; y = 2; z = x + y\n" * 40, encoding="utf-8")
    stopped = answered(
        folder,
        tmp_path,
        controller="linear",
        weights=str(weights),
        texts=[str(texts)],
        first=0.5,
        threshold=1.0,
        stop_threshold=1e-6,
    )
    assert weights.exists(), "the classifier is fitted when the model is loaded"
    assert stopped.finish is Finish.STOP
    assert stopped.usage.completion < 12
    assert stopped.ledger[0].detail.endswith("; ended the answer")


def test_a_model_whose_keys_cannot_be_told_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put into the cache is compared with the layer's own before anything is answered."""
    honest = early_exit.keep

    def wrong(layer: Any, index: int, hidden: Any, kwargs: Any) -> None:
        honest(layer, index, hidden * -1 + 0.5, kwargs)

    monkeypatch.setattr(early_exit, "keep", wrong)
    with pytest.raises(EngineError, match="keys and values are not those of their projections"):
        Exits(torch, tiny(), EarlyExitOptions())


def test_a_model_of_another_build_is_refused() -> None:
    """GPT-2 projects queries, keys and values at once."""
    config = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=50)
    with pytest.raises(EngineError, match="GPT2LMHeadModel"):
        Exits(torch, transformers.GPT2LMHeadModel(config), EarlyExitOptions())


def test_classes_follow_the_first_layer_that_is_right() -> None:
    """Four tokens: never right, right from the first layer, from the second, only at the end."""
    right = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 1]]).bool()
    found = classes(torch, right)
    assert found.tolist() == [[STOP, EXIT, GO_ON, GO_ON], [STOP, EXIT, EXIT, GO_ON]]


def test_a_classifier_finds_what_can_be_told_apart() -> None:
    """Three directions, three classes: every state gets its own."""
    torch.manual_seed(1)
    labels = torch.randint(0, 3, (2, 90))
    states = torch.eye(3, 8)[labels] * 3 + 0.1 * torch.randn(2, 90, 8)
    weights = solved(torch, states, labels, torch.tensor([1.0, 2.0]))
    assert weights.shape == (3, 8)
    assert bool(((states @ weights.T).argmax(-1) == labels).all())


class Letters:
    """A tokenizer of bytes."""

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        """Return one token per byte, below 97."""
        return {"input_ids": [b % 97 for b in text.encode()]}


@pytest.fixture
def texts(tmp_path: Path) -> tuple[str, ...]:
    """Three files of code, one of them empty."""
    paths = [tmp_path / f"{n}.py" for n in "abc"]
    for path, text in zip(
        paths, ("x = 1\n" * 80, "", "def f():\n    return 2\n" * 30), strict=True
    ):
        path.write_text(text, encoding="utf-8")
    return tuple(map(str, paths))


def test_fitting_writes_a_classifier_that_loading_reads(
    tmp_path: Path, texts: tuple[str, ...]
) -> None:
    """It has three rows of the model's width, and the same texts give the same one."""
    found = []
    for name in ("one.npy", "two.npy"):
        path = tmp_path / "new folder" / name
        options = EarlyExitOptions(
            controller="linear", weights=str(path), texts=texts, fit_tokens=300, first=0.5
        )
        model = tiny()
        fit(torch, model, Letters(), options)
        found.append(np.load(path))
        Exits(torch, model, options)
    assert found[0].shape == (3, 32)
    assert np.abs(found[0]).max() > 0
    np.testing.assert_array_equal(found[0], found[1])
    assert sorted(p.name for p in (tmp_path / "new folder").iterdir()) == ["one.npy", "two.npy"]


def test_nothing_to_fit_on_is_said(tmp_path: Path, texts: tuple[str, ...]) -> None:
    """Empty texts, and texts that are not there, each give a sentence."""
    weights = str(tmp_path / "w.npy")
    for given, said in (((texts[1],), "hold too little"), (("/no/where.py",), "cannot read")):
        options = EarlyExitOptions(controller="linear", weights=weights, texts=given)
        with pytest.raises(ConfigError, match=said):
            fit(torch, tiny(), Letters(), options)
    assert not Path(weights).exists()


@pytest.mark.parametrize("content", [b"", b"not numpy", None])
def test_a_classifier_that_cannot_be_read_is_said(tmp_path: Path, content: bytes | None) -> None:
    """Broken, absent, and one of another model."""
    path = tmp_path / "w.npy"
    options = EarlyExitOptions(controller="linear", weights=str(path))
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the classifier"):
        Exits(torch, tiny(), options)
    np.save(path, np.zeros((3, 5)))
    with pytest.raises(ConfigError, match=r"needs \(3, 32\)"):
        Exits(torch, tiny(), options)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"controller": "magic"}, "confidence, linear"),
        ({"threshold": 0.0}, "above 0"),
        ({"stop_threshold": 0.0}, "stop_threshold"),
        ({"first": 1.0}, "below 1"),
        ({"first": -0.1}, "0 or more"),
        ({"every": 0}, "at least 1"),
        ({"fit_tokens": 3}, "at least 64"),
        ({"controller": "linear"}, "weights"),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, object], said: str) -> None:
    """One sentence each."""
    with pytest.raises(ConfigError, match=said):
        read_options(EarlyExitOptions, given, who="the test")


def test_the_last_layer_is_never_tested() -> None:
    """After it there is nothing to leave out; the first one always runs."""
    assert list(EarlyExitOptions(first=0.75).tested(24)) == [17, 18, 19, 20, 21, 22]
    assert list(EarlyExitOptions(first=0.0, every=2).tested(6)) == [0, 2, 4]
    assert list(EarlyExitOptions().tested(1)) == []
