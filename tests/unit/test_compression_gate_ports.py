"""The gate's checks that read a measurement: what passes, what fails, at which level."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lichen.compression.corpus import Document
from lichen.compression.gate import CHECKS, THRESHOLDS, Gate, GatePorts, Level
from lichen.compression.gate.ports import (
    AgreementValue,
    AnswersValue,
    CostValue,
    FlipsValue,
    QualityValue,
    TaskValue,
)
from lichen.compression.model_file import open_model, write_model
from lichen.core.errors import ConfigError, EngineError, UnknownNameError
from lichen.core.interval import Interval
from lichen.core.measurement import Component, Method, Missing, Reading
from lichen.testing.gguf_files import CHAT_TEMPLATE, TinyModel


def around(value: float, half: float) -> Interval:
    return Interval(low=value - half, value=value, high=value + half)


AGREEMENT = AgreementValue(
    kl_nats=around(0.02, 0.005),
    flips=around(0.03, 0.01),
    parent_perplexity=3.0,
    child_perplexity=3.05,
    tokens=4096,
)
QUALITY = QualityValue(
    metric="pass@1",
    problems=164,
    parent_solved=80,
    child_solved=80,
    only_parent=4,
    only_child=4,
    difference=around(0.0, 0.025),
    mcnemar_p=1.0,
)
ANSWERS = AnswersValue(
    answers=164,
    length_ratio=around(1.0, 0.05),
    parent_truncated=2,
    child_truncated=2,
    truncated_excess=around(0.0, 0.02),
    finishes=(("length", 2, 2), ("stop", 162, 162)),
)
FLIPS = FlipsValue(
    rewrites=("rename", "reformat"),
    pairs=80,
    parent_flips=10,
    child_flips=11,
    only_parent=5,
    only_child=6,
    excess=around(0.0125, 0.03),
    mcnemar_p=1.0,
)
COST = CostValue(
    prefill=around(0.7, 0.05),
    decode=around(0.6, 0.05),
    load=around(0.8, 0.1),
    memory=Reading(
        value=around(0.6, 0.02),
        method=Method.COUNTER,
        component=Component.PROCESS,
        source="resident bytes",
    ),
    rounds=4,
    parent_prefill_s=0.018,
    child_prefill_s=0.012,
    parent_decode_s=0.070,
    child_decode_s=0.042,
)


class Letters:
    """A tokenizer of single bytes; the child's may be broken in one way."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def encode(self, text: str) -> list[int]:
        ids = list(text.encode())
        if self.fault == "other":
            return list(reversed(ids))
        if self.fault == "longer":
            ids = [j for i in ids for j in (i, 0)]
        return ids

    def decode(self, ids: list[int]) -> bytes:
        step = {"other": -1, "longer": 2}.get(self.fault, 1)
        ids = ids[::step]
        return bytes(ids).replace(b"\t", b" ") if self.fault == "bytes" else bytes(ids)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """A parent and a child with the same bytes."""
    root = tmp_path_factory.mktemp("ports")
    paths = root / "parent.gguf", root / "child.gguf"
    for path in paths:
        path.write_bytes(TinyModel().to_bytes())
    return paths


def ports(**changes: object) -> GatePorts:
    """Return ports that find nothing wrong, except where changed."""
    values: dict[str, object] = {
        "held_out": (Document("a.py", "def f(x):\n\treturn x\n" * 30),),
        "tokenizer": lambda _path: Letters(),
        "chats": lambda _path: ("<user>hello",),
        "agreement": lambda _p, _c: AGREEMENT,
        "task": lambda _p, _c: TaskValue(quality=QUALITY, answers=ANSWERS),
        "flips": lambda _p, _c: FLIPS,
        "cost": lambda _p, _c: COST,
    }
    return GatePorts(**(values | changes))


def failing(files, level: Level = Level.NORMAL, **changes: object) -> dict[str, str]:
    report = Gate(level).run(*files, ports(**changes))
    return {c.name: c.what for c in report.failed}


def task(quality: QualityValue = QUALITY, answers: AnswersValue = ANSWERS):
    return lambda _p, _c: TaskValue(quality=quality, answers=answers)


def test_a_child_like_its_parent_passes_every_check_at_normal(files):
    """All nine checks are run, and none has anything to say."""
    report = Gate().run(*files, ports())
    assert report.passed
    assert {c.name for c in report.checks} == set(CHECKS)
    assert all(c.passed for c in report.checks)


def test_a_proven_child_passes_strict(files):
    """Where every bound is within its threshold, strict agrees."""
    sure = replace(
        QUALITY, child_solved=90, only_child=12, only_parent=2, difference=around(0.06, 0.04)
    )
    shape = replace(ANSWERS, length_ratio=around(0.9, 0.05))
    flips = replace(FLIPS, excess=around(0.0, 0.04))
    report = Gate(Level.STRICT).run(
        *files, ports(task=task(sure, shape), flips=lambda _p, _c: flips)
    )
    assert report.failed == ()
    assert report.passed


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("agreement", {"agreement": replace(AGREEMENT, kl_nats=around(0.08, 0.03))}),
        ("agreement", {"agreement": replace(AGREEMENT, flips=around(0.14, 0.03))}),
        ("quality", {"task": task(replace(QUALITY, difference=around(0.0, 0.04)))}),
        ("answers", {"task": task(answers=replace(ANSWERS, length_ratio=around(1.05, 0.06)))}),
        ("metamorphic", {"flips": replace(FLIPS, excess=around(0.02, 0.05))}),
        ("cost", {"cost": replace(COST, decode=around(0.95, 0.1))}),
    ],
)
def test_strict_judges_the_bound_where_normal_judges_the_estimate(files, check, changes):
    """An interval that reaches over a threshold is no proof, and no fault either."""
    port = {k: v if callable(v) else (lambda _p, _c, v=v: v) for k, v in changes.items()}
    assert check in failing(files, Level.STRICT, **port)
    assert check not in failing(files, Level.NORMAL, **port)


@pytest.mark.parametrize(
    ("check", "said", "changes"),
    [
        ("agreement", "KL above 0.", {"agreement": replace(AGREEMENT, kl_nats=around(0.9, 0.1))}),
        ("agreement", "flips above", {"agreement": replace(AGREEMENT, flips=around(0.4, 0.1))}),
        (
            "agreement",
            "times the parent's",
            {"agreement": replace(AGREEMENT, child_perplexity=4.0)},
        ),
        (
            "agreement",
            "times the parent's",
            {"agreement": replace(AGREEMENT, child_perplexity=float("nan"))},
        ),
        (
            "quality",
            "not within 3 points",
            {"task": task(replace(QUALITY, difference=around(-0.05, 0.01)))},
        ),
        (
            "quality",
            "McNemar's test shows a loss",
            {"task": task(replace(QUALITY, only_parent=14, only_child=2, mcnemar_p=0.004))},
        ),
        (
            "answers",
            "longer than",
            {"task": task(answers=replace(ANSWERS, length_ratio=around(1.5, 0.1)))},
        ),
        (
            "answers",
            "cut more often",
            {"task": task(answers=replace(ANSWERS, truncated_excess=around(0.2, 0.1)))},
        ),
        ("metamorphic", "beyond the parent", {"flips": replace(FLIPS, excess=around(0.2, 0.1))}),
        (
            "metamorphic",
            "more flips",
            {"flips": replace(FLIPS, only_child=20, only_parent=2, mcnemar_p=0.001)},
        ),
        ("cost", "decode above", {"cost": replace(COST, decode=around(1.4, 0.1))}),
        ("cost", "prefill above", {"cost": replace(COST, prefill=around(1.4, 0.1))}),
        ("cost", "load above", {"cost": replace(COST, load=around(2.0, 0.1))}),
    ],
)
def test_what_is_worse_fails_and_is_named_with_its_number(files, check, said, changes):
    """Each threshold stops a child at normal, and the sentence says which and by how much."""
    port = {k: v if callable(v) else (lambda _p, _c, v=v: v) for k, v in changes.items()}
    assert said in failing(files, **port)[check]


def test_more_only_child_solves_is_no_loss(files):
    """A significant difference in the child's favour passes."""
    better = replace(
        QUALITY, only_parent=1, only_child=15, mcnemar_p=0.001, difference=around(0.085, 0.04)
    )
    assert failing(files, task=task(better)) == {}


def test_too_few_problems_are_said_so(files):
    """At normal a wide interval passes, with the note that it proves nothing."""
    few = replace(QUALITY, problems=10, difference=around(0.0, 0.2))
    report = Gate().run(*files, ports(task=task(few)))
    assert "too few problems to prove it within 3 points" in report.check("quality").what


def test_memory_that_was_not_measured_is_said_and_not_judged(files):
    """Missing is never a number."""
    cost = replace(COST, memory=Missing(reason="no such counter"))
    check = Gate().run(*files, ports(cost=lambda _p, _c: cost)).check("cost")
    assert check.passed
    assert "memory not measured: no such counter" in check.what
    assert "memory_ratio" not in check.numbers


def test_nothing_to_rewrite_is_not_a_pass(files):
    """Without a pair there is nothing to judge."""
    none = replace(FLIPS, pairs=0, excess=Interval.exact(0.0))
    report = Gate().run(*files, ports(flips=lambda _p, _c: none))
    assert report.check("metamorphic").passed is None


def test_an_engine_that_cannot_run_the_child_fails_that_check(files):
    """The error is the finding; the task is run once, for both checks that read it."""
    calls = []

    def broken(_parent: Path, _child: Path) -> TaskValue:
        calls.append(1)
        raise EngineError("llama.cpp cannot load child.gguf")

    found = failing(files, task=broken)
    assert found.keys() == {"quality", "answers"}
    assert "could not be finished: llama.cpp cannot load" in found["quality"]
    assert len(calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        EngineError("a model gives logits that are no numbers: its weights are damaged"),
        ConfigError("the models share no more than 3 tokens: they are no relatives"),
    ],
    ids=["no numbers", "no relatives"],
)
def test_models_that_cannot_be_compared_fail_that_check(files, error):
    """Weights that give no numbers, or a stranger's vocabulary: a finding, and nothing dear runs."""

    def broken(_parent: Path, _child: Path) -> AgreementValue:
        raise error

    found = failing(files, agreement=broken)
    assert found == {"agreement": f"the check could not be finished: {error}"}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("bytes", "comes back changed"),
        ("other", "cut into other tokens"),
        ("longer", "more tokens, above"),
    ],
)
def test_a_tokenizer_that_differs_is_found(files, fault, said):
    """Bytes that do not survive, other tokens for the same text, more of them."""
    parent, _ = files
    found = failing(files, tokenizer=lambda path: Letters() if path == parent else Letters(fault))
    assert said in found["tokenizer"]


def test_passages_that_lost_their_tokens_may_be_spelt_with_others(tmp_path, files):
    """Where a token was dropped the child may cut differently, and the inflation is counted."""
    parent, _ = files
    model = open_model(parent)
    tokens = list(model.metadata["tokenizer.ggml.tokens"].value)
    keep = [i for i in range(len(tokens)) if i != ord("x")]
    child = tmp_path / "c.gguf"
    write_model(
        model.with_metadata(
            {
                "tokenizer.ggml.tokens": model.metadata["tokenizer.ggml.tokens"].like(
                    [tokens[i] for i in keep]
                )
            }
        ),
        child,
    )

    class Respelt(Letters):
        def encode(self, text: str) -> list[int]:
            ids = list(text.encode())
            return [j for i in ids for j in ([1, 2] if i == ord("x") else [i - (i > ord("x"))])]

        def decode(self, ids: list[int]) -> bytes:
            text = "".join(chr(i) if i < ord("x") else chr(i + 1) for i in ids)
            return text.replace("\x01\x02", "x").encode("latin-1")

    texts = (Document("a", "abc\n" * 40 + "xyz\n"), Document("b", "abz\n"))
    report = Gate(only=("tokenizer",)).run(
        parent,
        child,
        ports(held_out=texts, tokenizer=lambda p: Letters() if p == parent else Respelt()),
    )
    numbers = report.check("tokenizer").numbers
    assert numbers["same"] == numbers["passages"] - 1
    assert 0 < numbers["inflation"] < 0.01


@pytest.mark.parametrize("changed", [CHAT_TEMPLATE + " ", CHAT_TEMPLATE.replace("user", "user")])
def test_templates_are_compared_by_what_they_render(tmp_path, files, changed):
    """A template with other text that renders the same is the same; with other output it is not."""
    parent, _ = files
    child = tmp_path / "c.gguf"
    model = open_model(parent)
    key = "tokenizer.chat_template"
    write_model(model.with_metadata({key: model.metadata[key].like(changed)}), child)
    assert "chat_template" not in failing((parent, child))
    found = failing((parent, child), chats=lambda path: (path.name,))
    assert "1 of 1 conversations are rendered differently" in found["chat_template"]


def test_a_template_that_the_engine_cannot_render_fails(files):
    """Only the child's failure is a finding."""
    parent, _ = files

    def render(path: Path) -> tuple[str, ...]:
        if path == parent:
            return ("hello",)
        raise EngineError("it is not Jinja")

    assert "cannot be rendered: it is not Jinja" in failing(files, chats=render)["chat_template"]


def test_unknown_checks_are_refused_with_the_nearest_name(files):
    """A typing mistake does not silently skip a check."""
    with pytest.raises(UnknownNameError, match="did you mean 'structure'"):
        Gate(only=("structur",)).run(*files, ports())


def test_strict_is_nowhere_laxer_than_normal():
    """Each upper limit of strict is at most normal's."""
    strict, normal = THRESHOLDS[Level.STRICT], THRESHOLDS[Level.NORMAL]
    for name in (
        *("inflation", "kl_nats", "flips", "perplexity_ratio", "margin", "flip_excess"),
        *("answer_length_ratio", "truncated_excess", "cpu_ratio", "load_ratio", "memory_ratio"),
    ):
        assert getattr(strict, name) <= getattr(normal, name), name
    assert THRESHOLDS[Level.REPORT] == normal
