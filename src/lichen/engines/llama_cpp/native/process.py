"""Run native code in a process of its own, so that a fault there becomes an error sentence here.

The structures of the C interface are read by address; however well they are checked, a mistake
there is a crash, and a crash must not take the user's program with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from lichen.core.errors import ConfigError, EngineError
from lichen.engines.llama_cpp.native.wire import Array, receive, send
from lichen.engines.local import available_cpus

_MODULE: Final = "lichen.engines.llama_cpp.native.worker"
_ENDING_S: Final = 10.0
"""How long an idle worker may take to free its model before it is killed."""
_SHOWN: Final = 200
_ENVIRONMENT: Final = {
    # A failed assertion in llama.cpp starts a debugger for a backtrace otherwise.
    "GGML_NO_BACKTRACE": "1",
    # Threads that wait give their core away. Beside other work this takes a third of the CPU time
    # (measured: 31 against 10 CPU-ms a token on two busy cores); alone it makes no difference to
    # batches of this size.
    "OMP_WAIT_POLICY": "passive",
}
BATCH: Final = 128
"""Tokens computed together: near full speed, and the logits of 152k entries stay below 80 MB."""


class NativeProcess:
    """A worker with a model loaded; also a context manager.

    Args:
        job: ``"logits"``, ``"activations"`` or ``"moments"``.
        path: a GGUF file.
        context: positions of the longest token sequence.
        threads: threads to compute with; None for one per available CPU.
        batch: tokens computed together, at most.
        details: of the job, beside these.
        command: how to start a worker.

    Raises:
        ConfigError: no such file.
        EngineError: the model cannot be loaded, or loading it ended the worker.
    """

    def __init__(
        self,
        job: str,
        path: Path,
        *,
        context: int,
        threads: int | None = None,
        batch: int = BATCH,
        details: Mapping[str, object] | None = None,
        command: Sequence[str] = (sys.executable, "-m", _MODULE),
    ) -> None:
        if not path.is_file():
            raise ConfigError(f"there is no model file {path}: check the path")
        self._path = path
        self.context = context
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        environment = {**_ENVIRONMENT, **os.environ}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
        )
        request = {
            "do": job,
            "path": str(path),
            "context": context,
            "batch": min(batch, context),
            "threads": threads or available_cpus(),
            **(details or {}),
        }
        self.head, _ = self.ask(request)

    def ask(
        self, message: dict[str, object], arrays: Sequence[Array] = ()
    ) -> tuple[dict[str, Any], list[Array]]:
        """Send a message and return the answer; raises as ``receive`` does."""
        self.send(message, arrays)
        return self.receive()

    def send(self, message: dict[str, object], arrays: Sequence[Array] = ()) -> None:
        """Send a message; EngineError if the worker ended."""
        assert self._process.stdin is not None  # noqa: S101 - it was opened as a pipe
        try:
            send(self._process.stdin, message, arrays)
        except OSError as exc:
            raise self._ended() from exc

    def receive(self) -> tuple[dict[str, Any], list[Array]]:
        """Return the next answer.

        Raises:
            EngineError: the worker reports a failure, or ended.
        """
        assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
        try:
            answer, arrays = receive(self._process.stdout)
        except (EOFError, ValueError) as exc:
            raise self._ended() from exc
        if "error" in answer:
            self.close()
            raise EngineError(answer["error"])
        return answer, arrays

    def read(self, chunks: Iterable[Sequence[int]], progress: Callable[[int], None]) -> int:
        """Let the model read chunks, each from an empty context; return the number of tokens.

        ``progress`` hears the number of tokens read so far.

        Raises:
            ConfigError: no chunk, or one that cannot be read (see ``check_tokens``).
            EngineError: the engine failed.
        """
        done = 0
        for chunk in chunks:
            self.ask({}, [check_tokens(chunk, self.context, int(self.head["vocabulary"]))])
            done += len(chunk)
            progress(done)
        if not done:
            raise ConfigError("there are no texts to measure activations on: give some")
        return done

    def close(self) -> None:
        """End the worker (idempotent)."""
        if self._said.closed:
            return
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the worker."""
        self.close()

    def _ended(self) -> EngineError:
        """Say how a worker ended that should not have."""
        try:
            code = self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._said.seek(0)
        words = self._said.read().decode(errors="replace").split("\n")
        last = next((w for w in reversed(words) if w.strip()), "it said nothing")
        shown = "".join(c for c in last if c.isprintable())[:_SHOWN]
        self.close()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return EngineError(
            f"llama.cpp crashed on {self._path.name} in a process of its own ({how}): {shown}"
        )


def check_tokens(tokens: Sequence[int] | Array, context: int, vocabulary: int) -> Array:
    """Return tokens as int32, or raise ConfigError: none, too many, or not in the vocabulary."""
    ids = np.asarray(tokens, np.int64)
    if not 0 < len(ids) <= context:
        raise ConfigError(f"a chunk needs 1 to {context} tokens, not {len(ids)}")
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise ConfigError(f"a token id is outside the vocabulary of {vocabulary:,}")
    return ids.astype(np.int32)
