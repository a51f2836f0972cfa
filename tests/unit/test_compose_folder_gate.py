"""Folders of GPU tools through the gate: agreement asked of the engine transformers, here scripted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lichen.compose import folder_gate
from lichen.compose.folder_gate import folder_ports
from lichen.compression.corpus import Document
from lichen.compression.gate import Gate
from lichen.core.errors import ConfigError
from lichen.core.model import ModelArtifact

TEXTS = tuple(Document(f"{i}.py", f"def f{i}(x):\n    return x + {i}\n" * 40) for i in range(3))


class Scripted:
    """Stands in for the engine: bytes are tokens, a folder's noise moves its logits."""

    def __init__(self, model: ModelArtifact) -> None:
        config = json.loads((Path(model.path) / "config.json").read_text())
        self.noise = config.get("noise", 0.0)
        self.closed = False

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def detokenize(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        rng = np.random.default_rng(len(tokens))
        sharp = rng.standard_normal((len(tokens), 256))
        noise = np.random.default_rng(1).standard_normal(sharp.shape)
        return (4 * sharp + self.noise * noise).astype(np.float32)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Make model folders that the scripted engine opens."""
    opened: list[Scripted] = []

    def open_engine(model: ModelArtifact, options: object) -> Scripted:
        opened.append(Scripted(model))
        return opened[-1]

    monkeypatch.setattr(folder_gate, "open_engine", open_engine)

    def make(name: str, noise: float) -> Path:
        root = tmp_path / name
        root.mkdir()
        (root / "config.json").write_text(json.dumps({"noise": noise}))
        header = json.dumps({"w": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}).encode()
        (root / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
        return root

    return make, opened


def test_a_faithful_folder_passes_and_a_noisy_one_does_not(folders):
    """The same thresholds hold for folders as for files, and engines are closed."""
    make, opened = folders
    parent = make("parent", 0.0)
    ports = folder_ports({}, held_out=TEXTS)
    fine = Gate().run(parent, make("fine", 0.05), ports)
    assert fine.failed == ()
    assert fine.check("agreement").numbers["tokens"] == 3 * 512
    assert fine.check("quality").what == (
        "not run: the benchmark runs GGUF files, and this is a model folder"
    )
    noisy = Gate().run(parent, make("noisy", 4.0), ports)
    assert [c.name for c in noisy.failed] == ["agreement"]
    assert sum(e.closed for e in opened) == 4


def test_without_held_out_text_nothing_is_compared(folders):
    """No text is an error of the caller, said in one sentence."""
    make, _ = folders
    parent = make("parent", 0.0)
    measure = folder_ports({}, held_out=()).agreement
    with pytest.raises(ConfigError, match="no held-out text"):
        measure(parent, parent)
