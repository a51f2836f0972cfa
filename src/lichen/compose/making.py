"""Apply a recipe to a model: what its methods may look at, and the file.

``context_of`` fills in texts, importance and compensation only where a recipe uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lichen.catalog.gguf import read_header
from lichen.catalog.lineage import read_lineage
from lichen.compose import settings
from lichen.compression.applying import compress_file
from lichen.compression.compensation import Compensator
from lichen.compression.corpus import Corpus, open_corpus
from lichen.compression.importance import Measuring, measure_importance, read_importance
from lichen.compression.method import ImportanceWeights, MethodContext, Note, Quantises
from lichen.compression.recipe import Recipe, read_recipe
from lichen.compression.shipped import shipped_recipe
from lichen.core.errors import ConfigError
from lichen.core.measurement import Missing
from lichen.core.model import ModelArtifact
from lichen.engines.llama_cpp.native.quantise import Quantiser
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer
from lichen.meter import open_meter

READS_TEXTS: Final = frozenset({"trim_vocabulary", "drop_layers"})
"""Methods that may ask for a corpus and the tokenizer."""

USES_IMPORTANCE: Final = frozenset({"requantise", "mixed_precision", "drop_layers", "narrow_ffn"})
"""Methods that use importance where it is to be had."""

OpenImportance = Callable[[ModelArtifact, Corpus], ImportanceWeights]

_USES_IF_THERE: Final = "use"
"""How ``requantise`` treats importance unless told otherwise: it changes bytes, never sizes."""

_NOT_WANTED: Final = Missing(reason="it was not asked for")


def find_recipe(text: str) -> Recipe:
    """Return a recipe by file, or by the name of a shipped one.

    Raises:
        ConfigError: the file cannot be read or is no recipe.
        UnknownNameError: no such name; near ones are suggested.
    """
    path = Path(text)
    if path.suffix == ".toml" or path.is_file():
        return read_recipe(path)
    return shipped_recipe(text)


def check_target(out: Path, source: Path) -> None:
    """Raise ConfigError if ``out`` is somebody's own file, the model itself, or has no folder."""
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"cannot write {out}: its folder does not exist")
    if not out.exists():
        return
    if out.samefile(source):
        raise ConfigError(f"{out} is the model itself: choose another name with --out")
    try:
        own = bool(read_lineage(out, read_header(out)).ancestors)
    except ConfigError:
        own = False
    if not own:
        raise ConfigError(
            f"{out} exists and was not made by lichen compress: choose another name with --out"
        )


def importance_from(text: str, progress: Callable[[int, int], None]) -> OpenImportance | Missing:
    """Return what opens importance: ``measure`` on the corpus, ``none``, or a file's.

    Measured importance is kept by the hash of model and texts.
    """
    if text == "none":
        return _NOT_WANTED
    if text != "measure":
        return lambda _source, _corpus: read_importance(Path(text))

    def measured(source: ModelArtifact, corpus: Corpus) -> ImportanceWeights:
        return measure_importance(
            Path(source.path),
            corpus,
            Measuring(progress=progress),
            cache=settings.cache_dir() / "importance",
        )

    return measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which texts and weights methods may look at.

    Args:
        corpus: files and folders; none means what is installed with Python.
        importance: computes or reads weights; Missing where the user wants none.
        reading: hears (tokens read, tokens in all) while compensation reads texts.
        note: what the user should hear.
    """

    corpus: tuple[Path, ...] = ()
    importance: OpenImportance | Missing = _NOT_WANTED
    reading: Callable[[int, int], None] = lambda _done, _all: None
    note: Note = lambda _text: None


def context_of(
    source: ModelArtifact,
    methods: Sequence[str],
    wanted: Wanted,
    *,
    quantiser: Quantises | None = None,
) -> MethodContext:
    """Return what the named methods may use; texts are read and importance is computed if needed.

    Raises:
        ConfigError: a corpus that cannot be read.
        EngineError: importance cannot be computed.
    """
    path, names = Path(source.path), set(methods)
    writes = quantiser or Quantiser(note=wanted.note)
    ask = wanted.importance if names & USES_IMPORTANCE else _NOT_WANTED
    reads = bool(names & READS_TEXTS)
    corpus = open_corpus(wanted.corpus) if reads or not isinstance(ask, Missing) else None
    importance = None
    if not isinstance(ask, Missing) and corpus is not None:
        importance = ask(source, corpus)
    return MethodContext(
        quantiser=writes,
        source=path,
        corpus=corpus,
        importance=importance,
        compensator=Compensator(
            source=path,
            texts=lambda: corpus or open_corpus(wanted.corpus),
            quantiser=writes,
            scratch=settings.cache_dir() / "scratch",
            progress=wanted.reading,
        ),
        tokenizer=NativeTokenizer(path) if reads else None,
        note=wanted.note,
    )


def methods_in(recipe: Recipe, *, writing: bool = True) -> list[str]:
    """Return the methods of a recipe for ``context_of``; not those that ignore importance.

    Those that would only write with it are left out too where nothing is going to be written.
    """
    unused = {"ignore"} if writing else {"ignore", _USES_IF_THERE}
    return [
        s.method
        for s in recipe.steps
        if s.options.get("importance", _default_of(s.method)) not in unused
    ]


def _default_of(method: str) -> str:
    return _USES_IF_THERE if method == "requantise" else "require"


def made(
    source: ModelArtifact,
    recipe: Recipe,
    out: Path,
    wanted: Wanted,
    progress: Callable[[int, int], None],
) -> tuple[ModelArtifact, MethodContext]:
    """Apply a recipe and write the file; return it with the context it was made in.

    What that cost comes with the artifact, importance included where it was measured now.
    """
    with open_meter() as meter, meter.window("compress") as window:
        context = context_of(source, methods_in(recipe), wanted)
        artifact = compress_file(source, recipe, out, context, progress=progress)
    return replace(artifact, cost=window.close()), context
