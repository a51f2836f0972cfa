"""Server-sent events mean the same however the bytes are cut."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lichen.engines.openai_http.sse import events

TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=8)


@given(
    st.lists(st.lists(TEXT, min_size=1, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_any_cut_gives_the_same_events(payloads, end, data) -> None:
    """Line ends of all three kinds, characters cut in two, and empty chunks change nothing."""
    wire = "".join(
        f": ping{end}" + "".join(f"data: {line}{end}" for line in lines) + end for lines in payloads
    ).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    bounds = [0, *cuts, len(wire)]
    chunks = [wire[a:b] for a, b in itertools.pairwise(bounds)]
    assert list(events(chunks)) == ["\n".join(lines) for lines in payloads]
