"""Check: does the child read conversations exactly as its parent does?

The engine renders a few conversations with both files' templates, and the texts must be the same.
Engines replace a template that they cannot parse by a generic one without a word, so a template
whose text changed must also be well-formed on its own.
"""

from __future__ import annotations

import re
from typing import Final

from lichen.compression.gate.ports import RenderChats
from lichen.compression.gate.report import Check
from lichen.compression.gate.subject import Subject, not_run
from lichen.core.errors import LichenError
from lichen.core.measurement import Missing

NAME: Final = "chat_template"
KEY: Final = "tokenizer.chat_template"

_OPENING: Final = re.compile(r"\{[%{#]")
_CLOSING: Final = {"{%": "%}", "{{": "}}", "{#": "#}"}
_WORD: Final = re.compile(r"[-+\s]*(\w*)")
_OPENERS: Final = ("if", "for", "macro", "block", "filter", "call", "raw", "generation")


def check(subject: Subject) -> Check:
    """Compare the templates and what they render."""
    if subject.is_folder:
        return not_run(NAME, "the structure check compares the folder's template")
    before, after = (subject.model(p).value(KEY) for p in (subject.parent, subject.child))
    if before is None and after is None:
        return Check(name=NAME, passed=True, what="neither has a chat template")
    changed = _why_changed(before, after)
    render = subject.ports.chats
    if after is None or (changed and not (isinstance(after, str) and well_formed(after))):
        return _failed("the chat template is gone" if after is None else f"{changed}: not closed")
    if isinstance(render, Missing):
        why = f"not rendered: {render.reason}"
        return Check(name=NAME, passed=not changed, what=f"{changed or 'the same text'}; {why}")
    return _rendered(subject, render)


def _why_changed(before: object, after: object) -> str:
    return "" if before == after else "the text of the chat template was changed"


def _rendered(subject: Subject, render: RenderChats) -> Check:
    expected = tuple(render(subject.parent))
    try:
        found = tuple(render(subject.child))
    except LichenError as exc:
        return _failed(f"the chat template cannot be rendered: {exc}")
    differing = sum(a != b for a, b in zip(expected, found, strict=True))
    numbers = {"conversations": len(found), "differing": differing}
    what = (
        f"{differing} of {len(found)} conversations are rendered differently"
        if differing
        else f"{len(found)} conversations are rendered as before"
    )
    return Check(name=NAME, passed=not differing, what=what, numbers=numbers)


def well_formed(template: str) -> bool:
    """Whether every tag is closed and every block ends in order (not a full parser)."""
    open_blocks: list[str] = []
    at = 0
    while tag := _OPENING.search(template, at):
        end = template.find(_CLOSING[tag[0]], tag.end())
        if end < 0:
            return False
        at = end + len(tag[0])
        match = _WORD.match(template, tag.end())
        word = match[1] if match and tag[0] == "{%" else ""
        if word in _OPENERS:
            open_blocks.append(word)
        elif (
            word.startswith("end")
            and word != "endset"
            and not (open_blocks and open_blocks.pop() == word[3:])
        ):
            return False
    return not open_blocks


def _failed(what: str) -> Check:
    return Check(name=NAME, passed=False, what=what)
