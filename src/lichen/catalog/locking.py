"""One process at a time fetches one file; the others wait and then find it in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)


@contextmanager
def locked(directory: Path, target: Path) -> Iterator[None]:
    """Hold the lock of ``target``, waiting for another holder (process or thread) to finish.

    Lock files stay in ``directory``: deleting one while another process waits on it would let
    two in. The system frees the lock of a process that dies.
    """
    directory.mkdir(parents=True, exist_ok=True)
    mark = hashlib.sha256(str(target.resolve()).encode()).hexdigest()[:16]
    with (directory / f"{mark}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("another process is fetching %s; waiting for it", target.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
