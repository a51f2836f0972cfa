"""Search: find a Python function of a local repository from the first paragraph of its docstring.

Metric: reciprocal rank of the function (mean over queries = MRR), 0 beyond rank 100, with recall
at 1, 5 and 10 beside it. All functions of the repository compete, with or without a docstring, and
docstrings are taken out of them. BM25 is the baseline; embedding models take part by cosine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from typing import ClassVar, Final

from lichen.benchmark.corpus.functions import SourceFunction, functions
from lichen.benchmark.corpus.repository import Repository
from lichen.benchmark.executed import check_options, chosen_style
from lichen.benchmark.ranking import MAX_RANKED, RankingEngine
from lichen.benchmark.styled import StyledTask
from lichen.benchmark.tasks import TaskContext, TaskFacts
from lichen.core.errors import ConfigError
from lichen.core.generation import Capability, Request
from lichen.core.ports import Candidate, Engine
from lichen.core.task import Problem, PromptStyle, Score

NAME: Final = "search"
METRIC: Final = "reciprocal_rank"
STYLES: Final = (
    PromptStyle(
        name="docstring",
        version="1",
        description="the docstring's first paragraph is the query",
    ),
)
FACTS: Final = TaskFacts(
    metric=METRIC,
    needs=frozenset({Capability.RAW}),
    styles=STYLES,
    options=("revision",),
    either=frozenset({Capability.RANK, Capability.EMBED}),
)
RECALL_AT: Final = (1, 5, 10)


class Search(StyledTask):
    """See the module; implements ``AdaptsEngine``."""

    name: ClassVar[str] = NAME
    metric: ClassVar[str] = METRIC
    own_version: ClassVar[str] = "1"

    def __init__(self, *, found: Sequence[SourceFunction], style: PromptStyle) -> None:
        packed = json.dumps([astuple(f) for f in found], ensure_ascii=True)
        super().__init__(
            problems=[Problem(id=f.id, prompt=f.query, reference=f.id) for f in found if f.query],
            style=style,
            data_sha256=hashlib.sha256(packed.encode()).hexdigest(),
        )
        self._functions = tuple(found)
        self._known = frozenset(f.id for f in found)

    @property
    def needs(self) -> frozenset[Capability]:
        """Raw prompts, which the adapted engine takes; the engine itself must rank or embed."""
        return FACTS.needs

    def adapt(self, engine: Engine) -> Engine:
        """Wrap an engine that ranks or embeds; raises CapabilityError for others."""
        return RankingEngine(
            engine,
            ids=[f.id for f in self._functions],
            documents=[f.code for f in self._functions],
        )

    def request(self, problem: Problem, *, sample: int, seed: int) -> Request:
        """Ask with the query as a raw prompt."""
        return Request(id=f"{problem.id}#{sample}", prompt=problem.prompt, seed=seed)

    def extract(self, problem: Problem, text: str) -> str:  # noqa: ARG002 (the port's signature)
        """Return the known ids of the text, each once, best first, at most 100."""
        lines = (line.strip() for line in text.split("\n"))
        ids = dict.fromkeys(line for line in lines if line in self._known)
        return "\n".join(list(ids)[:MAX_RANKED])

    def score(self, candidates: Iterable[Candidate]) -> Iterator[tuple[str, Score]]:
        """Score rankings by the reciprocal rank of the function that was asked for."""
        for candidate in candidates:
            ids = candidate.code.split("\n")
            wanted = candidate.problem.reference
            rank = ids.index(wanted) + 1 if wanted in ids else 0
            recall = tuple((f"recall@{k}", float(0 < rank <= k)) for k in RECALL_AT)
            value = 1.0 / rank if rank else 0.0
            yield candidate.id, Score(metric=METRIC, value=value, extra=recall)


def make(context: TaskContext) -> Search:
    """Build the task from a local repository.

    Raises:
        ConfigError: no such repository or revision, or no function with a docstring in it.
    """
    check_options(context.options, FACTS.options, task=NAME)
    revision = context.options.get("revision", "HEAD")
    repository = Repository(path=context.data_path)
    found = functions(repository.files(repository.commit(revision), [".py"]))
    if not any(f.query for f in found):
        raise ConfigError(
            f"no Python function with a docstring of three words or more in "
            f"{context.data_path} at {revision!r}"
        )
    return Search(found=found, style=chosen_style(STYLES, context.style, task=NAME))
