"""Factor files: what ships is complete, and a wrong file is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.core.errors import ConfigError
from lichen.footprint.reference import render
from lichen.footprint.table import COLUMNS, GRID, load_factors, parse_factors

HEADER = ",".join(COLUMNS)
GOOD = "grid.carbon_intensity,DNK,100,90,110,gCO2e/kWh,2030,my utility,none,"
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "factors.md"


def refused(line: str, header: str = HEADER) -> str:
    """Return the message that a file with this line is refused with."""
    with pytest.raises(ConfigError) as caught:
        parse_factors(f"{header}\n{line}\n", where="mine.csv")
    return str(caught.value)


def test_the_grid_covers_the_world_and_at_least_sixty_countries():
    """The shipped file prices at least sixty countries and the world average."""
    regions = {f.region for f in load_factors() if f.name == GRID}
    assert len(regions - {"WORLD"}) >= 60
    assert {"WORLD", "DNK", "USA", "FRA", "DEU", "SWE", "CHN", "IND"} <= regions


def test_every_shipped_factor_can_be_audited():
    """Each shipped row has source, licence, unit and an ordered range, and grid notes name the year."""
    for f in load_factors():
        assert f.source
        assert f.licence
        assert f.unit
        assert f.value.low <= f.value.value <= f.value.high
        if f.name == GRID:
            assert str(f.year) in f.note
            assert not f.value.is_exact


@pytest.mark.parametrize(
    ("region", "published"),
    [
        ("DNK", (151.7, 114.4, 143.3, 188.7)),
        ("USA", (369.5, 384.4, 383.5, 369.6)),
        ("FRA", (56.0, 41.4, 44.2, 67.5)),
        ("DEU", (381.0, 329.7, 344.1, 332.5)),
        ("SWE", (40.7, 35.3, 35.8, 42.4)),
        ("CHN", (582.3, 525.3, 559.6, 549.5)),
        ("IND", (713.4, 670.1, 708.3, 625.6)),
    ],
)
def test_the_range_of_a_grid_spans_what_four_packages_say(region, published):
    """For countries where four packages disagree, our range holds all four (to their rounding)."""
    rows = [f for f in load_factors() if f.name == GRID and f.region == region]
    for row in rows:
        assert row.value.low <= min(published) + 0.1
        assert row.value.high >= max(published) - 0.1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (GOOD.replace("90,110", "101,110"), "low <= value <= high"),
        (GOOD.replace("90,110", "90,99"), "low <= value <= high"),
        (GOOD.replace("my utility", ""), "the source is missing"),
        (GOOD.replace(",none,", ",,"), "the licence is missing"),
        (GOOD.replace("gCO2e/kWh", "kg/kWh"), "not in 'kg/kWh'"),
        (GOOD.replace("2030", "soon"), "the year 'soon'"),
        (GOOD.replace("2030", "9" * 9999), "the year"),
        (GOOD.replace(",100,", ",many,"), "not a number"),
        (GOOD.replace("90,110", "90,inf"), "finite"),
        (GOOD.replace(",100,90,", ",nan,nan,"), "finite"),
        (GOOD.replace(",100,90,", ",100,-90,"), "not negative"),
        (GOOD.replace("grid.carbon_intensity", "grid.carbon_intesity"), "no factor is called"),
        (GOOD + ",extra", "11 cells"),
        ("site.mine.pue,,0.9,0.9,1.2,1,2030,me,none,", "a PUE is at least 1"),
        ("lifetime.laptop,,4,0,6,year,2030,me,none,", "must be above 0"),
        (f"{GOOD}\n{GOOD}", "is already on line 2"),
        ('"unclosed,', "not valid CSV"),
    ],
)
def test_a_wrong_row_is_refused_with_file_and_line(line, says):
    """Whatever is wrong with a row, the message has file, line and reason."""
    message = refused(line)
    assert message.startswith("mine.csv:")
    assert says in message


@pytest.mark.parametrize("header", [HEADER + ",colour", HEADER.replace(",note", ""), "", "a,b"])
def test_unknown_or_missing_columns_are_refused(header):
    """The columns are exactly ours; the message names line 1."""
    assert refused(GOOD, header=header).startswith("mine.csv:1:")


def test_a_users_row_replaces_every_year_of_its_name_and_region(tmp_path):
    """A user's file wins over all shipped vintages of the same factor and place, and only there."""
    mine = tmp_path / "mine.csv"
    mine.write_text(f"{HEADER}\n{GOOD}\n", encoding="utf-8")
    rows = load_factors([mine])
    danish = [f for f in rows if f.name == GRID and f.region == "DNK"]
    assert [(f.value.value, f.source) for f in danish] == [(100.0, "my utility")]
    assert sum(f.region == "SWE" and f.name == GRID for f in rows) == 2


def test_an_unreadable_file_is_one_sentence(tmp_path):
    """A missing or binary factor file is a ConfigError that names it."""
    with pytest.raises(ConfigError, match="absent"):
        load_factors([tmp_path / "absent.csv"])
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="binary"):
        load_factors([tmp_path / "binary.csv"])


def test_the_reference_page_is_current():
    """docs/reference/factors.md is exactly what the factor files say."""
    assert DOCS.read_text(encoding="utf-8") == render()
