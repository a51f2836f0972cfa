"""What can be set on the engine that runs ik_llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lichen.engines.options import check_values

PROMPT_CACHES: Final = ("off", "user")
MMAP: Final = ("auto", "on", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class IkLlamaCppOptions:
    """How to load and run a model.

    Flash attention is off, always: on processors without AVX-VNNI the library's own ends the whole
    process where a sequence sees nothing of a block of keys, as several sequences in one cache do.

    Args:
        slots: requests decoded together. They share one cache, and attention looks over all of it,
            so that a token costs a little more the more the others hold.
        context: most tokens (prompt and answer) of one request.
        threads: CPU threads for decoding; 0 means all CPUs that this process may use.
        threads_batch: the same for reading prompts; 0 means ``threads``.
        batch: most tokens per step, of all slots together.
        ubatch: most tokens that are computed at once.
        prompt_cache: "off" computes every prompt in full; "user" keeps what a slot read and uses it
            for later requests of the same user that begin alike.
        mmap: whether weights stay in the mapped file ("on", and "auto"), or are read into memory.
    """

    slots: int = 1
    context: int = 4096
    threads: int = 0
    threads_batch: int = 0
    batch: int = 512
    ubatch: int = 512
    prompt_cache: str = "off"
    mmap: str = "auto"

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        check_values(self, _LEAST, _CHOICES)
        if self.ubatch > self.batch:
            msg = f"ubatch ({self.ubatch}) cannot exceed batch ({self.batch})"
            raise ValueError(msg)
        if self.batch < self.slots:
            msg = f"batch ({self.batch}) must hold a token of each of the {self.slots} slots"
            raise ValueError(msg)


_LEAST: Final[Mapping[str, int]] = {
    "slots": 1,
    "context": 16,
    "threads": 0,
    "threads_batch": 0,
    "batch": 1,
    "ubatch": 1,
}
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {"prompt_cache": PROMPT_CACHES, "mmap": MMAP}
