# ruff: noqa: RUF001 (letters of other scripts look like Latin ones)
"""A sentence in several scripts, to show what a vocabulary trimmed for code does to the others.

The first article of the Universal Declaration of Human Rights (United Nations 1948), the text that
exists in most languages.
"""

from __future__ import annotations

from typing import Final

from lichen.compression.corpus import Document

_ARTICLE: Final = """
english:
All human beings are born free and equal in dignity and rights. They are endowed with reason
and conscience and should act towards one another in a spirit of brotherhood.

german:
Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und
Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.

french:
Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de
raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.

russian:
Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и
совестью и должны поступать в отношении друг друга в духе братства.

greek:
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.

arabic:
يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.

hindi:
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।

chinese:
人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。

japanese:
すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。

korean:
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.
"""


def _documents() -> tuple[Document, ...]:
    parts = (part.partition(":\n") for part in _ARTICLE.strip().split("\n\n"))
    return tuple(Document(language, text) for language, _, text in parts)


SCRIPT_SAMPLES: Final = _documents()
"""A document for each language, named by it."""
