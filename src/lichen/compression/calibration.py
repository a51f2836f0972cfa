"""Short pieces of a corpus, as a model meets code at work: what is measured is measured on these.

From the middle of a file, since beginnings are licences and imports. One piece per document, so
that a measurement on 50 pieces is one on 50 files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from lichen.compression.chat_text import CHAT_TEXT
from lichen.compression.corpus import Document

CHUNK: Final = 512
"""Tokens of a piece: longer than most functions; what llama.cpp's own tools use."""
_CHARACTERS_PER_TOKEN: Final = 6
"""More than any code takes on average (3 to 4), so that a passage fills its chunk."""
_LEAST: Final = 32
"""Shorter pieces say little about a model and are left out."""


class Encodes(Protocol):
    """The part of a tokenizer that is needed here."""

    def encode(self, text: str) -> list[int]:
        """Return token ids, without special tokens added."""


def code_of(documents: Sequence[Document]) -> list[Document]:
    """Return the documents that are code; all of them where none is."""
    return [d for d in documents if d.language != "prose"] or list(documents)


def passage(text: str, tokens: int = CHUNK) -> str:
    """Return whole lines from the middle of ``text``, enough for about ``tokens`` tokens."""
    room = tokens * _CHARACTERS_PER_TOKEN
    if len(text) <= room:
        return text
    middle = (len(text) - room) // 2
    start = text.find("\n", middle) + 1  # 0 where there is no further line
    return text[start : start + room]


def chunks(
    documents: Sequence[Document], tokenizer: Encodes, *, tokens: int, chat: bool
) -> Iterator[list[int]]:
    """Yield token chunks of at most ``CHUNK``, about ``tokens`` in all, in the documents' order.

    With ``chat``, every second piece is a conversation in ChatML whose answer is code: how
    instruction-tuned models are asked. ``tokenizer`` must then read control tokens.
    """
    done = 0
    for i, document in enumerate(code_of(documents)):
        if done >= tokens:
            return
        text = passage(document.text)
        if chat and i % 2:
            text = _conversation(document, text, CHAT_TEXT[i // 2 % len(CHAT_TEXT)])
        ids = tokenizer.encode(text)[: min(CHUNK, tokens - done)]
        if len(ids) >= _LEAST:
            done += len(ids)
            yield ids


def _conversation(document: Document, code: str, request: str) -> str:
    # The system prompt and the tags of ChatML, as in the chat templates of Qwen2.5 and SmolLM2.
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{request}<|im_end|>\n"
        f"<|im_start|>assistant\n```{document.language}\n{code}\n```<|im_end|>\n"
    )
