"""Worked examples that show a chat model what an answer looks like, so that it need not be told.

A conversation that begins with two solved questions makes a model answer the third in the same
form (in-context learning: Brown et al., 2020, arXiv:2005.14165). The turns are the same for every
question, so an engine that keeps prompts (``prefix_cache``) reads them once per slot.

The functions are lichen's own and belong to no data set.
"""

from __future__ import annotations

from typing import Final

from lichen.core.generation import Message, Role

_LARGEST: Final = '''\
def second_largest(numbers: list) -> int:
    """Return the second largest distinct number, or None if there is none.
    >>> second_largest([3, 1, 3, 2])
    2
    """
    distinct = sorted(set(numbers))
    return distinct[-2] if len(distinct) > 1 else None
'''

_WORDS: Final = '''\
def count_words(text, minimum):
    """
    Count for each word of the text how often it occurs, ignoring case and punctuation.
    Leave out words that occur less than minimum times.

    Examples
    count_words("The cat. The dog!", 2) => {"the": 2}
    count_words("", 1) => {}
    """
    counts = {}
    for word in text.lower().split():
        word = word.strip(".,;:!?")
        if word:
            counts[word] = counts.get(word, 0) + 1
    return {word: n for word, n in counts.items() if n >= minimum}
'''

_SOLVED: Final = {"python": (_LARGEST, _WORDS)}
"""Language -> functions; one with types and a doctest, one with neither and loose examples."""


def shown(language: str) -> tuple[Message, ...]:
    """Return the turns to begin with, the last one asking for the function that is to be written.

    The answer to it must be begun with a fence and the given code, which the question leaves out.
    Empty where there are no examples in the language.
    """
    solved = _SOLVED.get(language.lower(), ())
    if not solved:
        return ()
    question = Message(
        role=Role.USER,
        content=f"Implement the next {language.capitalize()} function completely and correctly.",
    )
    turns: list[Message] = []
    for code in solved:
        answer = f"```{language.lower()}\n{code}```"
        turns += [question, Message(role=Role.ASSISTANT, content=answer)]
    return (*turns, question)
