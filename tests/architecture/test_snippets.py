"""Documentation that runs: Python blocks are executed, console blocks name real commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from lichen.cli.main import cli
from lichen.compose.spec import EngineSpec, SolutionSpec
from lichen.compose.spec import load as load_spec

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """All blocks of a language as (page, text)."""
    return [
        (str(page.relative_to(ROOT)), text)
        for page in PAGES
        for kind, text in BLOCK.findall(page.read_text(encoding="utf-8"))
        if kind == language
    ]


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_snippets_run(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python block of the documentation runs as it stands."""
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "snippet"})  # noqa: S102 (our own pages)


def commands() -> list[tuple[str, str]]:
    """Every ``lichen`` line of the documentation's console blocks."""
    return [
        (page, line.strip())
        for page, text in blocks("console")
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip().startswith("lichen ")
    ]


@pytest.mark.parametrize(("page", "line"), commands())
def test_console_lines_parse(page: str, line: str) -> None:
    """Every shown command exists and takes the options it is shown with."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="lichen")
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, f"{page}: {line}"
        command = found
        context = click.Context(command, parent=context, info_name=command.name)
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    for word in words:
        if word.startswith("-") and word != "-":
            assert word.split("=")[0] in known, f"{page}: {line}"


@pytest.mark.parametrize(("page", "text"), blocks("toml"))
def test_toml_snippets_are_valid_solutions(page: str, text: str, tmp_path: Path) -> None:
    """Every TOML block with an engine or model is a solution or run file that loads."""
    if "[engine]" not in text and "model =" not in text:
        pytest.skip("not a solution file")
    file = tmp_path / "snippet.toml"
    file.write_text(text, encoding="utf-8")
    spec = load_spec([file])
    assert isinstance(spec.solutions[0], SolutionSpec), page
    assert isinstance(spec.solutions[0].engine, EngineSpec)


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file or folder of the repository."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
