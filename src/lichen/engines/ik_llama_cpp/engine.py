"""The engine that runs ik_llama.cpp in this process.

Chats are rendered by the model file's own template; an answer prefix is appended to the rendered
prompt, so that the model continues it in the same turn. Sampling is temperature, then top-p, and
nothing else; at temperature 0 it is greedy. Stop rules run in the thread that computes, between two
steps: a slow one holds up the other slots.

Its kernels add numbers up in another order than llama.cpp's, so greedy answers of the same file may
differ between the two engines in near-ties, as they may between one slot and several.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from lichen.core.errors import CapabilityError, EngineError
from lichen.core.generation import Capability, Completion, Delta, Finish, Message, Request
from lichen.core.measurement import Usage
from lichen.core.model import ModelArtifact
from lichen.engines.fanout import Fanout, Job
from lichen.engines.ik_llama_cpp.batching import Batching, InHand
from lichen.engines.ik_llama_cpp.checking import ALLOWED_NATS, FEW, TEXT, divergence
from lichen.engines.ik_llama_cpp.library import Loaded
from lichen.engines.ik_llama_cpp.options import IkLlamaCppOptions
from lichen.engines.ik_llama_cpp.speaking import Speaking
from lichen.engines.ik_llama_cpp.template import ChatTemplate, TemplateError
from lichen.engines.transcript import Transcript, unencodable

_log = logging.getLogger(__name__)

_ALWAYS: Final = frozenset(
    {
        Capability.RAW,
        Capability.STREAM,
        Capability.CANCEL,
        Capability.LOGPROBS,
        Capability.SEED,
        Capability.TOKENIZE,
        Capability.IN_PROCESS,
    }
)


class IkLlamaCppEngine:
    """An ``Engine`` and ``Tokenizer`` over ik_llama.cpp.

    Args:
        model: a GGUF file.
        options: how to load and run it.
        clock: monotonic seconds.

    Raises:
        MissingDependencyError: ik-llama-cpp-python or jinja2 is not installed.
        EngineError: the file is absent, is no GGUF file, or the library cannot load it.
    """

    name = "ik_llama_cpp"

    def __init__(
        self,
        model: ModelArtifact,
        options: IkLlamaCppOptions,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.options = options
        self._clock = clock
        loaded = Loaded(model.path, options)
        try:
            self._template = _template(loaded)
            batch = _sound_batch(loaded, options.batch)
        except BaseException:
            loaded.close()
            raise
        self._loaded: Loaded | None = loaded
        self._batching = Batching(
            loaded,
            slots=options.slots,
            batch=batch,
            keep=options.prompt_cache == "user",
            clock=clock,
        )
        self._fanout = Fanout(options.slots, self.name, clock)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Chat needs a template, which base models lack."""
        if self._template is None:
            return _ALWAYS
        return _ALWAYS | {Capability.CHAT, Capability.ANSWER_PREFIX}

    @property
    def stateless(self) -> bool:
        """Whether no earlier prompt is kept."""
        return self.options.prompt_cache == "off"

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests on the slots; see ``lichen.core.ports.Engine``."""
        return self._fanout.run(requests, self._answer)

    def close(self) -> None:
        """Cancel what runs, wait for it to let go, free the model (idempotent)."""
        self._fanout.close()
        self._batching.close()
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()

    # -- one request ---------------------------------------------------------------------------

    def _answer(self, job: Job) -> Completion:
        request = job.request
        transcript = Transcript(request, job.submitted_s, self._clock, job.emit)
        ids: list[int] = []
        error = unencodable(request) or self._cannot(request)
        if not error:
            try:
                ids = self._prompt_ids(request)
            except TemplateError as exc:
                error = str(exc)
        if not error and not ids:
            error = "the prompt has no tokens, so there is nothing to continue"
        context = self.options.context
        if not error and len(ids) >= context:
            error = (
                f"the prompt has {len(ids)} tokens but a slot holds {context}: shorten it or "
                "raise the engine's option 'context'"
            )
        if error:
            return transcript.completion(Usage(), Finish.ERROR, error=error)
        speaking = Speaking(request, transcript, self._open())
        in_hand = InHand(
            user=request.user,
            prompt=ids,
            most=min(request.max_tokens, context - len(ids)),
            choose=speaking.choose,
            cancelled=lambda: job.cancelled,
        )
        self._batching.run(in_hand)
        if in_hand.failure is not None:
            raise EngineError(f"ik_llama.cpp: {in_hand.failure!r}") from in_hand.failure
        speaking.flush()
        return transcript.completion(
            Usage(prompt=len(ids), cached=in_hand.shared, completion=len(in_hand.added)),
            speaking.finish,
            prefill_s=in_hand.reading_s,
            decode_s=in_hand.decoding_s,
            error=in_hand.error,
        )

    def _cannot(self, request: Request) -> str:
        if Capability(request.kind) in self.capabilities:
            return ""
        return f"the engine ik_llama_cpp cannot {request.kind} with this model"

    def _prompt_ids(self, request: Request) -> list[int]:
        if request.messages is None:
            text = request.prompt or ""
        else:
            text = self.render(request.messages) + request.answer_prefix
        loaded = self._open()
        ids = loaded.tokenize(text, add_special=True, parse_special=True)
        if len(ids) > 1 and ids[0] == ids[1] == loaded.bos:
            return ids[1:]  # the template wrote it already
        return ids

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation as the model's template writes it, up to where an answer begins.

        Raises:
            CapabilityError: the model has no template.
            EngineError: the template refuses the conversation.
        """
        if self._template is None:
            raise CapabilityError("this model has no chat template, so it cannot chat")
        return self._template.render(messages)

    # -- tokens --------------------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """Return token ids; nothing is added and control tokens in ``text`` stay plain text."""
        return self._open().tokenize(text, add_special=False, parse_special=False)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; raises EngineError for an id outside the vocabulary."""
        loaded = self._open()
        return b"".join(loaded.piece(t, special=True) for t in tokens).decode(errors="replace")

    def _open(self) -> Loaded:
        if self._loaded is None:
            msg = "the engine 'ik_llama_cpp' has been closed; open it again to use it"
            raise EngineError(msg)
        return self._loaded


def _sound_batch(loaded: Loaded, wanted: int) -> int:
    """Return how many tokens a step may have, at most ``wanted``; see ``checking``."""
    tokens = loaded.tokenize(TEXT, add_special=False, parse_special=False)
    if min(wanted, len(tokens)) <= FEW:
        return wanted
    found = divergence(loaded, tokens[:wanted])
    if found <= ALLOWED_NATS:
        return wanted
    _log.warning(
        "ik_llama.cpp predicts otherwise when it reads many tokens of this model at once "
        "(%.2g nats): steps are kept to %d tokens, which is right and slower; the engine llama_cpp "
        "may be the better one for it",
        found,
        FEW,
    )
    return min(wanted, FEW)


def _template(loaded: Loaded) -> ChatTemplate | None:
    source = loaded.metadata("tokenizer.chat_template")
    if not source:
        return None
    bos = loaded.bos
    ending = loaded.metadata("tokenizer.ggml.eos_token_id")
    eos = int(ending) if ending.isdecimal() else -1

    def text(token: int) -> str:
        known = 0 <= token < loaded.vocabulary
        return loaded.piece(token, special=True).decode(errors="replace") if known else ""

    return ChatTemplate(source, bos=text(bos), eos=text(eos))
