"""The process that runs native code: ``python -m lichen.engines.llama_cpp.native.worker``.

Started by ``NativeProcess``, talks over standard input and output (see ``wire``), ends when its
input ends. What C code prints goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from lichen.core.errors import LichenError
from lichen.engines.llama_cpp.native.activations import Collector
from lichen.engines.llama_cpp.native.context import ModelContext, Tokens
from lichen.engines.llama_cpp.native.moments import MomentCollector
from lichen.engines.llama_cpp.native.wire import receive, send


def main() -> None:
    """Serve one job."""
    # The asking process decides when to stop; an interrupt at the terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _serve(sys.stdin.buffer, answers)
    except LichenError as exc:
        send(answers, {"error": str(exc)})
    except (EOFError, BrokenPipeError):
        pass  # the asking process is gone: nobody to tell


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    job, _ = receive(questions)
    collector = _collector(job)
    context = _open(job, collector)
    send(answers, {"vocabulary": context.vocabulary, "layers": context.layers})
    while True:
        message, arrays = receive(questions)
        if message.get("finish") and collector is not None:
            head, found = collector.result(context.layers)
            send(answers, head, found)
            return
        tokens = arrays[0]
        if collector is not None:
            _look(context, collector, tokens)
            send(answers, {})
        else:
            for position, part in context.batches(tokens):
                send(answers, {}, [context.decode(part, position)])


def _collector(job: dict[str, Any]) -> Collector | MomentCollector | None:
    if job["do"] == "activations":
        return Collector()
    if job["do"] == "moments":
        return MomentCollector(Path(job["folder"]), job["span"])
    return None


def _open(job: dict[str, Any], collector: Collector | MomentCollector | None) -> ModelContext:
    return ModelContext(
        Path(job["path"]),
        context=job["context"],
        batch=job["batch"],
        threads=job["threads"],
        on_node=collector,
    )


def _look(context: ModelContext, collector: Collector | MomentCollector, tokens: Tokens) -> None:
    for position, part in context.batches(tokens):
        collector.start_batch()
        context.decode(part, position)


if __name__ == "__main__":
    main()
