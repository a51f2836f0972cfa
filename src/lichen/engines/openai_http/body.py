"""Turn requests into the JSON that OpenAI-compatible servers expect."""

from __future__ import annotations

from typing import Any

from lichen.core.generation import Capability, Request
from lichen.engines.openai_http.options import OpenAIHttpOptions

PATHS = {"chat": "/chat/completions", "raw": "/completions", "infill": "/completions"}


def refusal(request: Request, capabilities: frozenset[Capability]) -> str:
    """Return a sentence if the request needs what the server was not said to have, else ""."""
    needs = {Capability(request.kind)}
    if request.answer_prefix:
        needs.add(Capability.ANSWER_PREFIX)
    if request.logprobs:
        needs.add(Capability.LOGPROBS)
    lacking = sorted(str(c) for c in needs - capabilities)
    if not lacking:
        return ""
    option = "answer_prefix" if lacking == ["answer_prefix"] else "capabilities"
    return (
        f"the request needs {', '.join(lacking)}, which this server is not said to have: "
        f"if it has, set the option {option}"
    )


def build(request: Request, options: OpenAIHttpOptions, *, streaming: bool) -> dict[str, Any]:
    """Return the body of one request; ``extra_body`` fills what lichen does not set itself."""
    body: dict[str, Any] = {
        **options.extra_body,
        "model": options.model,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stream": streaming,
    }
    extra = body.pop("stream_options", None)
    if streaming:
        given = extra if isinstance(extra, dict) else {}
        body["stream_options"] = {"include_usage": True, **given}
    if "seed" in options.capabilities:
        body["seed"] = request.seed
    if request.stop_strings:
        body["stop"] = list(request.stop_strings)
    if request.messages is not None:
        _chat(body, request, options.answer_prefix)
    else:
        body["prompt"] = request.prompt if request.prompt is not None else request.prefix
        if request.suffix is not None:
            body["suffix"] = request.suffix
        if request.logprobs:
            body["logprobs"] = request.logprobs
    return body


def _chat(body: dict[str, Any], request: Request, prefix_style: str) -> None:
    messages: list[dict[str, Any]] = [
        {"role": str(m.role), "content": m.content} for m in request.messages or ()
    ]
    if request.answer_prefix:
        messages.append({"role": "assistant", "content": request.answer_prefix})
        if prefix_style == "prefix":
            messages[-1]["prefix"] = True
        elif prefix_style == "vllm":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    body["messages"] = messages
    if request.logprobs:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
