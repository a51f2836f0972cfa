"""Read token log-probabilities from the two shapes that OpenAI-compatible servers answer with.

Chat shape: ``{"content": [{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}]}``.
Legacy completion shape: ``{"tokens": [], "token_logprobs": [], "top_logprobs": [{token: value}]}``.
The input is hostile: whatever is not a token with a finite number <= 0 (within rounding) is left
out, so that no NaN or None reaches a mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from lichen.core.generation import TokenLogprob

_ROUNDING = 1e-3
"""Servers compute in float32 and may report a certain token as slightly above log 1 = 0."""


def read_logprobs(raw: object, alternatives: int) -> tuple[TokenLogprob, ...]:
    """Return the tokens in ``choices[0].logprobs``; at most ``alternatives`` each, () if none."""
    if not isinstance(raw, Mapping):
        return ()
    content = raw.get("content")
    if isinstance(content, list):
        return tuple(t for e in content if (t := _chat_token(e, alternatives)) is not None)
    tokens, values = raw.get("tokens"), raw.get("token_logprobs")
    if isinstance(tokens, list) and isinstance(values, list):
        tops = raw.get("top_logprobs")
        tops = tops if isinstance(tops, list) else []
        return tuple(_legacy_tokens(tokens, values, tops, alternatives))
    return ()


def _chat_token(entry: object, alternatives: int) -> TokenLogprob | None:
    if not isinstance(entry, Mapping):
        return None
    pair = _pair(entry.get("token"), entry.get("logprob"))
    if pair is None:
        return None
    top = entry.get("top_logprobs")
    found = (
        _pair(t.get("token"), t.get("logprob"))
        for t in (top if isinstance(top, list) else [])
        if isinstance(t, Mapping)
    )
    return TokenLogprob(text=pair[0], logprob=pair[1], top=_kept(found, alternatives))


def _legacy_tokens(
    tokens: list[object], values: list[object], tops: list[object], alternatives: int
) -> Iterable[TokenLogprob]:
    for i, (token, value) in enumerate(zip(tokens, values, strict=False)):
        pair = _pair(token, value)
        if pair is None:
            continue
        top = tops[i] if i < len(tops) else None
        found = (_pair(t, v) for t, v in top.items()) if isinstance(top, Mapping) else ()
        yield TokenLogprob(text=pair[0], logprob=pair[1], top=_kept(found, alternatives))


def _kept(found: Iterable[tuple[str, float] | None], most: int) -> tuple[tuple[str, float], ...]:
    return tuple(p for p in found if p is not None)[:most]


def _pair(token: object, value: object) -> tuple[str, float] | None:
    if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value) or value > _ROUNDING:
        return None
    return token, min(float(value), 0.0)
