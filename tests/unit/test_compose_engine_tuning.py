"""Tuning a solution's engine, on an engine whose costs are known."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import pytest

from lichen.catalog import Catalog
from lichen.compose.engine_tuning import tune_engine
from lichen.compose.spec import EngineSpec, RunSpec, SolutionSpec, StrategySpec
from lichen.core.errors import ConfigError
from lichen.core.model import ModelArtifact
from lichen.testing.clock import FakeClock
from lichen.testing.costed_engine import ClockMeter, CostedEngine, Costs


class OneModel:
    """A catalog with one model."""

    def model(self, _name: str) -> object:
        """Return something with a hash."""
        return type("Artifact", (), {"sha256": "f" * 64})()


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """A solution whose engine is cheapest with eight slots."""
    cpu = FakeClock()

    def surface(options: Mapping[str, object]) -> Costs:
        slots = options.get("slots", 1)
        assert isinstance(slots, int)
        return Costs(decode_s=0.01 * (1 + abs(slots - 8)))

    def engine(_model: ModelArtifact, options: Mapping[str, object]) -> CostedEngine:
        return CostedEngine(surface, options, cpu=cpu)

    monkeypatch.setenv("LICHEN_CACHE", str(tmp_path))
    where = "lichen.compose.engine_tuning"
    monkeypatch.setattr(f"{where}.ENGINES", {"costed": engine})
    monkeypatch.setattr(f"{where}.open_meter", lambda: nullcontext(ClockMeter(cpu)))
    monkeypatch.setattr(f"{where}.free_cpus", lambda _meter, _usable: 2)
    solution = SolutionSpec(name="mine", model="m", engine=EngineSpec(name="costed"))
    return RunSpec(solutions=(solution,))


def test_engine_tuning_becomes_a_solution_and_is_remembered(spec: RunSpec) -> None:
    """The cheapest slots are found, set by ``concurrency``, and not searched for again."""
    catalog = cast("Catalog", OneModel())
    tuned = tune_engine(spec, catalog, budget_s=1e6)
    assert tuned.tuning.setting.slots == 8
    assert [s.name for s in tuned.solution.strategies] == ["concurrency"]
    assert tuned.solution.strategies[0].options["slots"] == 8
    assert not tuned.stored
    again = tune_engine(spec, catalog, budget_s=1e6)
    assert again.stored
    assert again.tuning == tuned.tuning
    assert not tune_engine(spec, catalog, budget_s=1e6, fresh=True).stored


def test_engine_tuning_refuses_a_solution_that_sets_its_own(spec: RunSpec) -> None:
    """A solution that lists ``concurrency`` is not overruled."""
    own = StrategySpec.model_validate({"name": "concurrency", "slots": 2})
    (base,) = spec.solutions
    solution = base.model_copy(update={"strategies": (own,)})
    with pytest.raises(ConfigError, match="sets its concurrency already"):
        tune_engine(
            spec.model_copy(update={"solutions": (solution,)}),
            cast("Catalog", OneModel()),
            budget_s=1.0,
        )
