"""Search: what is asked, how engines are wrapped, how rankings are scored; and the BM25 engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from lichen.benchmark.corpus.functions import functions
from lichen.benchmark.corpus.repository import SourceFile
from lichen.benchmark.ranking import RankingEngine, by_cosine
from lichen.benchmark.tasks import TASKS, TaskContext
from lichen.core.errors import CapabilityError, ConfigError, EngineError
from lichen.core.generation import Capability, Completion, Delta, Finish, Request
from lichen.core.model import ModelArtifact
from lichen.core.ports import Candidate, Engine, Ranker
from lichen.engines.bm25 import open_engine, words
from lichen.testing.in_process_sandbox import InProcessSandbox
from lichen.testing.task_data import SHOP, make_repository


class WordEmbedder:
    """An engine that embeds by counting a few words, and counts what it was asked."""

    name = "words"
    capabilities = frozenset({Capability.EMBED, Capability.TOKENIZE})
    vocabulary = ("total", "basket", "json", "article")

    def __init__(self) -> None:
        self.embedded: list[str] = []
        self.closed = False

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Count the vocabulary in each text."""
        self.embedded.extend(texts)
        return [[float(t.lower().count(w)) for w in self.vocabulary] for t in texts]

    def tokenize(self, text: str) -> list[int]:
        """One token per word."""
        return list(range(len(text.split())))

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Not needed."""
        raise NotImplementedError

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Not needed."""
        raise NotImplementedError

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class NoWay(WordEmbedder):
    """An engine with the method but without the capability."""

    capabilities = frozenset({Capability.CHAT})


def make(tmp_path: Path):
    """Make the search task over a small shop."""
    root = make_repository(tmp_path / "r", {"shop.py": SHOP, "tests/test_shop.py": SHOP})
    return TASKS.get("search")(
        TaskContext(data_path=root, data_sha256="", sandbox=InProcessSandbox())
    )


def completions(engine: Engine, requests: list[Request]) -> list[Completion]:
    """Return only the completions."""
    return [c for c in engine.generate(requests) if isinstance(c, Completion)]


def test_docstrings_are_queries_and_not_in_the_documents(tmp_path: Path) -> None:
    """Every function competes; its docstring is the question and is in no document."""
    task = make(tmp_path)
    assert [p.id for p in task.problems()] == [
        "shop.py::total_price",
        "shop.py::Basket.put",
        "shop.py::load_basket",
    ]
    documents = task.adapt(open_engine(None, {}))._documents
    assert len(documents) == 3
    assert all(p.prompt not in d for p in task.problems() for d in documents)


def test_functions_are_filtered_as_in_codesearchnet() -> None:
    """Short ones, tests, dunders and copies go; a shared docstring is nobody's question."""
    body = "    a = 1\n    b = {}\n    return a + b\n"
    text = (
        'def one():\n    """Do the same thing."""\n'
        + body.format(1)
        + 'def two():\n    """Do the same thing."""\n'
        + body.format(2)
        + 'def three():\n    """Do another thing."""\n'
        + body.format(3)
        + 'def test_four():\n    """Do a fourth thing."""\n'
        + body.format(4)
        + 'class A:\n    def __len__(self):\n        """Do a fifth thing."""\n        a = 1\n        return a\n'
        + 'def short():\n    """Do a sixth thing."""\n    return 1\n'
    )
    found = functions([SourceFile(path="a.py", text=text), SourceFile(path="b.py", text=text)])
    assert [(f.id, f.query) for f in found] == [
        ("a.py::one", ""),
        ("a.py::two", ""),
        ("a.py::three", "Do another thing."),
    ]


@pytest.mark.parametrize("engine", [open_engine(None, {}), WordEmbedder()], ids=lambda e: e.name)
def test_rankers_and_embedders_find_the_function(tmp_path: Path, engine: Engine) -> None:
    """Through both kinds of engine the right function comes first for a clear question."""
    task = make(tmp_path)
    problem = task.problems()[2]
    (answer,) = completions(task.adapt(engine), [task.request(problem, sample=0, seed=0)])
    code = task.extract(problem, answer.text)
    score = dict(task.score([Candidate(id="x", problem=problem, code=code)]))["x"]
    assert score.value == 1.0
    assert dict(score.extra) == {"recall@1": 1.0, "recall@5": 1.0, "recall@10": 1.0}


def test_reciprocal_rank_falls_with_the_rank(tmp_path: Path) -> None:
    """Second place gives a half, no place nothing; unknown and repeated lines do not count."""
    task = make(tmp_path)
    problem = task.problems()[0]
    text = "nonsense\nshop.py::load_basket\nshop.py::load_basket\n shop.py::total_price \n"
    candidates = [
        Candidate(id="second", problem=problem, code=task.extract(problem, text)),
        Candidate(id="none", problem=problem, code=task.extract(problem, "nothing here")),
    ]
    scores = dict(task.score(candidates))
    assert scores["second"].value == 0.5
    assert dict(scores["second"].extra)["recall@1"] == 0.0
    assert scores["none"].value == 0.0


def test_documents_are_embedded_once_inside_the_first_real_call(tmp_path: Path) -> None:
    """A warm-up does not pay for the index; the first call does and says so in its ledger."""
    task, inner = make(tmp_path), WordEmbedder()
    engine = task.adapt(inner)
    request = task.request(task.problems()[0], sample=0, seed=0)
    completions(engine, [Request(id="warm-up", prompt=request.prompt)])
    assert len(inner.embedded) == 2
    (first,) = completions(engine, [request])
    (second,) = completions(engine, [request])
    assert len(inner.embedded) == 2 + 3 + 1 + 1
    assert first.ledger[0].action == "index"
    assert first.ledger[0].usage.prompt > 0
    assert second.ledger == ()
    assert first.usage.prompt == len(str(request.prompt).split())
    engine.close()
    assert inner.closed


def test_an_engine_that_can_neither_rank_nor_embed_is_refused(tmp_path: Path) -> None:
    """Having a method is not enough: the capability decides."""
    with pytest.raises(CapabilityError, match="bm25"):
        make(tmp_path).adapt(NoWay())


def test_rankings_are_bounded_and_streamable() -> None:
    """At most 100 ids come, and a streaming request sees the same text as a delta."""
    ids = [f"d{i}" for i in range(150)]
    engine = RankingEngine(open_engine(None, {}), ids=ids, documents=ids)
    items = list(engine.generate([Request(id="q", prompt="d7", stream=True)]))
    delta, end = items
    assert isinstance(delta, Delta)
    assert isinstance(end, Completion)
    assert delta.text == end.text
    assert len(end.text.split("\n")) == 100


def test_vectors_that_make_no_sense_are_an_engine_error() -> None:
    """NaN and unequal lengths are refused; a zero vector is just similar to nothing."""
    with pytest.raises(EngineError):
        by_cosine([[float("nan")]], [[1.0]])
    with pytest.raises(EngineError):
        by_cosine([[1.0, 2.0]], [[1.0]])
    assert by_cosine([[1.0, 0.0]], [[0.0, 0.0], [2.0, 0.0]]) == [[1, 0]]


def test_a_repository_without_docstrings_is_refused(tmp_path: Path) -> None:
    """Nothing to ask is a ConfigError."""
    root = make_repository(tmp_path, {"a.py": "x = 1\n"})
    with pytest.raises(ConfigError, match="docstring"):
        TASKS.get("search")(TaskContext(data_path=root, data_sha256="", sandbox=InProcessSandbox()))


def test_identifiers_are_split() -> None:
    """Camel case, snake case, acronyms and digits are words; the whole is kept, too."""
    assert words("readHTTPHeader") == ["read", "http", "header", "readhttpheader"]
    assert words("load_basket2") == ["load", "basket", "2", "load_basket2"]
    assert words("größe x") == words("größe x")


def test_bm25_orders_by_words() -> None:
    """The document with the query's rare word comes first; ties and misses keep their order."""
    engine = open_engine(None, {})
    documents = ["def a(): pass", "def parseJson(): pass", "def b(): pass"]
    assert isinstance(engine, Ranker)
    assert engine.rank(["parse json text"], documents) == [[1, 0, 2]]
    assert engine.rank(["zebra"], documents) == [[0, 1, 2]]
    assert engine.rank([""], documents) == [[0, 1, 2]]
    assert engine.rank(["x"], []) == [[]]
    assert engine.rank(["x"], ["", "  "]) == [[0, 1]]


def test_bm25_ranks_each_corpus_by_itself() -> None:
    """Another list of documents builds another index."""
    engine = open_engine(None, {})
    assert engine.rank(["beta"], ["alpha", "beta"]) == [[1, 0]]
    assert engine.rank(["beta"], ["beta", "alpha", "gamma"]) == [[0, 1, 2]]


def test_bm25_generates_nothing() -> None:
    """A request to generate comes back as an error completion, not as an exception."""
    (answer,) = completions(open_engine(None, {}), [Request(id="q", prompt="hello")])
    assert answer.finish is Finish.ERROR
    assert answer.error


@pytest.mark.parametrize(
    "options", [{"k2": 1}, {"k1": -1}, {"b": 2}, {"b": "x"}, {"k1": float("nan")}, {"b": True}]
)
def test_bm25_refuses_wrong_options(options: dict[str, object]) -> None:
    """Unknown names and values out of range are ConfigErrors."""
    with pytest.raises(ConfigError):
        open_engine(None, options)


def test_bm25_takes_no_model() -> None:
    """A model given to an engine that runs none is a mistake worth saying."""
    model = ModelArtifact(name="m", path="m", format="gguf", sha256="", size_bytes=1)
    with pytest.raises(ConfigError, match="runs no model"):
        open_engine(model, {})
