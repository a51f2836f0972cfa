"""Run a plain script as ``__main__`` with captured output, ending as an interpreter would."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import types
from typing import Any


def run(ticket: dict[str, Any], _report: int, _peer: int) -> None:
    """Run the script and exit with its status. Never returns."""
    _standard_input(ticket["stdin"])
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["script.py"]
    status = 0
    try:
        code = compile(ticket["source"], "script.py", "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102 (running it is the purpose; the walls are around us)
    except SystemExit as exc:
        status = _status(exc.code)
    except BaseException:  # noqa: BLE001 (an uncaught exception is printed, as always)
        import traceback

        traceback.print_exc()
        status = 1
    with contextlib.suppress(BaseException):
        import threading

        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (what an exiting interpreter does)
        atexit._run_exitfuncs()  # noqa: SLF001 (as above)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(status)


def _standard_input(text: str) -> None:
    """Put the text behind descriptor 0 as a file that has no name."""
    fd = os.open("stdin", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    rest = memoryview(text.encode("utf-8", "surrogatepass"))
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.lseek(fd, 0, os.SEEK_SET)
    os.unlink("stdin")  # noqa: PTH108 (pathlib is not loaded in a cell)
    os.dup2(fd, 0)
    os.close(fd)


def _status(code: object) -> int:
    """Return the exit status of ``sys.exit(code)``."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1
