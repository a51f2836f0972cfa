"""Start a tool in its own environment, wait for it, and translate what went wrong.

The contract with the driver script: it is called as ``python driver.py TOOL ORDER ANSWER``. ORDER
is a JSON file: an object with ``model``, ``out``, ``texts`` (calibration) and the tool's settings.
The driver writes the compressed model into the folder ``out``, and to the file ANSWER an object:
``{"versions": {package: version}}``, or ``{"error": kind, "message": text}`` where the kind is
``missing`` (a package cannot be imported), ``memory`` or ``failed``. What it prints goes to a log.

The tool's output is hostile until the gate has seen it: the answer is bounded and its types are
checked. The result appears under its name as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lichen.compression.corpus import Document
from lichen.core.errors import ConfigError, EngineError, MissingDependencyError
from lichen.core.measurement import Measurement
from lichen.core.model import ModelArtifact
from lichen.core.ports import Meter

_log = logging.getLogger(__name__)

FORMAT: Final = "safetensors-folder"
"""``ModelArtifact.format`` of a model folder in hub layout."""

_DRIVER: Final = Path(__file__).parent / "driver.py"
_MAX_ANSWER_BYTES: Final = 1 << 20
_LOG_TAIL: Final = 400
_ENDING_S: Final = 10.0
_CHUNK: Final = 1 << 20
_MAX_TEXT: Final = 20_000
"""Characters of one calibration text: tools cut it to their sequence length anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One external tool.

    Args:
        name: for people and for the recipe.
        package: what must be installed in its environment.
        key: what the driver knows it by.
        python: the environment's interpreter.
        timeout_s: after which it is killed with everything it started, > 0.
    """

    name: str
    package: str
    key: str
    python: str
    timeout_s: float

    @property
    def command(self) -> tuple[str, ...]:
        """The command line, without the two file names."""
        return (self.python, str(_DRIVER), self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A tool with settings: ``compress`` makes a smaller model folder of another one.

    Args:
        tool: see ``Tool``.
        settings: go to the driver as they are, and into the artifact's recipe.
        samples: calibration texts to hand over, >= 1.
    """

    tool: Tool
    settings: Mapping[str, object]
    samples: int

    def compress(
        self,
        model: Path,
        out: Path,
        documents: Sequence[Document],
        *,
        meter: Meter | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> ModelArtifact:
        """Run the tool; the result is a folder ``out``.

        Args:
            model: a folder in hub layout (``config.json``, ``*.safetensors``, tokenizer).
            out: must not exist yet.
            documents: calibration texts, the first ``samples`` of them.
            meter: measures what it costs; the artifact's ``cost`` is None without one.
            environment: variables of the process; those of this one by default.

        Raises:
            ConfigError: no such folder or interpreter, ``out`` exists, no calibration text.
            MissingDependencyError: the environment lacks the tool.
            EngineError: the tool failed, took too long, or wrote no model.
        """
        self._check(model, out, documents)
        texts = [d.text[:_MAX_TEXT] for d in documents[: self.samples]]
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            made = Path(temporary) / "model"
            order = {"model": str(model.resolve()), "out": str(made), "texts": texts}
            answer, cost = self._measured(
                order | dict(self.settings), Path(temporary), meter, environment
            )
            if not (made / "config.json").is_file():
                raise EngineError(f"{self.tool.name} ended without an error but wrote no model")
            made.rename(out)
        return self._artifact(model, out, answer, cost)

    def _check(self, model: Path, out: Path, documents: Sequence[Document]) -> None:
        if not (model / "config.json").is_file():
            raise ConfigError(
                f"{self.tool.name} needs a model folder in hub layout; {str(model)!r} has no "
                "config.json (a GGUF file is no such folder)"
            )
        if out.exists():
            raise ConfigError(f"{str(out)!r} exists: give a folder that does not")
        if not documents:
            raise ConfigError(f"{self.tool.name} needs calibration texts, and none were given")
        if shutil.which(self.tool.python) is None:
            raise ConfigError(
                f"there is no Python at {self.tool.python!r}: make an environment for "
                f"{self.tool.package} and name its interpreter with the option 'python'"
            )

    def _measured(
        self,
        order: Mapping[str, object],
        folder: Path,
        meter: Meter | None,
        environment: Mapping[str, str] | None,
    ) -> tuple[dict[str, Any], Measurement | None]:
        if meter is None:
            return run(self.tool, order, folder, environment=environment), None
        with meter.window(f"compress with {self.tool.name}") as window:
            answer = run(self.tool, order, folder, environment=environment)
        return answer, window.close()

    def _artifact(
        self, model: Path, out: Path, answer: Mapping[str, Any], cost: Measurement | None
    ) -> ModelArtifact:
        recipe = {
            "tool": self.tool.name,
            "settings": dict(self.settings),
            "versions": answer.get("versions", {}),
            "samples": self.samples,
        }
        return ModelArtifact(
            name=out.name,
            path=str(out),
            format=FORMAT,
            sha256=folder_sha256(out),
            size_bytes=sum(p.stat().st_size for p in _files(out)),
            lineage=(folder_sha256(model),),
            recipe=json.dumps(recipe, sort_keys=True),
            cost=cost,
        )


def run(
    tool: Tool,
    order: Mapping[str, object],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Give a driver its order and return its answer.

    Raises:
        ConfigError: the interpreter cannot be started.
        MissingDependencyError, EngineError: see ``Adapter.compress``.
    """
    order_file, answer_file = folder / "order.json", folder / "answer.json"
    order_file.write_text(json.dumps(dict(order)), encoding="utf-8")
    # Nothing is fetched behind the user's back: the model is a folder, the texts are given.
    variables = {
        **(os.environ if environment is None else environment),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",  # what was printed before a crash is in the log
    }
    with (folder / "log.txt").open("w+b") as log:
        try:
            process = subprocess.Popen(
                [*tool.command, str(order_file), str(answer_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,  # so that all it starts can be ended together
            )
        except OSError as exc:
            raise ConfigError(f"{tool.python!r} cannot be started: {exc.strerror}") from exc
        try:
            code = process.wait(tool.timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise EngineError(
                f"{tool.name} was ended after {tool.timeout_s:g} s: raise the option timeout_s"
            ) from exc
        finally:
            _end(process)
        tail = _tail(log)
    _log.debug("%s printed: %s", tool.name, tail)
    return _answer(tool, answer_file, code, tail)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the driver and all processes of its session that are left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_ENDING_S)


def _tail(log: Any) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 4 * _LOG_TAIL))
    text = log.read().decode("utf-8", "replace")
    lines = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(lines.split())[-_LOG_TAIL:]


def _answer(tool: Tool, path: Path, code: int, tail: str) -> dict[str, Any]:
    answer = _document(path)
    message = "".join(c for c in str(answer.get("message", ""))[:_LOG_TAIL] if c.isprintable())
    match answer.get("error"):
        case None if code == 0 and answer:
            return answer
        case "missing":
            raise MissingDependencyError(
                f"{tool.name} is not usable in the environment of {tool.python!r} ({message}): "
                f"run  {tool.python} -m pip install {tool.package}"
            )
        case "memory":
            raise EngineError(f"{tool.name} ran out of memory: {message}")
        case "failed":
            raise EngineError(f"{tool.name} failed: {message}")
    raise EngineError(
        f"{tool.name} ended with code {code} and no answer; it last printed: {tail or 'nothing'}"
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_ANSWER_BYTES:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def folder_sha256(folder: Path) -> str:
    """Hash a model folder: names and contents of all its files, in the order of their names."""
    digest = hashlib.sha256()
    for path in _files(folder):
        own = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                own.update(chunk)
        digest.update(f"{path.relative_to(folder).as_posix()}\0{own.hexdigest()}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())
