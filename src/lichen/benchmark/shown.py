"""The hash of what a model was shown, which a record keeps instead of the text."""

from __future__ import annotations

import hashlib
import json

from lichen.core.generation import Request


def request_sha256(request: Request) -> str:
    """Hash what the model is shown (not ids, seeds or limits), as hex SHA-256."""
    shown = {
        "messages": [[m.role, m.content] for m in request.messages or ()],
        "prompt": request.prompt,
        "prefix": request.prefix,
        "suffix": request.suffix,
        "answer_prefix": request.answer_prefix,
    }
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode("utf-8", "replace")).hexdigest()
