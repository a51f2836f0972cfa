"""Units, significant figures and the neutralising of hostile text."""

from __future__ import annotations

import math
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.summary import Dimension
from lichen.report import format as fmt
from lichen.report import toml
from lichen.report.clean import one_line, visible


def _interval(low: float, value: float, high: float) -> Interval:
    return Interval(low=low, value=value, high=high)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (_interval(0.48, 0.56, 0.63), "0.56 [0.48, 0.63]"),
        (_interval(0.555, 0.561, 0.567), "0.561 [0.555, 0.567]"),
        (_interval(27.1, 31.23, 36.4), "31.2 [27.1, 36.4]"),
        (_interval(300, 450, 600), "450 [300, 600]"),
        (_interval(12, 17, math.inf), "17 [12, ∞]"),
        (_interval(4.9, math.inf, math.inf), "∞ [4.90, ∞]"),
        (_interval(0.0001, 0.5, 12.0), "0.50 [<0.01, 12.00]"),
        (_interval(1500, 1500, 1500), "1,500"),
        (_interval(0, 0, 0), "0"),
    ],
)
def test_intervals_show_two_figures_of_their_uncertainty(value: Interval, text: str) -> None:
    """Decimals follow the width; infinities and values that would round to 0 say what they are."""
    assert fmt.interval(value) == text


@given(st.floats(1e-9, 1e9), st.floats(0, 1, exclude_max=True), st.floats(0, 10, exclude_max=True))
def test_a_positive_number_never_prints_as_zero(value: float, below: float, above: float) -> None:
    """Whatever the interval, no bound above 0 becomes "0"."""
    shown = _interval(value * (1 - below), value, value * (1 + above))
    for text in (fmt.interval(shown), fmt.span(shown), fmt.significant(value), *fmt.parts(shown)):
        joined = re.sub(r"(?<=\d),(?=\d{3})", "", text)  # thousands separators
        numbers = re.split(r"[\s,\[\]]+", joined)
        assert not any(n and n.strip("0.") == "" for n in numbers), text


@pytest.mark.parametrize(
    ("dimension", "values", "symbol"),
    [
        (Dimension.ENERGY, [31.0, 18.0], "J"),
        (Dimension.ENERGY, [9200.0], "Wh"),
        (Dimension.ENERGY, [0.02], "mJ"),
        (Dimension.COMPUTATION, [3e11, 2e11], "GFLOP"),
        (Dimension.MEMORY, [7.6e8], "MiB"),
        (Dimension.CARBON, [0.0024], "mg CO₂e"),
        (Dimension.WATER, [2e-5], "µL"),
        (Dimension.MONEY, [0.02], "¢"),
        (Dimension.MONEY, [1e-9], "m¢"),
        (Dimension.TIME, [], "s"),
    ],
)
def test_a_column_gets_a_unit_in_which_its_numbers_are_readable(
    dimension: Dimension, values: list[float], symbol: str
) -> None:
    """The unit is the largest in which the median is at least 1; nothing known gives the base."""
    found = [Interval.exact(v) for v in values] or [Missing(reason="no")]
    assert fmt.unit_for(dimension, found).symbol == symbol


def test_an_unbounded_cost_takes_its_unit_from_its_lower_bound() -> None:
    """A cost per solved task without bound is still given in readable units."""
    unit = fmt.unit_for(Dimension.COMPUTATION, [_interval(3e11, math.inf, math.inf)])
    assert unit.symbol == "GFLOP"


def test_differences_ratios_and_probabilities_say_what_they_are() -> None:
    """Signs, multiplication signs, and bounds where resampling cannot tell more."""
    assert fmt.signed(_interval(-0.05, 0.02, 0.09)) == "+0.02 [\u22120.05, +0.09]"
    assert fmt.ratio(_interval(0.55, 0.61, 0.68)) == "0.61\u00d7 [0.55, 0.68]"
    assert fmt.probability(0.0) == "<\u00a00.001"
    assert fmt.probability(1.0) == ">\u00a00.999"
    assert fmt.percent(0.004) == "0.4 %"
    assert fmt.plain(2.039e12) == "2.039 \u00d7 10¹²"
    assert fmt.plain(445.0) == "445"


def test_acting_characters_become_signs() -> None:
    """Escapes, direction overrides, invisible tags and lone surrogates are shown, not obeyed."""
    text = visible("a\x1b[31m\x00\u202egnp\u200b\ud800\U000e0041\r\nb\tc\x7f\x85")
    assert text == "a␛[31m␀⟦U+202E⟧gnp⟦U+200B⟧\ufffd⟦U+E0041⟧\nb\tc␡⟦U+0085⟧"
    assert one_line(" a\n b\t") == "a b"


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_visible_text_can_always_be_written(text: str) -> None:
    """The result is valid UTF-8 and neutralising it again changes nothing."""
    clean = visible(text)
    clean.encode("utf-8")
    assert visible(clean) == clean


_KEYS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
_SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=3)),
    max_leaves=10,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_a_spec_survives_being_written_as_toml(document: dict[str, object]) -> None:
    """What is written reads back as the same document, hostile strings included."""
    assert tomllib.loads(toml.dumps(document)) == document


def test_toml_leaves_out_what_it_cannot_say() -> None:
    """None is left out; a type that TOML lacks is an error."""
    assert toml.dumps({"a": None, "b": 1}) == "b = 1\n"
    with pytest.raises(TypeError, match="set"):
        toml.dumps({"a": {1, 2}})


def test_a_range_whose_ends_read_the_same_is_one_number() -> None:
    """``29-29`` says nothing; the best estimate does."""
    assert fmt.span(Interval(low=28.7, value=29.04, high=29.4)) == "29.0"
    assert fmt.span(Interval(low=27.0, value=29.0, high=31.0)) == f"27{fmt.EN_DASH}31"
