"""``lichen accelerate`` in a world whose costs are known: the same command a user types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.acceleration.candidates import Choice
from lichen.benchmark.tasks import TASKS, facts
from lichen.cli import console
from lichen.cli.accelerate import command
from lichen.compose.spec import load
from lichen.core.errors import ConfigError, EngineError, LichenError
from lichen.store import open_store
from lichen.testing.costed_engine import Costs, Surface
from lichen.testing.costed_world import install

CHOICES = (Choice(strategy="kv_cache_type", options=(("keys", "q8_0"), ("values", "q8_0"))),)


def pays(options: Mapping[str, object]) -> Costs:
    """Four slots cost half of one; there is no room for more."""
    slots = options.get("slots", 1)
    assert isinstance(slots, int)
    if slots > 4:
        raise EngineError("it does not fit")
    dearer = 1.2 if "cache_type_k" in options else 1.0
    return Costs(decode_s=0.01 * dearer * {1: 1.0, 2: 0.8, 4: 0.5}[slots], prefill_s=0.0)


def pays_not(options: Mapping[str, object]) -> Costs:
    """Every change costs more."""
    return Costs(decode_s=0.01 if set(options) <= {"slots"} and "slots" not in options else 0.02)


class Shell:
    """Runs the command in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LICHEN_CACHE", str(folder / "cache"))
        monkeypatch.setenv("LICHEN_STORE", f"sqlite:///{folder}/runs.sqlite")
        monkeypatch.setenv("COLUMNS", "240")  # so that no cell is folded
        monkeypatch.setattr("lichen.acceleration.candidates.TABLE", CHOICES)
        (folder / "mine.toml").write_text('[engine]\nname = "costed"\n', encoding="utf-8")

    def __call__(self, *arguments: str, surface: Surface = pays, page: bool = False) -> Result:
        install(self.patch.setattr, surface, self.folder)
        console.out.cache_clear()
        console.err.cache_clear()
        words = ["mine.toml", "--set", "idle_s=0", "--set", "sandbox.workers=1", *arguments]
        words += [] if page else ["--no-report"]
        try:
            return CliRunner().invoke(command, words, catch_exceptions=False)
        finally:
            console.out.cache_clear()
            console.err.cache_clear()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell with one solution file."""
    return Shell(tmp_path, monkeypatch)


def test_accelerate_writes_and_proves_the_winner(shell: Shell) -> None:
    """The cheap setting is found, written as a solution that loads, verified, and billed."""
    done = shell("--round", "2", "--keep-quality", "0.05")
    assert done.exit_code == 0, done.output
    (green,) = load([shell.folder / "green.toml"]).solutions
    assert [(s.name, s.options) for s in green.strategies] == [("concurrency", {"slots": 4})]
    said = (shell.folder / "green.toml").read_text(encoding="utf-8")
    assert "Verified on the odd problems" in said
    assert not (shell.folder / "green.unverified.toml").exists()
    for words in (
        "concurrency(slots=4)",
        "dropped: it costs more",  # kv_cache_type, which saves nothing here
        "contributes",
        "Proof on 6 problems that the search had not seen",
        "paid back after",
        "CPU time",
        "requests",
    ):
        assert words in done.output


def test_the_report_tells_the_search(shell: Shell) -> None:
    """The page, and the stored run, name every candidate, why it was dropped, and the bill."""
    found = json.loads(shell("--round", "2", "--json", page=True).stdout)
    page = (shell.folder / found["report"]).read_text(encoding="utf-8")
    store = open_store(f"sqlite:///{shell.folder}/runs.sqlite")
    notes = store.run(found["run"]).notes
    store.close()
    for race in found["search"]["races"]:
        name = race["candidate"][0]["strategy"]
        assert any(name in n and "cost ratio" in n for n in notes)
    for words in ("Search, screening: kv_cache_type", "without concurrency(slots=4)", "paid back"):
        assert words in page
        assert any(words in n for n in notes)
    before = len(notes)
    again = shell("--round", "2")
    assert "Search, screening" not in again.stdout  # the tables say it
    store = open_store(f"sqlite:///{shell.folder}/runs.sqlite")
    assert len(store.run(found["run"]).notes) == before
    store.close()


def test_accelerate_as_json_is_one_document(shell: Shell) -> None:
    """With --json, stdout is one document with search, proof and bill."""
    done = shell("--round", "2", "--json")
    found = json.loads(done.stdout)
    assert found["written"] == "green.toml"
    assert found["search"]["best"] == [{"strategy": "concurrency", "options": [["slots", 4]]}]
    assert found["search"]["ratio"]["value"] == pytest.approx(0.5, rel=0.01)
    assert found["bill"]["search_cpu_s"] > 0
    assert found["bill"]["all_pays_after"] > found["bill"]["search_pays_after"]
    assert {s["name"] for s in found["verification"]["solutions"]} == {"plain", "green"}


def test_accelerate_says_when_nothing_pays(shell: Shell) -> None:
    """Where every strategy costs more, no file is written and it says so."""
    done = shell("--round", "2", surface=pays_not)
    assert done.exit_code == 0
    assert "nothing better found" in done.output
    assert not list(shell.folder.glob("green*.toml"))


def test_dry_run_runs_nothing(shell: Shell) -> None:
    """--dry-run names the candidates and the time, opens no engine and writes nothing."""

    def never(_options: Mapping[str, object]) -> Costs:
        raise AssertionError

    done = shell("--dry-run", "--budget", "90s", surface=never)
    assert "kv_cache_type" in done.output
    assert "the cheapest of 1, 2, 4, 8, 16 slots" in done.output
    assert "within 90 s" in done.output
    assert "12 answers is set aside" in done.output
    assert not list(shell.folder.glob("green*.toml"))
    planned = json.loads(shell("--dry-run", "--json", surface=never).stdout)
    assert planned["at_most_s"] == 3600
    assert planned["verification_problems"] == 6
    assert planned["screens_slots"] == [1, 2, 4, 8, 16]


def test_accelerate_spares_foreign_files(shell: Shell) -> None:
    """Somebody's own file at -o is refused before anything runs."""
    (shell.folder / "green.toml").write_text('model = "mine"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="choose another path"):
        shell()


@pytest.mark.parametrize("text", ["0", "soon", "-5m", "10 minutes"])
def test_accelerate_refuses_unclear_budgets(shell: Shell, text: str) -> None:
    """A budget is a number above 0 with s, m or h."""
    done = shell("--budget", text)
    assert done.exit_code == 2
    assert "no duration" in done.output


def test_accelerate_refuses_a_budget_too_small_for_the_proof(shell: Shell) -> None:
    """The verification's time comes first; a budget that it would eat is refused at once."""
    with pytest.raises(ConfigError, match="too small: verifying takes about"):
        shell("--round", "2", "--budget", "0.5s")
    assert not list(shell.folder.glob("green*.toml"))


def test_the_same_command_goes_on_where_it_was_stopped(shell: Shell) -> None:
    """Stopped in the search, it loses one round; when done, it runs nothing again, --fresh all."""
    loads = 0

    def stopping(options: Mapping[str, object]) -> Costs:
        nonlocal loads
        loads += 1
        if "cache_type_k" in options:
            raise KeyboardInterrupt
        return pays(options)

    assert "Aborted" in shell("--round", "2", surface=stopping).output
    assert loads > 1
    done = shell("--round", "2", "--json")
    assert json.loads(done.stdout)["search"]["stored_rounds"] == 1

    def never(_options: Mapping[str, object]) -> Costs:
        raise AssertionError

    again = shell("--round", "2", "--json", surface=never)
    first, second = json.loads(done.stdout), json.loads(again.stdout)
    assert second["search"]["stored_rounds"] == second["search"]["rounds"]
    assert second["run"] == first["run"]
    assert second["bill"] == first["bill"]
    assert second["search"]["best"] == first["search"]["best"]
    fresh = json.loads(shell("--round", "2", "--json", "--fresh").stdout)
    assert fresh["search"]["stored_rounds"] == 0
    assert fresh["run"] != first["run"]


def test_engine_only_needs_a_model(shell: Shell) -> None:
    """Tuning an engine without a model is refused with what to do."""
    with pytest.raises(LichenError, match="names no model"):
        shell("--engine-only")


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--recipe", "fsat", "did you mean 'fast'"),
        ("--recipe", "none.toml", "cannot be read"),
        ("--first", "none.toml", "cannot read"),
    ],
)
def test_what_cannot_be_tried_is_told_before_anything_runs(
    shell: Shell, option: str, value: str, why: str
) -> None:
    """A recipe or a first model that does not exist ends the command at once."""
    with pytest.raises(LichenError, match=why):
        shell("--dry-run", option, value)


def test_a_recipe_is_a_candidate(shell: Shell) -> None:
    """What was named is in the plan."""
    assert "recipe(name=fast)" in shell("--dry-run", "--recipe", "fast").stdout


def test_tasks_that_show_their_tests_bar_strategies_that_run_them(shell: Shell) -> None:
    """Where a question's examples are the hidden tests, running them is a leak, not a saving."""
    shell.patch.setattr(
        "lichen.acceleration.candidates.TABLE",
        (*CHOICES, Choice(strategy="stop_when_passing")),
    )
    assert "stop_when_passing" in shell("--dry-run").stdout
    oracle = next(n for n in TASKS.names() if (f := facts(n)) and f.self_check_is_oracle)
    barred = shell("--dry-run", "--task", oracle, "--first", "small")
    assert "stop_when_passing" not in barred.stdout
    assert "cascade" not in barred.stdout
    assert "not tried" in barred.stderr
