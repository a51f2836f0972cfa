"""The four engine strategies: what they set, refuse, and write into the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lichen.acceleration import STRATEGIES
from lichen.acceleration.divergence import divergence
from lichen.acceleration.engine_cost import EngineSetting
from lichen.acceleration.strategies.concurrency import ConcurrencyOptions, stored_tuning
from lichen.acceleration.strategy import Layer, Strategy, StrategyContext, configured, wrapped
from lichen.acceleration.tuned import Tuning
from lichen.acceleration.tuning_cache import TuningCache, TuningKey
from lichen.core.errors import CapabilityError, ConfigError, EngineError
from lichen.core.generation import (
    Capability,
    Completion,
    Finish,
    Request,
    Step,
    Timings,
    TokenLogprob,
)
from lichen.core.measurement import Usage
from lichen.core.ports import Engine
from lichen.engines.llama_cpp import LlamaCppOptions
from lichen.engines.options import read_options
from lichen.testing.costed_engine import CostedEngine, Costs
from lichen.testing.engine import ScriptedEngine

NAMES = ("concurrency", "kv_cache_type", "prefix_cache", "speculation")


def make(name: str, context: StrategyContext | None = None, **options: object) -> Strategy:
    """One of the strategies, from its options."""
    return STRATEGIES.get(name)(options, context or StrategyContext())


def asks(n: int, **kwargs: object) -> Iterator[Request]:
    """So many requests of three words each."""
    for i in range(n):
        yield Request(id=str(i), prompt="def f ()", **kwargs)  # type: ignore[arg-type]


def completions(engine: Engine, n: int, **kwargs: object) -> list[Completion]:
    """The completions of so many requests."""
    return [c for c in engine.generate(asks(n, **kwargs)) if isinstance(c, Completion)]


def last_step(completion: Completion) -> Step:
    """The outermost entry of the ledger."""
    return completion.ledger[-1]


@pytest.mark.parametrize("name", NAMES)
def test_engine_strategies_sit_next_to_the_engine(name: str) -> None:
    """They are of the engine's layer and have their registry name."""
    strategy = make(name)
    assert strategy.layer is Layer.ENGINE
    assert strategy.name == name
    assert isinstance(strategy, Strategy)


@pytest.mark.parametrize("name", NAMES)
def test_what_they_set_is_what_llama_cpp_accepts(name: str) -> None:
    """The configured options pass the adapter's own checks."""
    options = configured([make(name)], {"context": 512})
    settings = read_options(LlamaCppOptions, options, who="engine llama_cpp")
    assert settings.context == 512


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused_with_a_suggestion(name: str) -> None:
    """A misspelt option is one sentence, not silence."""
    with pytest.raises(ConfigError, match=f"strategy {name}"):
        make(name, slotz=3)


@pytest.mark.parametrize("name", ["concurrency", "kv_cache_type", "prefix_cache"])
def test_each_request_gets_one_step(name: str) -> None:
    """Watching strategies write one step per request, also where the request failed."""
    engine = wrapped([make(name)], ScriptedEngine({"0": "fine"}))
    good, bad = completions(engine, 2)
    assert [s.actor for s in good.ledger] == [name]
    assert [s.actor for s in bad.ledger] == [name]
    assert bad.finish is Finish.ERROR


def test_all_four_compose() -> None:
    """Together they configure one engine, and each writes its step."""
    strategies = [make(n) for n in NAMES]
    options = configured(strategies, {})
    assert options["slots"] == 4
    assert options["prompt_cache"] == "user"
    assert options["cache_type_k"] == "q8_0"
    engine = wrapped(strategies, CostedEngine(lambda _: Costs(), options))
    (done,) = completions(engine, 1)
    assert [s.actor for s in done.ledger] == list(NAMES)
    engine.close()


# -- concurrency ---------------------------------------------------------------------------------


def test_explicit_settings_are_set_and_others_left() -> None:
    """Only what was asked for changes."""
    strategy = make("concurrency", slots=8, threads=1)
    assert strategy.configure({"context": 9, "threads": 2}) == {
        "context": 9,
        "slots": 8,
        "threads": 1,
    }


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        ({"batch": 128}, {}, {"batch": 128, "ubatch": 128}),
        ({"ubatch": 1024}, {}, {"batch": 1024, "ubatch": 1024}),
        ({"ubatch": 64}, {}, {"ubatch": 64}),
        ({"batch": 256}, {"ubatch": 128}, {"batch": 256, "ubatch": 128}),
    ],
)
def test_batch_and_micro_batch_stay_possible(
    given: dict[str, object], options: dict[str, object], expected: dict[str, object]
) -> None:
    """The one that is not set follows, so that the engine never gets ubatch > batch."""
    assert make("concurrency", **given).configure(options) == expected


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"slots": -1}, "slots cannot be negative"),
        ({"batch": 64, "ubatch": 128}, "cannot exceed"),
        ({"auto": True}, "model_sha256 and engine"),
        ({"auto": True, "slots": 2, "model_sha256": "a", "engine": "b"}, "leave one of the two"),
        ({"slots": True}, "whole number"),
    ],
)
def test_contradictory_concurrency_is_refused(wrong: dict[str, object], sentence: str) -> None:
    """Each mistake is a sentence that says what is wrong."""
    with pytest.raises(ConfigError, match=sentence):
        make("concurrency", **wrong)


def store(folder: Path, cpus_free: int) -> None:
    """Store a tuning for the machine "here"."""
    setting = EngineSetting(slots=8, threads=cpus_free, threads_batch=cpus_free)
    tuning = Tuning(
        setting=setting,
        cost_s=0.02,
        start_cost_s=0.04,
        token_s=0.1,
        in_bound=True,
        complete=True,
        spent_s=60.0,
        cpus_free=cpus_free,
    )
    key = TuningKey(machine="here", model_sha256="ab", engine="e 1", cpus_free=cpus_free)
    TuningCache(folder).put(key, tuning)


def test_auto_takes_the_tuning_for_the_cpus_that_are_free(tmp_path: Path) -> None:
    """With one of two CPUs busy, the tuning for one thread is used."""
    for cpus in (1, 2):
        store(tmp_path, cpus)
    options = ConcurrencyOptions(auto=True, model_sha256="ab", engine="e 1")
    found = stored_tuning(options, tmp_path, machine=lambda: "here", free=lambda: 1)
    assert found.setting.threads == 1
    idle = stored_tuning(options, tmp_path, machine=lambda: "here", free=lambda: 2)
    assert idle.setting.threads == 2


def test_auto_without_a_tuning_says_how_to_make_one(tmp_path: Path) -> None:
    """A missing tuning is not replaced by a guess."""
    context = StrategyContext(data_dir=tmp_path)
    with pytest.raises(ConfigError, match="lichen accelerate --engine-only"):
        make("concurrency", context, auto=True, model_sha256="ab", engine="e 1", cpus_free=2)


# -- prefix_cache --------------------------------------------------------------------------------


def test_prefix_caching_is_per_user() -> None:
    """The engine's safe way of caching is what is turned on."""
    assert make("prefix_cache").configure({})["prompt_cache"] == "user"


def test_reuse_is_reported() -> None:
    """The ledger says how many prompt tokens were not computed again."""

    class Caching(ScriptedEngine):
        def generate(self, requests):  # type: ignore[no-untyped-def]
            for c in super().generate(requests):
                usage = Usage(prompt=10, cached=7, completion=c.usage.completion)
                yield Completion(
                    id=c.id, text=c.text, usage=usage, finish=c.finish, timings=c.timings
                )

    engine = wrapped([make("prefix_cache")], Caching(lambda _: "x"))
    step = last_step(completions(engine, 1)[0])
    assert (step.action, step.detail) == ("reused", "7 of 10 prompt tokens were reused")


# -- kv_cache_type -------------------------------------------------------------------------------


def test_eight_bits_need_flash_attention() -> None:
    """Quantised values turn flash attention on; "off" is a contradiction that is refused."""
    strategy = make("kv_cache_type")
    assert strategy.configure({}) == {
        "cache_type_k": "q8_0",
        "cache_type_v": "q8_0",
        "flash_attention": "on",
    }
    with pytest.raises(ConfigError, match="flash attention"):
        strategy.configure({"flash_attention": "off"})


def test_plain_values_leave_flash_attention_alone() -> None:
    """Quantised keys alone do not need it."""
    options = make("kv_cache_type", values="f16").configure({"flash_attention": "off"})
    assert options["flash_attention"] == "off"


@pytest.mark.parametrize("keys", ["q4_0", "q4_1", "iq4_nl"])
@pytest.mark.parametrize("parameters", [0, 500_000_000, 70_000_000_000])
def test_four_bit_keys_are_refused_for_every_model(keys: str, parameters: int) -> None:
    """They break answers whatever the size."""
    with pytest.raises(ConfigError, match="4-bit keys"):
        make("kv_cache_type", keys=keys, parameters=parameters)


@pytest.mark.parametrize("which", ["keys", "values"])
@pytest.mark.parametrize("parameters", [0, 2_999_999_999])
def test_five_bits_are_refused_for_small_and_unknown_models(which: str, parameters: int) -> None:
    """Below 3B parameters, and where the size is not known, nothing under 8 bits is taken."""
    with pytest.raises(ConfigError, match="too small"):
        make("kv_cache_type", **{which: "q5_1"}, parameters=parameters)


def test_large_models_may_have_smaller_values() -> None:
    """From 3B on, five-bit keys and four-bit values are a choice."""
    options = make("kv_cache_type", keys="q5_1", values="q4_0", parameters=7_000_000_000)
    assert options.configure({})["cache_type_v"] == "q4_0"


def test_force_takes_anything_but_nonsense() -> None:
    """A forced setting is used; a type that does not exist is still refused."""
    assert make("kv_cache_type", keys="q4_0", force=True).configure({})["cache_type_k"] == "q4_0"
    with pytest.raises(ConfigError, match="known: q8_0"):
        make("kv_cache_type", keys="q3_0", force=True)


# -- speculation ---------------------------------------------------------------------------------


def costs(ratio: float, accepted: float = 0.5) -> object:
    """A surface on which speculating costs ``ratio`` times as much per decoded token."""

    def surface(options: Mapping[str, object]) -> Costs:
        if options.get("ngram"):
            return Costs(
                prefill_s=0.0, decode_s=0.01 * ratio, accepted=accepted, rejected=1 - accepted
            )
        return Costs(prefill_s=0.0, decode_s=0.01)

    return surface


def switching(
    ratio: float, accepted: float = 0.5, **options: object
) -> tuple[Engine, CostedEngine]:
    """A switching engine and the plain one in it, on one clock."""
    plain = CostedEngine(costs(ratio, accepted))  # type: ignore[arg-type]
    context = StrategyContext(cpu_s=plain.cpu, clock=plain.cpu)
    return wrapped([make("speculation", context, **options)], plain), plain


def actions(done: list[Completion]) -> list[str]:
    """What the strategy did, request by request."""
    return [last_step(c).action for c in done]


def test_it_speculates_where_that_pays() -> None:
    """After the comparison all requests run on the cheaper, speculating instance."""
    engine, _ = switching(0.7)
    done = completions(engine, 60)
    assert set(actions(done)[32:]) == {"speculated"}
    assert "speculative costs 0.70" in last_step(done[-1]).detail
    engine.close()


def test_it_stays_plain_where_it_does_not() -> None:
    """A dearer draft is dropped, and the memory of the second instance is given back."""
    engine, plain = switching(1.4)
    done = completions(engine, 60)
    assert set(actions(done)[32:]) == {"plain"}
    (second,) = plain.opened
    assert second.closed
    assert not plain.closed
    engine.close()


def test_a_draft_that_never_agrees_is_off_after_two_blocks() -> None:
    """The constructed worst case: cheap by the clock, but nothing is ever accepted."""
    engine, plain = switching(0.5, accepted=0.0, block=6)
    done = completions(engine, 30)
    assert actions(done)[:12] == ["compared, plain"] * 6 + ["compared, speculated"] * 6
    assert set(actions(done)[12:]) == {"plain"}
    assert plain.opened[0].closed


def test_probing_is_charged() -> None:
    """The ledger has the rejected drafts as wasted tokens and what the comparison cost."""
    engine, _ = switching(1.5, accepted=0.5)
    done = completions(engine, 40)
    drafted = next(c for c in done if last_step(c).action == "compared, speculated")
    assert last_step(drafted).usage.completion == 6
    assert "6 of 12 drafted tokens accepted" in last_step(drafted).detail
    told = [last_step(c).detail for c in done if "comparing" in last_step(c).detail]
    assert len(told) == 1
    assert "CPU-s against plain" in told[0]


def test_loading_the_second_instance_is_charged_once() -> None:
    """The CPU time of opening it is in the first request's step."""
    plain = CostedEngine(costs(0.7))  # type: ignore[arg-type]

    def reopened(changes: Mapping[str, object]) -> Engine:
        plain.cpu.advance(3.0)
        return CostedEngine.reopened(plain, changes)

    plain.reopened = reopened  # type: ignore[method-assign]
    context = StrategyContext(cpu_s=plain.cpu, clock=plain.cpu)
    engine = wrapped([make("speculation", context)], plain)
    done = completions(engine, 3)
    assert [last_step(c).cpu_s for c in done] == [3.0, None, None]


def test_log_probabilities_are_asked_of_the_plain_instance() -> None:
    """Drafted tokens have no log-probabilities, so such requests never speculate."""
    engine, _ = switching(0.7)
    completions(engine, 60)
    done = completions(engine, 3, logprobs=2)
    assert actions(done) == ["plain"] * 3
    assert all(c.logprobs for c in done)
    assert Capability.LOGPROBS in engine.capabilities


def test_mixed_requests_all_come_back_once() -> None:
    """Requests with and without log-probabilities in one call are each answered once."""
    engine, _ = switching(0.7)
    mixed = [Request(id=str(i), prompt="a", logprobs=i % 3 % 2) for i in range(50)]
    done = [c for c in engine.generate(mixed) if isinstance(c, Completion)]
    assert sorted(int(c.id) for c in done) == list(range(50))


def test_requests_are_taken_as_slots_become_free() -> None:
    """The caller's iterable is not read further ahead than one request."""
    engine, _ = switching(0.7)
    taken = 0

    def source() -> Iterator[Request]:
        nonlocal taken
        for request in asks(40):
            taken += 1
            yield request

    answers = engine.generate(source())
    for n in range(1, 11):
        next(answers)
        assert taken <= n + 1
    answers.close()  # type: ignore[attr-defined]
    assert taken <= 12


def test_closing_early_cancels_and_proves_nothing() -> None:
    """An abandoned block is not compared, and the engine goes on to serve others."""
    engine, plain = switching(0.7)
    answers = engine.generate(asks(5, stream=True))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert plain.scripted.cancelled == ["0"]
    assert actions(completions(engine, 1)) == ["compared, plain"]


def test_a_repeated_id_is_refused_across_blocks() -> None:
    """The port's promise holds although the engine inside sees several calls."""
    engine, _ = switching(0.7, block=2)
    twice = [*asks(4), Request(id="0", prompt="again")]
    with pytest.raises(ValueError, match="have the id '0'"):
        list(engine.generate(twice))


def test_overlapping_calls_are_not_compared() -> None:
    """CPU time of two calls at once cannot be told apart, so neither counts."""
    engine, _ = switching(0.7, block=4)
    first = engine.generate(asks(4))
    next(first)
    inside = completions(engine, 4)
    list(first)
    assert actions(inside) == ["plain"] * 4
    assert actions(completions(engine, 1)) == ["compared, plain"]  # still the first pair


def test_blocks_fill_the_slots() -> None:
    """With many slots a block is two rounds of them, so that batching is compared as it is."""

    class Settings:
        slots = 8

    plain = CostedEngine(costs(0.7))  # type: ignore[arg-type]
    plain.options = Settings()  # type: ignore[assignment]
    plain.reopened = lambda _: CostedEngine(costs(0.7), {"ngram": "x"})  # type: ignore[method-assign,arg-type]
    engine = wrapped([make("speculation")], plain)
    said = actions(completions(engine, 17))
    assert said == ["compared, plain"] * 16 + ["compared, speculated"]


def test_errors_pass_through_and_spoil_the_block() -> None:
    """A request that fails is handed on with its step, and its block is not compared."""
    engine, plain = switching(0.7, block=1)
    plain.scripted = ScriptedEngine({"0": "good"})
    bad, good = [
        c
        for c in engine.generate([Request(id="x", prompt="?"), *asks(1)])
        if isinstance(c, Completion)
    ]
    assert bad.finish is Finish.ERROR
    assert actions([bad, good]) == ["compared, plain"] * 2  # the second takes the first's place


def test_a_second_instance_that_cannot_be_had_again_means_plain() -> None:
    """If re-opening fails at a re-check, requests are still answered, and the ledger says why."""
    engine, plain = switching(1.4, recheck_after=8)
    completions(engine, 40)

    def broken(changes: Mapping[str, object]) -> Engine:
        raise EngineError("memory is short")

    plain.reopened = broken  # type: ignore[method-assign]
    done = completions(engine, 40)
    assert all(c.finish is not Finish.ERROR for c in done)
    assert "memory is short" in last_step(done[-1]).detail


def test_closing_closes_both_instances() -> None:
    """Close is idempotent and leaves no model behind."""
    engine, plain = switching(0.7)
    engine.close()
    engine.close()
    assert plain.closed
    assert all(e.closed for e in plain.opened)
    with pytest.raises(EngineError, match="closed"):
        completions(engine, 1)


def test_an_engine_that_cannot_be_opened_twice_is_refused() -> None:
    """The sentence says why, and how to speculate without comparing."""
    engine = ScriptedEngine({})
    with pytest.raises(CapabilityError, match='switch = "on"'):
        wrapped([make("speculation")], engine)
    assert engine.closed


def test_always_on_is_set_at_load() -> None:
    """With switch = "on" the engine itself speculates, and the ledger says what was accepted."""
    strategy = make("speculation", switch="on", ngram_size=3)
    options = strategy.configure({})
    assert (options["ngram"], options["ngram_size"]) == ("simple", 3)
    engine = wrapped([strategy], CostedEngine(costs(1.0), options))  # type: ignore[arg-type]
    step = last_step(completions(engine, 1)[0])
    assert (step.action, step.detail) == ("speculated", "6 of 12 drafted tokens accepted")


def test_switched_engines_are_loaded_plain() -> None:
    """With switch = "auto" drafting is not in the options of the engine that is loaded."""
    assert make("speculation", draft="d.gguf").configure({"context": 9}) == {"context": 9}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"ngram": ""}, "nothing to draft with"),
        ({"ngram": "mod"}, "one pool of n-grams for all users"),
        ({"switch": "maybe"}, "'auto' or 'on'"),
        ({"block": -1}, "block cannot be negative"),
        ({"gain": 2.0}, "gain is a share"),
    ],
)
def test_speculation_that_cannot_be_is_refused(wrong: dict[str, object], sentence: str) -> None:
    """Each mistake is a sentence that says what is wrong."""
    with pytest.raises(ConfigError, match=sentence):
        make("speculation", **wrong)


def test_two_places_that_speculate_are_refused() -> None:
    """An engine that is told to draft already contradicts the strategy."""
    with pytest.raises(ConfigError, match="'ngram' speculates already"):
        make("speculation").configure({"ngram": "simple"})


# -- where greedy answers part -------------------------------------------------------------------


def reference(*tokens: tuple[str, float, float]) -> Completion:
    """A completion from (text, best log-probability, second best)."""
    return Completion(
        id="a",
        text="".join(t for t, _, _ in tokens),
        usage=Usage(prompt=1, completion=len(tokens)),
        finish=Finish.STOP,
        timings=Timings(total_s=1.0),
        logprobs=tuple(
            TokenLogprob(text=t, logprob=a, top=((t, a), ("?", b))) for t, a, b in tokens
        ),
    )


def test_equal_answers_do_not_part() -> None:
    """Identical texts give nothing to explain."""
    assert divergence(reference(("a", -0.1, -3.0)), "a") is None


@pytest.mark.parametrize(("second", "explained"), [(-0.72, True), (-4.0, False)])
def test_a_near_tie_explains_a_difference(second: float, explained: bool) -> None:
    """Only where the model was undecided may rounding have decided."""
    parted = divergence(reference(("ab", -0.1, -3.0), ("cd", -0.7, second)), "abxy")
    assert parted is not None
    assert parted.at == 2
    assert parted.explained is explained


def test_an_answer_that_went_on_is_not_explained_by_guessing() -> None:
    """Where the reference ended there is no margin, so nothing is claimed."""
    parted = divergence(reference(("ab", -0.1, -3.0)), "abc")
    assert parted is not None
    assert parted.margin is None
    assert not parted.explained
