"""What a search tries here: slots of this machine, models of this cache, strategies of this task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lichen.acceleration.candidates import Choice, default_candidates
from lichen.catalog import Catalog, Entry
from lichen.catalog.entries import Kind, UrlSpec
from lichen.compose.acceleration import Halves, halves
from lichen.compose.candidates import Wanted, candidates, charged, planned, smaller_relatives
from lichen.compose.rounds import Rounds, rounds_for
from lichen.compose.spec import EngineSpec, RunSpec, SolutionSpec, StrategySpec
from lichen.core.errors import EngineError
from lichen.core.generation import Hints, Message, Request, Role
from lichen.testing.costed_engine import Costs
from lichen.testing.costed_world import install

LOADS: list[dict[str, object]] = []
SPEC = RunSpec(solutions=(SolutionSpec(name="mine", engine=EngineSpec(name="costed")),), idle_s=0.0)


def surface(options: Mapping[str, object]) -> Costs:
    """Four slots are the cheapest; more than eight cannot be had."""
    LOADS.append(dict(options))
    slots = int(str(options.get("slots", 1)))
    if slots > 8:
        raise EngineError("it does not fit")
    return Costs(decode_s={1: 0.10, 2: 0.08, 4: 0.05, 8: 0.06}[slots])


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A family of three models, a stranger, and nothing in the cache."""
    sizes = {"kin-0.5b": 500, "kin-1.5b": 1500, "kin-7b": 7000, "other-135m": 135}
    entries = [
        Entry(
            name=name,
            kind=Kind.MODEL,
            file=f"{name}.gguf",
            size=1,
            sha256="0" * 64,
            licence="MIT",
            description=name,
            parameters=millions * 1_000_000,
            sources=(UrlSpec(url="https://example.org/model.gguf"),),
        )
        for name, millions in sizes.items()
    ]
    return Catalog(cache_dir=tmp_path / "cache", offline=True, entries=entries)


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalog: Catalog) -> Halves:
    """The halves of a task in a world whose costs are known."""
    monkeypatch.setenv("LICHEN_CACHE", str(tmp_path / "cache"))
    LOADS.clear()
    install(monkeypatch.setattr, surface, tmp_path)
    return halves(SPEC, catalog)


@pytest.fixture
def rounds(tmp_path: Path, both: Halves, catalog: Catalog) -> Iterator[Rounds]:
    """The rounds of a search."""
    assert both.calibration
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    with rounds_for(SPEC, store_url=url, catalog=catalog) as opened:
        yield opened


def hold(catalog: Catalog, tmp_path: Path, name: str) -> None:
    """Put a model's file into the cache."""
    assert catalog.entry(name) is not None
    folder = tmp_path / "cache" / "models" / name
    folder.mkdir(parents=True)
    (folder / f"{name}.gguf").write_bytes(b"GGUF")


def test_smaller_models_of_the_family_are_found_in_the_cache(
    catalog: Catalog, tmp_path: Path
) -> None:
    """Only smaller ones of the same family, only those that are here; nothing is fetched."""
    assert smaller_relatives(catalog, "kin-7b") == ()
    hold(catalog, tmp_path, "kin-0.5b")
    hold(catalog, tmp_path, "other-135m")
    assert smaller_relatives(catalog, "kin-7b") == ("kin-0.5b",)
    hold(catalog, tmp_path, "kin-1.5b")
    assert smaller_relatives(catalog, "kin-7b") == ("kin-1.5b", "kin-0.5b")
    assert smaller_relatives(catalog, "kin-0.5b") == ()
    assert smaller_relatives(catalog, "other-135m") == ()


def test_cascades_follow_from_the_cache_unless_named(
    catalog: Catalog, tmp_path: Path, both: Halves
) -> None:
    """A cached smaller relative becomes a cascade by itself; a named first model replaces it."""
    hold(catalog, tmp_path, "kin-0.5b")
    big = SPEC.model_copy(
        update={"solutions": (SPEC.solutions[0].model_copy(update={"model": "kin-7b"}),)}
    )

    def firsts(wanted: Wanted) -> set[object]:
        choices, _ = planned(big, catalog, both, wanted)
        return {dict(c.options)["first"] for c in choices if c.strategy == "cascade"}

    assert firsts(Wanted()) == {"kin-0.5b"}
    assert firsts(Wanted(first="mine.gguf")) == {"mine.gguf"}
    assert firsts(Wanted(barred=frozenset({"cascade"}))) == set()


def test_slots_are_screened_once(rounds: Rounds, both: Halves) -> None:
    """The cheapest slots become candidates; the next invocation reads what was seen."""
    choices, screening = candidates(rounds, SPEC, both, Wanted())
    slots = [c.options for c in choices if c.strategy == "concurrency"]
    assert slots == [(("slots", 4),), (("slots", 2),)]
    assert [o.get("slots") for o in LOADS] == [1, 2, 4, 8, 16]
    LOADS.clear()
    assert candidates(rounds, SPEC, both, Wanted()) == (choices, screening)
    assert LOADS == []
    (paid,) = charged(screening)
    assert paid.cpu_s > 0
    rounds.notes.write_text("{", encoding="utf-8")
    assert candidates(rounds, SPEC, both, Wanted())[0] == choices
    assert LOADS


def test_a_solution_with_slots_of_its_own_keeps_them(rounds: Rounds, both: Halves) -> None:
    """Where the solution lists concurrency, nothing is screened."""
    own = StrategySpec.model_validate({"name": "concurrency", "slots": 2})
    mine = SPEC.solutions[0].model_copy(update={"strategies": (own,)})
    spec = SPEC.model_copy(update={"solutions": (mine,)})
    choices, screening = candidates(rounds, spec, both, Wanted())
    assert screening is None
    assert "concurrency" not in {c.strategy for c in choices}
    assert LOADS == []


def test_answers_are_begun_only_where_the_task_gives_code() -> None:
    """All three styles where there is code; the fence where only the language is known."""
    asked = Request(
        id="q",
        messages=(Message(role=Role.USER, content="write it"),),
        max_tokens=1,
        hints=Hints(language="python", entry_point="f", given="def f():\n"),
    )

    def styles(request: Request) -> list[object]:
        found = default_candidates(asked=request)
        return [dict(c.options)["style"] for c in found if c.strategy == "answer_prefix"]

    assert styles(asked) == ["given", "fence", "raw", "shown"]
    assert styles(replace(asked, hints=Hints(language="python"))) == ["fence"]
    bare = replace(asked, hints=None)
    assert styles(bare) == []
    names = {c.strategy for c in default_candidates(asked=bare)}
    assert "stop_when_passing" not in names
    assert Choice(strategy="stop_when_complete") in default_candidates(asked=bare)
