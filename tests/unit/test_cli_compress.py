"""``lichen compress`` and ``lichen models diff`` as a user types them; engines are scripted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.catalog.difference import difference
from lichen.catalog.gguf import read_header
from lichen.catalog.lineage import read_lineage
from lichen.cli import console
from lichen.cli.compress import command
from lichen.cli.models import command as models
from lichen.compose import compression as compose
from lichen.compose import compression_search as searching
from lichen.compose import making
from lichen.compose.compression_search import structures
from lichen.compose.compression_workshop import EngineWorkshop, Measures
from lichen.compose.recommended import recommendations
from lichen.compression.candidates import CompressionCandidate, Origin, Predicted
from lichen.compression.gate import Check, Gate, GatePorts, GateReport, Level
from lichen.compression.gate.ports import AgreementValue, CostValue
from lichen.compression.model_file import MetaValue, open_model, write_model
from lichen.compression.recipe import parse_recipe
from lichen.compression.searched import Bill, Look
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.model import ModelArtifact
from lichen.meter import open_meter
from lichen.testing.gguf_files import TinyModel

pytest.importorskip("gguf", reason="needs the extra [compress]")

RECIPE = """
name = "eight"
[[step]]
method = "retie"
[[step]]
method = "requantise"
types = { layers = "Q8_0" }
[[step]]
method = "kv_cache"
"""


def cost(ratio: float) -> CostValue:
    """A child that costs ``ratio`` of its parent."""
    return CostValue(
        prefill=Interval.exact(ratio),
        decode=Interval.exact(ratio),
        load=Interval.exact(1.0),
        memory=Missing(reason="scripted"),
        rounds=2,
        parent_prefill_s=0.01,
        child_prefill_s=0.01 * ratio,
        parent_decode_s=0.05,
        child_decode_s=0.05 * ratio,
    )


def agreement(kl: float) -> AgreementValue:
    """A child that diverges by ``kl``."""
    return AgreementValue(
        kl_nats=Interval.exact(kl),
        flips=Interval.exact(kl / 2),
        parent_perplexity=4.0,
        child_perplexity=4.1,
        tokens=100,
    )


class Shell:
    """Runs commands in a folder that holds one tiny model and a little code."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LICHEN_CACHE", str(folder / "cache"))
        monkeypatch.setenv("LICHEN_STORE", f"sqlite:///{folder}/runs.sqlite")
        monkeypatch.setenv("COLUMNS", "160")
        (folder / "tiny.gguf").write_bytes(TinyModel(output_kind="F16", layers=2).to_bytes())
        (folder / "eight.toml").write_text(RECIPE, encoding="utf-8")
        (folder / "code").mkdir()
        for i in range(12):
            text = f"def f{i}(x):\n    return x + {i}\n" * 20
            (folder / "code" / f"m{i}.py").write_text(text, encoding="utf-8")

    def judged(self, *failing: str) -> None:
        """Script the gate of recipes: these checks fail."""

        def verdict(
            _self: compose.Judging, _spec: object, level: Level, *_a: object, **_k: object
        ) -> compose.Verdict:
            checks = tuple(
                Check(name=n, passed=n not in failing, what=f"{n} was looked at")
                for n in ("structure", "agreement")
            )
            return compose.Verdict(report=GateReport(level=level, checks=checks), cost=cost(0.5))

        self.patch.setattr(compose.Judging, "verdict", verdict)

    def workshop(self, kl: float, ratio: float, *, passes: bool = True) -> None:
        """Script what a search measures; files are made for real."""

        def opened(
            plan: searching.SearchPlan,
            _judging: object,
            target: searching.SearchTarget,
            meter: object,
        ) -> EngineWorkshop:
            class Scripted(Gate):
                def run(self, _parent: Path, child: Path, _ports: GatePorts) -> GateReport:
                    assert child.exists()
                    check = Check(name="agreement", passed=passes, what="scripted")
                    return GateReport(level=Level.NORMAL, checks=(check,))

            measures = Measures(
                agreement=lambda _a, _b: agreement(kl), cost=lambda _a, _b: cost(ratio)
            )
            return EngineWorkshop(
                source=plan.source,
                context=plan.context,
                folder=target.folder,
                measures=[measures, measures],
                judge=Scripted(),
                ports=GatePorts(),
                meter=meter,  # type: ignore[arg-type]
            )

        self.patch.setattr(searching, "_workshop", opened)
        self.patch.setattr(
            searching, "METHODS_TRIED", ("retie", "mixed_precision")
        )  # no tokenizer is needed for what follows
        tried = structures

        def few(model: object, *, retie: bool, drop: bool) -> Sequence[object]:
            return tried(model, retie=retie, drop=drop)[:2]  # type: ignore[arg-type]

        self.patch.setattr(searching, "structures", few)

    def __call__(self, *words: str, group: object = command) -> Result:
        console.out.cache_clear()
        console.err.cache_clear()
        try:
            return CliRunner().invoke(group, list(words), catch_exceptions=False)  # type: ignore[arg-type]
        finally:
            console.out.cache_clear()
            console.err.cache_clear()

    def compress(self, *words: str) -> Result:
        """Compress the tiny model with its own corpus and without importance."""
        common = ["tiny.gguf", "--corpus", "code", "--importance", "none"]
        return self(*common, *words)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell with one model."""
    return Shell(tmp_path, monkeypatch)


def test_a_recipe_is_applied_proven_and_billed(shell: Shell) -> None:
    """The file is written with its lineage; one table, the gate and the break-even line follow."""
    shell.judged()
    done = shell.compress("--recipe", "eight.toml", "--out", "eight.gguf")
    assert done.exit_code == 0, done.output
    for words in ("read per decoded token", "gate: agreement", "paid back after", "written"):
        assert words in done.output
    out = shell.folder / "eight.gguf"
    lineage = read_lineage(out, read_header(out))
    assert len(lineage.ancestors) == 1
    assert 'method = "requantise"' in lineage.recipe
    again = shell.compress("--recipe", "eight.toml", "--out", "eight.gguf", "--json")
    document = json.loads(again.stdout)
    assert document["passed"] is True
    assert document["after"]["file_bytes"] == out.stat().st_size
    assert document["payback"]["requests"] >= 0


def test_a_failed_gate_keeps_the_file_and_exits_with_one(shell: Shell) -> None:
    """The file stays, what failed is named, the exit code is 1; report stops nothing."""
    shell.judged("agreement")
    done = shell.compress("--recipe", "eight.toml", "--out", "eight.gguf")
    assert done.exit_code == 1
    assert "agreement was looked at" in done.output
    assert "the file is kept" in done.output
    assert (shell.folder / "eight.gguf").exists()
    report = shell.compress("--recipe", "eight.toml", "--out", "eight.gguf", "--gate", "report")
    assert report.exit_code == 0


def test_dry_run_writes_nothing(shell: Shell) -> None:
    """The prediction is shown, as a table or as JSON, and the folder stays as it was."""
    before = sorted(p.name for p in shell.folder.iterdir())
    done = shell.compress("--recipe", "eight.toml", "--dry-run")
    assert "nothing was written" in done.output
    found = json.loads(shell.compress("--recipe", "eight.toml", "--dry-run", "--json").stdout)
    assert found["after"]["file_bytes"] < found["before"]["file_bytes"]
    assert sorted({p.name for p in shell.folder.iterdir()} - {"cache"}) == before


@pytest.mark.parametrize(
    ("words", "error", "why"),
    [
        (["--recipe", "fst"], UnknownNameError, "did you mean 'fast'"),
        (["--recipe", "none.toml"], ConfigError, "cannot be read"),
        (["--out", "tiny.gguf", "--recipe", "fast"], ConfigError, "is the model itself"),
        (["--out", "eight.toml", "--recipe", "fast"], ConfigError, "choose another name"),
        (["--out", "no/where.gguf", "--recipe", "fast"], ConfigError, "folder does not exist"),
    ],
)
def test_mistakes_are_one_sentence(
    shell: Shell, words: list[str], error: type[Exception], why: str
) -> None:
    """Unknown recipes and files that are somebody's own are refused before anything is made."""
    with pytest.raises(error, match=why):
        shell.compress(*words)


@pytest.mark.parametrize("text", ["0", "soon", "-5m", "5 lightyears"])
def test_unclear_budgets_are_refused(shell: Shell, text: str) -> None:
    """A budget is a time or an energy above 0."""
    done = shell.compress("--budget", text)
    assert done.exit_code == 2
    assert "no budget" in done.output


def test_a_search_recommends_one_file(shell: Shell) -> None:
    """Without a recipe: a table, the baseline, the bill and one file; nothing else is left."""
    shell.workshop(kl=0.01, ratio=0.5)
    done = shell.compress("--out", "best.gguf", "--candidates", "4", "--random", "1")
    assert done.exit_code == 0, done.output
    for words in ("KL, nats", "random search beside it", "paid back after", "written: best.gguf"):
        assert words in done.output
    best = shell.folder / "best.gguf"
    assert best.exists()
    assert not (shell.folder / "best.gguf.candidates").exists()
    asked = (shell.folder / "best.gguf.ledger.jsonl").read_text("utf-8").count("\n")
    again = shell.compress("--out", "best.gguf", "--candidates", "4", "--random", "1", "--json")
    found = json.loads(again.stdout)
    assert found["search"]["resumed"] == asked
    assert found["written"]["sha256"]
    assert best.exists()


def test_a_search_that_finds_nothing_says_so(shell: Shell) -> None:
    """If the gate stops all, no file is written and the exit code is 0."""
    shell.workshop(kl=0.01, ratio=0.5, passes=False)
    done = shell.compress("--out", "best.gguf", "--candidates", "3", "--random", "0")
    assert done.exit_code == 0
    assert "nothing better found" in done.output
    assert not (shell.folder / "best.gguf").exists()


def test_a_search_can_be_planned_only(shell: Shell) -> None:
    """--dry-run shows the candidates with predictions; limits that nothing fits are said."""
    shell.workshop(kl=0.01, ratio=0.5)
    done = shell.compress("--dry-run", "--budget", "5Wh", "--candidates", "3")
    assert "predicted recipes" in done.output
    assert "5 Wh" in done.output
    found = json.loads(shell.compress("--dry-run", "--json", "--candidates", "3").stdout)
    assert len(found["candidates"]) == 5
    assert all(c["recipe"]["steps"] for c in found["candidates"])
    with pytest.raises(ConfigError, match="nothing that could be tried fits"):
        shell.compress("--dry-run", "--max-size", "1kB")


def test_diff_shows_what_changed(shell: Shell) -> None:
    """Types, bytes, metadata and lineage that changed are shown; equal files are called so."""
    shell.judged()
    shell.compress("--recipe", "eight.toml", "--out", "eight.gguf")
    done = shell("diff", "tiny.gguf", "eight.gguf", group=models)
    for words in ("ffn_up", "Q8_0", "output", "none", "was made from", "cache_type_k"):
        assert words in done.output, words
    found = json.loads(shell("diff", "tiny.gguf", "eight.gguf", "--json", group=models).stdout)
    (output,) = [r for r in found["roles"] if r["role"] == "output"]
    assert output["b"] is None
    same = difference(shell.folder / "tiny.gguf", shell.folder / "tiny.gguf")
    assert same.same
    with pytest.raises(ConfigError, match="lichen models pull"):
        shell("diff", "tiny.gguf", "qwen2.5-coder-0.5b", group=models)


def test_diff_counts_changed_entries_of_arrays(shell: Shell) -> None:
    """Vocabularies of one length with other words are told apart."""
    model = open_model(shell.folder / "tiny.gguf")
    tokens = model.value("tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    changed = MetaValue.texts([*tokens[:-2], "one", "two"])
    write_model(
        model.with_metadata({"tokenizer.ggml.tokens": changed}), shell.folder / "other.gguf"
    )
    found = difference(shell.folder / "tiny.gguf", shell.folder / "other.gguf")
    (key,) = found.keys
    assert key.key == "tokenizer.ggml.tokens"
    assert "2 differ" in key.b


def test_recommended_options_are_used_where_nobody_said_otherwise(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    """A file's recommendations fill gaps, the user's options win, other engines get none."""
    shell.judged()
    shell.compress("--recipe", "eight.toml", "--out", "eight.gguf")
    path = shell.folder / "eight.gguf"
    model = ModelArtifact(
        name="eight", path=str(path), format="gguf", sha256="0", size_bytes=path.stat().st_size
    )
    found = recommendations("llama_cpp", model, {})
    assert set(found) >= {"cache_type_k", "cache_type_v"}
    assert "recommends the engine options" in caplog.text
    caplog.clear()
    assert recommendations("llama_cpp", model, {}, say=False) == found
    assert not caplog.text
    mine = recommendations("llama_cpp", model, {"cache_type_k": "f16"})
    assert "cache_type_k" not in mine
    assert recommendations("transformers", model, {}) == {}
    assert recommendations("llama_cpp", None, {}) == {}


def test_structures_follow_from_the_model(shell: Shell) -> None:
    """A tied model is not retied; layers are dropped only where there are enough."""
    few = open_model(shell.folder / "tiny.gguf")
    labels = [s.label for s in structures(few, retie=True, drop=True)]
    assert labels[:2] == ["as it is", "retied"]
    assert not [x for x in labels if "less" in x]
    deep = shell.folder / "deep.gguf"
    deep.write_bytes(TinyModel(layers=20, width=32, heads=1, kv_heads=1).to_bytes())
    labels = [s.label for s in structures(open_model(deep), retie=False, drop=True)]
    assert "2 layers less" in labels
    blind = [s.label for s in structures(open_model(deep), retie=False, drop=False)]
    assert not [x for x in blind if "less" in x]
    assert not [x for x in labels if "retied" in x]


def test_the_workshop_turns_failures_into_findings(shell: Shell) -> None:
    """A candidate that the engine cannot run is an error of that look, with its bill."""

    def broken(_a: Path, _b: Path) -> AgreementValue:
        raise ConfigError("the engine cannot run it")

    shell.workshop(kl=0.01, ratio=0.5)
    plan = searching.plan_search(
        ModelArtifact(
            name="tiny",
            path=str(shell.folder / "tiny.gguf"),
            format="gguf",
            sha256="0",
            size_bytes=1,
        ),
        making.Wanted(corpus=(shell.folder / "code",)),
        searching.Limits(budget=searching.Budget(seconds=60), candidates=1, random=0),
        lambda _what: None,
    )
    with open_meter(probes=["process"]) as meter:
        workshop = EngineWorkshop(
            source=plan.source,
            context=plan.context,
            folder=shell.folder / "work",
            measures=[Measures(agreement=broken, cost=lambda _a, _b: cost(0.5))],
            judge=Gate(),
            ports=GatePorts(),
            meter=meter,
            answers=10,
        )
        look = workshop.look(plan.candidates[0], 0)
        assert look.error == "the engine cannot run it"
        assert look.bill.wall_s > 0
        assert workshop.path(plan.candidates[0]).exists()
        workshop.discard(plan.candidates[0])
        assert not workshop.path(plan.candidates[0]).exists()
        workshop.close()
        assert not (shell.folder / "work").exists()

        bill = Bill(wall_s=60.0, cpu_s=100.0, energy_j=400.0)
        looked = Look(parent_request_s=20.0, child_request_s=10.0, bill=bill)
        foreseen = workshop.foresee(looked)
        assert foreseen.answers == 10
        # Five and a half looks, and 10 answers of 30 CPU-s, a fifth less for being given together.
        assert foreseen.gate == Bill(wall_s=330.0 + 144.0, cpu_s=790.0, energy_j=3160.0)
        assert foreseen.longer == Bill(wall_s=180.0, cpu_s=300.0, energy_j=1200.0)
        assert foreseen.making.wall_s == 0.0
        workshop.compensate = True
        assert workshop.foresee(looked).making.wall_s == pytest.approx(6.0 * 60.0)


def test_finalists_make_up_for_rounding_errors(shell: Shell) -> None:
    """Quick looks go without compensation, looks at finalists and the gate with it."""
    seen: list[str] = []

    def noted(_parent: Path, child: Path) -> AgreementValue:
        seen.append(child.name)
        return agreement(0.01)

    recipe = parse_recipe('[[step]]\nmethod = "requantise"\ntypes = { layers = "IQ4_NL" }\n')
    candidate = CompressionCandidate(
        label="one",
        recipe=recipe,
        origin=Origin.GIVEN,
        predicted=Predicted(file_bytes=1, cpu_s=1.0, error=0.0),
    )
    source = ModelArtifact(
        name="tiny",
        path=str(shell.folder / "tiny.gguf"),
        format="gguf",
        sha256="0",
        size_bytes=1,
    )
    wanted = making.Wanted(corpus=(shell.folder / "code",))
    with open_meter(probes=["process"]) as meter:
        workshop = EngineWorkshop(
            source=source,
            context=making.context_of(source, ["requantise"], wanted),
            folder=shell.folder / "work",
            measures=[Measures(agreement=noted, cost=lambda _a, _b: cost(0.5))] * 2,
            judge=Gate(),
            ports=GatePorts(),
            meter=meter,
            compensate=True,
        )
        quick, longer = (workshop.look(candidate, level) for level in (0, 1))
        assert not quick.error
        assert not longer.error
        first, final = (workshop.path(candidate, final=f) for f in (False, True))
        assert seen == [first.name, final.name]
        assert first.stat().st_size <= final.stat().st_size  # the recipe's text is longer
        assert open_model(final).tensor("blk.0.ffn_up.weight").type.name == "IQ4_NL"
        assert workshop.recipe(candidate, final=True).steps[0].options["compensate"] is True
        workshop.discard(candidate)
        assert not first.exists()
        assert not final.exists()
