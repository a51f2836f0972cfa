"""Run models with Hugging Face transformers (extra ``[torch]``): GGUF files or model directories.

For what llama.cpp cannot run, and for research that needs the weights in PyTorch; a GGUF file is
dequantised on load, so it needs the memory of 16- or 32-bit weights and decodes several times
slower on a CPU. One sequence at a time, no batching.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lichen.core.errors import ConfigError, EngineError, MissingDependencyError
from lichen.core.generation import (
    Capability,
    Completion,
    Delta,
    Finish,
    Request,
    Step,
    TokenLogprob,
)
from lichen.core.measurement import Usage
from lichen.core.model import ModelArtifact
from lichen.engines.early_exit import EarlyExitOptions, Exits
from lichen.engines.exit_fitting import fit
from lichen.engines.fanout import Fanout, Job
from lichen.engines.options import read_options
from lichen.engines.transcript import Transcript, may_become, unencodable

_DTYPES: Final = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersOptions:
    """How to load and run a model.

    Args:
        device: where torch puts it: "cpu", "cuda", "cuda:1", "mps".
        dtype: element type of the weights: "auto", "float32", "bfloat16", "float16".
        context: most tokens (prompt and answer) of one sequence; 0 means the model's own limit.
        threads: torch's CPU threads; 0 leaves torch's choice.
        early_exit: when to leave out later layers; None runs all of them.
    """

    device: str = "cpu"
    dtype: str = "auto"
    context: int = 0
    threads: int = 0
    early_exit: EarlyExitOptions | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.dtype not in _DTYPES:
            shown = ", ".join(map(repr, _DTYPES))
            msg = f"dtype must be one of {shown}, got {self.dtype!r}"
            raise ValueError(msg)
        if self.context < 0 or self.threads < 0:
            msg = "context and threads must be at least 0"
            raise ValueError(msg)


def open_engine(model: ModelArtifact | None, options: Mapping[str, object]) -> TransformersEngine:
    """Load ``model`` (a GGUF file or a directory in hub layout) and return the running engine.

    Raises:
        ConfigError: no model, or an option that cannot be used.
        MissingDependencyError: torch, transformers or gguf is not installed.
        EngineError: the model cannot be loaded.
    """
    if model is None:
        raise ConfigError("engine transformers needs a model: a GGUF file or a model directory")
    settings = read_options(TransformersOptions, options, who="engine transformers")
    return TransformersEngine(model, settings)


class TransformersEngine:
    """An ``Engine`` and ``Tokenizer`` over ``AutoModelForCausalLM``."""

    name = "transformers"
    stateless = True

    def __init__(
        self,
        model: ModelArtifact,
        options: TransformersOptions,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.options = options
        self._clock = clock
        self._torch, self._tokenizer, self._model = _load(model, options)
        limit = getattr(self._model.config, "max_position_embeddings", 0)
        self._context: int = options.context or int(limit or 0)
        self._exits = self._made_exits(options.early_exit)
        self._fanout = Fanout(1, self.name, clock)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Chat needs a template, which base models lack."""
        found = {
            Capability.RAW,
            Capability.STREAM,
            Capability.CANCEL,
            Capability.LOGPROBS,
            Capability.SEED,
            Capability.TOKENIZE,
            Capability.IN_PROCESS,
            Capability.EARLY_EXIT,
        }
        if getattr(self._tokenizer, "chat_template", None):
            found |= {Capability.CHAT, Capability.ANSWER_PREFIX}
        return frozenset(found)

    def generate(self, requests: Iterable[Request]) -> Iterator[Delta | Completion]:
        """Run requests one after the other; see ``lichen.core.ports.Engine``."""
        return self._fanout.run(requests, self._answer)

    def tokenize(self, text: str) -> list[int]:
        """Return token ids without special tokens added."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self._tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the logits after each of ``tokens``: (tokens, vocabulary)."""
        with self._torch.inference_mode():
            ids = self._torch.tensor([list(tokens)], device=self._model.device)
            found: npt.NDArray[np.float32] = (
                self._model(input_ids=ids, use_cache=False).logits[0].float().cpu().numpy()
            )
        return found

    def close(self) -> None:
        """Cancel what runs and free the model (idempotent)."""
        self._fanout.close()
        self._model = self._tokenizer = None

    def _made_exits(self, options: EarlyExitOptions | None) -> Exits | None:
        if options is None:
            return None
        if options.controller == "linear" and not Path(options.weights).exists():
            fit(self._torch, self._model, self._tokenizer, options)
        return Exits(self._torch, self._model, options)

    def _answer(self, job: Job) -> Completion:
        request = job.request
        transcript = Transcript(request, job.submitted_s, self._clock, job.emit)
        error = unencodable(request)
        if Capability(request.kind) not in self.capabilities:
            error = f"this model cannot {request.kind}"
        ids = [] if error else self._prompt_ids(request)
        if not error and not ids:
            error = "the prompt has no tokens, so there is nothing to continue"
        if not error and self._context and len(ids) >= self._context:
            error = (
                f"the prompt has {len(ids)} tokens but the model holds {self._context}: shorten it"
            )
        if error:
            return transcript.completion(Usage(), Finish.ERROR, error=error)
        run = _Run(self._torch, self._model, self._tokenizer, job, transcript, self._exits)
        return run.go(ids, self._context)

    def _prompt_ids(self, request: Request) -> list[int]:
        if request.messages is None:
            return list(self._tokenizer(request.prompt)["input_ids"])
        messages = [{"role": str(m.role), "content": m.content} for m in request.messages]
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        # The template writes its special tokens itself.
        return self.tokenize(str(text) + request.answer_prefix)


class _Run:
    """One generation: a loop of forward passes, so that every token can be read and refused."""

    def __init__(
        self,
        torch: Any,
        model: Any,
        tokenizer: Any,
        job: Job,
        transcript: Transcript,
        exits: Exits | None,
    ) -> None:
        self._torch = torch
        self._model = model
        self._tokenizer = tokenizer
        self._job = job
        self._request = job.request
        self._transcript = transcript
        self._exits = exits
        takes = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if takes else {}
        self._generator = torch.Generator().manual_seed(job.request.seed)
        self._tokens: list[int] = []
        self._said = 0

    def go(self, ids: list[int], context: int) -> Completion:
        """Prefill ``ids``, decode until something ends it, return the completion."""
        most = self._request.max_tokens
        if context:
            most = min(most, context - len(ids))
        finish, error = Finish.LENGTH, ""
        start = decode_start = time.perf_counter()
        with self._torch.inference_mode():
            inputs = self._torch.tensor([ids], device=self._model.device)
            cache = None
            while len(self._tokens) < most:
                if self._job.cancelled:
                    error = "the request was cancelled"
                    break
                out = self._forward(inputs, cache)
                cache = out.past_key_values
                if self._exits is not None and self._exits.tally.stopped:
                    finish = Finish.STOP
                    break
                token, logprob = self._choose(out.logits[0, -1].float().cpu())
                if not self._tokens:
                    decode_start = time.perf_counter()
                    self._transcript.mark_first_token()
                self._tokens.append(token)
                if token in self._ends():
                    finish = Finish.STOP
                    break
                if self._say(logprob):
                    finish = Finish.STOP
                    break
                inputs = self._torch.tensor([[token]], device=self._model.device)
        self._flush()
        return self._transcript.completion(
            Usage(prompt=len(ids), completion=len(self._tokens)),
            finish,
            prefill_s=decode_start - start,
            decode_s=time.perf_counter() - decode_start,
            ledger=self._steps(),
            error=error,
        )

    def _forward(self, inputs: Any, cache: Any) -> Any:
        """Run the model on the prompt or on one token; of a prompt only the last logits count."""
        if self._exits is not None:
            if self._tokens:
                self._exits.arm()
            else:
                self._exits.begin()
        try:
            return self._model(
                input_ids=inputs, past_key_values=cache, use_cache=True, **self._last_only
            )
        finally:
            if self._exits is not None:
                self._exits.disarm()

    def _steps(self) -> tuple[Step, ...]:
        if self._exits is None:
            return ()
        step = Step(
            actor=TransformersEngine.name,
            action=f"left layers out: {self._exits.options.controller}",
            detail=str(self._exits.tally),
        )
        return (step,)

    def _choose(self, logits: Any) -> tuple[int, TokenLogprob | None]:
        """Pick the next token: greedy at temperature 0, else temperature, then top-p."""
        torch, r = self._torch, self._request
        if r.temperature == 0:
            token = int(logits.argmax())
        else:
            probabilities, order = torch.softmax(logits / r.temperature, -1).sort(descending=True)
            before = probabilities.cumsum(-1) - probabilities
            probabilities[before >= r.top_p] = 0.0
            probabilities[0] = max(float(probabilities[0]), 1e-9)  # top_p = 0 keeps the best
            token = int(order[torch.multinomial(probabilities, 1, generator=self._generator)])
        if not r.logprobs:
            return token, None
        logs = torch.log_softmax(logits, -1)
        best = torch.topk(logs, r.logprobs)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        top = tuple((self._piece(int(i)), float(v)) for i, v in pairs)
        return token, TokenLogprob(text=self._piece(token), logprob=float(logs[token]), top=top)

    def _piece(self, token: int) -> str:
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def _ends(self) -> list[int]:
        ends = self._model.generation_config.eos_token_id
        return [ends] if isinstance(ends, int) else list(ends or ())

    def _text(self) -> str:
        ends = self._ends()
        kept = [t for t in self._tokens if t not in ends]
        return str(self._tokenizer.decode(kept, clean_up_tokenization_spaces=False))

    def _say(self, logprob: TokenLogprob | None) -> bool:
        """Add what the tokens so far have to say; returns whether that ends the answer.

        Held back: half a character (the tokenizer shows U+FFFD for it), and text that may yet
        become a stop string.
        """
        text = self._text()
        at = [i for s in self._request.stop_strings if (i := text.find(s)) >= 0]
        stopped = bool(at)
        if stopped:
            text = text[: min(at)]
        else:
            text = text.rstrip("\N{REPLACEMENT CHARACTER}")
            text = text[: len(text) - may_become(text, self._request.stop_strings)]
        piece, self._said = text[self._said :], max(self._said, len(text))
        return self._transcript.add(piece, (logprob,) if logprob else ()) or stopped

    def _flush(self) -> None:
        """Say what was held back, unless a stop string or a rule has ended the answer."""
        text = self._text()
        if not any(s in text for s in self._request.stop_strings):
            self._transcript.add(text[self._said :])


@contextmanager
def _without_bars(logging: Any) -> Iterator[None]:
    """Keep transformers' progress bars out of what the command itself shows."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load(model: ModelArtifact, options: TransformersOptions) -> tuple[Any, Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as exc:
        purpose = "the engine transformers"
        raise MissingDependencyError.for_extra(exc.name or "torch", "torch", purpose) from exc
    if options.threads:
        torch.set_num_threads(options.threads)
    path = Path(model.path)
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(path), "local_files_only": True}
    if path.is_file():
        where |= {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    # Renamed in version 5; version 4 warns or fails on the new name.
    key = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"  # noqa: PLR2004 (a version)
    dtype = {key: "auto" if options.dtype == "auto" else getattr(torch, options.dtype)}
    try:
        with _without_bars(transformers.utils.logging):
            tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
            loaded = transformers.AutoModelForCausalLM.from_pretrained(**where, **dtype)
        return torch, tokenizer, loaded.to(options.device).eval()
    except ImportError as exc:  # transformers imports gguf only when it meets a GGUF file
        purpose = "loading a GGUF file with transformers"
        raise MissingDependencyError.for_extra(exc.name or "gguf", "torch", purpose) from exc
    except (OSError, ValueError, KeyError, RuntimeError) as exc:
        raise EngineError(f"transformers cannot load {model.path}: {exc}") from exc
