"""The engine that runs llama.cpp in this process.

Every request becomes one raw completion: chats are rendered by llama.cpp's own template first, and
an answer prefix is appended to the rendered prompt, so that the model continues it in the same
turn and the text never contains it. Sampling is temperature, then top-p, and nothing else; at
temperature 0 it is greedy.

llama.cpp's decoding of several slots together is not bit-identical to one slot; greedy output is
reproducible at one slot and may differ in near-ties at more.
"""

from __future__ import annotations

import dataclasses
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lichen.core.errors import (
    CapabilityError,
    ConfigError,
    EngineError,
    MissingDependencyError,
)
from lichen.core.generation import Capability, Completion, Delta, Finish, Message, Request
from lichen.core.measurement import Usage
from lichen.core.model import ModelArtifact
from lichen.engines.fanout import Fanout, Job
from lichen.engines.llama_cpp.answer import Answer
from lichen.engines.llama_cpp.beginnings import Beginnings
from lichen.engines.llama_cpp.fim import find_fim_tokens
from lichen.engines.llama_cpp.loopback import Loopback
from lichen.engines.llama_cpp.options import LlamaCppOptions, parameters
from lichen.engines.llama_cpp.slots import SlotTable
from lichen.engines.local import check_gguf
from lichen.engines.transcript import Transcript, unencodable

_NO_LOGPROBS: Final = (
    "llama.cpp gives no log-probabilities for tokens that were drafted: ask without logprobs, "
    "or open the engine without 'draft' and 'ngram'"
)
"""It reports 0.0 for accepted draft tokens, or leaves them out when streaming (seen, b11549)."""

_ALWAYS: Final = frozenset(
    {
        Capability.CHAT,
        Capability.RAW,
        Capability.ANSWER_PREFIX,
        Capability.STREAM,
        Capability.CANCEL,
        Capability.LOGPROBS,
        Capability.SEED,
        Capability.TOKENIZE,
        Capability.IN_PROCESS,
    }
)


class LlamaCppEngine:
    """An ``Engine``, ``Tokenizer`` and, with the option ``embedding``, ``Embedder``.

    Args:
        model: a GGUF file.
        options: how to load and run it.
        clock: monotonic seconds.

    Raises:
        MissingDependencyError: xllamacpp is not installed.
        EngineError: a file is absent, is no GGUF file, or llama.cpp cannot load it.
    """

    name = "llama_cpp"

    def __init__(
        self,
        model: ModelArtifact,
        options: LlamaCppOptions,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.options = options
        self._model = model
        self._clock = clock
        api_key = secrets.token_urlsafe(32)
        self._folder = (
            tempfile.TemporaryDirectory(prefix="lichen-slots-")
            if options.shares_beginnings
            else None
        )
        folder = self._folder.name if self._folder else ""
        try:
            self._server: Any = _load(model, options, api_key, folder)
        except BaseException:
            self._forget_slots()
            raise
        self._loopback = Loopback(self._server.listening_address, api_key)
        self._beginnings = Beginnings(self._loopback, Path(folder)) if folder else None
        self._fanout = Fanout(options.slots, self.name, clock)
        self._seats = SlotTable(options.slots)
        self._fim = find_fim_tokens(self._control_ids, self._start_ids())

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this model, loaded with these options, can do."""
        found = set(_ALWAYS)
        if self._fim is not None:
            found.add(Capability.INFILL)
        if self.options.embedding:
            found.add(Capability.EMBED)
        if self.options.speculates:
            found.discard(Capability.LOGPROBS)
        return frozenset(found)

    @property
    def stateless(self) -> bool:
        """Whether no earlier prompt is kept, neither in a slot nor to draft from."""
        return self.options.prompt_cache == "off" and self.options.ngram != "mod"

    def reopened(self, changes: Mapping[str, object]) -> LlamaCppEngine:
        """Load the same model once more, with some options changed; this engine stays open.

        The file's pages are shared, but not what llama.cpp repacks for this processor.

        Raises:
            ConfigError: an option that does not exist or cannot have this value.
            EngineError: llama.cpp cannot load the files.
        """
        try:
            options = dataclasses.replace(self.options, **changes)  # type: ignore[arg-type]
        except (TypeError, ValueError) as exc:
            raise ConfigError(f"engine llama_cpp cannot be reopened like this: {exc}") from exc
        return LlamaCppEngine(self._model, options, self._clock)

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests on the slots; see ``lichen.core.ports.Engine``.

        A completion that a stop rule cut counts the tokens llama.cpp had reported by then; one
        more per sequence may have been under way.
        """
        return self._fanout.run(requests, self._answer)

    def close(self) -> None:
        """Cancel what runs, wait for it to let go, free the model (idempotent)."""
        self._fanout.close()
        self._server = None  # the last reference: llama.cpp unloads now
        self._forget_slots()

    def _forget_slots(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    # -- one request ---------------------------------------------------------------------------

    def _answer(self, job: Job) -> Completion:
        request = job.request
        transcript = Transcript(request, job.submitted_s, self._clock, job.emit)
        error = unencodable(request)
        if not error and request.kind == "infill" and self._fim is None:
            error = "this model has no fill-in-the-middle tokens, so it cannot infill"
        if not error and request.logprobs and self.options.speculates:
            error = _NO_LOGPROBS
        if error or job.cancelled:
            error = error or "the request was cancelled"
            return transcript.completion(Usage(), Finish.ERROR, error=error)
        answer = Answer(request, transcript)
        prompt = self._prompt(request)
        if isinstance(prompt, Mapping):  # the template refused the messages
            answer.read_whole(prompt)
            return answer.completion()
        body = {"prompt": prompt, **_sampling(request)}
        if self.options.prompt_cache == "off":
            self._complete(body, answer, job)
        else:
            self._complete_seated(body, answer, job)
        return answer.completion(cancelled=job.cancelled)

    def _complete_seated(self, body: dict[str, Any], answer: Answer, job: Job) -> None:
        """Complete on the slot that knows most of the prompt already."""
        prompt, user = body["prompt"], job.request.user
        seat = self._seats.take(user, prompt if isinstance(prompt, str) else repr(prompt))
        try:
            reuse = seat.reuse
            if self._beginnings is not None and isinstance(prompt, str):
                prepared = self._beginnings.prepare(seat, user, prompt, job)
                answer.computed_ahead(prepared.tokens, prepared.seconds)
                reuse = prepared.reuse
            body |= {"id_slot": seat.index, "cache_prompt": reuse}
            self._complete(body, answer, job)
        finally:
            self._seats.give_back(seat)

    def _complete(self, body: dict[str, Any], answer: Answer, job: Job) -> None:
        if not (job.request.stream or job.request.stop):
            whole = self._loopback.post("/v1/completions", body, job)
            if whole:
                answer.read_whole(whole)
            return
        # Progress chunks come during prefill, so that a long prompt can be cancelled too.
        body |= {"stream": True, "timings_per_token": True, "return_progress": True}
        failure: list[BaseException] = []

        def on_chunk(chunk: Mapping[str, Any]) -> bool:
            # xllamacpp swallows what a callback raises, so it is carried out by hand.
            try:
                return job.cancelled or answer.read_chunk(chunk)
            except BaseException as exc:  # noqa: BLE001 (re-raised below, outside the callback)
                failure.append(exc)
                return True

        try:
            self._open_server().handle_completions(body, on_chunk)
        except (RuntimeError, ValueError) as exc:  # what xllamacpp raises for a bad request
            answer.fail(f"llama.cpp refused the request: {exc}")
        if failure:
            raise EngineError(f"llama.cpp sent what cannot be read: {failure[0]!r}") from failure[0]

    def _prompt(self, request: Request) -> str | list[int] | Mapping[str, Any]:
        """Return the prompt as text or token ids, or llama.cpp's error object."""
        if request.prompt is not None:
            return request.prompt
        if request.messages is not None:
            rendered = self._rendered(request.messages)
            if "prompt" not in rendered:
                return {"error": rendered.get("error", "its chat template failed")}
            return str(rendered["prompt"]) + request.answer_prefix
        assert self._fim is not None  # noqa: S101 (checked before; narrows the type)
        prefix, suffix = self.tokenize(request.prefix or ""), self.tokenize(request.suffix or "")
        return self._fim.prompt(prefix, suffix)

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation as the model's template writes it, up to where an answer begins.

        Raises:
            EngineError: the template refuses the conversation.
        """
        self._open_server()
        rendered = self._rendered(messages)
        if "prompt" not in rendered:
            raise EngineError(f"the chat template refused a conversation: {_message(rendered)}")
        return str(rendered["prompt"])

    def _rendered(self, messages: Sequence[Message]) -> Mapping[str, Any]:
        turns = [{"role": str(m.role), "content": m.content} for m in messages]
        found: Mapping[str, Any] = self._loopback.post("/apply-template", {"messages": turns})
        return found

    # -- tokens and vectors --------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """Return token ids; nothing is added and control tokens in ``text`` stay plain text."""
        return self._ids(text, parse_special=False, add_special=False)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; raises EngineError for an id outside the vocabulary."""
        answer = self._loopback.post("/detokenize", {"tokens": list(tokens)})
        if "content" not in answer:
            msg = f"llama.cpp cannot turn these token ids into text: {_message(answer)}"
            raise EngineError(msg)
        return str(answer["content"])

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector of the model's embedding length per text, of Euclidean norm 1.

        Raises:
            CapabilityError: the engine was opened without the option ``embedding``.
            EngineError: llama.cpp refused (a text longer than the context, most often).
        """
        if not self.options.embedding:
            msg = "engine llama_cpp embeds only when opened with the option embedding = true"
            raise CapabilityError(msg)
        if not texts:
            return []
        answer = self._open_server().handle_embeddings({"input": list(texts)})
        if "data" not in answer:
            raise EngineError(f"llama.cpp cannot embed these texts: {_message(answer)}")
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        return [[float(x) for x in row["embedding"]] for row in rows]

    def _control_ids(self, text: str) -> list[int]:
        return self._ids(text, parse_special=True, add_special=False)

    def _start_ids(self) -> list[int]:
        """Token ids that open every prompt. Only BOS can: what an empty text is turned into."""
        return self._ids("", parse_special=False, add_special=True)

    def _ids(self, text: str, *, parse_special: bool, add_special: bool) -> list[int]:
        body = {"content": text, "parse_special": parse_special, "add_special": add_special}
        self._open_server()
        answer = self._loopback.post("/tokenize", body)
        if "tokens" not in answer:
            raise EngineError(f"llama.cpp cannot tokenise this text: {_message(answer)}")
        return [int(t) for t in answer["tokens"]]

    def _open_server(self) -> Any:
        server = self._server
        if server is None:
            raise EngineError("the engine 'llama_cpp' has been closed; open it again to use it")
        return server


def _load(model: ModelArtifact, options: LlamaCppOptions, api_key: str, slot_folder: str) -> Any:
    try:
        import xllamacpp
    except ImportError as exc:
        purpose = "the engine llama_cpp"
        raise MissingDependencyError.for_extra("xllamacpp", "llama", purpose) from exc
    for what, path in (("model", model.path), *options.files):
        check_gguf(what, path)
    try:
        return xllamacpp.Server(parameters(xllamacpp, model.path, options, api_key, slot_folder))
    except RuntimeError as exc:
        # llama.cpp's reason goes to its own log only.
        with_files = "".join(f", with the {what} {path}" for what, path in options.files)
        msg = (
            f"llama.cpp cannot load {model.path}{with_files}: a file is damaged or of a kind it "
            "does not know, or memory is short; set the option verbosity = 1 to see its own log"
        )
        raise EngineError(msg) from exc


def _sampling(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "cache_prompt": False,
    }
    if request.temperature == 0:
        body |= {"samplers": ["top_k"], "top_k": 1}
    else:
        body |= {"samplers": ["temperature", "top_p"], "top_p": request.top_p}
    if request.stop_strings:
        body["stop"] = list(request.stop_strings)
    if request.logprobs:
        body["logprobs"] = request.logprobs
    return body


def _message(answer: Mapping[str, Any]) -> str:
    error = answer.get("error")
    return str(error.get("message") if isinstance(error, Mapping) else error)
