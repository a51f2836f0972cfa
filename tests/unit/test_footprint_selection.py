"""Choosing factors: places by any name, fallbacks in the open, overrides marked as the user's."""

from __future__ import annotations

import pytest

from lichen.core.errors import ConfigError, UnknownNameError
from lichen.footprint import (
    facility_profiles,
    factor_set,
    fallbacks,
    override,
    region_code,
    region_codes,
)
from lichen.footprint.table import COLUMNS


@pytest.mark.parametrize("text", ["DNK", "dnk", "DK", "Denmark", " denmark ", "Danmark"])
def test_a_country_is_found_by_code_or_name(text):
    """Alpha-3, alpha-2 and English names lead to one code, whatever the case."""
    assert region_code(text) == "DNK"
    assert factor_set(text).region == "DNK"


@pytest.mark.parametrize(("text", "hint"), [("Denmrk", "Denmark"), ("sweeden", "Sweden")])
def test_an_unknown_region_suggests_near_ones(text, hint):
    """A typo is an UnknownNameError with a suggestion, never a silent world average."""
    with pytest.raises(UnknownNameError, match=hint):
        factor_set(text)


def test_every_region_we_name_has_its_own_grid():
    """No region that can be asked for by name is quietly priced with the world's grid."""
    for code in region_codes():
        assert factor_set(code)["grid.carbon_intensity"].region == code


def test_a_fallback_to_the_world_is_visible():
    """A region without a tariff gets the world's, and the factor says whose it is and why."""
    s = factor_set("FRA")
    assert s["tariff.electricity"].region == "WORLD"
    assert "no row for FRA" in s["tariff.electricity"].note
    assert fallbacks(s) == ("tariff.electricity",)
    assert fallbacks(factor_set("USA")) == ()


def test_the_year_chooses_the_vintage():
    """Asking for a year takes that year's grid; without one the newest is taken."""
    assert factor_set("DNK", year=2023)["grid.carbon_intensity"].value.value == 151.7
    assert factor_set("DNK")["grid.carbon_intensity"].year == 2024


def test_a_year_without_data_says_so():
    """The nearest year stands in, with a note that names both."""
    note = factor_set("DNK", year=2010)["grid.carbon_intensity"].note
    assert "asked for 2010" in note
    assert "2023" in note


def test_pue_is_a_profile_or_a_number():
    """A profile brings PUE and on-site water together; a number replaces the PUE alone."""
    device = factor_set(pue="device")
    assert device["facility.pue"].value.value == 1
    assert device["water.onsite"].value.value == 0
    given = factor_set(pue=1.2)
    assert given["facility.pue"].value.is_exact
    assert given["facility.pue"].source == "given by the user"
    assert given["water.onsite"] == factor_set()["water.onsite"]


def test_published_facility_figures():
    """The profiles carry the published PUE figures."""
    expected = {
        "us-average": 1.40,
        "uptime": 1.58,
        "google": 1.09,
        "microsoft": 1.17,
        "device": 1.0,
    }
    found = {name: factor_set(pue=name)["facility.pue"].value.value for name in expected}
    assert found == expected
    assert set(expected) <= set(facility_profiles())


def test_the_default_facility_spans_no_facility_to_the_survey():
    """Where nobody said in what facility, the PUE range says how little is known."""
    pue = factor_set()["facility.pue"].value
    assert (pue.low, pue.value, pue.high) == (1.0, 1.4, 1.59)


@pytest.mark.parametrize("pue", [0.9, float("nan"), float("inf"), -1.0])
def test_an_impossible_pue_is_refused(pue):
    """A PUE under 1 would say that the building makes energy."""
    with pytest.raises(ConfigError):
        factor_set(pue=pue)


def test_an_unknown_profile_or_factor_is_refused():
    """Typos in a profile or an override are errors with suggestions."""
    with pytest.raises(UnknownNameError, match="google"):
        factor_set(pue="gogle")
    with pytest.raises(UnknownNameError, match="power"):
        factor_set(overrides={"power.a10": 1.0})


def test_an_override_is_exact_and_marked():
    """The user's own number has no range and names the user as its source."""
    f = factor_set("SWE", overrides={"grid.carbon_intensity": 12})["grid.carbon_intensity"]
    assert f.value.is_exact
    assert (f.value.value, f.source, f.region) == (12, "given by the user", "SWE")


@pytest.mark.parametrize(("name", "value"), [("grid.carbon_intensity", -1), ("lifetime.gpu", 0)])
def test_an_impossible_override_is_refused(name, value):
    """Negative intensities and lifetimes of zero are refused, not computed with."""
    with pytest.raises(ConfigError):
        override(factor_set(), name, value)


def test_a_users_file_can_bring_a_region_and_a_profile(tmp_path):
    """A bidding zone and one's own data centre are two rows of a file."""
    mine = tmp_path / "mine.csv"
    rows = [
        ",".join(COLUMNS),
        "grid.carbon_intensity,DK1,120,100,140,gCO2e/kWh,2025,utility,none,",
        "site.cellar.pue,,1.3,1.2,1.4,1,2025,own meter,none,",
    ]
    mine.write_text("\n".join(rows), encoding="utf-8")
    s = factor_set("DK1", pue="cellar", files=[mine])
    assert s.region == "DK1"
    assert s["facility.pue"].value.value == 1.3
    assert "no wue" in s["water.onsite"].note
    assert set(fallbacks(s)) == {"water.offsite", "tariff.electricity"}
