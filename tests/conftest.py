"""Fixtures that need something real: a model, a data set, a database server.

Each skips with the reason where the thing cannot be had, and never fetches more than a small
model: ``LICHEN_TEST_FETCH=0`` forbids even that.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import hypothesis
import pytest

from lichen.compose.settings import cache_dir, mirror_dirs, offline
from lichen.core.errors import FetchError

if TYPE_CHECKING:
    from lichen.catalog import Catalog

# A test's verdict is not a matter of how busy the machine is.
hypothesis.settings.register_profile("lichen", deadline=None)
hypothesis.settings.load_profile("lichen")


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The user's catalog; offline when fetching is forbidden."""
    from lichen.catalog import Catalog

    no_fetch = os.environ.get("LICHEN_TEST_FETCH", "1") == "0"
    return Catalog(cache_dir=cache_dir(), mirror_dirs=mirror_dirs(), offline=no_fetch or offline())


@pytest.fixture(scope="session")
def model_135m(catalog: Catalog) -> Path:
    """The smallest real model (98 MB)."""
    try:
        return Path(catalog.model("smollm2-135m").path)
    except FetchError as exc:
        pytest.skip(f"needs the model smollm2-135m: {exc}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer model of a few kilobytes that llama.cpp runs."""
    pytest.importorskip("xllamacpp")
    from lichen.testing.gguf_files import TinyModel

    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    path.write_bytes(TinyModel().to_bytes())
    return path


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Load a script of the benchmarks folder as a module, by its name."""
    folder = Path(__file__).parent.parent / "benchmarks"

    def get(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(folder))
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return get


@pytest.fixture(scope="session")
def data_file(catalog: Catalog) -> Callable[[str], Path]:
    """Return a data set's file by catalog name, or skip."""

    def get(name: str) -> Path:
        try:
            return Path(catalog.data_set(name).path)
        except FetchError as exc:
            pytest.skip(f"needs the data set {name}: {exc}")

    return get


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a private PostgreSQL server and return its URL, or skip."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    pytest.importorskip("psycopg", reason="needs the extra [postgres]")
    if not binaries:
        pytest.skip("needs PostgreSQL's server programs (Debian: postgresql)")
    root = tmp_path_factory.mktemp("postgres")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if prefix:
        # pytest's temporary folders are private to root; the server runs as another user.
        for folder in (root, *list(root.parents)[:2]):
            folder.chmod(0o755)
        shutil.chown(root, "postgres", "postgres")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    data = root / "data"

    def tool(name: str, *arguments: str) -> None:
        command = [*prefix, str(binaries[-1] / name), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/")

    tool("initdb", "-D", str(data), "-U", user, "--auth=trust", "-E", "UTF8")
    options = f"-p {port} -k {root} -c listen_addresses=127.0.0.1 -c fsync=off"
    tool("pg_ctl", "-D", str(data), "-w", "-l", str(root / "log"), "-o", options, "start")
    try:
        yield f"postgresql://{user}@127.0.0.1:{port}/postgres"
    finally:
        tool("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
