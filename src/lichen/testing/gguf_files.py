"""Write small GGUF files: whole ones for tests of what reads them, broken ones on purpose."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lichen.catalog.tensor_types import TENSOR_TYPES

TensorSpec = tuple[str, tuple[int, ...], str]
"""(name, shape, type name such as ``"Q4_0"``)."""


class Signed(int):
    """A number that is stored as i32, where plain ints are u32."""


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
    data: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return a GGUF file; ``alignment`` must match the metadata's.

    Tensors without ``data`` (stored bytes by name) are zeros.
    """
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(text_bytes(k) + value_bytes(v) for k, v in metadata.items())
    body = bytearray()
    for name, shape, kind in tensors:
        head += text_bytes(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", _TYPE_NUMBERS[kind], len(body))
        body += (data or {}).get(name, bytes(tensor_size(shape, kind)))
        body += bytes(-len(body) % alignment)
    padding = -len(head) % alignment if tensors else 0
    return head + bytes(padding) + bytes(body)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """A whole model that llama.cpp loads and runs: random weights, a byte-level BPE vocabulary.

    Args:
        architecture: ``"llama"`` or ``"qwen2"`` (with biases).
        layers, width, heads, kv_heads, feed_forward: its shape; ``width`` is a multiple of 32.
        kind: type of the layers' matrices; quantised ones need the package ``gguf``.
        embedding_kind: type of the embedding.
        output_kind: type of the output matrix, "" for none (tied).
        copied_output: whether the output matrix is the embedding again, or one of its own.
        words: what the vocabulary can say in one token, beside bytes and control tokens.
        padding: rows of the embedding, and tokens, that nothing uses.
        metadata: further entries, or others in place of the usual ones.
        seed: of the weights.
    """

    architecture: str = "llama"
    layers: int = 2
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 128
    kind: str = "F16"
    embedding_kind: str = "F16"
    output_kind: str = ""
    copied_output: bool = True
    words: tuple[str, ...] = ("def", "return", " return", "    ", "self", " the", "print", "(x)")
    padding: int = 0
    metadata: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0

    def to_bytes(self) -> bytes:
        """Return the file."""
        metadata, rows = self._metadata()
        weights = self._weights(rows)
        tensors = [(name, shape, kind) for name, (shape, kind, _) in weights.items()]
        data = {name: stored(values, kind) for name, (_, kind, values) in weights.items()}
        return gguf_bytes(metadata, tensors, data=data)

    def _metadata(self) -> tuple[dict[str, object], int]:
        """Return the metadata, and the rows of the embedding."""
        a, (tokens, merges, types) = self.architecture, bpe_vocabulary(self.words)
        tokens += [f"[PAD{i}]" for i in range(self.padding)]
        types += [5] * self.padding  # unused
        end = tokens.index("<|im_end|>")
        return {
            "general.architecture": a,
            "general.type": "model",
            "general.name": "tiny",
            "general.license": "mit",
            f"{a}.block_count": self.layers,
            f"{a}.context_length": 256,
            f"{a}.embedding_length": self.width,
            f"{a}.feed_forward_length": self.feed_forward,
            f"{a}.attention.head_count": self.heads,
            f"{a}.attention.head_count_kv": self.kv_heads,
            f"{a}.attention.layer_norm_rms_epsilon": 1e-5,
            f"{a}.rope.freq_base": 10000.0,
            f"{a}.rope.dimension_count": self.width // self.heads,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "qwen2" if a == "qwen2" else "smollm",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [Signed(t) for t in types],
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.bos_token_id": tokens.index("<|im_start|>"),
            "tokenizer.ggml.eos_token_id": end,
            "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
            "tokenizer.ggml.add_bos_token": False,
            "tokenizer.chat_template": CHAT_TEMPLATE,
            **self.metadata,
        }, len(tokens)

    def _weights(
        self, rows: int
    ) -> dict[str, tuple[tuple[int, ...], str, npt.NDArray[np.float32]]]:
        """Return tensor name -> (shape, type, numbers)."""
        rng = np.random.default_rng(self.seed)
        found: dict[str, tuple[tuple[int, ...], str, npt.NDArray[np.float32]]] = {}

        def add(name: str, inputs: int, outputs: int, kind: str) -> npt.NDArray[np.float32]:
            drawn = rng.standard_normal((outputs, inputs)) / math.sqrt(inputs)
            values = drawn.astype(np.float32)
            found[name] = ((inputs, outputs), kind, values)
            return values

        def norm(name: str) -> None:
            found[name] = ((self.width,), "F32", np.ones((1, self.width), np.float32))

        width, wide = self.width, self.feed_forward
        narrow = self.kv_heads * (width // self.heads)
        embedding = add("token_embd.weight", width, rows, self.embedding_kind)
        for i in range(self.layers):
            norm(f"blk.{i}.attn_norm.weight")
            for part, outputs in (("q", width), ("k", narrow), ("v", narrow)):
                add(f"blk.{i}.attn_{part}.weight", width, outputs, self.kind)
                if self.architecture == "qwen2":
                    bias = np.zeros((1, outputs), np.float32)
                    found[f"blk.{i}.attn_{part}.bias"] = ((outputs,), "F32", bias)
            add(f"blk.{i}.attn_output.weight", width, width, self.kind)
            norm(f"blk.{i}.ffn_norm.weight")
            add(f"blk.{i}.ffn_gate.weight", width, wide, self.kind)
            add(f"blk.{i}.ffn_up.weight", width, wide, self.kind)
            add(f"blk.{i}.ffn_down.weight", wide, width, self.kind)
        norm("output_norm.weight")
        if self.output_kind:
            output = add("output.weight", width, rows, self.output_kind)
            output[:] = embedding if self.copied_output else output
        return found


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bpe_vocabulary(words: Sequence[str]) -> tuple[list[str], list[str], list[int]]:
    """Return tokens, merges and token types of a byte-level BPE vocabulary.

    Three control tokens come first, then the 256 bytes, then what is merged, left to right, on the
    way to each word.
    """
    letters = byte_letters()
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters]
    merges: list[str] = []
    for word in words:
        parts = [letters[byte] for byte in word.encode()]
        left = parts[0]
        for right in parts[1:]:
            if f"{left} {right}" not in merges:
                merges.append(f"{left} {right}")
            left += right
            if left not in tokens:
                tokens.append(left)
    control, normal = 3, 1
    return tokens, merges, [control] * 3 + [normal] * (len(tokens) - 3)


def byte_letters() -> list[str]:
    """Return the printable letter that stands for each byte (GPT-2: ``bytes_to_unicode``)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(b if b in shown else 256 + hidden.index(b)) for b in range(256)]


def stored(values: npt.NDArray[np.float32], kind: str) -> bytes:
    """Return rows of numbers as bytes of a type; quantised ones need the package ``gguf``."""
    plain = {"F32": "<f4", "F16": "<f2"}.get(kind)
    if plain is not None:
        return values.astype(plain).tobytes()
    from gguf import GGMLQuantizationType, quants

    written: bytes = quants.quantize(values, GGMLQuantizationType[kind]).tobytes()
    return written


def _kind(value: object) -> int:
    match value:
        case bool():
            return 7
        case Signed():
            return 5
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
            return struct.pack("<" + {4: "I", 5: "i", 6: "f", 7: "?"}[kind], value)
