"""Importance: what is read, how it is stored, and that it is measured once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lichen.catalog.tensor_types import TENSOR_TYPES
from lichen.compression.block_influence import least_influential
from lichen.compression.calibration import CHUNK, chunks, passage
from lichen.compression.corpus import Corpus, Document
from lichen.compression.importance import (
    Importance,
    Measuring,
    measure_importance,
    read_importance,
    write_importance,
)
from lichen.compression.metadata import MetaValue
from lichen.compression.model_file import LazyTensor, ModelFile, open_model, write_model
from lichen.core.errors import ConfigError, EngineError
from lichen.testing.gguf_files import TinyModel

CODE = tuple(
    Document(f"m{i}.py", f"def f{i}(x):\n    return x + {i}\n\n" * (5 + 90 * (i % 2)))
    for i in range(12)
)
SUMS = np.array([1.0, 0.0, 4.0, 9.0], np.float32)
FOUND = Importance(
    {"blk.0.ffn_up.weight": SUMS, "a.weight": SUMS * 2},
    {"blk.0.ffn_up.weight": 2.0, "a.weight": 4.0},
    influence=(0.5, 0.25),
    datasets=("code",),
    texts_sha256="ab",
    chunk_count=3,
    chunk_size=512,
)


class Bytes:
    """A tokenizer of bytes."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def test_weights_are_mean_squares() -> None:
    """A channel's weight is the mean, not the sum, so matrices seen unequally often compare."""
    assert (FOUND.weights["blk.0.ffn_up.weight"] == FOUND.weights["a.weight"]).all()
    assert FOUND.weights["a.weight"].tolist() == [0.5, 0.0, 2.0, 4.5]


def test_what_is_written_is_read_and_laid_out_as_llama_cpp_does(tmp_path: Path) -> None:
    """Names, keys and shapes are llama.cpp's; reading gives the same values, writing same bytes."""
    path = tmp_path / "i.gguf"
    first = write_importance(FOUND, path)
    read = read_importance(path)
    assert {n: s.tolist() for n, s in read.sums.items()} == {
        n: s.tolist() for n, s in FOUND.sums.items()
    }
    assert (read.rows, read.influence, read.datasets) == (
        FOUND.rows,
        FOUND.influence,
        FOUND.datasets,
    )
    assert (read.texts_sha256, read.chunk_count, read.chunk_size) == ("ab", 3, 512)
    assert write_importance(read, path) == first
    file = open_model(path)
    assert file.value("general.type") == "imatrix"
    assert file.value("imatrix.chunk_count") == 3
    assert {t.name: t.shape for t in file.tensors} == {
        "a.weight.in_sum2": (4, 1),
        "a.weight.counts": (1, 1),
        "blk.0.ffn_up.weight.in_sum2": (4, 1),
        "blk.0.ffn_up.weight.counts": (1, 1),
    }


def write_sums(path: Path, sums: np.ndarray, counts: np.ndarray) -> None:
    def stored(name: str, values: np.ndarray) -> LazyTensor:
        raw = values.astype(np.float32).view(np.uint8)
        shape = (values.shape[1], values.shape[0])
        return LazyTensor(name, shape, TENSOR_TYPES[0], lambda a, b: raw[a:b])

    tensors = (stored("w.weight.in_sum2", sums), stored("w.weight.counts", counts))
    write_model(ModelFile({"general.type": MetaValue.text("imatrix")}, tensors), path)


def test_experts_are_averaged_over_their_rows(tmp_path: Path) -> None:
    """A file of llama.cpp's with several matrices under one name gives their common mean."""
    write_sums(tmp_path / "e.gguf", np.array([[2.0, 4.0], [6.0, 0.0]]), np.array([[1.0], [3.0]]))
    assert read_importance(tmp_path / "e.gguf").weights["w.weight"].tolist() == [2.0, 1.0]


def test_matrices_that_were_never_used_are_left_out(tmp_path: Path) -> None:
    """No positions means no weights, not division by zero."""
    write_sums(tmp_path / "n.gguf", np.array([[0.0, 0.0]]), np.array([[0.0]]))
    assert read_importance(tmp_path / "n.gguf").weights == {}


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_values_that_cannot_be_sums_of_squares_are_refused(tmp_path: Path, value: float) -> None:
    """A hostile or damaged file cannot steer the quantiser with nonsense."""
    write_sums(tmp_path / "x.gguf", np.array([[1.0, value]]), np.array([[1.0]]))
    with pytest.raises(ConfigError, match="no sums of squares"):
        read_importance(tmp_path / "x.gguf")


def test_a_model_is_no_importance_matrix(tmp_path: Path) -> None:
    """Naming the wrong file says so."""
    path = tmp_path / "model.gguf"
    path.write_bytes(TinyModel().to_bytes())
    with pytest.raises(ConfigError, match="no importance matrix"):
        read_importance(path)


def test_passages_come_from_the_middle_in_whole_lines() -> None:
    """Licences at the top of files are passed over; short texts are taken whole."""
    lines = [f"line {i:05}\n" for i in range(5000)]
    found = passage("".join(lines))
    assert found.startswith("line 02")
    assert passage("short\n") == "short\n"
    assert passage("x" * 50_000)  # one endless line still gives something


def test_chunks_are_one_per_document_and_half_of_them_conversations() -> None:
    """Pieces are short, add up to what was asked for, and prose is passed over for code."""
    documents = [Document("README.md", "prose " * 500), *CODE]
    found = list(chunks(documents, Bytes(), tokens=2000, chat=True))
    assert 2000 - 32 < sum(map(len, found)) <= 2000
    assert all(len(piece) <= CHUNK for piece in found)
    texts = [bytes(piece).decode() for piece in found]
    assert [t.startswith("<|im_start|>system") for t in texts[:4]] == [False, True, False, True]
    assert not any("prose" in t for t in texts)
    plain = chunks(documents, Bytes(), tokens=2000, chat=False)
    assert not any(b"<|im_start|>" in bytes(piece) for piece in plain)


def test_importance_is_measured_once_per_model_and_text(tmp_path: Path) -> None:
    """The cache gives the same values without running the model; other texts are measured anew."""
    pytest.importorskip("xllamacpp")
    path, cache = tmp_path / "tiny.gguf", tmp_path / "cache"
    path.write_bytes(TinyModel().to_bytes())
    heard: list[tuple[int, int]] = []
    how = Measuring(tokens=600, progress=lambda done, total: heard.append((done, total)))
    corpus = Corpus(CODE, ())
    first = measure_importance(path, corpus, how, cache=cache)
    assert heard[-1] == (600, 600)
    assert len(first.influence) == 2
    heard.clear()
    again = measure_importance(path, corpus, how, cache=cache)
    assert heard == []
    assert again.influence == first.influence
    assert all((again.weights[n] == w).all() for n, w in first.weights.items())
    measure_importance(path, Corpus(CODE[4:], ()), how, cache=cache)
    assert heard[-1] == (600, 600)


def test_no_text_to_measure_on_is_an_error(tmp_path: Path) -> None:
    """An empty corpus is said, not measured."""
    pytest.importorskip("xllamacpp")
    path = tmp_path / "tiny.gguf"
    path.write_bytes(TinyModel().to_bytes())
    with pytest.raises((ConfigError, EngineError), match="no texts"):
        measure_importance(path, Corpus((), ()))


def test_layers_go_by_influence_and_one_stays() -> None:
    """The least influential go first, of equals the later; the last layer never goes."""
    influence = (0.9, 0.0301, 0.2, 0.0304, 0.5)
    assert least_influential(influence, 1) == (3,)
    assert least_influential(influence, 3) == (1, 2, 3)
    with pytest.raises(ConfigError, match="5 of 5"):
        least_influential(influence, 5)
