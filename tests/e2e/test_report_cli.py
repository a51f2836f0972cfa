"""``lichen report`` and ``lichen compare`` on a real store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.cli import console
from lichen.cli.main import cli
from lichen.compose.spec import load
from lichen.core.errors import ConfigError, StoreError
from lichen.footprint import factor_set
from lichen.report import facts
from lichen.store import open_store
from lichen.testing.records import fake_run


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with two runs of two solutions."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'runs.sqlite'}"
    store = open_store(url)
    for seed in (0, 1):
        fake = fake_run(seed=seed, problems=24)
        store.add_run(fake.run)
        for block in fake.blocks:
            store.add_block(block, [s for s in fake.samples if s.block == block.index])
        store.finish_run(fake.run.id, fake.run.state, fake.run.notes)
        store.add_factors(fake.run.id, factor_set("WORLD"))
    store.close()
    return url


def invoke(*args: str) -> Result:
    """Run the command line in process; errors come out as they are."""
    console.out.cache_clear()  # the runner swaps stdout, which the console keeps
    console.err.cache_clear()
    return CliRunner().invoke(cli, args, catch_exceptions=False, standalone_mode=False)


def test_one_command_prices_a_run_for_four_grids(url: str, tmp_path: Path) -> None:
    """Energy is the same on every grid, carbon is not, and the page has them all."""
    page = tmp_path / "page.html"
    regions = [part for r in ("DNK", "FRA", "USA", "IND") for part in ("--region", r)]
    result = invoke("report", "fake-0000", *regions, "-o", str(page), "--store", url, "--json")
    document = json.loads(result.stdout)
    assert document["run"] == "fake-0000"
    assert [s["factors"]["region"] for s in document["summaries"]] == ["DNK", "FRA", "USA", "IND"]
    values = [
        {c["dimension"]: c["per_solved"]["value"] for c in s["solutions"][0]["costs"]}
        for s in document["summaries"]
    ]
    assert len({v["energy"] for v in values}) == 1
    assert len({v["carbon"] for v in values}) == 4
    text = page.read_text(encoding="utf-8")
    assert 'id="elsewhere"' in text
    assert all(r in text for r in ("DNK", "FRA", "USA", "IND"))


def test_the_latest_run_is_the_default(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an id the newest run is shown as a table, and its page goes to reports/."""
    monkeypatch.chdir(tmp_path)
    result = invoke("report", "--store", url)
    assert "Run fake-0001" in result.stdout
    assert "energy, J" in result.stdout
    assert (tmp_path / "reports" / "fake-0001.html").is_file()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("plain", "green"),
        ("fake-0000:plain", "fake-0000:green"),
        ("fake-0000:green", "fake-0001:green"),
    ],
)
def test_two_solutions_compare_however_they_are_named(
    url: str, tmp_path: Path, a: str, b: str
) -> None:
    """By name in the latest run, by run and name, and across runs, where names are made distinct."""
    result = invoke("compare", a, b, "--store", url, "--json")
    document = json.loads(result.stdout)
    assert len(document["comparisons"]) == 1
    assert len({s["name"] for s in document["solutions"]}) == 2
    same_run = "fake-0001:" not in b
    assert document["comparisons"][0]["interleaved"] is same_run
    page = tmp_path / "compare.html"
    shown = invoke("compare", a, b, "--store", url, "--html", str(page))
    assert "McNemar p" in shown.stdout
    assert "per solved task" in shown.stdout
    assert page.read_text(encoding="utf-8").count('class="problem"') == 24


def test_the_order_of_the_two_is_kept(url: str) -> None:
    """``compare B A`` takes B as the baseline: the ratio turns around."""
    one, other = (
        json.loads(invoke("compare", *pair, "--store", url, "--json").stdout)["comparisons"][0]
        for pair in (("plain", "green"), ("green", "plain"))
    )
    energy, turned = (
        next(r for r in c["ratios"] if r["dimension"] == "energy")["per_attempt"]["value"]
        for c in (one, other)
    )
    assert (one["a"], other["a"]) == ("plain", "green")
    assert energy * turned == pytest.approx(1.0)


def test_a_margin_decides_what_counts_as_not_worse(url: str) -> None:
    """A margin of 1 excludes nothing."""
    result = invoke("compare", "plain", "green", "--margin", "1", "--store", url, "--json")
    comparison = json.loads(result.stdout)["comparisons"][0]
    assert comparison["margin"] == 1
    assert comparison["non_inferior"] is True


def test_what_cannot_be_meant_is_said(url: str, tmp_path: Path) -> None:
    """An unknown run, a run with two solutions and one solution twice are each one sentence."""
    with pytest.raises(StoreError, match="no run's id starts with 'nope'"):
        invoke("report", "nope", "--store", url)
    with pytest.raises(ConfigError, match="several solutions: say which"):
        invoke("compare", "fake-0000", "plain", "--store", url)
    with pytest.raises(ConfigError, match="given twice"):
        invoke("compare", "plain", "fake-0001:plain", "--store", url)
    with pytest.raises(ConfigError, match="no solution 'x'; it has plain, green"):
        invoke("compare", "fake-0001:x", "plain", "--store", url)
    empty = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    with pytest.raises(StoreError, match="no run is stored yet"):
        invoke("report", "--store", empty)


def test_the_specification_on_the_page_can_be_run(tmp_path: Path) -> None:
    """The TOML that a page shows loads as the spec that made the run."""
    (tmp_path / "plain.toml").write_text('model = "qwen2.5-coder-0.5b"\n', encoding="utf-8")
    spec = load([tmp_path / "plain.toml"], flags={"task.name": "humaneval", "samples": 3})
    redo = facts.redo(replace(fake_run().run, spec=spec.canonical()))
    again = tmp_path / redo.file
    again.write_text(redo.spec, encoding="utf-8")
    assert load([again]).canonical() == spec.canonical()
