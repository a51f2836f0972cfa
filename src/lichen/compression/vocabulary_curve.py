"""What each size of vocabulary costs and saves: file bytes against tokens more on held-out texts.

One curve serves the docs, the search and whoever wants to choose a size by eye. Inflation here is
measured, not estimated: every size is written as a vocabulary without weights and loaded by the
engine's own tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lichen.compression.corpus import Corpus, Document
from lichen.compression.method import TextTokenizer
from lichen.compression.model_file import ModelFile, write_model
from lichen.compression.script_samples import SCRIPT_SAMPLES
from lichen.compression.token_choice import ASCII_RANKS, PRIOR
from lichen.compression.token_counts import Inflation, count_tokens, token_total
from lichen.compression.vocabulary import read_vocabulary
from lichen.compression.vocabulary_trim import token_order, trimmed, vocabulary_only
from lichen.engines.llama_cpp.native.tokens import NativeTokenizer

OpenTokenizer = Callable[[Path], TextTokenizer]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A vocabulary of ``tokens`` tokens: bytes of the whole file, and inflation of each text."""

    tokens: int
    file_bytes: int
    inflation: tuple[Inflation, ...]


def judged_texts(corpus: Corpus) -> Mapping[str, Sequence[Document]]:
    """Return what inflation is reported on: the held-out documents by language, and scripts."""
    groups: dict[str, list[Document]] = {}
    for document in corpus.held_out:
        groups.setdefault(document.language, []).append(document)
    return dict(sorted(groups.items())) | {d.name: [d] for d in SCRIPT_SAMPLES}


def trim_curve(
    model: ModelFile,
    corpus: Corpus,
    sizes: Sequence[int],
    *,
    ascii_ranks: int = ASCII_RANKS,
    prior: float = PRIOR,
    texts: Mapping[str, Sequence[Document]] | None = None,
    open_tokenizer: OpenTokenizer = NativeTokenizer,
) -> tuple[CurvePoint, ...]:
    """Measure vocabularies of several sizes, chosen as ``trim_vocabulary`` chooses them.

    Args:
        model: with its whole vocabulary.
        corpus: to choose by; its calibration part alone is asked.
        sizes: tokens to keep, each between what is required and what there is; others are moved
            to the nearer end.
        ascii_ranks: as in ``trim_vocabulary``.
        prior: as in ``trim_vocabulary``.
        texts: name -> documents to report on; ``judged_texts(corpus)`` if not given.
        open_tokenizer: loads a tokenizer from a file.
    """
    judged = judged_texts(corpus) if texts is None else texts
    vocabulary = read_vocabulary(model.metadata)
    with TemporaryDirectory(prefix="lichen-") as folder:

        def tokenizer_of(changed: ModelFile) -> TextTokenizer:
            path = Path(folder, "vocabulary.gguf")
            write_model(vocabulary_only(changed), path)
            return open_tokenizer(path)

        whole = tokenizer_of(model)
        counts = count_tokens(corpus.calibration, whole, vocabulary.size)
        order = token_order(model, vocabulary, counts, whole, ascii_ranks=ascii_ranks, prior=prior)
        before = {name: token_total(documents, whole) for name, documents in judged.items()}
        points = []
        for size in sizes:
            smaller = trimmed(model, vocabulary, order.kept(size))
            after = tokenizer_of(smaller)
            points.append(
                CurvePoint(
                    tokens=len(read_vocabulary(smaller.metadata).tokens),
                    file_bytes=smaller.file_bytes,
                    inflation=tuple(
                        Inflation(name, before[name], token_total(documents, after))
                        for name, documents in judged.items()
                    ),
                )
            )
    return tuple(points)
