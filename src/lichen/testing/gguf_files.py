"""Write small GGUF files: whole ones for tests of what reads them, broken ones on purpose."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

from lichen.catalog.tensor_types import TENSOR_TYPES

TensorSpec = tuple[str, tuple[int, ...], str]
"""(name, shape, type name such as ``"Q4_0"``)."""

_TYPE_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}


def text_bytes(text: str) -> bytes:
    """Encode a string as GGUF does: length, then UTF-8."""
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(value: object) -> bytes:
    """Encode a metadata value with its type: bool, int (u32), float (f32), str or a list."""
    kind = _kind(value)
    return struct.pack("<I", kind) + _payload(value, kind)


def gguf_bytes(
    metadata: Mapping[str, object],
    tensors: Sequence[TensorSpec] = (),
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """Return a GGUF file whose tensors are zeros. ``alignment`` must match the metadata's."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(text_bytes(k) + value_bytes(v) for k, v in metadata.items())
    offset = 0
    for name, shape, kind in tensors:
        head += text_bytes(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", _TYPE_NUMBERS[kind], offset)
        offset += -(-tensor_size(shape, kind) // alignment) * alignment
    padding = -len(head) % alignment if tensors else 0
    return head + bytes(padding + offset)


def tensor_size(shape: Sequence[int], kind: str) -> int:
    """Return the bytes of a tensor of a type."""
    tensor_type = TENSOR_TYPES[_TYPE_NUMBERS[kind]]
    return math.prod(shape) // tensor_type.block * tensor_type.block_bytes


def tiny_model(
    *, architecture: str = "llama", tied: bool = False, experts: int = 0, used: int = 0
) -> bytes:
    """Return a whole two-layer model: width 32, 4 heads of 8, 2 key/value heads, 64 tokens."""
    a = architecture
    metadata: dict[str, object] = {
        "general.architecture": a,
        "general.name": "tiny",
        "general.license": "mit",
        f"{a}.block_count": 2,
        f"{a}.embedding_length": 32,
        f"{a}.attention.head_count": 4,
        f"{a}.attention.head_count_kv": 2,
        f"{a}.feed_forward_length": 64,
        f"{a}.context_length": 128,
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(64)],
    }
    tensors: list[TensorSpec] = [("token_embd.weight", (32, 64), "Q8_0")]
    for i in range(2):
        tensors += [
            (f"blk.{i}.attn_norm.weight", (32,), "F32"),
            (f"blk.{i}.attn_q.weight", (32, 32), "Q4_0"),
            (f"blk.{i}.attn_k.weight", (32, 16), "Q4_0"),
            (f"blk.{i}.attn_v.weight", (32, 16), "Q4_0"),
            (f"blk.{i}.attn_output.weight", (32, 32), "Q4_0"),
        ]
        if experts:
            tensors.append((f"blk.{i}.ffn_up_exps.weight", (32, 64, experts), "Q4_0"))
        else:
            tensors.append((f"blk.{i}.ffn_up.weight", (32, 64), "Q4_0"))
    tensors.append(("output_norm.weight", (32,), "F32"))
    if not tied:
        tensors.append(("output.weight", (32, 64), "F16"))
    if experts:
        metadata |= {f"{a}.expert_count": experts, f"{a}.expert_used_count": used}
    return gguf_bytes(metadata, tensors)


def _kind(value: object) -> int:
    match value:
        case bool():
            return 7
        case int():
            return 4
        case float():
            return 6
        case str():
            return 8
        case list():
            return 9
        case _:
            msg = f"cannot encode {value!r}"
            raise TypeError(msg)


def _payload(value: object, kind: int) -> bytes:
    match value:
        case str():
            return text_bytes(value)
        case list():
            inner = _kind(value[0]) if value else 4
            body = b"".join(_payload(v, inner) for v in value)
            return struct.pack("<IQ", inner, len(value)) + body
        case _:
            return struct.pack("<" + {4: "I", 6: "f", 7: "?"}[kind], value)
