"""The errors lichen raises, as one tree.

::

    LichenError                 1
    |-- ConfigError             2   a spec, flag or file cannot be used as given
    |   `-- UnknownNameError    2   no engine, task, model ... of that name
    |-- MissingDependencyError  3   an optional package is not installed
    |-- CapabilityError         4   an engine cannot do what a task or strategy needs
    |-- FetchError              5   no source of a model or data set could be reached
    |   `-- IntegrityError      6   a source gave bytes with another hash
    |-- EngineError             7   a model could not be loaded or run
    |-- MeterError              8   a counter that should work does not
    |-- SandboxError            9   untrusted code cannot be contained here
    `-- StoreError             10   a record cannot be read or written

The number is the process exit code. ``code`` is stable and is an anchor of
``docs/reference/errors.md``. Messages are one sentence: what, where, what to do.
A failed *sample* is data (a verdict), a failed *run* is one of these.
"""

from __future__ import annotations

from typing import ClassVar


class LichenError(Exception):
    """Base of every error that lichen raises on purpose."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "lichen-error"


class ConfigError(LichenError):
    """A spec file, a flag or an argument cannot be used as given."""

    exit_code = 2
    code = "config"


class UnknownNameError(ConfigError):
    """A name (engine, task, model ...) is not registered; the message suggests near ones."""

    code = "unknown-name"


class MissingDependencyError(LichenError):
    """An optional package is not installed; the message names the extra that brings it."""

    exit_code = 3
    code = "missing-dependency"

    @classmethod
    def for_extra(cls, package: str, extra: str, purpose: str) -> MissingDependencyError:
        """Build the standard sentence: what is missing, what for, how to install it."""
        return cls(
            f"{purpose} needs the package '{package}', which is not installed: "
            f'run  pip install "lichen[{extra}]"'
        )


class CapabilityError(LichenError):
    """An engine does not have a capability that a task, request or strategy needs."""

    exit_code = 4
    code = "capability"


class FetchError(LichenError):
    """No source of a model or data set could be reached; the message lists what was tried."""

    exit_code = 5
    code = "fetch"


class IntegrityError(FetchError):
    """A source delivered bytes whose size or SHA-256 is not the pinned one."""

    exit_code = 6
    code = "integrity"


class EngineError(LichenError):
    """A model could not be loaded, or the engine failed as a whole."""

    exit_code = 7
    code = "engine"


class MeterError(LichenError):
    """A counter exists but misbehaves; "cannot be measured here" is ``Missing``, not an error."""

    exit_code = 8
    code = "meter"


class SandboxError(LichenError):
    """Untrusted programs cannot be contained on this machine, or the sandbox itself broke."""

    exit_code = 9
    code = "sandbox"


class StoreError(LichenError):
    """A record cannot be written, read, migrated or decoded."""

    exit_code = 10
    code = "store"
