"""Hostile model files: opening and checking them ends in an error or a finding, never a crash."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lichen.compression.gate import Gate, GatePorts
from lichen.compression.model_file import open_model
from lichen.core.errors import LichenError
from lichen.testing.gguf_files import TinyModel, gguf_bytes

FILES = ("structure", "weights", "chat_template")
SOUND = TinyModel(layers=2, width=32, heads=2, kv_heads=1, feed_forward=32).to_bytes()
MOST_BYTES = 48 << 20
"""Far above what these files of a few hundred kB need, far below what their headers can claim."""

NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**40]),
    st.integers(min_value=0, max_value=2**64 - 1),
)


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "parent.gguf"
    path.write_bytes(SOUND)
    return path


def survives(parent: Path, raw: bytes) -> None:
    """Hold a file to the checks that read files; bound the memory that its header takes."""
    child = parent.with_name("child.gguf")
    child.write_bytes(raw)
    tracemalloc.start()
    try:
        first = Gate(only=("structure",)).run(parent, child, GatePorts())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES
    with contextlib.suppress(LichenError):
        assert open_model(child).tensors is not None
    report = Gate(only=FILES).run(parent, child, GatePorts())
    assert report.checks[0] == first.checks[0]
    for name, verdict, what in report.rows():
        assert name
        assert verdict
        assert what.isprintable()
        assert len(what) < 2000


SLOW = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SLOW
@given(at=st.integers(0, len(SOUND) - 1), new=st.binary(min_size=1, max_size=12))
def test_overwritten_bytes(parent, at, new):
    """Any bytes anywhere, in the header most of the time."""
    survives(parent, SOUND[:at] + new + SOUND[at + len(new) :])


@SLOW
@given(at=st.integers(0, 14000), number=NUMBERS)
def test_overwritten_numbers(parent, at, number):
    """Lengths, counts and offsets that claim anything up to 2**64 - 1."""
    survives(parent, SOUND[:at] + struct.pack("<Q", number) + SOUND[at + 8 :])


@SLOW
@given(length=st.integers(0, len(SOUND)))
def test_truncated_files(parent, length):
    """Cut anywhere."""
    survives(parent, SOUND[:length])


METADATA = st.dictionaries(
    st.sampled_from(
        [
            *("general.architecture", "llama.block_count", "llama.feed_forward_length"),
            *("llama.vocab_size", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"),
            *("tokenizer.ggml.token_type", "tokenizer.ggml.eos_token_id"),
            *("tokenizer.chat_template", "tokenizer.ggml.model", "llama.context_length"),
        ]
    ),
    st.one_of(
        st.booleans(),
        st.integers(0, 2**32 - 1),
        st.floats(width=32),
        st.text(max_size=20),
        st.lists(st.text(max_size=6), max_size=8),
        st.lists(st.integers(0, 2**32 - 1), max_size=8),
    ),
)
TENSORS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(
                    "token_embd.weight",
                    "output.weight",
                    "output_norm.weight",
                    "blk.0.attn_q.weight",
                ),
                *("blk.0.attn_norm.weight", "blk.1.ffn_up.weight", "blk.999999.ffn_up.weight", "x"),
            ]
        ),
        st.lists(st.sampled_from([1, 2, 32, 64, 256]), max_size=4).map(tuple),
        st.sampled_from(["F32", "F16"]),
    ),
    unique_by=lambda t: t[0],
    max_size=6,
).filter(lambda tensors: sum(_product(shape) for _, shape, _ in tensors) < 1 << 18)


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


@SLOW
@given(metadata=METADATA, tensors=TENSORS)
def test_wellformed_nonsense(parent, metadata, tensors):
    """A valid file whose values have any type and tensors any shape is checked to the end."""
    survives(parent, gguf_bytes(metadata, tensors))


@SLOW
@given(metadata=METADATA, tensors=TENSORS)
def test_nonsense_as_a_parent(parent, metadata, tensors):
    """Nor does a nonsensical parent break the comparison."""
    odd = parent.with_name("odd.gguf")
    odd.write_bytes(gguf_bytes(metadata, tensors))
    report = Gate(only=FILES).run(odd, parent, GatePorts())
    assert report.checks
