"""``lichen bench`` in a world whose costs are known: plain against green in one table and page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.cli import console
from lichen.cli.bench import command
from lichen.core.errors import ConfigError
from lichen.testing.costed_engine import Costs
from lichen.testing.costed_world import install
from lichen.testing.task_data import HUMANEVAL_ROWS

ANSWER = (
    f"Here it is:\n\n```python\n{HUMANEVAL_ROWS[0]['prompt']}"
    f"{HUMANEVAL_ROWS[0]['canonical_solution']}```\n\nIt works because of this and of that."
)


def by_slots(options: Mapping[str, object]) -> Costs:
    """Eight slots cost half of one; reading costs a tenth of writing."""
    return Costs(decode_s=0.01 if options.get("slots", 1) == 1 else 0.005, prefill_s=0.0005)


class Shell:
    """Runs the command in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LICHEN_CACHE", str(folder / "cache"))
        monkeypatch.setenv("LICHEN_STORE", f"sqlite:///{folder}/runs.sqlite")
        monkeypatch.setenv("COLUMNS", "80")
        install(monkeypatch.setattr, by_slots, folder, problems=20, text=ANSWER)

    def __call__(self, *arguments: str) -> Result:
        console.out.cache_clear()
        console.err.cache_clear()
        sets = ("idle_s=0", "sandbox.workers=1", "engine.name=costed")
        words = [*arguments, *(w for s in sets for w in ("--set", s))]
        try:
            return CliRunner().invoke(command, words, catch_exceptions=False)
        finally:
            console.out.cache_clear()
            console.err.cache_clear()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell whose only engine has known costs."""
    return Shell(tmp_path, monkeypatch)


def test_green_stands_beside_plain_in_one_table_and_one_page(shell: Shell) -> None:
    """Both columns, the ratio with its interval, the difference in quality; the same on the page."""
    done = shell("--model", "small", "--green")
    assert done.exit_code == 0, done.output
    assert "green / plain" in done.output
    said = " ".join(done.output.split())
    assert "green takes 60 % less CPU time per attempt than plain (ratio 0.399" in said
    assert "a loss of quality of more than 2 points is not excluded" in said
    (page,) = (shell.folder / "reports").glob("*.html")
    text = page.read_text(encoding="utf-8")
    assert "green / plain" in text
    assert "stop_when_complete" in text


def test_green_is_held_against_plain_problem_by_problem(shell: Shell) -> None:
    """The ratio is that of the known costs, over at least five blocks, at equal quality."""
    found = json.loads(shell("--model", "small", "--green", "--no-report", "--json").stdout)
    (comparison,) = found["summary"]["comparisons"]
    assert (comparison["a"], comparison["b"]) == ("plain", "green")
    assert comparison["interleaved"]
    assert comparison["quality_difference"]["value"] == 0
    (cpu,) = [r for r in comparison["ratios"] if r["dimension"] == "cpu_time"]
    assert cpu["per_attempt"]["high"] < 0.6
    assert cpu["claim"] == "uses less"


def test_green_without_a_model_is_refused(shell: Shell) -> None:
    """--green alone says what it needs."""
    with pytest.raises(ConfigError, match="--model NAME"):
        shell("--green")
