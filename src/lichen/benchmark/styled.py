"""What every task is, whatever it asks: problems in order, one wording, a version, a data hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lichen.core.task import Problem, PromptStyle


class StyledTask:
    """The part of ``core.ports.Task`` that tasks share.

    Args:
        problems: in the data set's order.
        style: one of the task's wordings.
        data_sha256: hash of the data file, or of what was chosen from a repository.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    own_version: ClassVar[str]
    """Version of this task's choosing, asking, reading and scoring, apart from the wording."""

    def __init__(
        self, *, problems: Sequence[Problem], style: PromptStyle, data_sha256: str
    ) -> None:
        self._problems = tuple(problems)
        self._style = style
        self._data_sha256 = data_sha256

    @property
    def version(self) -> str:
        """The task's own version and that of the wording."""
        return f"{self.own_version}+style.{self._style.version}"

    @property
    def prompt_style(self) -> str:
        """Which wording is in use."""
        return self._style.name

    @property
    def data_sha256(self) -> str:
        """Hash of what the problems came from."""
        return self._data_sha256

    def problems(self) -> Sequence[Problem]:
        """All problems, in order."""
        return self._problems
