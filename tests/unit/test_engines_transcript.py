"""The transcript all adapters share, log-probabilities, slots and fill-in-the-middle tokens."""

from __future__ import annotations

import math

import pytest

from lichen.core.generation import (
    Delta,
    Finish,
    Message,
    Request,
    Role,
    TokenLogprob,
)
from lichen.core.measurement import Usage
from lichen.engines.llama_cpp.fim import find_fim_tokens
from lichen.engines.llama_cpp.slots import SlotTable
from lichen.engines.logprobs import read_logprobs
from lichen.engines.transcript import Transcript, unencodable


class Clock:
    """A clock that ticks a second per reading."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class CutAt:
    """Keeps ``keep`` characters once ``mark`` is seen."""

    def __init__(self, mark: str, keep: int) -> None:
        self.mark, self.keep = mark, keep

    def cut(self, text: str) -> int | None:
        return self.keep if self.mark in text else None


def started(**kwargs: object) -> tuple[Transcript, list[Delta]]:
    """A transcript and the deltas it emits."""
    deltas: list[Delta] = []
    request = Request(id="r", prompt="p", stream=True, **kwargs)  # type: ignore[arg-type]
    return Transcript(request, 0.0, Clock(), deltas.append), deltas


def test_a_rule_may_cut_back_into_what_was_streamed() -> None:
    """The completion's text is what counts: it can be shorter than the deltas were."""
    transcript, deltas = started(stop=CutAt("def b", 8))
    assert not transcript.add("def a(): ")
    assert transcript.add("def b")
    done = transcript.completion(Usage(), Finish.STOP)
    assert done.text == "def a():"
    assert done.finish is Finish.RULE
    assert [d.text for d in deltas] == ["def a(): "]


def test_nothing_is_added_after_a_cut() -> None:
    """Tokens that were under way when the rule cut do not come back."""
    transcript, _ = started(stop=CutAt("b", 1))
    transcript.add("ab")
    assert transcript.add("more")
    assert transcript.text == "a"


def test_a_rule_that_wants_less_than_nothing_is_an_error() -> None:
    """A negative cut is a bug in the rule, not a slice from the end."""
    transcript, _ = started(stop=CutAt("b", -1))
    assert transcript.add("ab")
    done = transcript.completion(Usage(), Finish.STOP)
    assert done.finish is Finish.ERROR
    assert "-1 characters" in done.error


def test_first_token_time_is_the_first_pieces() -> None:
    """Later pieces do not move it; a whole answer has none unless the engine says how long."""
    transcript, _ = started()
    transcript.add("a")
    transcript.add("b")
    assert transcript.completion(Usage(), Finish.STOP).timings.ttft_s == 1.0
    transcript, _ = started()
    transcript.add("all of it", whole=True)
    assert transcript.completion(Usage(), Finish.STOP).timings.ttft_s is None


def test_first_token_time_from_decode_time() -> None:
    """An answer in one piece began to come ``decode_s`` ago, never before it was asked."""
    transcript, _ = started()
    transcript.mark_first_token(decode_s=0.25)
    assert transcript.completion(Usage(), Finish.STOP).timings.ttft_s == 0.75
    transcript, _ = started()
    transcript.mark_first_token(decode_s=9.0)
    assert transcript.completion(Usage(), Finish.STOP).timings.ttft_s == 0.0


def test_logprobs_follow_the_cut() -> None:
    """A token that begins at or after the cut is not in the confidence."""
    transcript, _ = started(stop=CutAt("cc", 3), logprobs=1)
    for text in ("aa", "bb", "cc"):
        transcript.add(text, (TokenLogprob(text=text, logprob=-1.0),))
    done = transcript.completion(Usage(), Finish.STOP)
    assert [t.text for t in done.logprobs] == ["aa", "bb"]


@pytest.mark.parametrize(
    "request_",
    [
        Request(id="r", prompt="\ud800"),
        Request(id="r", prefix="a", suffix="\udfff"),
        Request(id="r", messages=(Message(role=Role.USER, content="x\ud83d"),)),
        Request(id="r", messages=(Message(role=Role.USER, content="x"),), answer_prefix="\ud83d"),
        Request(id="r", prompt="a", stop_strings=("\ud800",)),
    ],
)
def test_lone_surrogates_are_found_anywhere(request_: Request) -> None:
    """Whatever text holds one, the sentence says so."""
    assert "lone surrogate" in unencodable(request_)


def test_other_text_can_be_sent() -> None:
    """Emoji, NUL and control characters are valid Unicode."""
    assert unencodable(Request(id="r", prompt="\U0001f389 \x00 \x1b[0m")) == ""


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "x",
        {"content": None},
        {"content": [None, 3, {"token": 4, "logprob": -1}, {"token": "a"}]},
        {"content": [{"token": "a", "logprob": None}, {"token": "a", "logprob": math.nan}]},
        {"content": [{"token": "a", "logprob": -math.inf}, {"token": "a", "logprob": 2.0}]},
        {"tokens": ["a"], "token_logprobs": [None]},
        {"tokens": "a", "token_logprobs": [-1]},
    ],
)
def test_hostile_logprobs_are_left_out(raw: object) -> None:
    """Nothing that is not a finite log-probability reaches a mean."""
    assert read_logprobs(raw, 5) == ()


def test_both_shapes_of_logprobs() -> None:
    """The chat and the legacy shape say the same."""
    chat = {
        "content": [
            {
                "token": "a",
                "logprob": -1,
                "top_logprobs": [{"token": "a", "logprob": -1}, {"token": "b", "logprob": -2}, 7],
            }
        ]
    }
    legacy = {"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": [{"a": -1, "b": -2}]}
    expected = (TokenLogprob(text="a", logprob=-1.0, top=(("a", -1.0), ("b", -2.0))),)
    assert read_logprobs(chat, 2) == read_logprobs(legacy, 2) == expected
    assert read_logprobs(chat, 1)[0].top == (("a", -1.0),)


def test_a_certain_token_may_be_rounded_above_zero() -> None:
    """float32 rounding is not hostile."""
    raw = {"content": [{"token": "a", "logprob": 1e-7}]}
    assert read_logprobs(raw, 0) == (TokenLogprob(text="a", logprob=0.0),)


def test_a_slot_is_reused_by_its_own_user_only() -> None:
    """A kept prompt serves the user whose it is; another user computes anew."""
    table = SlotTable(1)
    seats = []
    for user in ("ann", "ann", "bob", "ann"):
        seat = table.take(user, "the same prompt")
        seats.append(seat.reuse)
        table.give_back(seat)
    assert seats == [False, True, False, False]


def test_a_user_gets_the_slot_with_the_longest_common_prefix() -> None:
    """Two conversations of one user do not push each other out."""
    table = SlotTable(3)
    first, second = table.take("ann", "red: one"), table.take("ann", "blue: one")
    table.give_back(first)
    table.give_back(second)
    again = table.take("ann", "blue: one, two")
    assert (again.index, again.reuse) == (second.index, True)


def test_a_prompt_with_nothing_in_common_overwrites_the_least() -> None:
    """A long common beginning is not given up for a request that cannot use it."""
    table, preamble = SlotTable(3), "a long beginning that many requests share: " * 9
    seats = [table.take("", preamble + "one"), table.take("", preamble + "two")]
    seats.append(table.take("", "a short one"))
    for seat in seats:
        table.give_back(seat)
    stranger = table.take("", "a question of its own")
    assert stranger.index == seats[2].index
    table.give_back(stranger)
    again = table.take("", preamble + "three")
    assert again.reuse
    assert again.index != stranger.index


def test_a_seat_knows_what_other_slots_of_its_user_hold() -> None:
    """Busy slots count, other users' do not."""
    table = SlotTable(4)
    assert (table.take("ann", "abcd").kept, table.take("bob", "abcdef").elsewhere) == (0, 0)
    second = table.take("ann", "abcx")
    assert (second.kept, second.elsewhere, second.reuse) == (0, 3, False)
    table.give_back(second)
    third = table.take("ann", "abcxyz")
    assert (third.index, third.kept, third.elsewhere) == (second.index, 4, 3)


def test_a_new_user_gets_an_empty_slot() -> None:
    """What others hold is kept as long as there is room."""
    table = SlotTable(2)
    ann = table.take("ann", "x")
    table.give_back(ann)
    bob = table.take("bob", "x")
    assert bob.index != ann.index
    table.give_back(bob)
    assert table.take("ann", "x").reuse


def test_fim_tokens_are_control_tokens() -> None:
    """A vocabulary has them if each marker is one token; their order is prefix, suffix, middle."""
    vocabulary = {"<|fim_prefix|>": [7], "<|fim_suffix|>": [8], "<|fim_middle|>": [9]}
    found = find_fim_tokens(lambda t: vocabulary.get(t, [1, 2]), start=[0])
    assert found is not None
    assert found.prompt([10, 11], [12]) == [0, 7, 10, 11, 8, 12, 9]


def test_a_vocabulary_without_fim_tokens() -> None:
    """Markers that fall apart into several tokens are plain text to that model."""
    assert find_fim_tokens(lambda _: [1, 2], start=[]) is None
