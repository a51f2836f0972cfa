"""The options of the OpenAI-compatible engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from lichen.core.errors import ConfigError
from lichen.core.generation import Capability

OPTIONAL: Final = {
    str(c): c
    for c in (
        Capability.CHAT,
        Capability.RAW,
        Capability.INFILL,
        Capability.LOGPROBS,
        Capability.SEED,
        Capability.EMBED,
    )
}
"""What servers differ in; streaming and cancelling come with the protocol."""

PREFIX_STYLES: Final = ("", "continue", "vllm", "prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIHttpOptions:
    """Which server, which model, and what it can do.

    Args:
        base_url: up to and including the version, e.g. ``http://127.0.0.1:8000/v1``.
        model: the server's name for the model.
        api_key: sent as a bearer token; "" for none. Prefer ``api_key_env``: what stands in a
            spec file is stored with the run.
        api_key_env: name of an environment variable that holds the key.
        concurrency: requests in flight at once, >= 1.
        capabilities: what the server can do of chat, raw (``/completions``), infill
            (``/completions`` with ``suffix``), logprobs, seed, embed.
        answer_prefix: how the server continues a last assistant message: "" it cannot;
            "continue" it does by itself (llama.cpp); "vllm" with ``continue_final_message``;
            "prefix" with ``"prefix": true`` in the message (Mistral, DeepSeek).
        connect_timeout_s: to open a connection.
        read_timeout_s: longest silence of the server, before and within an answer.
        retries: further attempts after a failed connection, 429 or 5xx, >= 0. A request is never
            repeated once its answer has begun, or when the server falls silent: it may be working.
        backoff_s, backoff_max_s: first pause (it doubles, plus jitter) and the longest. A server's
            ``Retry-After`` is obeyed unless it is longer than ``backoff_max_s``: then that is the
            pause.
        extra_body: further fields of every request. ``{stream_options = {include_usage = true,
            continuous_usage_stats = true}}`` makes vLLM count tokens in every chunk, so that
            answers a stop rule cuts have exact usage; ``{timings_per_token = true}`` does for
            llama.cpp's server.
        verify_tls: check the server's certificate.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    api_key_env: str = ""
    concurrency: int = 4
    capabilities: tuple[str, ...] = ("chat",)
    answer_prefix: str = ""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 120.0
    retries: int = 4
    backoff_s: float = 0.5
    backoff_max_s: float = 60.0
    extra_body: Mapping[str, object] = field(default_factory=dict)
    verify_tls: bool = True

    def __post_init__(self) -> None:
        """Check ranges and names."""
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            msg = f"base_url must be an http or https address, got {self.base_url!r}"
            raise ValueError(msg)
        if not self.model:
            msg = "model must name the server's model"
            raise ValueError(msg)
        if self.concurrency < 1 or self.retries < 0:
            msg = "concurrency must be at least 1 and retries at least 0"
            raise ValueError(msg)
        pauses = (self.connect_timeout_s, self.read_timeout_s, self.backoff_s, self.backoff_max_s)
        if min(pauses) <= 0:
            msg = "time-outs and back-off must be longer than 0 s"
            raise ValueError(msg)
        unknown = [c for c in self.capabilities if c not in OPTIONAL]
        if unknown:
            msg = f"capabilities are of {', '.join(sorted(OPTIONAL))}; got {unknown[0]!r}"
            raise ValueError(msg)
        if self.answer_prefix not in PREFIX_STYLES:
            shown = ", ".join(repr(s) for s in PREFIX_STYLES)
            msg = f"answer_prefix must be one of {shown}, got {self.answer_prefix!r}"
            raise ValueError(msg)
        if self.api_key and self.api_key_env:
            msg = "give api_key or api_key_env, not both"
            raise ValueError(msg)

    def key(self, environ: Mapping[str, str]) -> str:
        """Return the key to send, "" for none; raises ConfigError if its variable is not set."""
        if not self.api_key_env:
            return self.api_key
        key = environ.get(self.api_key_env, "")
        if not key:
            msg = f"engine openai_http: the environment variable {self.api_key_env} is not set"
            raise ConfigError(msg)
        return key
