"""The scripts that measure strategies: rows that replace rows, pages that hold what was measured."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lichen.acceleration import STRATEGIES
from lichen.core.errors import ConfigError
from lichen.core.generation import Finish, Hints, Message, Request, Role
from lichen.core.ports import Candidate
from lichen.core.record import SampleRecord
from lichen.core.task import Problem, Score
from lichen.testing.engine import ScriptedEngine
from lichen.testing.records import fake_run

Script = Callable[[str], ModuleType]
FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def strategies(script: Script) -> ModuleType:
    """The script that measures."""
    return script("strategies")


@pytest.fixture
def pages(script: Script) -> ModuleType:
    """The script that writes the pages."""
    return script("strategy_pages")


def three(value: float) -> dict[str, float]:
    """An interval of a result."""
    return {"low": value - 0.1, "value": value, "high": value + 0.1}


def a_run(id_: str, *settings: str, ratio: float = 0.5) -> dict[str, Any]:
    """What one run showed of some settings."""
    return {
        "run": {
            "id": id_,
            "command": f"python benchmarks/strategies.py --made-up {id_}",
            "date": "2026-01-02",
            "model": "m",
            "task": "humaneval",
            "style": "concise",
            "half": "all",
            "problems": 3,
            "machine": "a machine",
            "notes": [],
            "plain": {"quality": three(0.5), "cpu_s_per_problem": three(9), "tokens": 9},
        },
        "rows": [
            {
                "strategy": s.partition("(")[0],
                "setting": s,
                "tokens": 5,
                "cpu_ratio": three(ratio),
                "claim": "uses less",
                "quality_difference": three(-0.25),
                "lost": ["P/1"],
                "won": [],
                "errors": [],
            }
            for s in settings
        ],
    }


def test_the_pages_hold_what_was_measured() -> None:
    """The documentation's measured sections are what the stored results give, and no more."""
    done = subprocess.run(
        [sys.executable, FOLDER / "strategy_pages.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_setting_measured_again_replaces_its_row(strategies: ModuleType) -> None:
    """Old rows of other settings stay; a run of which nothing is left is forgotten."""
    document = strategies.merged({}, a_run("1", "prefix_cache", "concurrency(slots=4)"))
    document = strategies.merged(document, a_run("2", "prefix_cache", ratio=0.9))
    by_setting = {r["setting"]: (r["run"], r["cpu_ratio"]["value"]) for r in document["rows"]}
    assert by_setting == {"prefix_cache": ("2", 0.9), "concurrency(slots=4)": ("1", 0.5)}
    document = strategies.merged(document, a_run("3", "concurrency(slots=4)"))
    assert set(document["runs"]) == {"2", "3"}


def test_rows_of_another_wording_are_other_rows(strategies: ModuleType) -> None:
    """What was measured with the natural wording does not replace the concise one."""
    other = a_run("2", "prefix_cache")
    other["run"]["style"] = "natural"
    document = strategies.merged(strategies.merged({}, a_run("1", "prefix_cache")), other)
    assert [r["run"] for r in document["rows"]] == ["1", "2"]


def test_every_strategy_has_numbers_or_a_reason(pages: ModuleType, strategies: ModuleType) -> None:
    """Each page and the table give the ratio with its interval, or say why there is none."""
    document = strategies.merged({}, a_run("1", "prefix_cache"))
    old = {name: f"# {name}\n\n{pages.MARKER}\nold text\n" for name in STRATEGIES}
    new = pages.render({"strategies": document}, old)
    assert set(new) == {*STRATEGIES, "measured"}
    assert "0.500 [0.400, 0.600]" in new["prefix_cache"]
    assert "-0.250 [-0.350, -0.150]" in new["prefix_cache"]
    assert "P/1" in new["prefix_cache"]
    for name in set(STRATEGIES) - {"prefix_cache"}:
        assert "Not measured: " in new[name]
        assert name in new["measured"]
    assert "0.500 [0.400, 0.600]" in new["measured"]
    assert "old text" not in "".join(new.values())
    assert pages.render({"strategies": document}, {n: new[n] for n in old}) == new


def test_a_missing_number_says_why(pages: ModuleType, strategies: ModuleType) -> None:
    """Where CPU time could not be measured the row has the reason, not a number."""
    run = a_run("1", "prefix_cache")
    run["rows"][0]["cpu_ratio"] = {"missing": "the clock is away"}
    new = pages.render({"strategies": strategies.merged({}, run)}, {"prefix_cache": pages.MARKER})
    assert "not measured: the clock is away" in new["prefix_cache"]


def test_joules_of_the_cache_come_with_their_method(pages: ModuleType) -> None:
    """The cache's page gives hits, and energy with bounds and method or the reason for none."""
    counts = {"requests": 9, "hit_rate": 0.5, "saved_share": 0.4, "cache_cpu_ms_per_request": 1.0}
    energy = {"low": 10.0, "value": 20.0, "high": 40.0, "method": "modelled"}
    cpu = {"missing": "no clock"}
    found = {
        "command": "python benchmarks/answer_cache.py",
        "date": "2026-01-02",
        "machine": "a machine",
        "load_average": 0.1,
        "files": ["a.py"],
        "keystrokes_per_file": 5,
        "scripted": {"10%": {"exact only": counts, "defaults": counts}},
    }
    (without,) = _cache_pages(pages, found)
    assert "Energy saved: not measured: " in without
    part = {"tokens_computed": 7, "cpu": cpu, "energy": energy}
    real = {
        "requests": 9,
        "plain": part,
        "cached": {**part, "hit_rate": 0.5},
        "saved_energy": {**energy, "value": 5.0},
        "hits": 4,
        "hits_agree": 3,
    }
    (text,) = _cache_pages(pages, {**found, "real": {"m": real}})
    assert "20 J [10, 40] (modelled)" in text
    assert "Energy saved: 5 J [10, 40] (modelled)." in text
    assert "no clock" in text
    assert "Of 4 hits, 3 " in text


def _cache_pages(pages: ModuleType, found: dict[str, Any]) -> list[str]:
    new = pages.render({"answer_cache": {"a trace": found}}, {"answer_cache": pages.MARKER})
    assert "50%" in new["measured"]
    return [new["answer_cache"]]


def test_verdicts_that_stopping_changes_are_listed(pages: ModuleType) -> None:
    """The page names every problem that is lost or won, and says so if there is none."""
    found = {
        "command": "python benchmarks/stop_replay.py",
        "date": "2026-01-02",
        "model": "m",
        "task": "humaneval",
        "style": "natural",
        "half": "odd",
        "answers": 8,
        "stopped": 6,
        "not_whole": 2,
        "characters": 100,
        "characters_not_written": 40,
        "solved_whole": 4,
        "solved_kept": 3,
        "lost": ["P/1"],
        "won": [],
    }
    old = {"stop_when_complete": pages.MARKER}
    text = pages.render({"stop_replay": {"m": found}}, old)["stop_when_complete"]
    said = " ".join(text.split())
    assert "Pass to fail: P/1. Fail to pass: none. 2 more were not whole." in said
    assert "40% of the characters not written; 4 solved whole, 3 as kept" in said


def test_a_replay_judges_whole_and_kept_answers(script: Script) -> None:
    """What follows the complete function goes; a verdict that hung on it is listed as changed."""
    stop_replay = script("stop_replay")
    code = "def f(x):\n    return x + 1\n"
    later = "\nf = str\n"  # changes the finished function's name from outside: a known limit
    task = _Asks({"P/0": "", "P/1": later, "P/2": ""})
    texts = {"P/0": f"```python\n{code}```\nIt adds one.", "P/1": f"```python\n{code}{later}```"}
    samples = [_sample(id_, text) for id_, text in texts.items()]
    samples.append(_sample("P/2", "```python", finish=Finish.ERROR))
    found = stop_replay.replayed(task, samples)
    assert [r.problem.id for r in found] == ["P/0", "P/1"]  # a failed one is no whole answer
    assert found[0].kept.endswith(code.rstrip())
    assert "adds one" not in found[0].kept
    shown = stop_replay.result(task, found)
    assert (shown["answers"], shown["stopped"]) == (2, 2)
    assert (shown["lost"], shown["won"]) == (["P/1"], [])
    assert (shown["solved_whole"], shown["solved_kept"]) == (2, 1)
    assert 0 < shown["characters_not_written"] < shown["characters"]


class _Asks:
    """A task whose answers are right if they hold the text that a problem needs."""

    def __init__(self, needed: dict[str, str]) -> None:
        self._needed = needed

    def problems(self) -> list[Problem]:
        return [Problem(id=i, prompt="") for i in self._needed]

    def request(self, problem: Problem, *, sample: int, seed: int) -> Request:
        message = Message(role=Role.USER, content="Write f.")
        hints = Hints(language="python", entry_point="f")
        return Request(id=f"{problem.id}/{sample}", messages=(message,), hints=hints, seed=seed)

    def extract(self, problem: Problem, text: str) -> str:
        del problem
        return text

    def score(self, candidates: Iterable[Candidate]) -> Iterator[tuple[str, Score]]:
        for c in candidates:
            right = self._needed[c.problem.id] in c.code
            yield c.id, Score(metric="pass@1", value=float(right))


def _sample(problem: str, text: str, *, finish: Finish = Finish.STOP) -> SampleRecord:
    return replace(fake_run(seed=1).samples[0], problem_id=problem, text=text, finish=finish)


def test_a_page_without_the_marker_is_refused(pages: ModuleType) -> None:
    """A section that would be lost is an error that names the page."""
    with pytest.raises(ValueError, match=r"prefix_cache\.md"):
        pages.render({}, {"prefix_cache": "no marker"})


def test_a_strategy_that_cannot_be_measured_so_is_refused(strategies: ModuleType) -> None:
    """The answer cache, a cascade without a first model and a misspelt name are one sentence."""
    for name in ("answer_cache", "cascade", "answer_prefiks"):
        with pytest.raises(ConfigError, match=name):
            strategies.chosen([name])
    found = strategies.chosen(["cascade"], first="small")
    assert {c.strategy for c in found} == {"cascade"}


@pytest.mark.parametrize(
    ("engine", "without"),
    [("llama_cpp", {"answer_cache", "early_exit"}), ("transformers", {"answer_cache"})],
)
def test_each_solution_is_plain_with_one_strategy(
    strategies: ModuleType, engine: str, without: set[str]
) -> None:
    """The run has plain first, then one solution per setting that differs by that strategy alone."""
    given = Namespace(model="m", problems=3, half="odd", style=None, sets=[f"engine.name={engine}"])
    given.strategies, given.draft, given.first = None, "", "s"
    spec = strategies.spec_of(given)
    plain, *others = spec.solutions
    assert (plain.name, plain.strategies) == ("plain", ())
    assert (spec.task.limit, spec.task.half) == (3, "odd")
    assert {o.strategies[0].name for o in others} == set(STRATEGIES) - without
    for other in others:
        assert len(other.strategies) == 1
        assert other.engine == plain.engine
        assert other.generation == plain.generation
        assert other.model == ("s" if other.strategies[0].name == "cascade" else "m")


def test_a_killed_measurement_keeps_whole_rows(script: Script, tmp_path: Path) -> None:
    """Rows that were written are there after a kill; half a row is done again."""
    speculation = script("speculation")
    path = tmp_path / "a" / "journal.jsonl"
    first = speculation.Journal(path)
    first.add({"id": "1"})
    first.add({"id": "2"})
    path.write_text(path.read_text()[:-5])
    again = speculation.Journal(path)
    assert again.rows == [{"id": "1"}]
    again.add({"id": "2"})
    assert speculation.Journal(path).rows == [{"id": "1"}, {"id": "2"}]


def test_answers_are_compared_token_by_token(script: Script) -> None:
    """Equal texts in other tokens are told apart from equal tokens, and a difference is placed."""
    speculation = script("speculation")
    request = Request(id="a", prompt="x", stream=True)

    def said(text: str, pieces: list[str]) -> ScriptedEngine:
        return ScriptedEngine(lambda _: text, split=lambda _: pieces)

    plain = said("abcd", ["ab", "cd"])
    same = speculation.compare(plain, said("abcd", ["ab", "cd"]), request, first=True)
    assert same["identical"]
    other = speculation.compare(plain, said("abcd", ["a", "bcd"]), request, first=False)
    assert (other["identical"], other["same_text"]) == (False, True)
    parted = speculation.compare(plain, said("abce", ["ab", "ce"]), request, first=True)
    assert (parted["parted_at_token"], parted["said"]) == (1, ["cd", "ce"])
