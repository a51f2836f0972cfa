"""Hostile data files: every complaint names file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lichen.benchmark.corpus import rows as rows_module
from lichen.benchmark.corpus.rows import file_sha256, read_rows, unique_ids
from lichen.benchmark.tasks import TASKS, TaskContext
from lichen.core.errors import ConfigError
from lichen.testing.in_process_sandbox import InProcessSandbox
from lichen.testing.task_data import HUMANEVAL_ROWS, MBPP_ORIGINAL_ROWS, write_rows


def build(name: str, path: Path, **options: str) -> object:
    """Make a task from a file."""
    context = TaskContext(
        data_path=path, data_sha256="", sandbox=InProcessSandbox(), options=options
    )
    return TASKS.get(name)(context)


def test_gzip_and_plain_give_the_same_rows(tmp_path: Path) -> None:
    """A gzipped file is recognised by its content, whatever its name."""
    plain = write_rows(tmp_path / "plain.jsonl", HUMANEVAL_ROWS)
    packed = tmp_path / "packed.jsonl"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert [r.values for r in read_rows(packed)] == [r.values for r in read_rows(plain)]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{}\n{\n", ":2: not a line of JSON"),
        (b"[1]\n", ":1: a row must be an object"),
        (b"\xff\xfe\n", ":1: not a line of JSON"),
        (b"[" * 100_000 + b"\n", ":1: not a line of JSON"),
        (b"\x1f\x8bbroken", "cannot be read"),
    ],
)
def test_broken_files_say_where(tmp_path: Path, content: bytes, complaint: str) -> None:
    """A file that is no JSON Lines is a ConfigError with file and line."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.jsonl") as caught:
        list(read_rows(path))
    assert complaint in str(caught.value)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    """Neither reading nor hashing a missing file raises anything else."""
    with pytest.raises(ConfigError):
        list(read_rows(tmp_path / "none"))
    with pytest.raises(ConfigError):
        file_sha256(tmp_path / "none")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small gzip that unfolds into more than the limit is refused before it is all read."""
    monkeypatch.setattr(rows_module, "MAX_TOTAL_BYTES", 10_000)
    path = tmp_path / "bomb.jsonl"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 1_000_000))
    with pytest.raises(ConfigError, match="larger than a data set"):
        list(read_rows(path))


def test_ids_must_be_unique(tmp_path: Path) -> None:
    """A repeated id names both lines."""
    path = write_rows(tmp_path / "twice.jsonl", [{"id": "a"}, {"id": "b"}, {"id": "a"}])
    with pytest.raises(ConfigError, match=r"twice.jsonl:3: the id 'a' was already used on line 1"):
        list(unique_ids((r, r.text("id")) for r in read_rows(path)))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"prompt": None}, "'prompt' must be a text, but it is missing"),
        ({"test": 3}, "'test' must be a text, but a int was found"),
        ({"entry_point": "a; import os"}, "must be a Python name"),
        ({"task_id": ""}, "an id must be"),
    ],
)
def test_humaneval_rows_are_checked(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    """A missing column or wrong type is named with its line."""
    path = write_rows(tmp_path / "h.jsonl", [HUMANEVAL_ROWS[0], {**HUMANEVAL_ROWS[1], **change}])
    with pytest.raises(ConfigError, match=r"h.jsonl:2: ") as caught:
        build("humaneval", path)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"task_id": "eleven"},
        {"test_list": "assert"},
        {"test_list": [1]},
        {"test_list": ["assert True"]},
        {"test_list": ["assert len("]},
    ],
)
def test_mbpp_rows_are_checked(tmp_path: Path, change: dict[str, object]) -> None:
    """Rows of the original MBPP that cannot be used are ConfigErrors with their line."""
    path = write_rows(tmp_path / "m.jsonl", [{**MBPP_ORIGINAL_ROWS[0], **change}])
    with pytest.raises(ConfigError, match=r"m.jsonl:1: "):
        build("mbpp", path, split="all")


def test_a_null_reference_is_none(tmp_path: Path) -> None:
    """A data set without a reference loads; the problem just has none."""
    path = write_rows(tmp_path / "h.jsonl", [{**HUMANEVAL_ROWS[0], "canonical_solution": None}])
    task = TASKS.get("humaneval")(
        TaskContext(data_path=path, data_sha256="", sandbox=InProcessSandbox())
    )
    assert [p.reference for p in task.problems()] == [""]
    assert json.loads(path.read_text())["canonical_solution"] is None
