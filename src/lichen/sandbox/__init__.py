"""Runs untrusted programs and holds them against checks.

::

    with open_sandbox() as box:
        for trial_id, verdict in box.judge(trials): ...

The explanation, with the threat model and what is *not* promised, is docs/explanation/sandbox.md.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from lichen.core.errors import ConfigError, SandboxError
from lichen.core.ports import ProbeStatus, Program
from lichen.sandbox import walls
from lichen.sandbox.pool import Pool

__all__ = ["Pool", "open_sandbox", "status"]

_log = logging.getLogger(__name__)


def open_sandbox(
    *,
    workers: int | None = None,
    unsafe: bool = False,
    packages: Sequence[Path] = (),
    wall: str | None = None,
) -> Pool:
    """Open a sandbox behind the best wall this machine has; cells start with the first job.

    Args:
        workers: jobs at a time, >= 1; by default one per usable CPU.
        unsafe: where nothing can contain programs, run them with limits only instead of refusing.
        packages: import directories that solutions and checks may use beside the standard library.
        wall: insist on ``bubblewrap`` or ``landlock``, or (with ``unsafe``) choose ``none``.

    Raises:
        SandboxError: programs cannot be contained here and ``unsafe`` is false.
        ConfigError: a worker count below 1, or an unknown wall.
    """
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    if count < 1:
        raise ConfigError(f"a sandbox needs at least one worker, got {count}")
    if wall not in (None, *walls.KINDS, walls.UNCONTAINED):
        raise ConfigError(f"no wall is called {wall!r}; known: {', '.join(walls.KINDS)}, none")
    return Pool(wall=_choose(wall, unsafe=unsafe), workers=count, packages=packages)


def status() -> Sequence[ProbeStatus]:
    """Say of each wall whether it holds here, by trying it (a fraction of a second each)."""
    return tuple(walls.describe(kind, _weakness(kind)) for kind in walls.KINDS)


def _choose(wall: str | None, *, unsafe: bool) -> str:
    reasons = []
    if wall != walls.UNCONTAINED:
        for kind in walls.KINDS if wall is None else (wall,):
            reason = _weakness(kind)
            if not reason:
                return kind
            reasons.append(f"{kind}: {reason}")
    if unsafe and wall in (None, walls.UNCONTAINED):
        _log.warning("untrusted programs run WITHOUT containment, with resource limits only")
        return walls.UNCONTAINED
    tried = "; ".join(reasons) or "no wall was asked for"
    raise SandboxError(
        f"untrusted programs cannot be contained here ({tried}): install bubblewrap or allow user "
        "namespaces, or accept the risk with --unsafe-sandbox"
    )


@functools.cache
def _weakness(kind: str) -> str:
    """Return why a wall does not hold here, or "" when it proves that it does."""
    try:
        with Pool(wall=kind, workers=1) as pool:
            proof = next(pool.run([Program(id="proof", source=walls.PROOF)]))
    except SandboxError as exc:
        return str(exc)
    if proof.verdict.passed:
        return ""
    return (proof.stderr.strip().splitlines() or [proof.verdict.message])[-1]
