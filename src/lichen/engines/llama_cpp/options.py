"""The options of the llama.cpp engine, and their translation into its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lichen.engines.local import available_cpus
from lichen.engines.options import check_values

KV_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Key/value cache element types that llama.cpp accepts (its ``--cache-type-k`` option)."""

_UNQUANTISED: Final = ("f32", "f16", "bf16")
POOLINGS: Final = ("mean", "cls", "last")
NGRAM_KINDS: Final = ("", "simple", "map_k", "map_k4v", "mod")
FLASH: Final = ("auto", "on", "off")
MMAP: Final = ("auto", "on", "off")
PROMPT_CACHES: Final = ("off", "user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A LoRA adapter in GGUF form, added to the weights with a factor ``scale``."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppOptions:
    """How to load and run a model.

    Args:
        slots: sequences decoded together, >= 1.
        context: most tokens (prompt and answer) of one sequence, >= 16.
        threads, threads_batch: CPU threads for decoding and for prefill; 0 means all that this
            process may run on. llama.cpp's threads spin at barriers: beside other work use fewer.
        batch, ubatch: most prompt tokens computed in one logical and one physical step. A sequence
            being prefilled can be cancelled only between logical steps.
        cache_type_k, cache_type_v: element types of the key/value cache (``KV_TYPES``).
        prompt_cache: "off" computes every prompt anew, so that measurements are comparable and
            nothing crosses users; "user" lets a slot keep its last prompt and reuse a common
            prefix, for requests of the same ``user`` only, and copy one that another slot of
            theirs has. llama.cpp's host-RAM cache, which can bring back other conversations, is
            off in both cases.
        flash_attention: "auto", "on" or "off".
        mmap: "on" maps the weights' file into memory, "off" reads it, "auto" is llama.cpp's own
            choice. Weights that the engine lays out anew for the CPU are held twice where the
            file is mapped, once where it is read; mapped pages can be shared and given back.
        lora: adapters to add at load.
        draft: GGUF file of a draft model for speculative decoding; "" for none.
        draft_max, draft_min, draft_p_min: most and fewest tokens drafted per step, and the least
            probability with which the draft model goes on.
        ngram: draft from the text itself: "simple", "map_k", "map_k4v" or "mod" (whose pool is
            shared across slots and so across users); "" for none.
        ngram_size, ngram_draft, ngram_min_hits: length of the looked-up n-gram, tokens drafted
            after a match, and matches needed (maps only).
        embedding: also serve ``embed``; prompts to embed must fit one physical step, so ``batch``
            and ``ubatch`` grow to ``context``.
        pooling: how token vectors become one: "mean", "cls" or "last".
        gpu_layers: layers kept on a GPU, -1 for llama.cpp's own choice; without a GPU build of
            xllamacpp it has no effect.
        verbosity: of llama.cpp's own log on stderr; 0 is silent.
    """

    slots: int = 1
    context: int = 4096
    threads: int = 0
    threads_batch: int = 0
    batch: int = 512
    ubatch: int = 512
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    prompt_cache: str = "off"
    flash_attention: str = "auto"
    mmap: str = "auto"
    lora: tuple[Lora, ...] = ()
    draft: str = ""
    draft_max: int = 3
    draft_min: int = 0
    draft_p_min: float = 0.5
    ngram: str = ""
    ngram_size: int = 12
    ngram_draft: int = 48
    ngram_min_hits: int = 1
    embedding: bool = False
    pooling: str = "mean"
    gpu_layers: int = -1
    verbosity: int = 0

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        check_values(self, _LEAST, _CHOICES)
        if self.ubatch > self.batch:
            msg = f"ubatch ({self.ubatch}) cannot exceed batch ({self.batch})"
            raise ValueError(msg)
        if self.flash_attention == "off" and self.cache_type_v not in _UNQUANTISED:
            msg = f"cache_type_v {self.cache_type_v!r} needs flash attention, which is off"
            raise ValueError(msg)
        if not 0.0 <= self.draft_p_min <= 1.0:
            msg = f"draft_p_min is a probability, got {self.draft_p_min}"
            raise ValueError(msg)
        if self.draft_min > self.draft_max:
            msg = f"draft_min ({self.draft_min}) cannot exceed draft_max ({self.draft_max})"
            raise ValueError(msg)

    @property
    def speculates(self) -> bool:
        """Whether tokens are drafted, by a model or from the text."""
        return bool(self.draft or self.ngram)

    @property
    def shares_beginnings(self) -> bool:
        """Whether slots copy beginnings of prompts; a draft's own state is in no slot's file."""
        return self.prompt_cache == "user" and self.slots > 1 and not self.speculates

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """The further GGUF files that loading needs, as (what it is, path)."""
        drafts = (("draft model", self.draft),) if self.draft else ()
        return (*drafts, *(("LoRA adapter", entry.path) for entry in self.lora))


_LEAST: Final[Mapping[str, int]] = {
    "slots": 1,
    "context": 16,
    "threads": 0,
    "threads_batch": 0,
    "batch": 1,
    "ubatch": 1,
    "draft_max": 1,
    "draft_min": 0,
    "ngram_size": 1,
    "ngram_draft": 1,
    "ngram_min_hits": 1,
    "gpu_layers": -1,
    "verbosity": 0,
}
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "cache_type_k": KV_TYPES,
    "cache_type_v": KV_TYPES,
    "prompt_cache": PROMPT_CACHES,
    "flash_attention": FLASH,
    "mmap": MMAP,
    "ngram": NGRAM_KINDS,
    "pooling": POOLINGS,
}


def parameters(
    xllamacpp: Any, model_path: str, options: LlamaCppOptions, api_key: str, slot_folder: str = ""
) -> Any:
    """Build llama.cpp's ``CommonParams``; ``xllamacpp`` is the module.

    ``slot_folder`` is where slots can be written and read, "" for nowhere.
    """
    p = xllamacpp.CommonParams()
    p.model.path = model_path
    p.n_parallel = options.slots
    p.n_ctx = options.slots * options.context  # llama.cpp counts all slots together
    p.fit_params = False  # it would shrink the context silently where memory is short
    p.cpuparams.n_threads = options.threads or available_cpus()
    p.cpuparams_batch.n_threads = options.threads_batch or p.cpuparams.n_threads
    whole = options.context if options.embedding else 0
    p.n_batch = max(options.batch, whole)
    p.n_ubatch = max(options.ubatch, whole)
    p.cache_type_k = _kv_type(xllamacpp, options.cache_type_k)
    p.cache_type_v = _kv_type(xllamacpp, options.cache_type_v)
    p.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, _FLASH[options.flash_attention])
    if options.mmap != "auto":
        p.load_mode = getattr(xllamacpp.llama_load_mode, _MMAP[options.mmap])
    p.n_gpu_layers = options.gpu_layers
    p.verbosity = options.verbosity
    p.slot_save_path = slot_folder and f"{slot_folder}/"  # llama.cpp appends the file's name
    p.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(entry.path, entry.scale) for entry in options.lora
    ]
    p.embedding = options.embedding
    if options.embedding:
        kind = f"LLAMA_POOLING_TYPE_{options.pooling.upper()}"
        p.pooling_type = getattr(xllamacpp.llama_pooling_type, kind)
    _close_to_others(p, api_key)
    _speculate(xllamacpp, p, options)
    return p


_FLASH: Final = {
    "auto": "LLAMA_FLASH_ATTN_TYPE_AUTO",
    "on": "LLAMA_FLASH_ATTN_TYPE_ENABLED",
    "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED",
}

_MMAP: Final = {"on": "LLAMA_LOAD_MODE_MMAP", "off": "LLAMA_LOAD_MODE_NONE"}


def _kv_type(xllamacpp: Any, name: str) -> Any:
    return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")


def _close_to_others(p: Any, api_key: str) -> None:
    """Keep what llama.cpp's port and caches could give away to a minimum.

    The host-RAM prompt cache can restore another conversation (llama.cpp issue 27148).
    """
    p.hostnames = ["127.0.0.1"]
    p.api_keys = [api_key]
    p.cors_origins = ""
    p.cors_credentials = False
    p.ui = False
    p.endpoint_slots = False
    p.cache_ram_mib = 0
    p.cache_idle_slots = False


def _speculate(xllamacpp: Any, p: Any, options: LlamaCppOptions) -> None:
    kinds = []
    if options.draft:
        kinds.append("DRAFT_SIMPLE")
        p.speculative.draft.mparams.path = options.draft
        p.speculative.draft.n_max = options.draft_max
        p.speculative.draft.n_min = options.draft_min
        p.speculative.draft.p_min = options.draft_p_min
    if options.ngram == "mod":
        kinds.append("NGRAM_MOD")
        p.speculative.ngram_mod.n_match = options.ngram_size
        p.speculative.ngram_mod.n_max = options.ngram_draft
    elif options.ngram:
        kinds.append(f"NGRAM_{options.ngram.upper()}")
        target = getattr(p.speculative, f"ngram_{options.ngram}")
        target.size_n = options.ngram_size
        target.size_m = options.ngram_draft
        target.min_hits = options.ngram_min_hits
    if kinds:
        types = xllamacpp.common_speculative_type
        p.speculative.types = [getattr(types, f"COMMON_SPECULATIVE_TYPE_{k}") for k in kinds]
