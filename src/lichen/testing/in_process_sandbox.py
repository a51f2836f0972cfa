"""A sandbox that contains nothing: runs solution and check in this process, for trusted tests.

Never give it text that a model wrote. It lets task tests check wiring and verdict mapping without
processes; containment is tested where the real sandbox is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from lichen.core.ports import Execution, Program
from lichen.core.task import Status, Trial, Verdict


class InProcessSandbox:
    """Implements ``lichen.core.ports.Sandbox`` by ``exec``.

    Args:
        cpu_s: CPU-seconds that every trial is said to have taken; None where that is not known.
    """

    def __init__(self, *, cpu_s: float | None = None) -> None:
        self.trials: list[Trial] = []
        self._cpu_s = cpu_s

    def judge(self, trials: Iterable[Trial]) -> Iterator[tuple[str, Verdict]]:
        """Run each solution, then its check in a namespace of its own."""
        for trial in trials:
            self.trials.append(trial)
            yield trial.id, replace(_verdict(trial), cpu_s=self._cpu_s)

    def run(self, programs: Iterable[Program]) -> Iterator[Execution]:
        """Refuse: no task runs scripts."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing."""


def _verdict(trial: Trial) -> Verdict:
    try:
        solution: dict[str, object] = {"__name__": "solution"}
        exec(compile(trial.solution, "solution", "exec"), solution)  # noqa: S102 (trusted tests)
        if trial.entry_point not in solution:
            return Verdict(status=Status.ERROR, kind="no-entry")
        check: dict[str, object] = {"__name__": "check"}
        exec(compile(trial.setup, "setup", "exec"), check)  # noqa: S102 (trusted tests)
        check["candidate"] = check[trial.entry_point] = solution[trial.entry_point]
        exec(compile(trial.check, "check", "exec"), check)  # noqa: S102 (trusted tests)
    except AssertionError as exc:
        return Verdict(status=Status.FAILED, kind="assertion", message=str(exc))
    except SyntaxError as exc:
        return Verdict(status=Status.ERROR, kind="syntax", message=str(exc))
    except Exception as exc:  # noqa: BLE001 (whatever the program raises is its verdict)
        return Verdict(status=Status.ERROR, kind="exception", message=str(exc))
    return Verdict(status=Status.PASSED)
