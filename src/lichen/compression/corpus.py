"""The texts that compression looks at: some to calibrate with, others to judge by.

A document is in one of the two parts, never in both: which one follows from the hash of its text,
so the split is the same on every machine, and a file that is copied or moved stays where it was.
Documents come in the order of that hash, so the first ones are a random sample of all.

``open_corpus`` reads files and folders that the user names; without any, Python's standard library
and the installed packages: code as people write it, with its docstrings, comments, readme texts and
whatever other languages those packages carry. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from lichen.core.errors import ConfigError

HELD_OUT_SHARE: Final = 0.2
"""Of all documents; enough to judge by, and most are left to choose by."""
MAX_BYTES: Final = 16_000_000
"""Text of a corpus: about 4 million tokens, which the engine counts in under half a minute."""
_MAX_FILE_BYTES: Final = 256_000
"""Larger files are mostly data or generated."""
_MAX_LINE: Final = 2000
"""Longer lines mean data or minified code: nobody's style, and nobody's vocabulary."""

SUFFIXES: Final = {
    ".c": "c",
    ".h": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".cxx": "cpp",
    ".hpp": "cpp",
    ".go": "go",
    ".java": "java",
    ".js": "javascript",
    ".jsx": "javascript",
    ".mjs": "javascript",
    ".kt": "kotlin",
    ".php": "php",
    ".py": "python",
    ".pyi": "python",
    ".pyx": "python",
    ".rb": "ruby",
    ".rs": "rust",
    ".scala": "scala",
    ".sh": "shell",
    ".sql": "sql",
    ".swift": "swift",
    ".ts": "typescript",
    ".tsx": "typescript",
    ".css": "css",
    ".html": "html",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".md": "prose",
    ".rst": "prose",
    ".txt": "prose",
}
"""File suffix -> what is written in it."""
_READMES: Final = frozenset({"METADATA", "README"})
"""Files of prose without a suffix: an installed package's METADATA holds its readme text."""
_SKIPPED: Final = frozenset(
    {"__pycache__", "build", "dist", "node_modules", "site-packages", "target", "venv"}
)
_TEST_FOLDERS: Final = frozenset({"test", "tests", "testing", "idle_test", "lib2to3"})
"""Left out of installed packages: tests hold odd texts on purpose."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text and what it is called (a path, a module name)."""

    name: str
    text: str

    @property
    def language(self) -> str:
        """What it is written in, by its name: ``"python"``, ...; ``"prose"`` where unknown."""
        return SUFFIXES.get(PurePath(self.name).suffix.lower(), "prose")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents to choose and calibrate by, and documents held out to judge by."""

    calibration: tuple[Document, ...]
    held_out: tuple[Document, ...]

    @property
    def sha256(self) -> str:
        """Hash of all texts, part by part: two corpora with the same hash choose alike."""
        digest = hashlib.sha256()
        for part in (self.calibration, self.held_out):
            for document in part:
                digest.update(_content_hash(document.text))
            digest.update(b"|")
        return digest.hexdigest()


def open_corpus(paths: Sequence[Path] = (), *, max_bytes: int = MAX_BYTES) -> Corpus:
    """Read a corpus from files and folders; without any, from what is installed with Python.

    Folders are read for source code and prose (see ``SUFFIXES``), without hidden folders and
    without files that look generated; a file named on its own is read whatever its name. Where
    there is more than ``max_bytes``, a sample by the hash of the files' names is read.

    Raises:
        ConfigError: a path that cannot be read, or nothing to read in any of them.
    """
    if paths:
        documents = _named(paths, max_bytes)
        where = ", ".join(repr(str(path)) for path in paths)
    else:
        documents = _sampled(_installed(), max_bytes)
        where = "the standard library and the installed packages"
    corpus = split(documents)
    if not corpus.calibration and not corpus.held_out:
        raise ConfigError(f"no source code or prose to choose by in {where}; name other paths")
    return corpus


def split(documents: Iterable[Document], *, held_out: float = HELD_OUT_SHARE) -> Corpus:
    """Divide documents by the hash of their texts; of equal texts one is kept.

    ``held_out`` is the share of documents to judge by, 0 to 1.
    """
    by_hash = {_content_hash(document.text): document for document in documents if document.text}
    bound = int(held_out * 2**32)
    parts: tuple[list[Document], list[Document]] = ([], [])
    for key in sorted(by_hash):
        # The order uses the first bytes of the hash, the split the last: independent of each other.
        parts[int.from_bytes(key[-4:], "big") < bound].append(by_hash[key])
    return Corpus(tuple(parts[0]), tuple(parts[1]))


def _content_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _installed() -> list[tuple[str, Path]]:
    """Find the standard library's and the installed packages' files, tests left out."""
    places = sysconfig.get_paths()
    roots = dict.fromkeys(Path(places[key]) for key in ("stdlib", "purelib", "platlib"))
    return [file for root in roots for file in _files(root, skip=_SKIPPED | _TEST_FOLDERS)]


def _named(paths: Sequence[Path], max_bytes: int) -> Iterator[Document]:
    files: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_file():
            text = _text(path, limit=max_bytes)
            if text is None:
                raise ConfigError(f"{str(path)!r} is no UTF-8 text of at most {max_bytes:,} bytes")
            yield Document(path.name, text)
        elif path.is_dir():
            files += _files(path, skip=_SKIPPED)
        else:
            raise ConfigError(f"{str(path)!r} is neither a file nor a folder to read a corpus from")
    yield from _sampled(files, max_bytes)


def _files(root: Path, *, skip: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of source and prose files below ``root``; links are not followed."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in skip and not name.startswith(".")]
        for name in names:
            if name in _READMES or PurePath(name).suffix.lower() in SUFFIXES:
                path = Path(folder, name)
                yield f"{root.name}/{path.relative_to(root).as_posix()}", path


def _sampled(files: Iterable[tuple[str, Path]], max_bytes: int) -> Iterator[Document]:
    """Read files in the order of their names' hashes until ``max_bytes`` of text are read."""
    read = 0
    for name, path in sorted(files, key=lambda file: hashlib.sha256(file[0].encode()).digest()):
        if read >= max_bytes:
            return
        text = _text(path, limit=_MAX_FILE_BYTES)
        if text and max(map(len, text.splitlines()), default=0) <= _MAX_LINE:
            read += len(text.encode())
            yield Document(name, text)


def _text(path: Path, *, limit: int) -> str | None:
    """Return a regular file's text; None if it is larger than ``limit`` bytes or no UTF-8 text."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > limit:
            return None
        with path.open("rb") as file:
            text = file.read(limit).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return None if "\0" in text else text
