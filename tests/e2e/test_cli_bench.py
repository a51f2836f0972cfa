"""The main job, end to end, as a user runs it: real model, real sandbox, real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow]


class Shell:
    """Runs ``lichen`` with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "LICHEN_STORE": f"sqlite:///{folder}/runs.sqlite",
            "COLUMNS": "100",
        }

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "lichen", *arguments],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == code, done.stderr[-3000:]
        return done


SHORT = ["--set", "generation.max_tokens=24", "--set", "idle_s=0.2", "--set", "engine.threads=1"]


@pytest.fixture(scope="module")
def shell(
    tmp_path_factory: pytest.TempPathFactory, model_135m: Path, data_file: Callable[[str], Path]
) -> Shell:
    """A shell in which one small benchmark of two solutions has been run."""
    data_file("humaneval")
    folder = tmp_path_factory.mktemp("bench")
    sh = Shell(folder)
    for name, slots in (("plain", 1), ("batched", 3)):
        (folder / f"{name}.toml").write_text(
            f'model = "{model_135m}"\n[engine]\nslots = {slots}\ncontext = 1024\n', encoding="utf-8"
        )
    done = sh("bench", "plain.toml", "batched.toml", "-n", "6", *SHORT, "--region", "DNK")
    sh.table = done.stdout  # type: ignore[attr-defined]
    sh.remarks = done.stderr  # type: ignore[attr-defined]
    return sh


def test_a_benchmark_prints_a_table_and_writes_a_page(shell: Shell) -> None:
    """The table has both solutions and all dimensions; the page exists and needs no network."""
    table = shell.table  # type: ignore[attr-defined]
    for word in ("plain", "batched", "pass@1", "energy", "water", "carbon", "money", "DNK"):
        assert word in table
    assert "reference solutions that pass: 6 of 6" in " ".join(table.split())
    page = next((shell.folder / "reports").glob("*.html")).read_text(encoding="utf-8")
    assert "plain" in page
    assert 'src="http' not in page


def test_a_finished_run_starts_anew_and_a_stored_one_shows_its_settings(shell: Shell) -> None:
    """Runs are listed with their state; show tells resolved settings, defaults included."""
    runs = json.loads(shell("runs", "list", "--json").stdout)
    assert runs[0]["state"] == "finished"
    shown = shell("runs", "show", runs[0]["id"][:12]).stdout
    assert "engine.slots" in shown
    assert "engine.prompt_cache" in shown


def test_repricing_changes_carbon_and_nothing_measured(shell: Shell) -> None:
    """Four grids in one command: equal energy, different carbon."""
    regions = ["DNK", "FRA", "USA", "IND"]
    wanted = [w for r in regions for w in ("--region", r)]
    summaries = json.loads(shell("report", "--json", *wanted).stdout)["summaries"]
    rows = [{c["dimension"]: c for c in s["solutions"][0]["costs"]} for s in summaries]
    energies = {json.dumps(r["energy"]["total"]) for r in rows}
    carbons = [r["carbon"]["total"]["value"] for r in rows]
    assert len(energies) == 1
    assert carbons[1] < carbons[0] < carbons[2] < carbons[3]


def test_compare_names_both_and_concludes(shell: Shell) -> None:
    """Two solutions of one run are compared with ratios and a sentence."""
    done = json.loads(shell("compare", "plain", "batched", "--json").stdout)
    text = json.dumps(done)
    assert "non_inferior" in text
    assert "p_dominates" in text


def test_a_run_travels_between_stores(shell: Shell) -> None:
    """Export and import give a run that reports the same numbers elsewhere."""
    run = json.loads(shell("runs", "list", "--json").stdout)[0]["id"]
    shell("runs", "export", run, "-o", "run.jsonl")
    other = f"sqlite:///{shell.folder}/other.sqlite"
    shell("runs", "import", "run.jsonl", "--store", other)
    here = json.loads(shell("report", run, "--json").stdout)["summaries"]
    there = json.loads(shell("report", run, "--json", "--store", other).stdout)["summaries"]
    assert here == there
    shell("runs", "import", "run.jsonl", "--store", other, code=10)


def test_samples_can_be_scored_without_a_model(shell: Shell) -> None:
    """What evalplus would read, lichen scores itself, with the verdicts of the run."""
    run = json.loads(shell("runs", "list", "--json").stdout)[0]["id"]
    shell(
        "runs", "export", run, "--format", "evalplus", "--solution", "plain", "-o", "samples.jsonl"
    )
    scored = shell("tasks", "score", "samples.jsonl", "--task", "humaneval", "--json")
    assert json.loads(scored.stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["bench"], 2, "solution file or --model"),
        (["bench", "-m", "qwen2.5-codr-0.5b"], 2, "did you mean"),
        (["bench", "gone.toml"], 2, "gone.toml"),
        (["bench", "plain.toml", "--task", "humanevl"], 2, "did you mean"),
        (["bench", "plain.toml", "--set", "engine.slotz=2"], 2, "slots"),
        (["bench", "plain.toml", "--region", "XYZ"], 2, "XYZ"),
        (["bench", "plain.toml", "--store", "mysql://x"], 2, "SQLite or PostgreSQL"),
        (["report", "nope"], 10, "lichen runs list"),
    ],
)
def test_mistakes_are_one_sentence_and_an_exit_code(
    shell: Shell, arguments: list[str], code: int, sentence: str
) -> None:
    """Bad input never shows a traceback: one sentence on stderr, nothing on stdout."""
    done = shell(*arguments, code=code)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
