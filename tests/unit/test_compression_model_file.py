"""Reading and writing model files: lazy, exact, atomic."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lichen.compression.atomic_file import replacing
from lichen.compression.metadata import MetaValue
from lichen.compression.method import predict
from lichen.compression.model_file import LazyTensor, ModelFile, open_model, write_model
from lichen.core.errors import ConfigError, IntegrityError
from lichen.testing.gguf_files import TinyModel, gguf_bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A whole tiny model."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(TinyModel(output_kind="F32").to_bytes())
    return path


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_writing_what_was_read_gives_the_same_bytes(path: Path) -> None:
    """Every metadata value, every tensor, order and padding survive, and the hash is the file's."""
    out = path.with_name("copy.gguf")
    digest = write_model(open_model(path), out)
    assert out.read_bytes() == path.read_bytes()
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_any_number_of_workers_and_chunks_gives_the_same_bytes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How the work is cut changes nothing in the file."""
    monkeypatch.setattr("lichen.compression.model_file._CHUNK_WEIGHTS", 100)
    out = path.with_name("copy.gguf")
    write_model(open_model(path), out, workers=3)
    assert out.read_bytes() == path.read_bytes()


def test_metadata_of_every_kind_survives(tmp_path: Path) -> None:
    """Numbers of all widths, nested arrays and bytes that are not UTF-8 come back unchanged."""
    numbers = [MetaValue(kind, None, 1) for kind in (0, 1, 2, 3, 4, 5, 10, 11)] + [
        MetaValue(6, None, 0.5),
        MetaValue(12, None, 0.1),
        MetaValue.flag(value=True),
    ]
    entries = {f"k{i}": value for i, value in enumerate(numbers)}
    entries["text"] = MetaValue.text("a\udcffb")
    inner = MetaValue(9, 5, [-1, 2])
    entries["nested"] = MetaValue(9, 9, [inner, inner])
    entries["none"] = MetaValue(9, 4, [])
    out = tmp_path / "m.gguf"
    write_model(ModelFile(metadata=entries, tensors=()), out)
    assert dict(open_model(out).metadata) == entries
    assert b"a\xffb" in out.read_bytes()


def test_opening_reads_no_weights(path: Path) -> None:
    """Shapes, types and predicted costs are known although the weights are gone."""
    whole = path.read_bytes()
    model = open_model(path)
    os.truncate(path, 8192)
    assert model.architecture == "llama"
    assert model.layers == 2
    assert model.tensor("blk.0.ffn_down.weight").shape == (128, 64)
    assert predict(model).file_bytes == len(whole)
    assert predict(model).parameters == sum(t.elements for t in model.tensors)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(path: Path) -> None:
    """Rows that are gone give a sentence, not a dead process."""
    model = open_model(path)
    os.truncate(path, 8192)
    with pytest.raises(IntegrityError, match="became shorter"):
        model.tensors[-1].read(0, 1)


def test_an_open_model_outlives_its_name(path: Path) -> None:
    """Replacing the file by renaming does not change what was opened."""
    model = open_model(path)
    before = model.tensors[0].read(0, 4)
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)
    assert (model.tensors[0].read(0, 4) == before).all()


def test_rows_beyond_the_tensor_are_refused(path: Path) -> None:
    """A method that asks for rows that do not exist hears so."""
    tensor = open_model(path).tensor("token_embd.weight")
    with pytest.raises(ConfigError, match="rows"):
        tensor.read(0, tensor.rows + 1)
    with pytest.raises(ConfigError, match="rows"):
        tensor.read(-1, 1)


def test_chosen_rows_come_in_the_order_asked_for(path: Path) -> None:
    """Row selection moves stored blocks, in any order, in chunks of any size."""
    tensor = open_model(path).tensor("token_embd.weight")
    rows = [5, 6, 7, 3, 200, 0, 0]
    chosen = tensor.selected(rows)
    assert chosen.shape == (64, 7)
    assert (chosen.read(0, 7) == tensor.read(0, tensor.rows)[rows]).all()
    assert (chosen.read(2, 5) == tensor.read(0, tensor.rows)[rows[2:5]]).all()
    assert chosen.read(3, 3).shape == (0, tensor.row_bytes)
    with pytest.raises(ConfigError, match="cannot be chosen"):
        tensor.selected([tensor.rows])
    with pytest.raises(ConfigError, match="not a matrix"):
        open_model(path).tensor("output_norm.weight").selected([0])


def test_floats_are_what_is_stored(path: Path) -> None:
    """Half-precision rows come back as float32 with their values."""
    tensor = open_model(path).tensor("blk.1.attn_q.weight")
    raw = tensor.read(0, 3)
    floats = tensor.floats(0, 3)
    assert floats.dtype == np.float32
    assert (floats == raw.view("<f2").astype(np.float32)).all()


def test_models_are_changed_by_value(path: Path) -> None:
    """Tensors and metadata are replaced in place, added at the end, or dropped; originals stay."""
    model = open_model(path)
    changed = model.without("output.weight").with_metadata(
        {"general.name": MetaValue.text("x"), "new": MetaValue.count(1), "general.license": None}
    )
    assert list(changed.metadata)[2] == "general.name"
    assert list(changed.metadata)[-1] == "new"
    assert "general.license" not in changed.metadata
    assert not changed.has("output.weight")
    assert model.has("output.weight")
    assert model.value("general.name") == "tiny"
    renamed = model.tensor("output_norm.weight").renamed("b").renamed("c")
    assert (renamed.name, renamed.origin) == ("c", "output_norm.weight")
    with pytest.raises(ConfigError, match="no tensor 'c'"):
        model.replaced(renamed)


def test_progress_ends_at_the_whole_file(path: Path) -> None:
    """Progress counts bytes up to exactly the file's size."""
    seen: list[tuple[int, int]] = []
    write_model(
        open_model(path),
        path.with_name("copy.gguf"),
        progress=lambda done, size: seen.append((done, size)),
    )
    size = path.stat().st_size
    assert seen[-1] == (size, size)
    assert [s for s, _ in seen] == sorted(s for s, _ in seen)


def broken_rows(tensor: LazyTensor) -> LazyTensor:
    def read(start: int, stop: int) -> np.ndarray:
        if start > 0:
            msg = "no more rows"
            raise IntegrityError(msg)
        return tensor.read(start, stop)

    return replace(tensor, read=read)


def test_a_failure_in_the_middle_leaves_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error after half of the file keeps the old file and removes the half one."""
    monkeypatch.setattr("lichen.compression.model_file._CHUNK_WEIGHTS", 640)
    out = path.with_name("out.gguf")
    out.write_bytes(b"old")
    model = open_model(path)
    bad = model.replaced(broken_rows(model.tensor("blk.1.ffn_down.weight")))
    with pytest.raises(IntegrityError, match="no more rows"):
        write_model(bad, out)
    assert out.read_bytes() == b"old"
    assert leftovers(path.parent) == []


def test_a_method_that_breaks_its_promise_is_caught(path: Path) -> None:
    """Rows of another size than type and shape promise are refused, not written."""
    model = open_model(path)
    tensor = replace(
        model.tensor("output.weight"), read=lambda a, b: np.zeros((b - a, 3), np.uint8)
    )
    with pytest.raises(ConfigError, match=r"'output.weight' gave rows of shape"):
        write_model(model.replaced(tensor), path.with_name("out.gguf"))


def test_kill_9_leaves_no_half_written_artifact(path: Path) -> None:
    """A process killed while it writes leaves nothing under the name; the next write cleans up."""
    out = path.with_name("out.gguf")
    script = textwrap.dedent(f"""
        import sys, time
        from dataclasses import replace
        from pathlib import Path
        from lichen.compression.model_file import open_model, write_model
        model = open_model(Path({str(path)!r}))
        last = model.tensors[-1]
        def read(start, stop):
            print("half", flush=True)
            time.sleep(60)
        write_model(model.replaced(replace(last, read=read)), Path({str(out)!r}), workers=1)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        with pytest.raises(ConfigError, match="being written by another process"):
            write_model(open_model(path), out)
        child.send_signal(signal.SIGKILL)
    assert not out.exists()
    assert leftovers(path.parent) == [".out.gguf.lichen-part"]
    write_model(open_model(path), path.with_name("another.gguf"))
    assert leftovers(path.parent) == []


def test_what_another_process_still_writes_is_left_alone(tmp_path: Path) -> None:
    """Cleaning up never removes a file that somebody holds."""
    with replacing(tmp_path / "a", 1) as first:
        first.write(b"a")
        with replacing(tmp_path / "b", 1) as second:
            second.write(b"b")
    assert (tmp_path / "a").read_bytes() == b"a"
    assert (tmp_path / "b").read_bytes() == b"b"
    assert leftovers(tmp_path) == []


def test_a_full_or_forbidden_folder_is_one_sentence(tmp_path: Path) -> None:
    """No room and no permission are reported before anything is computed."""
    with pytest.raises(ConfigError, match="are free there"), replacing(tmp_path / "a", 1 << 60):
        pass
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(ConfigError, match="cannot be written"),
        replacing(tmp_path / "file" / "a", 1),
    ):
        pass
    assert leftovers(tmp_path) == []


def test_hostile_headers_cost_no_memory(tmp_path: Path) -> None:
    """A huge array of numbers, real in the file, is refused before it becomes Python objects."""
    data = gguf_bytes({"general.architecture": "x", "big": [0] * 8})
    path = tmp_path / "big.gguf"
    count = 5_000_000
    head, _, _ = data.partition((8).to_bytes(8, "little") + bytes(32))
    path.write_bytes(head + count.to_bytes(8, "little"))
    os.truncate(path, path.stat().st_size + 4 * count)
    tracemalloc.start()
    with pytest.raises(IntegrityError):
        open_model(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * path.stat().st_size
