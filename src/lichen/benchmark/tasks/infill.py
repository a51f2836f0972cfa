"""Infill: fill a hole in a file of any local git repository; exact match and edit similarity.

A private repository cannot have leaked into a model's training data, so this measures what a model
is worth *there*. Nothing is run: the metric is ``1 - Lev / max`` to what the authors wrote, and an
attempt counts as solved when it equals that up to trailing white space. Other correct code scores
less than 1; compare solutions with it, do not read it as a success rate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import ClassVar, Final

from lichen.benchmark.answers.fences import fenced_blocks
from lichen.benchmark.answers.python_function import MAX_ANSWER_CHARS
from lichen.benchmark.answers.similarity import edit_similarity, without_trailing_space
from lichen.benchmark.corpus.blocks import LANGUAGES, Language, language_of
from lichen.benchmark.corpus.holes import Hole, choose_holes, stop_rule
from lichen.benchmark.corpus.repository import Repository, SourceFile
from lichen.benchmark.corpus.spans import SpanKind
from lichen.benchmark.executed import check_options, chosen_style, fenced
from lichen.benchmark.styled import StyledTask
from lichen.benchmark.tasks import TaskContext, TaskFacts
from lichen.core.errors import ConfigError
from lichen.core.generation import Capability, Message, Request, Role, StopRule
from lichen.core.ports import Candidate
from lichen.core.registry import unknown
from lichen.core.task import Problem, PromptStyle, Score

NAME: Final = "infill"
METRIC: Final = "edit_similarity"
STYLES: Final = (
    PromptStyle(
        name="fim",
        version="1",
        description="prefix and suffix with the model's own fill-in-the-middle tokens",
    ),
    PromptStyle(
        name="chat",
        version="1",
        description="for engines without infill: a marked hole and a request for the missing code",
    ),
)
FACTS: Final = TaskFacts(
    metric=METRIC,
    needs=frozenset({Capability.INFILL}),
    styles=STYLES,
    options=("count", "kind", "languages", "revision", "seed"),
)

DEFAULT_COUNT: Final = 50
MAX_COUNT: Final = 10_000
MIXED: Final = "mixed"
HOLE: Final = "<<<FILL>>>"


class Infill(StyledTask):
    """See the module."""

    name: ClassVar[str] = NAME
    metric: ClassVar[str] = METRIC
    own_version: ClassVar[str] = "1"

    def __init__(self, *, holes: Sequence[Hole], style: PromptStyle) -> None:
        packed = json.dumps([astuple(h) for h in holes], ensure_ascii=True)
        super().__init__(
            problems=[_problem(h) for h in holes],
            style=style,
            data_sha256=hashlib.sha256(packed.encode()).hexdigest(),
        )

    @property
    def needs(self) -> frozenset[Capability]:
        """Infill or, in the style ``chat``, chat."""
        return frozenset({Capability.CHAT if self._chat else Capability.INFILL})

    @property
    def _chat(self) -> bool:
        return self._style.name == "chat"

    def request(self, problem: Problem, *, sample: int, seed: int) -> Request:
        """Ask for the hole; infill requests carry the stop rule of the hole's kind."""
        name = f"{problem.id}#{sample}"
        prefix, suffix = problem.fields["prefix"], problem.fields["suffix"]
        if not self._chat:
            return Request(id=name, prefix=prefix, suffix=suffix, seed=seed, stop=_stop(problem))
        content = (
            f"Write the {problem.fields['language']} code that belongs where {HOLE} stands. "
            f"Return only that code in a code block.\n\n{fenced(prefix + HOLE + suffix)}"
        )
        return Request(id=name, messages=(Message(role=Role.USER, content=content),), seed=seed)

    def extract(self, problem: Problem, text: str) -> str:
        """Cut the text by the hole's stop rule; in a chat, read the first code block."""
        text = text[:MAX_ANSWER_CHARS].replace("\r\n", "\n").replace("\r", "\n")
        if self._chat:
            text = next(fenced_blocks(text), text)
            text = _reindented(text, int(problem.fields["indent"]))
        end = _stop(problem).cut(text)
        return without_trailing_space(text if end is None else text[:end])

    def score(self, candidates: Iterable[Candidate]) -> Iterator[tuple[str, Score]]:
        """Compare candidates with what the authors wrote."""
        for candidate in candidates:
            value = edit_similarity(
                without_trailing_space(candidate.code), candidate.problem.reference
            )
            exact = ("exact_match", float(value >= 1.0))
            yield candidate.id, Score(metric=METRIC, value=value, extra=(exact,))


def make(context: TaskContext) -> Infill:
    """Build the task from a local repository; the same commit and options give the same holes.

    Raises:
        ConfigError: no such repository, revision or option value, or nothing to mask.
        MissingDependencyError: a grammar is not installed.
    """
    options = context.options
    check_options(options, FACTS.options, task=NAME)
    revision = options.get("revision", "HEAD")
    kind = options.get("kind", MIXED)
    if kind not in (MIXED, *SpanKind):
        raise ConfigError(unknown("kind of hole", kind, [MIXED, *SpanKind]))
    languages = _languages(options.get("languages", ""))
    repository = Repository(path=context.data_path)
    endings = [e for language in languages for e in language.endings]
    files = repository.files(repository.commit(revision), endings)
    holes = choose_holes(
        _with_languages(files),
        kinds=tuple(SpanKind) if kind == MIXED else (SpanKind(kind),),
        count=_number(options, "count", DEFAULT_COUNT, low=1, high=MAX_COUNT),
        seed=_number(options, "seed", 0, low=0, high=2**63),
    )
    if not holes:
        names = ", ".join(x.name for x in languages)
        raise ConfigError(
            f"nothing to mask in {context.data_path} at {revision!r}: no hand-written source of "
            f"{names} with a hole of kind {kind!r}"
        )
    return Infill(holes=holes, style=chosen_style(STYLES, context.style, task=NAME))


def _problem(hole: Hole) -> Problem:
    return Problem(
        id=f"{hole.path}:{hole.line}:{hole.kind}",
        prompt=hole.prefix + HOLE + hole.suffix,
        reference=hole.middle,
        fields={
            "prefix": hole.prefix,
            "suffix": hole.suffix,
            "language": hole.language,
            "kind": str(hole.kind),
            "indent": str(hole.indent),
        },
    )


def _stop(problem: Problem) -> StopRule:
    return stop_rule(
        SpanKind(problem.fields["kind"]),
        indent=int(problem.fields["indent"]),
        suffix=problem.fields["suffix"],
    )


def _reindented(text: str, indent: int) -> str:
    """Move a block so that its first line starts at the hole and the others at its column."""
    first, _, rest = text.strip("\n").partition("\n")
    lines = rest.split("\n") if rest else []
    own = len(first) - len(first.lstrip())
    continues = own == 0 and all(len(x) - len(x.lstrip()) >= indent for x in lines if x.strip())
    if continues or own >= indent:
        moved = [x[own - indent :] if x[: own - indent].isspace() else x for x in lines]
        return "\n".join([first.lstrip(), *(lines if continues else moved)])
    margin = first[:own]  # also keeps tabs where the block is indented by tabs
    unit = "\t" if margin.startswith("\t") else " "
    moved = [unit * (indent - own) + x if x.strip() else x for x in lines]
    return "\n".join([first.lstrip(), *moved])


def _with_languages(files: Iterable[SourceFile]) -> Iterator[tuple[SourceFile, Language]]:
    for file in files:
        language = language_of(file.path)
        if language is not None:
            yield file, language


def _languages(text: str) -> list[Language]:
    """Return the languages of a comma-separated list, all for ""."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in LANGUAGES:
            raise ConfigError(unknown("language of the infill task", name, list(LANGUAGES)))
    return [LANGUAGES[name] for name in dict.fromkeys(names or LANGUAGES)]


def _number(options: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):  # noqa: PLR2004 (digits of 2**63)
        raise ConfigError(f"{name} of the task {NAME!r} must be {low}..{high}, not {text[:40]!r}")
    return int(text)
