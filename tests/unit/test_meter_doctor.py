from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import lichen.sandbox
from lichen.cli import console, doctor
from lichen.core.measurement import Method
from lichen.core.ports import ProbeStatus


@pytest.fixture
def runner() -> CliRunner:
    console.out.cache_clear()
    return CliRunner()


def test_doctor_speaks_to_people(runner: CliRunner) -> None:
    """Every probe, the energy sentence and the optional parts are on the page."""
    result = runner.invoke(doctor.command, ["--no-self-test"], catch_exceptions=False)
    console.out.cache_clear()
    assert result.exit_code == 0
    for word in (
        "CPU time",
        "peak memory",
        "energy of gpu",
        "Energy here",
        "Optional parts",
        "llama",
    ):
        assert word in result.output


def test_doctor_json_is_one_document(runner: CliRunner) -> None:
    """``--json`` holds the same findings, machine-readable."""
    result = runner.invoke(doctor.command, ["--json", "--no-self-test"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert {p["name"] for p in found["probes"]} >= {"process", "memory", "rapl", "nvml"}
    assert found["energy"]["sentence"]
    assert found["overhead"] is None
    assert found["environment"]["cpu_model"]


def test_doctor_shows_sandboxes_where_they_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sandbox package says of itself is passed on."""
    mine = ProbeStatus(
        name="fence", quantity="x", method=Method.COUNTER, available=False, reason="no", remedy="do"
    )
    monkeypatch.setattr(lichen.sandbox, "status", lambda: [mine], raising=False)
    assert doctor.examine(self_test_s=0).sandboxes == (mine,)


def test_the_self_test_reports_costs() -> None:
    """The meter's own cost is measured: a share of a core and positive times."""
    overhead = doctor.examine(self_test_s=0.05).overhead
    assert overhead is not None
    assert overhead.open_s > 0
    assert overhead.close_s > 0
    assert overhead.sampler_core_share >= 0
