"""The engine strategies on a real, small model. One thread: others may be using the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lichen.acceleration import STRATEGIES
from lichen.acceleration.divergence import divergence
from lichen.acceleration.strategy import Strategy, StrategyContext, configured, wrapped
from lichen.acceleration.tuned import Goal
from lichen.acceleration.tuning import tune
from lichen.core.errors import ConfigError, EngineError
from lichen.core.generation import Capability, Completion, Finish, Request
from lichen.core.model import ModelArtifact
from lichen.core.ports import Engine
from lichen.engines.llama_cpp import LlamaCppEngine, open_engine
from lichen.meter import open_meter

pytestmark = pytest.mark.model

SMALL = {"context": 512, "threads": 1}

SHARED = "\n".join(f"def step_{i}(x):\n    return x + {i}\n" for i in range(12))

REPEATING = [
    "def add(a, b):\n    return a + b\n\n" * 3 + "def add(a, b):\n",
    "assert f(1) == 2\nassert f(2) == 3\nassert f(3) == 4\nassert f(4) == 5\nassert f(5) ==",
    "self.a = a\nself.b = b\nself.c = c\nself.d = d\nself.e",
    "for i in range(10):\n    print(i)\nfor j in range(10):\n    print(j)\nfor k in",
    "import os\nimport sys\nimport re\nimport json\n\nimport os\nimport sys\n",
]


@pytest.fixture
def model(model_135m: Path) -> ModelArtifact:
    """The smallest model."""
    return ModelArtifact(
        name="smollm2-135m", path=str(model_135m), format="gguf", sha256="", size_bytes=0
    )


def opened(
    model: ModelArtifact, *named: tuple[str, Mapping[str, object]], **options: object
) -> Engine:
    """An engine with strategies around it, brought up as a run does."""
    context = StrategyContext()
    strategies: Sequence[Strategy] = [STRATEGIES.get(n)(o, context) for n, o in named]
    return wrapped(strategies, open_engine(model, configured(strategies, {**SMALL, **options})))


def answer(engine: Engine, prompt: str, **kwargs: object) -> Completion:
    """Greedily continue a prompt by at most 48 tokens."""
    request = Request(id="a", prompt=prompt, **{"max_tokens": 48, **kwargs})  # type: ignore[arg-type]
    (done,) = [c for c in engine.generate([request]) if isinstance(c, Completion)]
    assert done.finish is not Finish.ERROR, done.error
    return done


def assert_same_or_near_tie(reference: Completion, text: str) -> None:
    """Greedy answers are equal, or part where the model was undecided."""
    parted = divergence(reference, text)
    assert parted is None or parted.explained, parted


def test_a_shared_beginning_is_computed_once_per_user(model: ModelArtifact) -> None:
    """The same user's second request reuses the prefix; another user's reuses nothing."""
    engine = opened(model, ("prefix_cache", {}))
    plain = open_engine(model, SMALL)
    try:
        first = answer(engine, SHARED + "def one(", user="ann", max_tokens=16)
        second = answer(engine, SHARED + "def two(", user="ann", max_tokens=16)
        other = answer(engine, SHARED + "def two(", user="bob", max_tokens=16)
        back = answer(engine, SHARED + "def two(", user="ann", max_tokens=16)
        reference = answer(plain, SHARED + "def two(", logprobs=2, max_tokens=16)
    finally:
        engine.close()
        plain.close()
    assert first.usage.cached == 0
    assert second.usage.cached > 100
    assert f"{second.usage.cached} of {second.usage.prompt}" in second.ledger[-1].detail
    assert other.usage.cached == 0
    assert other.ledger[-1].action == "computed"
    assert back.usage.cached == 0  # one slot: bob's request took it, and ann gets nothing of his
    for reused in (second, other, back):
        assert_same_or_near_tie(reference, reused.text)


def test_a_conversation_reuses_its_turns(model: ModelArtifact) -> None:
    """What was said before is not computed again, the model's own answer included."""
    engine = opened(model, ("prefix_cache", {}))
    try:
        first = answer(engine, SHARED, user="ann")
        second = answer(engine, SHARED + first.text + "\n# next\n", user="ann")
    finally:
        engine.close()
    assert second.usage.cached >= first.usage.prompt


def test_eight_bit_keys_and_values_answer_alike(model: ModelArtifact) -> None:
    """q8_0 loads with flash attention and begins its answers as 16 bits does."""
    quantised = opened(model, ("kv_cache_type", {"parameters": 135_000_000}))
    plain = open_engine(model, SMALL)
    try:
        mine = answer(quantised, REPEATING[0], max_tokens=16)
        theirs = answer(plain, REPEATING[0], max_tokens=16, logprobs=2)
    finally:
        quantised.close()
        plain.close()
    assert_same_or_near_tie(theirs, mine.text)
    assert mine.ledger[-1].action == "keys q8_0, values q8_0"


def test_speculation_says_what_the_model_says(model: ModelArtifact) -> None:
    """Greedy answers with n-gram drafts equal the plain ones, or part at a near-tie."""
    drafting = opened(model, ("speculation", {"switch": "on", "ngram_size": 3}))
    plain = open_engine(model, SMALL)
    try:
        accepted = 0
        for prompt in REPEATING:
            mine = answer(drafting, prompt)
            assert_same_or_near_tie(answer(plain, prompt, logprobs=2), mine.text)
            accepted += mine.draft_accepted
    finally:
        drafting.close()
        plain.close()
    assert accepted > 0  # otherwise nothing was tested


def test_the_switch_runs_both_and_settles(model: ModelArtifact) -> None:
    """On a real model both instances are compared, and all later requests follow the verdict."""
    options = {"block": 1, "min_pairs": 2, "max_pairs": 2, "ngram_size": 3}
    engine = opened(model, ("speculation", options))
    requests = [Request(id=str(i), prompt=REPEATING[i % 5], max_tokens=24) for i in range(7)]
    try:
        done = [c for c in engine.generate(requests) if isinstance(c, Completion)]
    finally:
        engine.close()
    said = [c.ledger[-1].action for c in done]
    assert said[:2] == ["compared, plain", "compared, speculated"]
    assert len(set(said[4:])) == 1
    assert done[0].ledger[-1].cpu_s  # loading the second instance is charged


def test_a_speculating_engine_does_not_pretend_to_know_log_probabilities(
    model: ModelArtifact,
) -> None:
    """llama.cpp has none for accepted drafts, so the engine refuses instead of reporting zeros."""
    engine = open_engine(model, {**SMALL, "ngram": "simple"})
    try:
        assert Capability.LOGPROBS not in engine.capabilities
        request = Request(id="a", prompt="x", logprobs=1)
        (done,) = [c for c in engine.generate([request]) if isinstance(c, Completion)]
    finally:
        engine.close()
    assert done.finish is Finish.ERROR
    assert "log-probabilities" in done.error


def test_an_engine_is_reopened_with_changes(model: ModelArtifact) -> None:
    """The second instance has the changed options, lives on its own, and bad changes are named."""
    engine = open_engine(model, SMALL)
    second = engine.reopened({"ngram": "simple"})
    engine.close()
    try:
        assert isinstance(second, LlamaCppEngine)
        assert second.options.ngram == "simple"
        assert second.options.context == SMALL["context"]
        assert answer(second, "def f(", max_tokens=4).usage.completion == 4
        with pytest.raises(ConfigError, match="ngram must be one of"):
            second.reopened({"ngram": "magic"})
        with pytest.raises(ConfigError, match="slotz"):
            second.reopened({"slotz": 2})
    finally:
        second.close()


def test_a_draft_that_is_no_model_is_refused_at_once(model: ModelArtifact, tmp_path: Path) -> None:
    """A wrong draft file fails when the engine is wrapped, and leaves nothing open."""
    wrong = tmp_path / "draft.gguf"
    wrong.write_bytes(b"not a model")
    with pytest.raises(EngineError, match="not a GGUF file"):
        opened(model, ("speculation", {"draft": str(wrong), "ngram": ""}))


@pytest.mark.slow
def test_tuning_runs_on_a_real_model(model: ModelArtifact) -> None:
    """Within its budget tuning measures real settings and returns one of them."""
    with open_meter(probes=["process"]) as meter:
        found = tune(
            lambda changes: open_engine(model, {"context": 256, **changes}),
            Goal(cpus_free=1, budget_s=15, max_slots=2),
            meter=meter,
        )
    assert found.cost_s > 0
    assert found.token_s
    assert found.setting.threads == 1
    assert found.setting in {s.setting for s in found.samples}
