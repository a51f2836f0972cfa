from __future__ import annotations

from pathlib import Path

import pytest

from lichen.catalog.entries import HubSpec, WheelsSpec, builtin_entries, parse_entries
from lichen.catalog.names import file_name_of, parse_hub, parse_ref, shown_url
from lichen.core.errors import ConfigError, UnknownNameError
from lichen.core.model import RefKind

NAMES = ("qwen2.5-coder-0.5b", "smollm2-135m")
ROW = {
    "name": '"m"',
    "file": '"m.gguf"',
    "size": "3",
    "sha256": f'"{"0" * 64}"',
    "licence": '"MIT"',
    "description": '"d"',
    "parameters": "1",
}
SOURCE = '[[model.source]]\nkind = "url"\nurl = "https://h/f"\n'


def table(source: str = SOURCE, **changes: str) -> str:
    rows = {k: v for k, v in (ROW | changes).items() if v}
    return "[[model]]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items()) + source


def test_the_table_that_comes_with_lichen_is_whole() -> None:
    """Every promised name is pinned with a licence and sources, and no hash occurs twice."""
    entries = {e.name: e for e in builtin_entries()}
    promised = {*NAMES, "qwen2.5-coder-1.5b", "humaneval", "humanevalpack-python", "mbpp"}
    assert promised <= set(entries)
    assert len({e.sha256 for e in entries.values()}) == len(entries)
    assert all(e.sources and e.licence for e in entries.values())


def test_a_good_row_is_read() -> None:
    """The template the bad rows below are made from is itself accepted."""
    (entry,) = parse_entries(table())
    assert (entry.name, entry.pin.size, entry.parameters) == ("m", 3, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (table(sha256='"abc"'), "sha256"),
        (table(sha256=f'"{"A" * 64}"'), "sha256"),
        (table(size="0"), "size"),
        (table(file='"../m"'), "file"),
        (table(name='"A/b"'), "name"),
        (table(licence='""'), "licence"),
        (table(parameters=""), "parameters"),
        (table(source=""), "source"),
        (table(size=""), "incomplete"),
        (table(size='"3"'), "ill-typed"),
        (table(colour='"red"'), "unknown fields: colour"),
        (table(source='[[model.source]]\nkind = "ftp"\n'), "kind 'ftp'"),
        (table(source='[[model.source]]\nkind = "url"\n'), "incomplete"),
        (table() + table(), "twice"),
        ("[[gizmo]]\n", "unknown sections"),
        ("model = 3", "list of tables"),
        ("[[model", "not valid TOML"),
    ],
)
def test_a_bad_row_is_refused_with_its_fault(text: str, words: str) -> None:
    """A table that could not be checked never loads."""
    with pytest.raises(ConfigError, match=words):
        parse_entries(text)


def test_wheel_parts_are_numbered() -> None:
    """{n} and {nn} give the part's number plain and with two digits."""
    spec = WheelsSpec(requirement="p{n}==1", member="d/part{nn}.bin", parts=12)
    assert spec.part(7) == ("p7==1", "d/part07.bin")
    assert spec.part(12) == ("p12==1", "d/part12.bin")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("smollm2-135m", RefKind.NAME),
        ("hf:o/r/f.gguf", RefKind.HUB),
        ("hf:o/r/sub/f.gguf@v1.0", RefKind.HUB),
        ("https://host/f.gguf", RefKind.URL),
    ],
)
def test_references_are_told_apart(text: str, kind: RefKind) -> None:
    """What a user types says by its form what it is."""
    assert parse_ref(text, NAMES).kind is kind


def test_a_file_is_a_path_unless_it_has_a_catalog_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names win over files of the same name; ./ says that the file is meant."""
    monkeypatch.chdir(tmp_path)
    for name in ("smollm2-135m", "mine"):
        (tmp_path / name).touch()
    assert parse_ref("smollm2-135m", NAMES).kind is RefKind.NAME
    assert parse_ref("./smollm2-135m", NAMES).kind is RefKind.PATH
    assert parse_ref("mine", NAMES).kind is RefKind.PATH
    with pytest.raises(ConfigError, match="is a directory"):
        parse_ref(".", NAMES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hf:owner/repo", "not a hub reference"),
        ("hf:owner/../f", "not a hub reference"),
        ("hf:o/r/f@", "not a hub reference"),
        ("hf:o/r/f?x=1", "not a hub reference"),
        ("hf:o//f", "not a hub reference"),
        ("ftp://host/f", "use https"),
        ("file:///etc/passwd", "use https"),
        ("https:///f", "use https"),
        ("nowhere/m.gguf", "there is no model file"),
        ("gone.gguf", "there is no model file"),
    ],
)
def test_malformed_references_are_sentences(text: str, words: str) -> None:
    """A reference that cannot mean anything says what to write instead."""
    with pytest.raises(ConfigError, match=words):
        parse_ref(text, NAMES)


def test_unknown_names_suggest_near_ones() -> None:
    """A typing error finds the name that was meant."""
    with pytest.raises(UnknownNameError, match=r"did you mean 'qwen2\.5-coder-0\.5b'"):
        parse_ref("qwen2.5-coder-05b", NAMES)


def test_hub_references_default_to_main() -> None:
    """Without @revision the branch main is meant; folders belong to the file."""
    assert parse_hub("hf:o/r/a/b.gguf") == HubSpec(repo="o/r", file="a/b.gguf", revision="main")
    assert parse_hub("hf:o/r/f@abc").revision == "abc"


def test_addresses_are_shown_without_secrets() -> None:
    """Passwords and signatures in an address never reach a message."""
    assert shown_url("https://u:pw@host/f.gguf?sig=secret#x") == "https://host/f.gguf"
    assert shown_url("https://host?token=1") == "https://host"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/a/m.gguf?x", "m.gguf"),
        ("https://h/..%2f..%2fetc", "2f..%2fetc".replace("%", "_")),
        ("https://h/", "file"),
        ("https://h/.ssh", "ssh"),
        ("https://h/" + "x" * 500, "x" * 120),
    ],
)
def test_file_names_from_addresses_are_harmless(url: str, name: str) -> None:
    """No address can choose a hidden file, another directory or an endless name."""
    assert file_name_of(url).lstrip("_") == name.lstrip("_")


def test_the_reference_page_lists_every_pin() -> None:
    """docs/reference/catalog.md has each entry's name, size, hash and licence in one row."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "catalog.md"
    rows = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| `")]
    for entry in builtin_entries():
        wanted = (f"`{entry.name}`", f"{entry.size:,}", f"`{entry.sha256}`", entry.licence)
        assert any(all(w in row for w in wanted) for row in rows), entry.name
