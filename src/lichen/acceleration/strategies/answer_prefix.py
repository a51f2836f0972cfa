"""Begin the answer for the model: code that the question gives is prefilled, not decoded.

On tasks that give a signature and a docstring, about half of what a chat model decodes repeats
them. Reading a token costs a fraction of writing one, so the answer is begun with the opening fence
and the given code; the full instruction stays, since a shorter one changes what small models write.
The caller gets the whole answer: prefix and continuation.

Style ``raw`` goes further: the given code alone is the prompt, without instruction, chat template
or the code a second time. That is what base models were trained on; the continuation has no natural
end, so it is stopped by the completeness rule.

Style ``shown`` leaves the instruction and the second copy of the code out too, but stays a chat:
a worked example, the same for every question, shows what is wanted. An engine that keeps prompts
reads it once.

Python that is indented with tabs is begun in spaces, since models go on in spaces
(``lichen.acceleration.indentation``).

An answer begun with the given code has no place left for imports, so those that it lacks are added
at its top (``lichen.acceleration.missing_imports``), unless it is streamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from lichen.acceleration.completeness import CompleteCode, Wanted
from lichen.acceleration.completeness.python_names import definitions, does_nothing, parse
from lichen.acceleration.examples import PYTHON
from lichen.acceleration.indentation import in_spaces
from lichen.acceleration.missing_imports import missing_imports, with_imports, without_imports
from lichen.acceleration.per_request import Follower, PassedOn, following, with_step
from lichen.acceleration.stop_rules import AfterPrefix, FirstOf
from lichen.acceleration.strategy import Layer, StrategyContext
from lichen.acceleration.worked_examples import shown
from lichen.core.generation import Capability, Completion, Delta, Finish, Hints, Request, Step
from lichen.core.ports import Engine
from lichen.engines.options import read_options

NAME: Final = "answer_prefix"
STYLES: Final = ("given", "fence", "raw", "shown")

_WITHOUT_QUESTION: Final = ("raw", "shown")
"""Styles that send the given code and not the words around it."""

_COMMENT: Final = re.compile(r"\"\"\"|'''|/\*|//|^[ \t]*#|[;{]\s*--", re.MULTILINE)
"""Signs of a docstring or comment: without one, the given code does not say what is wanted."""

_STUB_REMARK: Final = re.compile(
    r"(?:#|//)\s*(?:your|write|add|insert|implement|todo|complete|fill)\b[^\n]*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be set.

    Args:
        style: ``given`` begins the fence and repeats the given code; ``fence`` begins only the
            fence; ``raw`` asks for a continuation of the given code and nothing else.
    """

    style: str = "given"

    def __post_init__(self) -> None:
        """Check the style."""
        if self.style not in STYLES:
            msg = f"style must be one of {', '.join(STYLES)}, got {self.style!r}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPrefix:
    """The strategy; see the module."""

    name: ClassVar[str] = NAME
    layer: ClassVar[Layer] = Layer.TEXT
    style: str = "given"

    @property
    def needs(self) -> frozenset[Capability]:
        """Raw prompts that can be cancelled, or answers that can be begun."""
        if self.style == "raw":
            return frozenset({Capability.RAW, Capability.CANCEL})
        return frozenset({Capability.ANSWER_PREFIX})

    def configure(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return the engine's options as they are."""
        return dict(options)

    def wrap(self, engine: Engine) -> Engine:
        """Return an engine that begins the answers."""
        return following(engine, NAME, self._follow)

    def _follow(self, request: Request) -> Follower:
        readable = _in_spaces(request)
        reason = _unfit(readable, self.style)
        if reason:
            return PassedOn(request, actor=NAME, reason=reason)
        return _Begun(readable, self.style)


def make(options: Mapping[str, object], context: StrategyContext) -> AnswerPrefix:
    """Build the strategy; for ``options`` see ``Options``.

    Raises:
        ConfigError: an unknown option or style.
    """
    del context
    return AnswerPrefix(style=read_options(Options, options, who=f"the strategy {NAME}").style)


def beginning(hints: Hints, *, style: str) -> str:
    """Return the text that an answer begins with.

    The given code loses blank lines around it and ends with one newline, so that the model writes
    the body's indentation itself: its tokens for indentation hold the whole of it. The fence is
    longer than any in the code.
    """
    code = hints.given.replace("\r\n", "\n").lstrip("\n").rstrip()
    longest = max((len(run) for run in re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (longest + 1) + hints.language.lower() + "\n"
    return fence if style == "fence" else f"{fence}{code}\n"


def _in_spaces(request: Request) -> Request:
    hints = request.hints
    if hints is None or hints.language.lower() not in PYTHON:
        return request
    return replace(request, hints=replace(hints, given=in_spaces(hints.given)))


def _unfit(request: Request, style: str) -> str:
    """Return why a request is passed on as it is, "" if its answer can be begun."""
    hints = request.hints or Hints()
    told = bool(_COMMENT.search(hints.given))
    reasons = (
        (request.kind != "chat", "it is no chat"),
        (_begun_otherwise(request, style), "its answer is begun already"),
        (request.hints is None, "nothing is known of the answer"),
        (style == "fence" and not hints.language, "the language is not known"),
        (style != "fence" and not hints.given.strip(), "the question gives no code"),
        (
            style in _WITHOUT_QUESTION and not told,
            "the given code does not say what is wanted",
        ),
        (
            style in _WITHOUT_QUESTION and len(request.messages or ()) > 1,
            "the conversation says more",
        ),
        (
            style == "shown" and not shown(hints.language),
            "there is no worked example in its language",
        ),
    )
    return next((reason for unfit, reason in reasons if unfit), "")


def _begun_otherwise(request: Request, style: str) -> bool:
    """Whether the answer has a beginning that is not the one that would be given here."""
    own = beginning(request.hints or Hints(), style=style)
    begun = request.answer_prefix
    # One that was given here before has its imports at the top.
    return bool(begun) and not (begun.startswith(own) or without_imports(begun).startswith(own))


class _Begun(Follower):
    """Asks for the rest of an answer and gives the whole.

    Of an answer that has this beginning already, and perhaps more, only the rest is given: that is
    what whoever began it expects.
    """

    def __init__(self, request: Request, style: str) -> None:
        hints = request.hints or Hints()
        prefix = beginning(hints, style=style)
        own = "" if request.answer_prefix else prefix
        prefix = request.answer_prefix or prefix
        stop = None if request.stop is None else AfterPrefix(request.stop, own)
        if style == "raw":
            code = prefix.partition("\n")[2]
            complete = CompleteCode(
                Wanted(
                    language=hints.language,
                    entry_point=hints.entry_point,
                    given=hints.given,
                    prefix=code,
                    in_code=True,
                )
            )
            rules = FirstOf(complete, stop)
            asked = replace(request, messages=None, answer_prefix="", prompt=code, stop=rules)
        else:
            messages = shown(hints.language) if style == "shown" else request.messages
            asked = replace(request, messages=messages, answer_prefix=prefix, stop=stop)
        super().__init__(asked)
        self._prefix = own
        self._whole = prefix
        self._hints = hints
        self._style = style
        self._said = not request.stream
        python = hints.language.lower() in PYTHON
        self._mends = python and style != "fence" and bool(own) and not request.stream

    def heard(self, delta: Delta) -> Iterable[Delta]:
        """Say the prefix before the first piece."""
        return (*self._first(delta.id), delta)

    def ended(self, completion: Completion) -> Iterable[Delta | Completion]:
        """Give the whole answer; one that failed before its first word stays as it is."""
        begun = bool(completion.text) or completion.finish is not Finish.ERROR
        first = self._first(completion.id) if begun else ()
        text = self._prefix + completion.text if begun else completion.text
        detail = f"{len(self._whole)} characters were given"
        imports = missing_imports(_code(text)) if self._mends and begun else ()
        if imports:
            text = with_imports(text, imports)
            detail += f"; added: {'; '.join(imports)}"
        if is_stub(self._whole + completion.text, self._hints):
            detail += "; the model left a stub"
        step = Step(actor=NAME, action=f"began the answer: {self._style}", detail=detail)
        return (*first, with_step(replace(completion, text=text), step))

    def _first(self, id_: str) -> tuple[Delta, ...]:
        if self._said or not self._prefix:
            return ()
        self._said = True
        return (Delta(id=id_, text=self._prefix),)


def _code(text: str) -> str:
    """Return the code of an answer that begins with a fence, up to the end of its block."""
    return text.partition("\n")[2].partition("\n```")[0]


def is_stub(text: str, hints: Hints) -> bool:
    """Whether an answer begun with ``hints.given`` has no body, or only a remark in its place."""
    code = _code(text)
    if hints.language.lower() not in {"", *PYTHON}:
        added = code[len(hints.given.strip()) :]
        return not _STUB_REMARK.sub("", added).strip(" \t\n{}")
    tree = parse(code)
    if tree is None:
        tree = parse(code.rstrip() + "\n    pass\n")  # only comments follow the signature
    found = definitions(tree, hints.entry_point) if tree is not None else []
    return bool(found) and all(does_nothing(d) for d in found)
