"""A worked example that shows a chat model what an answer looks like, so that it need not be told.

A conversation that begins with a solved question makes a model answer the next one in the same
form (in-context learning: Brown et al., 2020, arXiv:2005.14165). The turns are the same for every
question, so an engine that keeps prompts (``prefix_cache``) reads them once per slot.

The function is lichen's own and belongs to no data set. One is enough: with a second the 1.5B model
solved no more of 41 HumanEval problems (28 and 28), and each slot has to read it.
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

_SOLVED: Final = {"python": _LARGEST}
"""Language -> a whole function with a docstring."""


def shown(language: str) -> tuple[Message, ...]:
    """Return the turns to begin with, the last one asking for the function that is to be written.

    The answer to it must be begun with a fence and the given code, which the question leaves out.
    Empty where there is no example in the language.
    """
    code = _SOLVED.get(language.lower())
    if code is None:
        return ()
    question = Message(
        role=Role.USER,
        content=f"Implement the next {language.capitalize()} function completely and correctly.",
    )
    answer = Message(role=Role.ASSISTANT, content=f"```{language.lower()}\n{code}```")
    return (question, answer, question)
