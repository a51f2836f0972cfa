"""Where texts to calibrate and to judge by come from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lichen.compression.corpus import Corpus, Document, open_corpus, split
from lichen.core.errors import ConfigError


def _documents(count: int) -> list[Document]:
    return [Document(f"{i}.py", f"x = {i}\n") for i in range(count)]


def test_a_document_is_in_one_part_only() -> None:
    """No text is both chosen by and judged by, and none is lost; equal texts count once."""
    documents = _documents(200)
    corpus = split([*documents, Document("copy.py", documents[0].text)])
    both = [d.text for d in (*corpus.calibration, *corpus.held_out)]
    assert sorted(both) == sorted(d.text for d in documents)
    assert 20 <= len(corpus.held_out) <= 60


def test_the_split_depends_on_texts_alone() -> None:
    """Other names and another order give the same parts in the same order, and the same hash."""
    documents = _documents(50)
    renamed = [Document(f"moved/{d.name}", d.text) for d in reversed(documents)]
    first, second = split(documents), split(renamed)
    assert [d.text for d in first.held_out] == [d.text for d in second.held_out]
    assert [d.text for d in first.calibration] == [d.text for d in second.calibration]
    assert first.sha256 == second.sha256


def test_the_hash_sees_which_part_a_text_is_in() -> None:
    """Two corpora that would choose differently never share a hash."""
    one, other = _documents(2)
    assert Corpus((one,), (other,)).sha256 != Corpus((one, other), ()).sha256
    assert Corpus((one,), (other,)).sha256 != Corpus((other,), (one,)).sha256


def test_a_folder_gives_its_code_and_prose(tmp_path: Path) -> None:
    """Source and readme files are read; binaries, hidden folders, caches, links and data are not."""
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("print('é')\n")
    (tmp_path / "README.md").write_text("# Words\n")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / "broken.py").write_bytes(b"\xff\xfe")
    (tmp_path / "nul.py").write_bytes(b"a\0b")
    (tmp_path / "minified.js").write_text("x" * 5000)
    (tmp_path / "large.py").write_text("x = 1\n" * 50_000)
    for hidden in (".git", "node_modules", "__pycache__"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "b.py").write_text(f"# {hidden}\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "pkg" / "a.py")
    corpus = open_corpus([tmp_path])
    found = {d.name: d.language for d in (*corpus.calibration, *corpus.held_out)}
    assert found == {
        f"{tmp_path.name}/pkg/a.py": "python",
        f"{tmp_path.name}/README.md": "prose",
    }


def test_no_more_than_the_limit_is_read(tmp_path: Path) -> None:
    """A large folder is sampled, and the same sample comes each time."""
    for i in range(100):
        (tmp_path / f"{i}.py").write_text(f"x = {i:01000d}\n")
    first, second = (open_corpus([tmp_path], max_bytes=10_000) for _ in range(2))
    assert 10_000 <= sum(len(d.text) for d in (*first.calibration, *first.held_out)) <= 12_000
    assert first == second


def test_a_file_named_on_its_own_is_read_whatever_its_name(tmp_path: Path) -> None:
    """Any text file may serve as a corpus."""
    path = tmp_path / "notes.xyz"
    path.write_text("some words\n")
    corpus = open_corpus([path])
    assert [d.text for d in (*corpus.calibration, *corpus.held_out)] == ["some words\n"]


@pytest.mark.parametrize("name", ["absent.py", "binary.bin", "pipe", "empty"])
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str) -> None:
    """A path that gives no text is one sentence that names it, and never hangs."""
    (tmp_path / "binary.bin").write_bytes(b"\xff\x00")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=name):
        open_corpus([tmp_path / name])


def test_without_paths_installed_code_is_read() -> None:
    """By default there is Python with docstrings to choose by, on any machine, without fetching."""
    corpus = open_corpus(max_bytes=300_000)
    python = [d for d in corpus.calibration if d.language == "python"]
    assert sum(len(d.text) for d in python) > 100_000
    assert corpus.held_out
