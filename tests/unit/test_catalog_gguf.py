from __future__ import annotations

import struct
from pathlib import Path

import pytest

from lichen.catalog.gguf import ArrayInfo, read_array, read_header
from lichen.catalog.shape import groups_of, shape_of, tied_output
from lichen.catalog.tensor_types import TENSOR_TYPES
from lichen.core.errors import ConfigError, IntegrityError
from lichen.testing.gguf_files import gguf_bytes, text_bytes, tiny_model, value_bytes

GEMM = 2 * (32 * 32 + 32 * 16 + 32 * 16 + 32 * 32)  # attention matrices of both layers
NORMS = 3 * 32


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    return path


def test_header_reads_back_what_was_written(tmp_path: Path) -> None:
    """Every kind of value and every tensor's place survive writing and reading."""
    path = written(
        tmp_path,
        gguf_bytes(
            {"a": "text", "b": 7, "c": True, "d": 0.5, "e": [1, 2], "f": ["x", "yy"]},
            [("w", (32, 2), "Q4_0"), ("v", (3,), "F32")],
        ),
    )
    header = read_header(path)
    assert {k: header.metadata[k] for k in "abcde"} == {
        "a": "text",
        "b": 7,
        "c": True,
        "d": 0.5,
        "e": (1, 2),
    }
    assert isinstance(header.metadata["f"], ArrayInfo)
    assert list(read_array(path, header, "f")) == ["x", "yy"]
    first, second = header.tensors
    assert (first.size, second.size, first.elements) == (36, 12, 64)
    assert second.offset == first.offset + 64
    assert first.offset % 32 == 0


def test_version_two_is_read(tmp_path: Path) -> None:
    """Version 2 has the same layout and is accepted."""
    assert read_header(written(tmp_path, gguf_bytes({"k": 1}, version=2))).version == 2


def test_untied_model_counts_the_output_but_not_the_embedding(tmp_path: Path) -> None:
    """A separate output matrix is multiplied with; the embedding row is only looked up."""
    header = read_header(written(tmp_path, tiny_model()))
    shape = shape_of(header)
    feed_forward, output = 2 * 32 * 64, 32 * 64
    assert shape.active_parameters == GEMM + feed_forward + NORMS + output
    assert shape.parameters == shape.active_parameters + 32 * 64
    assert shape.weight_bytes == (GEMM + feed_forward) // 32 * 18 + NORMS * 4 + output * 2
    assert not tied_output(header)
    assert (shape.layers, shape.embedding, shape.heads, shape.kv_heads) == (2, 32, 4, 2)
    assert (shape.head_dim, shape.feed_forward, shape.vocabulary, shape.context) == (8, 64, 64, 128)


def test_tied_model_counts_the_embedding_once_as_output(tmp_path: Path) -> None:
    """Where the embedding is the output matrix it is read in full for every token."""
    header = read_header(written(tmp_path, tiny_model(tied=True)))
    shape = shape_of(header)
    assert tied_output(header)
    assert shape.active_parameters == shape.parameters
    assert shape.weight_bytes == sum(t.size for t in header.tensors)


def test_mixture_counts_the_experts_that_are_used(tmp_path: Path) -> None:
    """Of 8 experts with 2 used, a quarter of the expert weights is active."""
    whole = shape_of(read_header(written(tmp_path, tiny_model(experts=8, used=8))))
    part = shape_of(read_header(written(tmp_path, tiny_model(experts=8, used=2))))
    expert_weights = 2 * 32 * 64 * 8
    assert whole.active_parameters - part.active_parameters == expert_weights * 3 // 4
    assert whole.parameters == part.parameters


def test_encoder_has_no_output_matrix(tmp_path: Path) -> None:
    """A model that is not causal looks its embedding up and multiplies with no vocabulary."""
    data = gguf_bytes(
        {
            "general.architecture": "bert",
            "bert.block_count": 1,
            "bert.embedding_length": 32,
            "bert.attention.head_count": 4,
            "bert.attention.causal": False,
            "bert.context_length": 16,
        },
        [("token_embd.weight", (32, 8), "F16"), ("blk.0.attn_q.weight", (32, 32), "F16")],
    )
    shape = shape_of(read_header(written(tmp_path, data)))
    assert shape.active_parameters == 32 * 32
    assert shape.kv_heads == 4


def test_layers_that_predict_ahead_are_not_part_of_decoding(tmp_path: Path) -> None:
    """Blocks for multi-token prediction are stored but cost an ordinary token nothing."""
    meta = {
        "general.architecture": "x",
        "x.block_count": 2,
        "x.nextn_predict_layers": 1,
        "x.embedding_length": 32,
        "x.attention.head_count": [4, 4],
        "x.attention.head_count_kv": [2, 1],
        "x.context_length": 16,
    }
    tensors = [(f"blk.{i}.attn_q.weight", (32, 32), "F16") for i in range(2)]
    shape = shape_of(read_header(written(tmp_path, gguf_bytes(meta, tensors))))
    assert shape.active_parameters == 32 * 32
    assert shape.kv_heads == 2  # the mean of 2 and 1, rounded to even


def test_groups_add_up_to_the_file(tmp_path: Path) -> None:
    """Every tensor is in exactly one group, with its storage types."""
    header = read_header(written(tmp_path, tiny_model()))
    groups = groups_of(header)
    assert [g.group for g in groups] == [
        "embedding",
        "attention",
        "feed-forward",
        "output",
        "norms",
    ]
    assert sum(g.size_bytes for g in groups) == sum(t.size for t in header.tensors)
    assert {g.group: g.types[0][0] for g in groups} == {
        "embedding": "Q8_0",
        "attention": "Q4_0",
        "feed-forward": "Q4_0",
        "output": "F16",
        "norms": "F32",
    }
    assert groups[1].bits_per_weight == 4.5


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"general.architecture": "llama", "general.type": "adapter"}, "not a whole model"),
        ({}, "not a whole model"),
        ({"general.architecture": "llama", "split.count": 3}, "one part of a split model"),
        ({"general.architecture": "llama"}, "'llama.block_count'"),
        ({"general.architecture": "llama", "llama.block_count": "two"}, "'llama.block_count'"),
        ({"general.architecture": "llama", "llama.block_count": True}, "'llama.block_count'"),
    ],
)
def test_what_is_not_a_model_is_said(
    tmp_path: Path, metadata: dict[str, object], words: str
) -> None:
    """A header without what a cost needs is a ConfigError that names the lack."""
    header = read_header(written(tmp_path, gguf_bytes(metadata)))
    with pytest.raises(ConfigError, match=words):
        shape_of(header)


def _head(tensors: int, pairs: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def _tensor(shape: tuple[int, ...], kind: int, offset: int, name: str = "w") -> bytes:
    raw = text_bytes(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return raw + struct.pack("<IQ", kind, offset)


HUGE = 2**63

BROKEN = {
    "more tensors than read": (_head(HUGE, 0), "claims"),
    "more pairs than read": (_head(0, HUGE), "claims"),
    "key longer than the file": (_head(0, 1) + struct.pack("<Q", 60_000), "ends inside"),
    "key of 2**63 bytes": (_head(0, 1) + struct.pack("<Q", HUGE), "a key of"),
    "text of 2**63 bytes": (_head(0, 1) + text_bytes("k") + struct.pack("<IQ", 8, HUGE), "a text"),
    "array of 2**63 bytes": (
        _head(0, 1) + text_bytes("k") + struct.pack("<IIQ", 9, 0, HUGE),
        "ends inside",
    ),
    "array of 2**63 texts": (
        _head(0, 1) + text_bytes("k") + struct.pack("<IIQ", 9, 8, HUGE),
        "lists more",
    ),
    "arrays in arrays in arrays": (
        _head(0, 1) + text_bytes("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9,
        "deep",
    ),
    "unknown value type": (_head(0, 1) + text_bytes("k") + struct.pack("<I", 99), "type 99"),
    "key twice": (_head(0, 2) + (text_bytes("k") + value_bytes(1)) * 2, "twice"),
    "alignment 3": (_head(0, 1) + text_bytes("general.alignment") + value_bytes(3), "alignment"),
    "alignment 0": (_head(0, 1) + text_bytes("general.alignment") + value_bytes(0), "alignment"),
    "alignment text": (
        _head(0, 1) + text_bytes("general.alignment") + value_bytes("x"),
        "alignment",
    ),
    "five dimensions": (_head(1, 0) + _tensor((1,) * 5, 0, 0) + bytes(64), "5 dimensions"),
    "a dimension of 0": (_head(1, 0) + _tensor((0,), 0, 0) + bytes(64), "shape"),
    "rows that are no whole blocks": (_head(1, 0) + _tensor((33,), 2, 0) + bytes(99), "shape"),
    "beyond the file": (_head(1, 0) + _tensor((1024,), 0, 0) + bytes(99), "tensors end"),
    "2**252 weights": (_head(1, 0) + _tensor((HUGE,) * 4, 0, 0), "tensors end"),
    "offset of 2**63": (_head(1, 0) + _tensor((1,), 0, HUGE), "tensors end"),
    "off alignment": (_head(1, 0) + _tensor((1,), 0, 1) + bytes(99), "alignment"),
    "overlap": (
        _head(2, 0) + _tensor((64,), 0, 0) + _tensor((1,), 0, 32, "v") + bytes(999),
        "over",
    ),
    "same name": (_head(2, 0) + _tensor((1,), 0, 0) + _tensor((1,), 0, 32) + bytes(99), "alike"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers_are_sentences(tmp_path: Path, name: str) -> None:
    """Whatever a header claims, the answer is an IntegrityError that says what is wrong."""
    data, words = BROKEN[name]
    with pytest.raises(IntegrityError, match=words):
        read_header(written(tmp_path, data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a GGUF file"),
        (b"PK\x03\x04 a zip", "not a GGUF file"),
        (_head(0, 0, version=1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (_head(1, 0) + _tensor((1,), 77, 0), "tensor type 77"),
    ],
)
def test_files_lichen_cannot_read_are_config_errors(
    tmp_path: Path, data: bytes, words: str
) -> None:
    """Another format, version or tensor type is not damage, and is said so."""
    with pytest.raises(ConfigError, match=words):
        read_header(written(tmp_path, data))


def test_every_block_size_holds_its_bits() -> None:
    """No type takes fewer than one or more than 64 bits a weight, and names are unique."""
    assert len({t.name for t in TENSOR_TYPES.values()}) == len(TENSOR_TYPES)
    assert all(1 <= t.bits_per_weight <= 64 for t in TENSOR_TYPES.values())
    assert TENSOR_TYPES[12].bits_per_weight == 4.5  # Q4_K, as its authors state it
    assert TENSOR_TYPES[14].bits_per_weight == 6.5625  # Q6_K


@pytest.mark.model
def test_a_real_model_has_its_published_size(model_135m: Path) -> None:
    """SmolLM2-135M's header gives the 134,515,008 weights of its model card."""
    shape = shape_of(read_header(model_135m))
    assert shape.parameters == shape.active_parameters == 134_515_008
    assert shape.weight_bytes < model_135m.stat().st_size
