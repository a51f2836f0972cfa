"""``lichen bench`` in a world whose costs are known: plain against green, and cascades that pay."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.cli import compare, console
from lichen.cli.bench import command
from lichen.core.errors import ConfigError
from lichen.core.generation import Request
from lichen.testing.costed_engine import Costs, Surface
from lichen.testing.costed_world import Answers, install
from lichen.testing.engine import Line
from lichen.testing.task_data import HUMANEVAL_ROWS

ANSWER = (
    f"Here it is:\n\n```python\n{HUMANEVAL_ROWS[0]['prompt']}"
    f"{HUMANEVAL_ROWS[0]['canonical_solution']}```\n\nIt works because of this and of that."
)


def on_from(request: Request) -> str:
    """Give the answer, or what is left of it where it is begun."""
    begun = request.answer_prefix.removeprefix("```python\n").rstrip("\n")
    return ANSWER.partition(begun)[2] if begun else ANSWER


WRONG = "```python\ndef add(x: int, y: int):\n    return x - y\n```"


def by_slots(options: Mapping[str, object]) -> Costs:
    """Eight slots cost half of one; reading costs a tenth of writing."""
    return Costs(decode_s=0.01 if options.get("slots", 1) == 1 else 0.005, prefill_s=0.0005)


class Shell:
    """Runs the command in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LICHEN_CACHE", str(folder / "cache"))
        monkeypatch.setenv("LICHEN_STORE", f"sqlite:///{folder}/runs.sqlite")
        monkeypatch.setenv("COLUMNS", "80")
        self.world(by_slots, lambda _, request: on_from(request), problems=20)

    def world(self, surface: Surface, text: str | Answers, *, problems: int) -> None:
        """Put other engines and problems in place."""
        install(self.patch.setattr, surface, self.folder, problems=problems, text=text)

    def page(self) -> str:
        """Return the one page that was written, on one line."""
        (page,) = (self.folder / "reports").glob("*.html")
        return " ".join(page.read_text(encoding="utf-8").split())

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
    assert "green takes 85 % less CPU time per attempt than plain (ratio 0.149" in said
    assert "a loss of quality of more than 2 points is not excluded" in said
    page = shell.page()
    assert "green / plain" in page
    assert "What the strategies did" in page
    for action in ("slots 8", "began the answer: given", "stopped: "):
        assert action in page


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


def cascade(folder: Path, **options: object) -> Path:
    """Write a solution that asks a small engine first, and a large one on top."""
    extra = "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())
    file = folder / "cascade.toml"
    file.write_text(
        '[engine]\nname = "costed"\nsize = "small"\n[[strategies]]\nname = "cascade"\n'
        f'{extra}levels = [{{ name = "large", engine = {{ name = "costed" }} }}]\n',
        encoding="utf-8",
    )
    return file


def small_costs(decode_s: float) -> Surface:
    """A small engine's cost per token beside a large one's of 0.01."""
    return lambda options: Costs(decode_s=decode_s if "size" in options else 0.01, prefill_s=0.0)


def number(request: Request) -> int:
    """Which problem a request is about; -1 for the warm-up."""
    _, slash, rest = request.id.partition("/")
    return int(rest.partition("#")[0]) if slash else -1


def large_is_right(options: Mapping[str, object], _request: Request) -> str:
    """The small engine is always wrong, the large one never."""
    return WRONG if "size" in options else ANSWER


def test_a_bad_pair_switches_itself_off_and_the_report_says_so(shell: Shell) -> None:
    """A small model that costs half and never helps is left out after its trial, with the reason."""
    shell.world(small_costs(0.005), large_is_right, problems=60)
    done = shell(str(cascade(shell.folder)))
    said = " ".join(done.output.split())
    assert "It does not pay: level 0 hands on 100 %" in said
    assert "It switched itself off for" in said
    page = shell.page()
    assert "It does not pay: level 0 hands on 100 %" in page
    assert "switched off" in page
    assert "below " in page
    (route,) = json.loads(shell("cascade.toml", "--no-report", "--json").stdout)["summary"][
        "routes"
    ]
    assert 20 <= route["levels"][0]["attempts"] < 45
    assert route["skipped"] == 60 - route["levels"][0]["attempts"] > 0
    assert route["levels"][0]["rate"]["low"] > route["levels"][0]["limit"]["high"]


def test_a_small_model_that_costs_more_never_pays(shell: Shell) -> None:
    """Where the first level costs more than the last, no rate could make it pay."""
    shell.world(small_costs(0.05), large_is_right, problems=40)
    said = " ".join(shell(str(cascade(shell.folder))).output.split())
    assert "It does not pay: level 0 costs no less than what is above it." in said


def test_the_curve_over_the_threshold_is_replayed_from_the_run(shell: Shell) -> None:
    """Cost and quality at every threshold up to the run's, which lies where the run lay."""

    def answers(options: Mapping[str, object], request: Request) -> str | Line:
        """Every fourth answer of the small one is wrong; the surer it is, the more often right."""
        if "size" not in options:
            return ANSWER
        n = number(request)
        return Line(text=WRONG if n % 4 == 0 else ANSWER, logprob=-2.0 - n if n % 4 == 0 else -0.1)

    shell.world(small_costs(0.001), answers, problems=40)
    file = cascade(shell.folder, signal="confidence", threshold=0.5)
    done = json.loads(shell(str(file), "--json").stdout)
    summary = done["summary"]
    (route,) = summary["routes"]
    assert route["conclusion"].startswith("It pays: level 0 hands on 25 %")
    never, *_, run = route["points"]
    assert len(route["points"]) == 11
    assert never["threshold"] == "-Infinity"
    assert (never["quality"], never["handed_on"]) == (0.75, 0.0)
    assert (run["quality"], run["handed_on"]) == (1.0, 0.25)
    (solution,) = summary["solutions"]
    (cpu,) = [c for c in solution["costs"] if c["dimension"] == "cpu_time"]
    assert run["cost_cpu_s"] == pytest.approx(cpu["per_attempt"]["value"], rel=1e-6)
    assert never["cost_cpu_s"] < run["cost_cpu_s"]
    page = shell.page()
    assert "Small model first" in page
    assert "hands nothing on" in page
    assert "up to 0.14" in page
    assert "scores handed on" in shell(str(file), "--no-report").output


def test_a_comparison_tells_of_the_cascade_too(shell: Shell) -> None:
    """Two stored solutions are held against each other with what the cascade among them did."""
    shell.world(small_costs(0.005), large_is_right, problems=30)
    alone = shell.folder / "alone.toml"
    alone.write_text('[engine]\nname = "costed"\n', encoding="utf-8")
    shell(str(cascade(shell.folder)), str(alone))
    told = CliRunner().invoke(compare.command, ["cascade", "alone"], catch_exceptions=False)
    assert "It does not pay: level 0 hands on 100 %" in " ".join(told.output.split())
    found = CliRunner().invoke(
        compare.command, ["cascade", "alone", "--json"], catch_exceptions=False
    )
    (route,) = json.loads(found.stdout)["routes"]
    assert route["solution"] == "cascade"


def blocks(shell: Shell) -> list[int]:
    """How many attempts each stored block has, of one solution."""
    with sqlite3.connect(shell.folder / "runs.sqlite") as db:
        counted = db.execute("select count(*) from samples group by run_id, solution, block")
        return sorted(n for (n,) in counted)


@pytest.mark.parametrize(("batch", "sizes"), [(2, [2, *[3] * 6]), (16, [4] * 5)])
def test_blocks_give_work_to_what_gathers_requests(
    shell: Shell, batch: int, sizes: list[int]
) -> None:
    """A cascade that gathers many gets larger blocks, but never fewer than five of them."""
    levels = '[{ model = "large", engine = { name = "costed" } }]'
    (shell.folder / "c.toml").write_text(
        f'model = "small"\n[[strategies]]\nname = "cascade"\nbatch = {batch}\nlevels = {levels}\n',
        encoding="utf-8",
    )
    done = shell("c.toml", "--no-report")
    assert done.exit_code == 0, done.output
    assert blocks(shell) == sizes
