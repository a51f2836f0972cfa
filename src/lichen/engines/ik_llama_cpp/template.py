"""Write a conversation the way a model file's own template wants it.

Templates are Jinja programs that come with the file, so they run in Jinja's sandbox, with the
settings and functions that Hugging Face's ``apply_chat_template`` gives them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, NoReturn

from lichen.core.errors import EngineError, MissingDependencyError
from lichen.core.generation import Message


class TemplateError(EngineError):
    """The template raised an error about the conversation, or is no valid template."""


class ChatTemplate:
    """A template, compiled.

    Raises:
        MissingDependencyError: jinja2 is not installed.
        TemplateError: it is no valid template.
    """

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        try:
            import jinja2
            import jinja2.sandbox
        except ImportError as exc:
            purpose = "the chat templates of the engine ik_llama_cpp"
            raise MissingDependencyError.for_extra("jinja2", "ik", purpose) from exc
        inside = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        inside.globals["raise_exception"] = _refuse
        inside.globals["strftime_now"] = _now
        self._known = {"bos_token": bos, "eos_token": eos}
        try:
            self._template: Any = inside.from_string(source)
        except jinja2.TemplateError as exc:
            raise TemplateError(f"the model's chat template is not valid: {exc}") from exc

    def render(self, messages: Sequence[Message]) -> str:
        """Return the conversation up to where the answer begins.

        Raises:
            TemplateError: the template does not take this conversation.
        """
        turns = [{"role": str(m.role), "content": m.content} for m in messages]
        try:
            return str(
                self._template.render(messages=turns, add_generation_prompt=True, **self._known)
            )
        except TemplateError:
            raise
        except Exception as exc:  # a template is somebody's program
            raise TemplateError(f"the model's chat template failed: {exc}") from exc


def _refuse(message: str) -> NoReturn:
    raise TemplateError(f"the model's chat template refuses these messages: {message}")


def _now(pattern: str) -> str:
    return dt.datetime.now(dt.UTC).strftime(pattern)
