"""The structure that DESIGN promises, held by machine."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lichen.acceleration import STRATEGIES
from lichen.benchmark.tasks import TASKS
from lichen.cli.main import COMMANDS
from lichen.core import errors
from lichen.core.registry import Registry
from lichen.engines import ENGINES
from lichen.meter.probes import PROBES

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/lichen").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
MAX_FILE_LINES = 420
MAX_FUNCTION_LINES = 60


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    code = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_lichen_loads_no_third_party_module() -> None:
    """``import lichen`` loads the standard library and lichen, nothing else."""
    extra = modules_after("import lichen") - modules_after("pass") - sys.stdlib_module_names
    assert extra <= {"lichen"}


def test_help_imports_no_command() -> None:
    """``lichen --help`` needs click and nothing heavy, so that it answers at once."""
    loaded = modules_after("import lichen.cli.main")
    assert not loaded & {"rich", "numpy", "pydantic", "sqlalchemy", "psutil", "httpx", "xllamacpp"}


def test_layers_hold() -> None:
    """Every import contract of pyproject.toml is kept."""
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    """A module stays about one screen-scroll long, a function about one screen."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno
            if ast.get_docstring(node) and isinstance(node.body[0], ast.Expr):
                length -= (node.body[0].end_lineno or 0) - node.body[0].lineno
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_no_module_has_a_name_that_says_nothing() -> None:
    """No utils, common, helpers, misc, base or manager."""
    bad = {"utils", "util", "common", "helpers", "misc", "base", "manager"}
    assert not [p for p in SOURCES if p.stem in bad]


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_test_states_its_promise(path: Path) -> None:
    """Each test function has a docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), f"{path.name}:{node.lineno} {node.name}"


@pytest.mark.parametrize(
    ("registry", "page"),
    [(ENGINES, "engines.md"), (TASKS, "tasks.md"), (PROBES, "probes.md")],
    ids=["engines", "tasks", "probes"],
)
def test_every_registered_name_resolves_and_is_documented(
    registry: Registry[object], page: str
) -> None:
    """Each built-in name imports and has a heading in its reference page."""
    text = (ROOT / "docs/reference" / page).read_text(encoding="utf-8")
    for name in registry:
        assert registry.get(name) is not None
        assert re.search(rf"^#+ .*`?{re.escape(name)}`?", text, re.MULTILINE), name


def test_every_strategy_resolves_and_has_its_page() -> None:
    """Each built-in strategy imports and has a page of its own."""
    for name in STRATEGIES:
        assert STRATEGIES.get(name) is not None
        page = ROOT / "docs/explanation/strategies" / f"{name}.md"
        assert page.exists(), name


def test_every_command_loads_and_is_documented() -> None:
    """Each command of the table imports, and the generated reference has it."""
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    for name, (module, _) in COMMANDS.items():
        assert importlib.import_module(module).command.name == name
        assert f"## lichen {name}\n" in page


def test_error_codes_are_unique_and_documented() -> None:
    """Each error class has its own code and exit code, and a heading in the reference."""
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    codes = [k.code for k in kinds]
    assert len(set(codes)) == len(codes)
    for code in codes:
        assert f"## {code}\n" in page


def test_generated_pages_are_current() -> None:
    """The generated reference equals what the program generates now."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_readme_stays_short_and_names_both_commands() -> None:
    """README has at most 150 lines and the two commands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 150
    assert "make bench" in text
    assert "make test" in text
