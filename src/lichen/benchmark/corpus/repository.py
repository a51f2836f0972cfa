"""Source files of a local git repository at one revision, read as hostile input.

Only blobs of a commit are read (``ls-tree`` and ``cat-file``): no work tree, no index, no hooks,
no filters, no network, no shell. Symbolic links, submodules, binary, huge, vendored, generated and
minified files are left out. It does not know languages; callers ask for file name endings.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lichen.core.errors import ConfigError

MAX_FILE_BYTES: Final = 200_000
"""Larger source files are nearly always generated or data."""

MAX_FILES: Final = 20_000
MAX_LINE_CHARS: Final = 500
"""A longer line marks minified code or data; style guides stop at 80 to 120."""

_TIMEOUT_S: Final = 120
_REGULAR: Final = ("100644", "100755")
"""Modes of plain files in a tree; links (120000) and submodules (160000) are not read."""

# fmt: off
_FOREIGN_FOLDERS: Final = frozenset({
    "vendor", "vendors", "vendored", "_vendor", "third_party", "third-party",
    "thirdparty", "external", "extern", "deps", "node_modules", "bower_components",
    "site-packages", "venv", ".venv", "env", "dist", "build", "target", "out",
    "generated", "gen", "__generated__", "__pycache__", "testdata", "fixtures",
    "snapshots",
})
# fmt: on
"""Folders that by convention hold other people's or a machine's code."""

_FOREIGN_NAMES: Final = re.compile(
    r".*(?:\.min\.\w+|\.bundle\.\w+|_pb2(?:_grpc)?\.py|\.pb\.(?:go|cc|h)|\.generated\.\w+"
    r"|_generated\.\w+|\.g\.\w+|\.d\.ts)"
)
_GENERATED_MARK: Final = re.compile(
    r"@generated|code generated .{0,80}do not edit|do not (?:edit|modify)\b.{0,40}generated"
    r"|(?:auto[- ]?|automatically )generated",
    re.IGNORECASE,
)
"""What generators write at the top (for Go: golang.org/s/generatedcode)."""

_HEAD_LINES: Final = 10

# A repository's own configuration may name programs for git to run; none of these may start.
_SAFE: Final = (
    "--no-pager",
    "--no-replace-objects",
    "--literal-pathspecs",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "protocol.allow=never",
)
_SAFE_ENV: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    r"""A text file of a commit: POSIX path from the root, text with ``\\n`` line ends."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A git repository on this machine, bare or not.

    Args:
        path: the repository or a folder in it.
        environ: environment for git; the process's own by default. ``GIT_*`` is never passed on.
    """

    path: Path
    environ: Mapping[str, str] | None = None

    def commit(self, revision: str) -> str:
        """Return the full hash of the commit that ``revision`` names.

        Raises:
            ConfigError: no repository, or no such commit.
        """
        spec = f"{revision}^{{commit}}"
        out = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", spec)
        return out.decode("ascii", "replace").strip()

    def files(self, commit: str, endings: Collection[str]) -> Iterator[SourceFile]:
        """Yield the commit's own source files whose names end so, ordered by path."""
        wanted = [
            (path, name) for path, name in self._tree(commit) if path.endswith(tuple(endings))
        ]
        wanted.sort()
        contents = self._blobs([name for _, name in wanted[:MAX_FILES]])
        for (path, _), content in zip(wanted, contents, strict=False):
            text = source_text(content)
            if text is not None:
                yield SourceFile(path=path, text=text)

    def _tree(self, commit: str) -> Iterator[tuple[str, str]]:
        listing = self._git("ls-tree", "-r", "-z", "-l", "--full-tree", commit)
        for entry in listing.split(b"\0"):
            head, _, raw = entry.partition(b"\t")
            parts = head.split()
            if len(parts) != 4 or parts[0].decode() not in _REGULAR:  # noqa: PLR2004 (mode type hash size)
                continue
            path = raw.decode("utf-8", "replace")
            if path.isprintable() and not is_foreign(path) and int(parts[3]) <= MAX_FILE_BYTES:
                yield path, parts[2].decode()

    def _blobs(self, names: Sequence[str]) -> Iterator[bytes]:
        out = self._git("cat-file", "--batch", stdin="".join(f"{n}\n" for n in names).encode())
        at = 0
        for _ in names:
            end = out.index(b"\n", at)
            head = out[at:end].split()
            if len(head) != 3:  # noqa: PLR2004 (hash type size; "missing" in a partial clone)
                yield b"\0"
                at = end + 1
                continue
            size = int(head[2])
            yield out[end + 1 : end + 1 + size]
            at = end + 1 + size + 1

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        environ = os.environ if self.environ is None else self.environ
        env = {k: v for k, v in environ.items() if not k.startswith("GIT_")} | _SAFE_ENV
        command = ["git", *_SAFE, "-C", str(self.path), *arguments]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, check=False, timeout=_TIMEOUT_S, env=env
            )
        except FileNotFoundError as exc:
            raise ConfigError("reading a repository needs the program 'git' on the PATH") from exc
        except (OSError, subprocess.TimeoutExpired, ValueError) as exc:
            raise ConfigError(f"git cannot read {self.path}: {exc}") from exc
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0][:200]
            raise ConfigError(
                f"git {arguments[0]} failed in {self.path} for {arguments[-1]!r}: "
                f"{said or 'no such revision'}"
            )
        return done.stdout


def is_foreign(path: str) -> bool:
    """Whether a path says that its file is vendored, generated or minified."""
    *folders, name = path.lower().split("/")
    return not _FOREIGN_FOLDERS.isdisjoint(folders) or bool(_FOREIGN_NAMES.fullmatch(name))


def source_text(content: bytes) -> str | None:
    """Return the text of a hand-written source file, None for binary, generated or minified."""
    if b"\0" in content:
        return None
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None
    lines = text.split("\n")
    if "\r" in text or "\f" in text or max(map(len, lines)) > MAX_LINE_CHARS:
        return None  # other line ends would shift the positions that parsers report
    return None if _GENERATED_MARK.search("\n".join(lines[:_HEAD_LINES])) else text
