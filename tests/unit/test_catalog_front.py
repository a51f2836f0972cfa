from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.catalog import Catalog
from lichen.catalog.entries import Entry, Kind, Pin, SourceSpec, UrlSpec
from lichen.catalog.fetching import Source
from lichen.catalog.part import PartFile, Report
from lichen.cli import console
from lichen.cli.models import command
from lichen.core.errors import ConfigError, FetchError, LichenError, UnknownNameError
from lichen.testing.gguf_files import tiny_model

MODEL = tiny_model()
ROWS = b'{"task_id": 1}\n'


def entry(name: str, kind: Kind, data: bytes) -> Entry:
    return Entry(
        name=name,
        kind=kind,
        file=f"{name}.bin",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        licence="MIT",
        description="d",
        sources=(UrlSpec(url=f"https://host/{name}"),),
        parameters=1 if kind is Kind.MODEL else None,
    )


class Shop:
    """Delivers by the last part of an address and counts."""

    online = True

    def __init__(self, url: str, orders: list[str]) -> None:
        self.label = self.identity = url
        self._orders = orders

    def deliver(self, part: PartFile, pin: Pin, report: Report) -> None:
        """Write what the address stands for."""
        self._orders.append(self.label)
        with part.append(0, limit=None, report=report) as write:
            write(ROWS if self.label.endswith(("rows", ".jsonl")) else MODEL)


@pytest.fixture
def orders() -> list[str]:
    return []


@pytest.fixture
def catalog(tmp_path: Path, orders: list[str]) -> Catalog:
    def open_source(spec: SourceSpec) -> Source:
        return Shop(spec.url if isinstance(spec, UrlSpec) else str(spec), orders)

    return Catalog(
        cache_dir=tmp_path / "cache",
        entries=[entry("tiny", Kind.MODEL, MODEL), entry("rows", Kind.DATA, ROWS)],
        open_source=open_source,
    )


def test_a_named_model_is_fetched_once_and_described(catalog: Catalog, orders: list[str]) -> None:
    """The artifact says what the file is; asking again downloads nothing."""
    assert catalog.located("tiny") is None
    artifact = catalog.model("tiny")
    assert catalog.model("tiny") == artifact
    assert orders == ["https://host/tiny"]
    assert (artifact.name, artifact.format, artifact.licence) == ("tiny", "gguf", "MIT")
    assert artifact.sha256 == hashlib.sha256(MODEL).hexdigest()
    assert artifact.size_bytes == len(MODEL)
    assert artifact.shape is not None
    assert artifact.shape.layers == 2
    assert str(catalog.located("tiny")) == artifact.path


def test_a_path_is_used_where_it_is(catalog: Catalog, tmp_path: Path, orders: list[str]) -> None:
    """A user's file is hashed, known by its content, and nothing is written beside it."""
    mine = tmp_path / "mine" / "copy.gguf"
    mine.parent.mkdir()
    mine.write_bytes(MODEL)
    artifact = catalog.model(str(mine))
    assert (artifact.path, artifact.name, artifact.licence) == (str(mine), "copy", "MIT")
    assert [p.name for p in mine.parent.iterdir()] == ["copy.gguf"]
    assert orders == []


def test_unknown_content_has_the_licence_its_header_claims(tmp_path: Path) -> None:
    """A file the table does not know says its own licence."""
    (tmp_path / "m.gguf").write_bytes(MODEL)
    artifact = Catalog(cache_dir=tmp_path / "cache").model(str(tmp_path / "m.gguf"))
    assert artifact.licence == "mit"


def test_addresses_are_fetched_hashed_and_removable(catalog: Catalog, orders: list[str]) -> None:
    """An address is downloaded once; its hash is computed; rm takes it away again."""
    url = "https://host/other.gguf"
    artifact = catalog.model(url)
    catalog.model(url)
    assert orders == [url]
    assert artifact.sha256 == hashlib.sha256(MODEL).hexdigest()
    (listed,) = catalog.cached()
    assert (listed.name, listed.size_bytes, listed.pinned_sha256) == (url, len(MODEL), "")
    assert catalog.remove(url) == len(MODEL)
    assert catalog.cached() == ()


def test_data_sets_come_by_name_path_and_address(catalog: Catalog, tmp_path: Path) -> None:
    """The same bytes are the same data set however they were named."""
    own = tmp_path / "own.jsonl"
    own.write_bytes(ROWS)
    by_name = catalog.data_set("rows")
    by_path = catalog.data_set(str(own))
    by_url = catalog.data_set("https://host/x.jsonl")
    assert {d.sha256 for d in (by_name, by_path, by_url)} == {hashlib.sha256(ROWS).hexdigest()}
    assert by_name.licence == by_path.licence == "MIT"
    assert (by_name.name, by_path.name, by_path.path) == ("rows", "own", own)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tinny", UnknownNameError),
        ("rows", UnknownNameError),
        ("hf:o/r", ConfigError),
        ("https://host/rows.jsonl", ConfigError),
    ],
)
def test_what_is_no_model_is_refused(catalog: Catalog, text: str, error: type[LichenError]) -> None:
    """A misspelt name, a data set, half a reference and a file that is not GGUF all say so."""
    with pytest.raises(error):
        catalog.model(text)


def test_remove_deletes_partial_files_but_never_the_users(catalog: Catalog, tmp_path: Path) -> None:
    """Rm frees whole and partial files of the cache and refuses a path."""
    path = Path(catalog.model("tiny").path)
    part = PartFile(path, "somewhere")
    with part.append(0, limit=None, report=lambda _: None) as write:
        write(b"12345")
    assert catalog.remove("tiny") == len(MODEL) + 5
    assert not path.parent.exists()
    assert catalog.remove("tiny") == 0
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(MODEL)
    with pytest.raises(ConfigError, match="is your file"):
        catalog.remove(str(mine))
    assert mine.exists()
    with pytest.raises(UnknownNameError, match="model or data set"):
        catalog.remove("nothing")


def run(cache: Path, *arguments: str) -> Result:
    env = {"LICHEN_CACHE": str(cache), "LICHEN_MIRROR": "", "LICHEN_OFFLINE": "1"}
    return CliRunner().invoke(command, arguments, env=env)


def test_list_writes_one_json_document(tmp_path: Path) -> None:
    """--json lists every entry with its pin and whether it is here."""
    listed = json.loads(run(tmp_path, "list", "--json").stdout)
    rows = {row["name"]: row for row in listed["entries"]}
    assert rows["smollm2-135m"]["cached"] is False
    assert rows["humaneval"]["licence"] == "MIT"


def test_show_gives_the_cost_of_a_token(tmp_path: Path) -> None:
    """Show reads a user's file: groups, bytes and FLOP per decoded token, as JSON and as text."""
    path = tmp_path / "m.gguf"
    path.write_bytes(MODEL)
    shown = json.loads(run(tmp_path, "show", str(path), "--json").stdout)
    assert shown["shape"]["architecture"] == "llama"
    assert shown["per_token"]["weight_bytes"] == shown["shape"]["weight_bytes"]
    assert shown["per_token"]["flop"] >= 2 * shown["shape"]["active_parameters"]
    assert shown["groups"][0]["group"] == "embedding"


@pytest.fixture
def fresh_console() -> Iterator[None]:
    """Let the console open the runner's streams, and forget them afterwards."""
    console.out.cache_clear()
    console.err.cache_clear()
    yield
    console.out.cache_clear()
    console.err.cache_clear()


@pytest.mark.usefixtures("fresh_console")
def test_show_prints_hostile_headers_harmlessly(tmp_path: Path) -> None:
    """Escape codes and markup in a header reach the terminal as text."""
    path = tmp_path / "m.gguf"
    path.write_bytes(MODEL.replace(b"tiny", b"\x1b[m!"))
    result = run(tmp_path, "show", str(path))
    assert "\x1b" not in result.stdout
    assert "[m!" in result.stdout
    assert "Q4_0 100 %" in result.stdout


def test_show_of_a_model_that_is_not_here_fetches_nothing(tmp_path: Path) -> None:
    """What the table knows is shown, and the path is null."""
    shown = json.loads(run(tmp_path, "show", "smollm2-135m", "--json").stdout)
    assert shown["path"] is None
    assert shown["parameters"] == 134_515_008
    assert "shape" not in shown


def test_pull_offline_fails_closed(tmp_path: Path) -> None:
    """Without network, cache or mirror the command ends with FetchError and writes no model."""
    result = run(tmp_path, "pull", "smollm2-135m")
    assert isinstance(result.exception, FetchError)
    assert "not tried: offline" in str(result.exception)
    assert not list(tmp_path.rglob("*.gguf"))


def test_rm_says_what_it_freed(tmp_path: Path) -> None:
    """Removing what is not there frees 0 bytes and is no error."""
    result = run(tmp_path, "rm", "smollm2-135m", "--json")
    assert json.loads(result.stdout) == {"freed_bytes": {"smollm2-135m": 0}}
