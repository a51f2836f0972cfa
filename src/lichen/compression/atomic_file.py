"""Write a large file in one step: all of it appears under its name, or nothing does.

The bytes go to a hidden file in the same folder, which is renamed at the end. What a killed process
left behind is removed by the next write into that folder; files another process still writes are
recognised by their lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from lichen.core.errors import ConfigError

Progress = Callable[[int, int], None]
"""Told the bytes written so far and in all."""

_SUFFIX: Final = ".lichen-part"


@contextmanager
def replacing(path: Path, size: int) -> Iterator[BinaryIO]:
    """Give a file to write ``size`` bytes to; it takes the name ``path`` when the block succeeds.

    Raises:
        ConfigError: the folder cannot be written, is full, or another process writes this file.
    """
    part = path.with_name(f".{path.name}{_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        file = _locked(part, path)
        try:
            _check_space(path, size)
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            file.close()
        _sync_folder(path.parent)
    except OSError as exc:
        raise ConfigError(f"{str(path)!r} cannot be written: {exc.strerror or exc}") from exc


def _locked(part: Path, path: Path) -> BinaryIO:
    """Open the hidden file, empty and locked by us."""
    file = part.open("a+b")
    if not _is_ours(file, part):
        file.close()
        raise ConfigError(f"{str(path)!r} is being written by another process; wait for it")
    file.truncate(0)
    return file


def _is_ours(file: BinaryIO, part: Path) -> bool:
    """Lock the file; False if another process has it, or has just renamed or removed it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == part.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in ``folder``."""
    for stale in folder.glob(f".*{_SUFFIX}"):
        try:
            with stale.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stale.unlink(missing_ok=True)
        except OSError:
            # Still being written, gone already, or not ours: none of it is in the way.
            continue


def _check_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise ConfigError(
            f"{str(path)!r} needs {size:,} bytes, but only {free:,} are free there; "
            "choose another folder or make room"
        )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
