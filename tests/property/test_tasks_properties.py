"""Promises of extraction, stop rules and similarity that hold for any text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lichen.benchmark.answers.fences import fenced_blocks
from lichen.benchmark.answers.python_function import extract_function
from lichen.benchmark.answers.similarity import edit_similarity, without_trailing_space
from lichen.benchmark.answers.stop_rules import BlockStop, LineStop
from lichen.benchmark.corpus.blocks import LANGUAGES, blocks
from lichen.benchmark.corpus.repository import source_text
from lichen.benchmark.corpus.spans import spans
from lichen.benchmark.ranking import by_cosine
from lichen.engines.bm25 import open_engine, words

STUB = 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef f(x):\n    """Do."""\n'

PIECES = st.sampled_from(
    [
        "```", "```python", "~~~", "````", "\n", "\n\n", "    ", "\t", "  ", "def f(x):\n", "def f(",
        "def g(x):\n", "    return x\n", "return x", "import math\n", "from typing import *\n",
        "class A:\n", '"""', "'", "(", ")", "# note\n", "Sure!\n", "x = 1\n", "pass", "...", "\r\n",
        "\0", "f = lambda x: x\n", "from __future__ import annotations\n", "assert f(1)\n", "1. ",
        "@wraps\n", "async def f(x):\n", "if x:\n", "else:\n", "\f", "\ufeff",
    ]
)  # fmt: skip
ANSWERS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=25).map("".join))

NAMES = st.sampled_from(["x", "y", "math.pi", "half(x)", "1"])
BODIES = st.lists(
    st.one_of(
        NAMES.map(lambda n: f"    y = {n}"),
        NAMES.map(lambda n: f"    if {n}:\n        y = 2"),
        st.just("    # a comment"),
        st.just(""),
    ),
    max_size=6,
)
FUNCTIONS = st.builds(
    lambda body, last: "\n".join(["def f(x):", "    y = 0", *body, f"    return {last}"]) + "\n",
    BODIES,
    NAMES,
)


@given(ANSWERS, st.sampled_from([STUB, "", "def f(", "def f(x):\n\t'''Do.'''\n"]))
def test_any_text_gives_a_candidate_that_is_stable(text: str, stub: str) -> None:
    """Extraction never raises, and reading a candidate again gives the candidate."""
    once = extract_function(text, entry_point="f", stub=stub)
    assert extract_function(once, entry_point="f", stub=stub) == once


@given(FUNCTIONS, st.sampled_from(["```", "~~~", "````"]), st.sampled_from(["", "python", "py"]))
def test_fenced_code_round_trips(code: str, mark: str, tag: str) -> None:
    """Code in any fence, with talk around it, comes out as it went in."""
    text = f"Here you are:\n\n{mark}{tag}\n{code}{mark}\n\nI hope this helps!"
    assert extract_function(text, entry_point="f") == code


@given(FUNCTIONS)
def test_completed_code_defines_what_it_lacked(code: str) -> None:
    """With the question's stub the candidate runs on its own and still ends with the answer."""
    found = extract_function(f"```\n{code}```", entry_point="f", stub=STUB)
    assert found.endswith(code)
    assert "import math" in found
    compile(found, "candidate", "exec")


@given(ANSWERS)
def test_blocks_are_parts_of_the_text(text: str) -> None:
    """Every reading of the fences is a run of the text's own lines, and there are few of them."""
    found = list(fenced_blocks(text))
    assert len(found) <= 64 * 5
    assert all(block in text for block in found)


@given(ANSWERS, ANSWERS)
def test_similarity_is_a_bounded_symmetric_measure(a: str, b: str) -> None:
    """Edit similarity lies in [0, 1], is symmetric, and is 1 exactly for equal texts."""
    value = edit_similarity(a, b)
    assert 0.0 <= value <= 1.0
    assert value == edit_similarity(b, a)
    assert (value == 1.0) is (a == b)


@given(ANSWERS)
def test_trailing_space_is_removed_once(text: str) -> None:
    """Normalising twice changes nothing more."""
    once = without_trailing_space(text)
    assert without_trailing_space(once) == once


@given(
    ANSWERS,
    st.text("ab \n", max_size=20),
    st.one_of(
        st.just(LineStop()),
        st.builds(BlockStop, indent=st.integers(0, 8), next_line=st.sampled_from(["", "return x"])),
    ),
)
def test_a_cut_stays_where_it_is(text: str, more: str, rule: LineStop | BlockStop) -> None:
    """A stop rule never changes its mind as text arrives, and what it keeps it does not cut again.

    So the answer does not depend on how the engine splits the text into deltas.
    """
    cut = rule.cut(text)
    if cut is not None:
        assert rule.cut(text + more) == cut
        assert rule.cut(text[:cut]) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_nothing(content: bytes) -> None:
    """A blob is read as text without carriage returns and null bytes, or left out."""
    text = source_text(content)
    assert text is None or ("\r" not in text and "\0" not in text)


@given(FUNCTIONS, st.sampled_from(["", "# größe\n", "s = '日本'\n"]))
def test_spans_are_whole_statements(code: str, before: str) -> None:
    """A maskable piece starts after its indentation, ends a line, and is in the source."""
    source = (before + code).encode()
    for span in spans(source, blocks(before + code, LANGUAGES["python"])):
        line = source[: span.start].rpartition(b"\n")[2]
        assert not line.strip()
        assert len(line.decode()) == span.indent
        assert source[span.end : span.end + 1] in (b"", b"\n")
        assert source[span.start : span.end].decode().strip()


@given(st.lists(st.text(max_size=30), max_size=6), st.text(max_size=30))
def test_bm25_returns_every_document_once(documents: list[str], query: str) -> None:
    """A ranking is a permutation of the documents, whatever they hold."""
    (ranking,) = open_engine(None, {}).rank([query], documents)
    assert sorted(ranking) == list(range(len(documents)))


@given(st.text(max_size=60))
def test_words_are_lower_case_and_not_empty(text: str) -> None:
    """Any text splits into lower-case words."""
    assert all(w and w == w.lower() for w in words(text))


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2), min_size=1, max_size=6))
def test_cosine_ranks_every_document_once(vectors: list[list[float]]) -> None:
    """A ranking by vectors is a permutation, zero vectors included."""
    (ranking,) = by_cosine([[1.0, 0.5]], vectors)
    assert sorted(ranking) == list(range(len(vectors)))
