"""Laws of the cache's keys, of similarity and of the error bound."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lichen.acceleration.answer_code import same_answer
from lichen.acceleration.answer_keys import fits, key_of, normal
from lichen.acceleration.error_bound import error_bound
from lichen.acceleration.similarity import cosine, lexical, split
from lichen.core.generation import Finish, Message, Request, Role

texts = st.text(alphabet=st.characters(), max_size=60)
looks = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30)


def chat(*contents: str, **changes: object) -> Request:
    messages = tuple(Message(role=Role.USER, content=c) for c in contents)
    return Request(id="1", messages=messages, **changes)  # type: ignore[arg-type]


def digest(request: Request, scope: str = "m") -> tuple[str, bytes]:
    key = key_of(request, scope=scope)
    return key.partition, key.digest


@given(texts, texts)
def test_chats_share_a_key_only_in_normal_form(a: str, b: str) -> None:
    """Two questions have one key exactly if they are equal up to line ends and trailing space."""
    assert (digest(chat(a)) == digest(chat(b))) == (normal(a) == normal(b))


@given(texts, texts, texts, texts)
def test_parts_are_never_confused(a: str, b: str, c: str, d: str) -> None:
    """No way of cutting a text into prefix and suffix, or messages, gives another one's key."""
    assume((a, b) != (c, d))
    one = Request(id="1", prefix=a, suffix=b)
    other = Request(id="1", prefix=c, suffix=d)
    assert digest(one) != digest(other)
    assert digest(Request(id="1", prompt=a)) != digest(replace(one, suffix=""))
    if (normal(a), normal(b)) != (normal(c), normal(d)):
        assert digest(chat(a, b)) != digest(chat(c, d))


@given(texts, texts, texts, texts)
def test_users_and_models_never_meet(user: str, other: str, scope: str, scope2: str) -> None:
    """Another user is another partition, another model another key, whatever they are called."""
    request = Request(id="1", prompt="x", user=user)
    assert (digest(request)[0] == digest(replace(request, user=other))[0]) == (user == other)
    assert (digest(request, scope) == digest(request, scope2)) == (scope == scope2)


@given(texts, st.integers(0, 70))
def test_shorter_keys_are_the_keys_of_shorter_texts(text: str, most: int) -> None:
    """What is looked up while typing is exactly what was stored before the typing."""
    found = list(key_of(Request(id="1", prompt=text), scope="m").shorter(most))
    assert len(found) == min(most, len(text))
    for key, typed in found:
        assert text.endswith(typed)
        before = text[: len(text) - len(typed)]
        assert key == key_of(Request(id="1", prompt=before), scope="m").digest


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 50))
def test_an_answer_fits_only_where_it_would_have_ended(tokens: int, old: int, new: int) -> None:
    """A finished answer never exceeds the new limit; a cut one needs the same limit."""
    assume(tokens <= old)
    if fits(Finish.STOP, tokens, old, new):
        assert tokens <= new
    assert fits(Finish.LENGTH, tokens, old, new) == (old == new)
    assert fits(Finish.STOP, 0, old, new) == (old == new)  # a length that was not told


@given(texts)
def test_any_text_can_be_parted(text: str) -> None:
    """Wording is plain lower-case words only; everything else is fixed."""
    parts = split(text)
    assert all(w.isascii() and w.isalpha() and w.islower() for w in parts.words)


QUESTION = (
    "Please change the helper in src/app.py so that `total` grows by 3 and it is not printed."
)


@given(
    st.sampled_from(
        [
            ("3", "4"), ("3", "30"), ("total", "totals"), ("total", "Total"), ("not ", ""),
            ("not", "now"), ("src/app.py", "src/app2.py"), ("src/", "lib/"), ("app", "\u0430pp"),
            ("`total`", "total"), ("3", "\uff13"), ("3", "three"), ("by 3", "by -3"),
        ]
    )
)  # fmt: skip
def test_what_is_named_is_fixed(change: tuple[str, str]) -> None:
    """Numbers, identifiers, negations, quotes and paths are never near one another."""
    assert split(QUESTION).fixed != split(QUESTION.replace(*change)).fixed


PASTED = """Please repair this function:

def f(items):
    total = 0
    for item in items:
        total += item
        result = total
    return result

total
return result

It should be fast.
"""


@pytest.mark.parametrize(
    "change",
    [
        ("    return result", "    return items"),
        ("    return result", "        return result"),
        ("        result = total", "    result = total"),
        ("in items:", "in total:"),
        ("for item in items", "for items in item"),
        ("\ntotal\n", "\nitems\n"),
        ("\nreturn result\n", "\nreturn total\n"),
    ],
)
@pytest.mark.parametrize("block", [False, True])
def test_code_is_fixed_with_and_without_a_block(change: tuple[str, str], block: bool) -> None:
    """Plain words are names in code, and its indentation counts, also where it is just pasted."""
    text = PASTED
    if block:
        text = text.replace("def f", "```python\ndef f").replace("\n\nIt", "\n```\n\nIt")
    assert change[0] in text
    assert split(text).fixed != split(text.replace(*change, 1)).fixed
    assert split(text).fixed == split(text.replace("Please repair", "Kindly mend")).fixed
    assert split(text).fixed == split(text.replace("be fast", "run quickly")).fixed


def test_names_in_prose_are_fixed() -> None:
    """A plain word beside "function", "file" and the like may be a name, and must be equal."""
    for a, b in (
        ("rename the function parse now", "rename the function render now"),
        ("rename the parse function now", "rename the render function now"),
        ("a class called stack", "a class called queue"),
        ("sort them ascending", "sort them descending"),
        ("copy from left", "copy from right"),
        ("use x here", "use y here"),
    ):
        assert split(a).fixed != split(b).fixed


def test_wording_may_differ() -> None:
    """Politeness and synonyms leave the fixed part as it is."""
    assert split(QUESTION).fixed == split(QUESTION.replace("Please change", "Kindly adapt")).fixed


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_lexical_similarity_is_one_only_for_equal_words(a: list[str], b: list[str]) -> None:
    """It is symmetric, within 0 and 1, and 1 for equal wording."""
    assert lexical(a, b) == lexical(b, a)
    assert 0 <= lexical(a, b) <= 1
    assert lexical(a, a) == 1


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_cosines_are_in_range(v: list[float]) -> None:
    """Whatever an embedder says, the cosine is between 0 and 1."""
    assert 0 <= cosine(v, v[::-1]) <= 1


@given(looks, st.floats(0, 1))
def test_the_error_bound_is_a_probability_and_learns(
    seen: list[tuple[float, bool]], s: float
) -> None:
    """One more wrong answer at the same similarity never lowers the bound, nor a right one raise it."""
    now = error_bound(seen, s)
    assert 0 <= now <= 1
    if len(seen) >= 4:
        assert error_bound([*seen, (s, False)], s) >= now
        assert error_bound([*seen, (s, True)], s) <= now


def test_the_users_bound_holds_where_the_model_does() -> None:
    """Simulated caches: of the answers reused at bound 0.1, fewer than 10 % are wrong."""
    rng = random.Random(5)
    wrong = reused = 0
    for _ in range(25):
        threshold, slope = rng.uniform(0.4, 0.9), rng.choice([10, 20, 40])
        seen: list[tuple[float, bool]] = []
        for _ in range(50):
            s = rng.uniform(0.5, 1)
            right = rng.random() < 1 / (1 + 2.718281828 ** (-slope * (s - threshold)))
            if error_bound(seen, s) <= 0.1:
                reused += 1
                wrong += not right
            else:
                seen.append((s, right))
    assert reused > 100
    assert wrong / reused < 0.1


@given(texts, texts)
def test_same_answers_are_equal_text_or_equal_code(a: str, b: str) -> None:
    """Prose must be equal; code may be written otherwise if it parses to the same tree."""
    assert same_answer(a, a)
    assert same_answer(a, b) == same_answer(b, a)
    assert same_answer("```python\nx = 1\n```", "Sure:\n```py\nx  =  1  # one\n```")
    assert not same_answer("```python\nif x:\n    y\nz\n```", "```python\nif x:\n    y\n    z\n```")
