"""Looking into models through llama.cpp's C functions: what is read, and what happens when not."""

from __future__ import annotations

import ctypes
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lichen.compression.model_file import open_model
from lichen.core.errors import ConfigError, EngineError
from lichen.engines.llama_cpp.native.activations import measure_activations
from lichen.engines.llama_cpp.native.layout import (
    CONTEXT_PARAMS,
    MODEL_PARAMS,
    default_parameters,
)
from lichen.engines.llama_cpp.native.logits import NativeLogits
from lichen.engines.llama_cpp.native.process import NativeProcess
from lichen.engines.llama_cpp.native.wire import receive, send
from lichen.testing.gguf_files import TinyModel

TOKENS = list(range(40, 240)) * 2


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("llama_model_default_params", MODEL_PARAMS),
        ("llama_context_default_params", CONTEXT_PARAMS),
    ],
)
def test_a_library_with_other_defaults_is_refused(function: str, fields: dict) -> None:
    """A structure whose fields do not hold the known defaults is never used."""

    def zeros(address: int) -> None:
        ctypes.memset(address, 0, 256)

    with pytest.raises(EngineError, match=r"not known to lichen.*instead of"):
        default_parameters(SimpleNamespace(**{function: zeros}), function, fields)


@pytest.mark.parametrize("shape", [(0,), (3,), (2, 5), (0, 4), ()])
def test_arrays_cross_between_processes_unchanged(shape: tuple[int, ...]) -> None:
    """What is sent is received, empty arrays included; a message that ends early is noticed."""
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    pipe = io.BytesIO()
    send(pipe, {"name": "é"}, [array, array.astype(np.int32)])
    raw = pipe.getvalue()
    message, (floats, whole) = receive(io.BytesIO(raw))
    assert message == {"name": "é"}
    assert floats.dtype == np.float32
    assert whole.dtype == np.int32
    assert floats.shape == whole.shape == shape
    assert (floats == array).all()
    with pytest.raises(EOFError):
        receive(io.BytesIO(raw[:-1]))


def test_logits_follow_from_what_came_before(tiny: Path) -> None:
    """Blocks cover all positions, and a position's logits do not depend on later tokens."""
    with NativeLogits(tiny) as model:
        blocks = [len(b) for b in model.blocks(TOKENS)]
        whole, part = model.logits(TOKENS), model.logits(TOKENS[:150])
        assert blocks == [128, 128, 128, 16]
        assert whole.shape == (400, model.vocabulary)
        assert whole.dtype == np.float32
        assert (whole[:128] == part[:128]).all()
        # The second batch has another size, so half-precision products are rounded otherwise.
        assert np.allclose(whole[128:150], part[128:], atol=0.1)
        assert not np.allclose(whole[100], whole[300], atol=0.5)  # the same token, another past


def test_a_chunk_left_early_does_not_leak_into_the_next(tiny: Path) -> None:
    """Whoever stops taking blocks gets the right ones for the next chunk."""
    with NativeLogits(tiny) as model:
        expected = model.logits(TOKENS[:10])
        next(model.blocks(TOKENS))
        assert (model.logits(TOKENS[:10]) == expected).all()


@pytest.mark.parametrize("tokens", [[], [1] * 513, [-1], [10**6]])
def test_tokens_that_cannot_be_read_are_refused(tiny: Path, tokens: list[int]) -> None:
    """Chunks that are empty, too long or not of this vocabulary never reach native code."""
    with NativeLogits(tiny) as model, pytest.raises(ConfigError, match=r"tokens, not|vocabulary"):
        model.logits(tokens)


def test_the_inputs_of_the_first_layer_are_the_normalised_embeddings(tiny: Path) -> None:
    """Sums of squares are those that the file's own numbers give, channel by channel."""
    tokens = TOKENS[:100]
    seen = measure_activations(tiny, [tokens[:60], tokens[60:]])
    rows = open_model(tiny).tensor("token_embd.weight")
    embedded = rows.floats(0, rows.rows)[tokens].astype(np.float64)
    normal = embedded / np.sqrt(np.square(embedded).mean(axis=1, keepdims=True) + 1e-5)
    assert np.allclose(seen.sums["blk.0.attn_k.weight"], np.square(normal).sum(axis=0), rtol=1e-3)
    assert set(seen.rows.values()) == {100}
    assert seen.tokens == 100
    matrices = [t.name for t in open_model(tiny).tensors if len(t.shape) == 2]
    assert sorted(seen.sums) == sorted(matrices)  # the tied embedding counts as the output matrix


def test_what_layers_change_does_not_depend_on_threads(tiny: Path) -> None:
    """The same texts give the same sums, bit for bit, so that recipes can be replayed."""
    one, two = (measure_activations(tiny, [TOKENS], threads=n) for n in (1, 2))
    assert one.cosine == two.cosine
    assert len(one.cosine) == 2
    assert all(-1 <= c <= 1 for c in one.cosine)
    assert all((one.sums[name] == two.sums[name]).all() for name in one.sums)


def test_measuring_nothing_is_refused(tiny: Path) -> None:
    """No text means no measurement, not zeros."""
    with pytest.raises(ConfigError, match="no texts"):
        measure_activations(tiny, [])


def test_a_crash_in_native_code_is_an_error_here(tiny: Path) -> None:
    """A worker that dies of a signal leaves one sentence with its last words."""
    script = (
        "import os, signal, sys; sys.stdin.readline();"
        "print('loading', file=sys.stderr); print('bad \\x1b[31mblock', file=sys.stderr, flush=True);"
        "os.kill(os.getpid(), signal.SIGSEGV)"
    )
    with pytest.raises(EngineError, match=r"crashed on tiny.gguf .*signal 11.*: bad \[31mblock"):
        NativeProcess("logits", tiny, context=64, command=(sys.executable, "-c", script))


def test_a_worker_that_talks_nonsense_is_an_error(tiny: Path) -> None:
    """Output that is no message is reported like a crash, with the exit code."""
    command = (sys.executable, "-c", "import sys; sys.stdin.readline(); print('hello')")
    with pytest.raises(EngineError, match="exit code 0"):
        NativeProcess("logits", tiny, context=64, command=command)


def test_a_file_that_is_no_model_is_refused_with_the_engines_reason(tmp_path: Path) -> None:
    """llama.cpp's own reason reaches the user; a missing file is said before anything starts."""
    pytest.importorskip("xllamacpp")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(TinyModel().to_bytes()[:5000])
    with pytest.raises(EngineError, match=r"cannot load broken\.gguf"):
        NativeLogits(broken)
    with pytest.raises(ConfigError, match="no model file"):
        NativeLogits(tmp_path / "absent.gguf")
