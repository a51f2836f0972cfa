"""Engines that stay loaded: shared, bounded, given back."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lichen.acceleration.free_memory import engine_bytes, free_bytes
from lichen.compose.kept_engines import KeptEngines
from lichen.core.errors import EngineError
from lichen.core.generation import Request
from lichen.core.model import ModelArtifact
from lichen.core.ports import Engine
from lichen.testing.costed_engine import CostedEngine, Costs

MODEL = ModelArtifact(name="m", path="/m", format="gguf", sha256="0", size_bytes=1_000_000)


class Loader:
    """Loads engines as long as ``room`` of them are open at most."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.engines: list[CostedEngine] = []

    @property
    def open(self) -> int:
        """How many are loaded now."""
        return sum(not e.closed for e in self.engines)

    def __call__(
        self, _name: str, _model: ModelArtifact | None, options: Mapping[str, object]
    ) -> Engine:
        if self.open >= self.room:
            raise EngineError("no memory is left")
        self.engines.append(CostedEngine(lambda _: Costs(), options))
        return self.engines[-1]

    def free(self) -> float | None:
        """Return bytes for as many engines as there is room for."""
        return (self.room - self.open) * engine_bytes(MODEL)


def kept(loader: Loader, most_idle: int = 6) -> KeptEngines:
    """Engines over a loader."""
    return KeptEngines(load=loader, free=loader.free, most_idle=most_idle)


def test_the_same_engine_is_lent_again() -> None:
    """It is loaded once, also while another holds it; who comes later need not warm it up."""
    loader = Loader()
    engines = kept(loader)
    first, second = engines.open("e", MODEL, {"slots": 2}), engines.open("e", MODEL, {"slots": 2})
    assert engines.loaded == 1
    assert [getattr(e, "warm", None) for e in (first, second)] == [False, True]
    first.close()
    first.close()
    assert list(second.generate([Request(id="a", prompt="x", max_tokens=2)]))
    second.close()
    assert loader.open == 1
    engines.close()
    assert loader.open == 0


def test_other_options_are_another_engine() -> None:
    """Nothing is shared between settings."""
    loader = Loader()
    engines = kept(loader)
    for slots in (1, 2):
        engines.open("e", MODEL, {"slots": slots}).close()
    assert engines.loaded == 2


def test_what_is_idle_longest_goes_first() -> None:
    """Where memory is short, the engine that was not used for longest is closed, none in use."""
    loader = Loader(room=3)
    engines = kept(loader)
    busy = engines.open("e", MODEL, {"slots": 1})
    engines.open("e", MODEL, {"slots": 2}).close()
    engines.open("e", MODEL, {"slots": 3}).close()
    engines.open("e", MODEL, {"slots": 2}).close()
    engines.open("e", MODEL, {"slots": 4}).close()
    assert [e.options["slots"] for e in loader.engines if not e.closed] == [1, 2, 4]
    assert list(busy.generate([Request(id="a", prompt="x", max_tokens=2)]))


def test_a_failed_load_makes_room_and_tries_again() -> None:
    """Where the estimate of memory was too low, idle engines go before an error is reported."""
    loader = Loader(room=1)
    engines = KeptEngines(load=loader, free=lambda: None)
    engines.open("e", MODEL, {"slots": 1}).close()
    engine = engines.open("e", MODEL, {"slots": 2})
    assert loader.open == 1
    with pytest.raises(EngineError, match="no memory"):
        engines.open("e", MODEL, {"slots": 3})
    engine.close()


def test_a_broken_engine_is_not_lent_again() -> None:
    """One that raises while it works is closed when given back, and loaded anew."""
    loader = Loader()
    engines = kept(loader)
    engine = engines.open("e", MODEL, {})
    loader.engines[0].close()
    with pytest.raises(EngineError, match="closed"):
        list(engine.generate([Request(id="a", prompt="x", max_tokens=2)]))
    engine.close()
    again = engines.open("e", MODEL, {})
    assert list(again.generate([Request(id="a", prompt="x", max_tokens=2)]))
    assert engines.loaded == 2


def test_not_too_many_stay_idle() -> None:
    """However much memory there is, the number of idle engines is bounded."""
    loader = Loader()
    engines = kept(loader, most_idle=2)
    for slots in range(1, 6):
        engines.open("e", MODEL, {"slots": slots}).close()
    assert [e.options["slots"] for e in loader.engines if not e.closed] == [4, 5]


def test_free_memory_knows_the_containers_limit(tmp_path: Path) -> None:
    """The lesser of the machine's free memory and what the container may still take."""
    root = tmp_path
    assert free_bytes(root) is None
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  4000 kB\n")
    assert free_bytes(root) == 4000 * 1024
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("3000000\n")
    (group / "memory.current").write_text("2500000\n")
    (group / "memory.stat").write_text("file 7\ninactive_file 1000000\n")
    assert free_bytes(root) == 1_500_000


def test_freed_memory_goes_back_to_the_system() -> None:
    """Blocks freed below one that is in use stay resident until they are given back."""
    assert _resident_after("") > 100 * 2**20
    code = "from lichen.acceleration.free_memory import give_back_freed as g; able = g()"
    assert _resident_after(code) < 100 * 2**20


def _resident_after(code: str) -> int:
    # In a process of its own: what else is allocated here would move the figures.
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("the C library cannot give freed memory back")
    script = f"""
import ctypes, psutil
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(2**16) for _ in range(2400)]
for block in blocks:
    ctypes.memset(block, 1, 2**16)
for block in blocks[:-1]:
    libc.free(block)
{code}
print(psutil.Process().memory_info().rss)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return int(done.stdout)
